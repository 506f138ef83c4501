"""What a synthetic patient has: findings drawn by chance, each with its region, place and size.

A finding here is a plain record. How it looks is in `lesions`, how it reads is in `sentences`; both take their words
and millimetres from the record, so text and image cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float, float]

LOBES: dict[str, tuple[Point, Point]] = {
    "right upper lobe": ((62, 8, 62), (14, 22, 14)),
    "right middle lobe": ((74, 46, -30), (10, 10, 8)),
    "right lower lobe": ((72, -40, -26), (12, 10, 14)),
    "left upper lobe": ((-62, 8, 62), (14, 22, 14)),
    "left lower lobe": ((-76, -40, -28), (10, 10, 14)),
}
"""Lobe -> middle of its safe inside and half width around it (mm in the standard body) where lesions are put."""

STATIONS: dict[str, tuple[Point, ...]] = {
    "right paratracheal": ((38, -6, 62), (40, -18, 82), (38, 10, 78), (30, -26, 48)),
    "prevascular": ((-36, 26, 72), (-34, 38, 56), (-34, 10, 88), (-14, 46, 74)),
    "right hilar": ((56, -14, 14), (52, -32, -4), (50, -26, 34), (46, -40, -20)),
    "left hilar": ((-60, -20, 18), (-54, -36, 0), (-56, -24, 38), (-50, -44, -18)),
}
"""Lymph node station -> middles of its nodes (mm in the standard body)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is drawn and told.

    Attributes:
        kind: which drawing and which phrases.
        region: whose paragraph tells it.
        label: the clinical label it makes true, ``""`` for findings outside the label set.
        place: words of its place; side words are the patient's own.
        size: largest size in mm, a multiple of 5, 0 where none is told.
        points: middles of its parts in the standard body (mm).
        salt: chooses irregularities of its shape.
    """

    kind: str
    region: str
    label: str = ""
    place: str = ""
    size: int = 0
    points: tuple[Point, ...] = ()
    salt: int = 0


Rng = np.random.Generator


def _side(rng: Rng, both: float = 0.0) -> str:
    return str(rng.choice(["right", "left", "both"], p=[(1 - both) / 2, (1 - both) / 2, both]))


def _pick(rng: Rng, *values: int) -> int:
    return int(rng.choice(values))


def _scatter(rng: Rng, lobe: str, count: int = 1) -> tuple[Point, ...]:
    middle, spread = (np.asarray(part) for part in LOBES[lobe])
    points = middle + spread * rng.uniform(-1, 1, (count, 3))
    return tuple((float(x), float(y), float(z)) for x, y, z in points)


def _salt(rng: Rng) -> int:
    return int(rng.integers(100, 2**16))


_FOCAL: dict[str, tuple[str, float]] = {
    "nodule": ("Lung nodule", 0.26),
    "ground glass": ("Lung opacity", 0.24),
    "consolidation": ("Consolidation", 0.22),
    "fibrosis": ("Pulmonary fibrotic sequela", 0.22),
    "atelectasis": ("Atelectasis", 0.22),
    "bronchiectasis": ("Bronchiectasis", 0.20),
}
"""Lung findings that have a place -> label, and how often each is drawn. A patient has at most two."""

_DIFFUSE: dict[str, tuple[str, float]] = {
    "emphysema": ("Emphysema", 0.19),
    "mosaic": ("Mosaic attenuation pattern", 0.18),
    "septal thickening": ("Interlobular septal thickening", 0.18),
}
"""Patterns of both whole lungs -> label and prevalence. At most one in a patient: they would hide each other."""


def _lung(rng: Rng, others: Sequence[Finding]) -> list[Finding]:
    out = []
    kinds = list(_DIFFUSE)
    chances = [_DIFFUSE[kind][1] for kind in kinds]
    drawn = str(rng.choice([*kinds, ""], p=[*chances, 1 - sum(chances)]))
    if drawn:
        out.append(Finding(drawn, "lung", _DIFFUSE[drawn][0], place="both lungs", salt=_salt(rng)))
    focal = [kind for kind in _FOCAL if rng.random() < _FOCAL[kind][1]]
    rng.shuffle(focal)
    effusion = next((finding.place for finding in others if finding.kind == "pleural effusion"), "none")
    drowned = [lobe for lobe in LOBES if "lower" in lobe and (effusion == "both" or effusion in lobe)]
    lobes = [lobe for lobe in LOBES if lobe not in drowned]
    rng.shuffle(lobes)
    for kind in focal[:2]:
        out.append(_focal(rng, kind, lobes))
    return out


def _focal(rng: Rng, kind: str, lobes: list[str]) -> Finding:
    """A finding with a place; takes its lobe off the list, so that two findings never share one."""
    label, salt = _FOCAL[kind][0], _salt(rng)
    if kind == "fibrosis":
        side = _side(rng, both=0.5)
        lobes[:] = [lobe for lobe in lobes if not ("upper" in lobe and (side in lobe or side == "both"))]
        return Finding(kind, "lung", label, place=side, salt=salt)
    if kind == "nodule" and rng.random() < 0.3:
        points = tuple(point for lobe in lobes for point in _scatter(rng, lobe, 1 + (len(lobes) < 5)))
        return Finding("nodules", "lung", label, place="both lungs", size=_pick(rng, 20, 25), points=points, salt=salt)
    low = kind in ("atelectasis", "bronchiectasis")
    lobe = next((name for name in lobes if not (low and "upper" in name)), lobes[0])
    lobes.remove(lobe)
    sizes = {"nodule": (20, 25, 30), "ground glass": (60, 70, 80), "consolidation": (40, 50, 60)}.get(kind)
    return Finding(
        kind, "lung", label, place=lobe, size=_pick(rng, *sizes) if sizes else 0, points=_scatter(rng, lobe), salt=salt
    )


def _heart(rng: Rng, others: Sequence[Finding]) -> list[Finding]:
    out = []
    if rng.random() < 0.27:
        out.append(Finding("cardiomegaly", "heart", "Cardiomegaly"))
    if rng.random() < 0.25:
        out.append(Finding("pericardial effusion", "heart", "Pericardial effusion", size=_pick(rng, 10, 15)))
    if rng.random() < 0.30:
        out.append(Finding("coronary calcification", "heart", "Coronary artery wall calcification", salt=_salt(rng)))
    if rng.random() < 0.13:
        out.append(Finding("pacemaker", "heart", "Medical material", place=_side(rng)))
    return out


def _mediastinum(rng: Rng, others: Sequence[Finding]) -> list[Finding]:
    out = []
    if rng.random() < 0.27:
        station = str(rng.choice(list(STATIONS)))
        size = _pick(rng, 30, 35, 40)
        out.append(
            Finding("lymph nodes", "mediastinum", "Lymphadenopathy", station, size, STATIONS[station], _salt(rng))
        )
    if rng.random() < 0.30:
        out.append(Finding("aortic calcification", "mediastinum", "Arterial wall calcification", salt=_salt(rng)))
    if rng.random() < 0.16 and len(out) < 2:
        out.append(Finding("aortic dilatation", "mediastinum", size=_pick(rng, 45, 50)))
    if rng.random() < 0.11:
        out.append(Finding("catheter", "mediastinum", "Medical material"))
    return out


def _pleura(rng: Rng, others: Sequence[Finding]) -> list[Finding]:
    out = []
    chance = rng.random()
    if chance < 0.28:
        size = _pick(rng, 15, 20, 30, 40)
        out.append(Finding("pleural effusion", "pleura", "Pleural effusion", _side(rng, both=0.3), size))
    if chance > 0.80:
        out.append(Finding("pleural thickening", "pleura", place=_side(rng), size=10, salt=_salt(rng)))
    elif chance > 0.66:
        out.append(Finding("pleural plaque", "pleura", place=_side(rng), salt=_salt(rng)))
    return out


def _airway(rng: Rng, others: Sequence[Finding]) -> list[Finding]:
    if rng.random() < 0.25:
        return [Finding("peribronchial thickening", "trachea and bronchie", "Peribronchial thickening")]
    chance = rng.random()
    if chance < 0.18:
        return [Finding("tracheal diverticulum", "trachea and bronchie", place="right", size=10)]
    if chance < 0.36:
        return [Finding("secretion", "trachea and bronchie", place=_side(rng))]
    return []


def _esophagus(rng: Rng, others: Sequence[Finding]) -> list[Finding]:
    if rng.random() < 0.27:
        return [Finding("hiatal hernia", "esophagus", "Hiatal hernia", size=_pick(rng, 40, 50, 60), salt=_salt(rng))]
    if rng.random() < 0.2:
        return [Finding("esophageal thickening", "esophagus")]
    return []


def _abdomen(rng: Rng, others: Sequence[Finding]) -> list[Finding]:
    options: list[tuple[float, Finding]] = [
        (0.22, Finding("liver cyst", "abdomen", size=_pick(rng, 20, 30, 40), salt=_salt(rng))),
        (0.20, Finding("steatosis", "abdomen")),
        (0.16, Finding("splenomegaly", "abdomen")),
        (0.16, Finding("gallstone", "abdomen", size=15)),
    ]
    return [finding for chance, finding in options if rng.random() < chance][:2]


def _bone(rng: Rng, others: Sequence[Finding]) -> list[Finding]:
    options: list[tuple[float, Finding]] = [
        (0.28, Finding("degeneration", "bone", salt=_salt(rng))),
        (0.16, Finding("compression", "bone", place="thoracic", salt=_salt(rng))),
        (0.20, Finding("rib sclerosis", "bone", place=_side(rng), size=15, salt=_salt(rng))),
        (0.12, Finding("spinal rods", "bone", "Medical material")),
    ]
    return [finding for chance, finding in options if rng.random() < chance][:2]


def _thyroid(rng: Rng, others: Sequence[Finding]) -> list[Finding]:
    chance = rng.random()
    if chance < 0.25:
        return [Finding("thyroid nodule", "thyroid", place=_side(rng), size=_pick(rng, 15, 20))]
    return [Finding("goitre", "thyroid")] if chance < 0.48 else []


def _breast(rng: Rng, others: Sequence[Finding]) -> list[Finding]:
    chance = rng.random()
    if chance < 0.3:
        return [Finding("breast nodule", "breast", place=_side(rng), size=_pick(rng, 15, 20, 25), salt=_salt(rng))]
    return [Finding("breast calcification", "breast", place=_side(rng), salt=_salt(rng))] if chance < 0.55 else []


DRAW: dict[str, Callable[[Rng, Sequence[Finding]], list[Finding]]] = {
    "abdomen": _abdomen,
    "bone": _bone,
    "breast": _breast,
    "esophagus": _esophagus,
    "heart": _heart,
    "mediastinum": _mediastinum,
    "pleura": _pleura,
    "lung": _lung,
    "thyroid": _thyroid,
    "trachea and bronchie": _airway,
}
"""Region -> what chance gives it, knowing what came before: lesions are not put where fluid would hide them.

A region of the region set without an entry is drawn nowhere and told nowhere."""
