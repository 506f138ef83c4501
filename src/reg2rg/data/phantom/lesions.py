"""How the findings look. Each drawing takes the canvas and the patient's own record of the finding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from reg2rg.data.phantom.bones import VERTEBRA, rib_phase
from reg2rg.data.phantom.body import SPINE_Y
from reg2rg.data.phantom.findings import Finding
from reg2rg.data.phantom.grid import Box, Canvas, Float
from reg2rg.data.phantom.organs import ARCH, ASCENDING, DESCENDING, TRACHEA, heart_point, thyroid_middle
from reg2rg.data.phantom.patient import Patient
from reg2rg.data.phantom.shapes import boxed_capsule, boxed_ellipsoid, ripple

Rows = npt.NDArray[np.floating]
CALCIUM, METAL = 900.0, 3000.0


def _turn(rng: np.random.Generator, angle: float) -> Rows:
    """A rotation by `angle` radians about a random horizontal line."""
    phi = rng.uniform(0, 2 * np.pi)
    axis = np.array([np.cos(phi), np.sin(phi), 0])
    cross = np.cross(np.eye(3), axis)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def _ball(
    canvas: Canvas, middle: Rows, radius: float, hu: float, *, within: Float | None = None, region: str = ""
) -> None:
    """A solid ball in scanner mm, kept `within` a share of each voxel, marked as `region`."""
    found = boxed_ellipsoid(canvas, middle, [radius] * 3)
    if found is None:
        return
    box, distance = found
    share = canvas.cover(distance)
    if within is not None:
        share = share * within[box]
    canvas.paint(share, hu, box)
    if region:
        canvas.mark(region, share > 0.5, box)


def _cloud(
    canvas: Canvas, patient: Patient, finding: Finding, middle: Rows, radii: npt.ArrayLike, soft: float
) -> tuple[Box, Float] | None:
    """An ellipsoid with an uneven surface inside the lung: its box and share."""
    found = boxed_ellipsoid(canvas, middle, radii, margin=6)
    if found is None:
        return None
    box, distance = found
    distance = distance + 4 * ripple(*canvas.local(box), 38, finding.salt)
    return box, canvas.cover(distance, soft) * canvas.fields["lung"][box]


def nodule(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """One round solid spot, or several of which the first is the largest."""
    for i, point in enumerate(finding.points):
        radius = finding.size / 2 * (1 if i == 0 else 0.7)
        _ball(canvas, patient.warp.to_scanner(point), radius, 45, within=canvas.fields["lung"])


def ground_glass(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A hazy patch through which vessels are still seen."""
    middle = patient.warp.to_scanner(finding.points[0])
    found = _cloud(canvas, patient, finding, middle, np.array([1, 0.85, 0.9]) * finding.size / 2, 8)
    if found:
        box, share = found
        canvas.hu[box] += share * np.clip(-canvas.hu[box] - 40, 0, 330)


def consolidation(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Airless lung against the pleura, with open bronchi in it."""
    middle = patient.warp.to_scanner(finding.points[0])
    found = _cloud(canvas, patient, finding, middle, np.array([1, 0.9, 0.85]) * finding.size / 2, canvas.blur)
    if found:
        box, share = found
        canvas.paint(share, 38, box)
        rng = patient.rng(finding.salt)
        for _ in range(4):
            ends = middle + rng.normal(0, finding.size / 5, (2, 3))
            rod = boxed_capsule(canvas, ends[0], ends[1], 2.6, 1.6)
            if rod:
                canvas.paint(canvas.cover(rod[1]) * canvas.fields["lung"][rod[0]], -750, rod[0])


def fibrosis(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Apical scars: irregular streaks that draw together towards the hilum, and a cap on the apex."""
    rng = patient.rng(finding.salt)
    for side in (1, -1):
        if finding.place != "both" and (side == 1) != (finding.place == "right"):
            continue
        knot = np.array([50.0 * side, -10, 80]) + rng.normal(0, 5, 3)
        for _ in range(7):
            far = knot + rng.normal([8 * side, 0, 4], [18, 26, 16])
            _streak(canvas, patient, knot + rng.normal(0, 4, 3), far, 3.4, 1.6)
        _streak(canvas, patient, knot, np.array([40.0 * side, -24, 40]), 3.0, 1.5)
        cap = boxed_ellipsoid(canvas, patient.warp.to_scanner([44 * side, -24, 112]), [24, 24, 11])
        if cap:
            canvas.paint(canvas.cover(cap[1]) * canvas.fields["lung"][cap[0]], 20, cap[0])


def _streak(canvas: Canvas, patient: Patient, a: Rows, b: Rows, ra: float, rb: float) -> None:
    ends = patient.warp.to_scanner(np.array([a, b]))
    found = boxed_capsule(canvas, ends[0], ends[1], ra, rb)
    if found:
        box, distance = found
        canvas.paint(canvas.cover(distance) * canvas.fields["lung"][box] * 0.9, 10, box)


def atelectasis(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Plate-like collapse: two flat bands one above the other, tilted."""
    rng = patient.rng(finding.salt)
    turn = _turn(rng, rng.uniform(0.35, 0.6))
    for lift in (-9, 10):
        middle = patient.warp.to_scanner(np.asarray(finding.points[0]) + [0, 0, lift])
        found = boxed_ellipsoid(canvas, middle, [38, 30, 4.2], turn)
        if found:
            canvas.paint(canvas.cover(found[1]) * canvas.fields["lung"][found[0]], 25, found[0])


def bronchiectasis(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A bunch of wide airways with thick walls: rings and tram lines."""
    rng = patient.rng(finding.salt)
    hub = np.asarray(finding.points[0])
    side = np.sign(hub[0])
    rods = []
    for i in range(7):
        angle = 2 * np.pi * i / 7
        offset = np.array([17 * np.cos(angle), 17 * np.sin(angle), 0]) * (i > 0)
        start = hub + offset + [-4 * side, 3, 17]
        rods.append(patient.warp.to_scanner(np.array([start, start + [8 * side, -4, -32] + rng.normal(0, 4, 3)])))
    lung = canvas.fields["lung"]
    for extra, hu in ((3.2, 30.0), (0.0, -985.0)):
        for a, b in rods:
            found = boxed_capsule(canvas, a, b, 4.6 + extra, 5.2 + extra)
            if found:
                canvas.paint(canvas.cover(found[1]) * lung[found[0]], hu, found[0])


def emphysema(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Holes without walls all over the upper lungs, and thin-walled bullae under the pleura."""
    rng = patient.rng(finding.salt)
    lung = canvas.fields["lung"]
    for side in (1, -1):
        for i in range(34):
            bulla = i < 6
            spot = np.array(
                [side * rng.uniform(28, 108), rng.uniform(-70, 66), rng.uniform(10, 108) - 30 * rng.random() ** 3]
            )
            middle = patient.warp.to_scanner(spot)
            radius = rng.uniform(12, 19) if bulla else rng.uniform(7, 11)
            if bulla:
                _ball(canvas, middle, radius + 2.2, -700, within=lung)
            _ball(canvas, middle, radius, -1000, within=lung)


def coronary_calcification(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Dense beads along the coronary arteries, in the grooves of the heart's surface."""
    rng = patient.rng(finding.salt)
    beads = [(-0.1 - 0.13 * i, 0.62 - 0.03 * i, 0.66 - 0.1 * i) for i in range(4)]  # anterior descending
    beads += [(0.18, 0.9 - 0.2 * i, 0.1 - 0.25 * i) for i in range(2)]  # right
    beads += [(0.14, -0.3 - 0.25 * i, 0.82 - 0.2 * i) for i in range(2)]  # circumflex
    keep = rng.permutation(len(beads))[: int(rng.integers(5, 8))]
    for i in keep:
        _ball(
            canvas,
            heart_point(patient, *beads[i]),
            float(rng.uniform(3.4, 4.4)),
            CALCIUM,
            within=canvas.cover(canvas.fields["heart"]),
        )


def aortic_calcification(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Dense flecks on the wall of arch and descending aorta."""
    rng = patient.rng(finding.salt)
    chain = np.array([*ASCENDING[2:], *ARCH[1:], *DESCENDING[1:4]], dtype=float)
    for i in range(11):
        t = 0.4 + (len(chain) - 1.5) * (i + rng.random() * 0.6) / 11
        k = min(int(t), len(chain) - 2)
        at = chain[k] + (chain[k + 1] - chain[k]) * (t - k)
        along = chain[k + 1, :3] - chain[k, :3]
        out = np.cross(along, rng.normal(0, 1, 3))
        spot = at[:3] + out / np.linalg.norm(out) * (at[3] - 1)
        _ball(canvas, patient.warp.to_scanner(spot), float(rng.uniform(3.4, 4.6)), CALCIUM, region="mediastinum")


def lymph_nodes(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Large round nodes at one station; the first is the largest."""
    for i, point in enumerate(finding.points):
        middle = patient.warp.to_scanner(point)
        radius = finding.size / 2 * (1 if i == 0 else 0.8)
        found = boxed_ellipsoid(canvas, middle, [radius * 1.0, radius * 0.9, radius * 1.25])
        if found:
            box, distance = found
            canvas.paint(canvas.cover(distance - 1.5), -90, box)
            canvas.paint(canvas.cover(distance), 48, box)
            canvas.mark("mediastinum", distance < 0, box)


def hiatal_hernia(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Part of the stomach behind the heart: a thick-walled sac with fluid and an air bubble in front."""
    middle = patient.warp.to_scanner([-16, -40, -72])
    radii = np.array([1.0, 0.85, 0.95]) * finding.size / 2
    found = boxed_ellipsoid(canvas, middle, radii)
    if found:
        box, distance = found
        canvas.paint(canvas.cover(distance), 45, box)
        level = canvas.local(box)[1] - np.float32(middle[1])
        canvas.paint(canvas.cover(distance + 5), np.where(level > 1, np.float32(-950), np.float32(15)), box)
        canvas.mark("esophagus", distance < 0, box)


def pleural_thickening(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A broad soft layer on the side wall of the chest; as a plaque it is narrow and dense."""
    plaque = finding.kind == "pleural plaque"
    side = 1 if finding.place == "right" else -1
    x, y, z = canvas.body
    space = canvas.fields["lungs"]
    depth = np.float32((7 if plaque else finding.size) / patient.scale)
    middle = np.float32(-4 if plaque else 10)
    reach = np.sqrt(((y - 0) / (40 if plaque else 62)) ** 2 + ((z - middle) / (34 if plaque else 52)) ** 2)
    layer = depth * np.clip(2.2 * (1 - reach), 0, 1)
    inner = np.maximum(canvas.fields["wall"], -canvas.fields["diaphragm"])
    distance = np.maximum(-inner - layer, space)
    distance = np.where((x * side > 20) & (layer > 0.5), distance, np.float32(9)).astype(np.float32)
    share = canvas.cover(distance)
    canvas.paint(share, 420 if plaque else 32)
    canvas.mark("pleura", share > 0.5)


def secretion(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Mucus that half fills a main bronchus."""
    side = 1 if finding.place == "right" else -1
    ends = patient.warp.to_scanner(np.array([[12.0 * side, -31, 33], [30 * side, -34, 16]]))
    found = boxed_capsule(canvas, ends[0], ends[1], 5.5, 5.5)
    if found:
        canvas.paint(canvas.cover(found[1]), 15, found[0])
        canvas.mark("trachea and bronchie", found[1] < 0, found[0])


def tracheal_diverticulum(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """An air cyst behind and right of the upper trachea."""
    at = np.asarray(TRACHEA[1][:3]) + [15, -9, -22]
    _ball(canvas, patient.warp.to_scanner(at), finding.size / 2 + 1.5, 30, region="trachea and bronchie")
    _ball(canvas, patient.warp.to_scanner(at), finding.size / 2, -980)


def liver_cyst(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A round pool of water in the right lobe."""
    rng = patient.rng(finding.salt)
    middle = np.array([72, 8, -98]) + rng.uniform(-1, 1, 3) * [14, 22, 10]
    _ball(canvas, patient.warp.to_scanner(middle), finding.size / 2, 4, within=canvas.cover(canvas.fields["liver"]))


def gallstone(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A dense stone in the gallbladder."""
    _ball(canvas, patient.warp.to_scanner([47, 36, -140]), finding.size / 2, 600)


def degeneration(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Bony spurs at the front and sides of the vertebral edges."""
    for level in range(1, 9):
        z = -150 + level * VERTEBRA
        y = float(SPINE_Y(np.array([z], np.float32))[0])
        for dx, dy in ((-17, 5), (17, 5), (8, 14), (-8, 14)):
            spot = patient.warp.to_scanner([dx, y + dy, z])
            _ball(canvas, spot, 4.6, 800, region="bone")


def rib_sclerosis(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """One rib is dense and swollen over a few centimetres of the side wall."""
    side = 1 if finding.place == "right" else -1
    x, y, z = canvas.body
    wall = canvas.fields["wall"]
    rib = 5 + finding.salt % 3
    spot = (x * side > 60) & (np.abs(y + 18) < 22) & (np.abs(wall - 5.5) < 7.5)
    distance = np.abs(rib_phase(x, y, z) - np.float32(rib)) * 21 - 8
    share = canvas.cover(np.where(spot, distance, np.float32(9)).astype(np.float32))
    canvas.paint(share, 1200)
    canvas.mark("bone", share > 0.5)


def thyroid_nodule(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A dark round spot in one lobe."""
    middle = thyroid_middle(patient, 1 if finding.place == "right" else -1)
    _ball(canvas, middle, finding.size / 2 + 1.5, 105, region="thyroid")
    _ball(canvas, middle, finding.size / 2, 15, region="thyroid")


def breast_finding(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A solid round mass, or a group of coarse flecks of calcium."""
    side = 1 if finding.place == "right" else -1
    rng = patient.rng(finding.salt)
    middle = np.array([(80 + rng.uniform(-6, 6)) * side, 98 + 0.8 * patient.fat, rng.uniform(-14, 12)])
    inside = canvas.masks["breast"].astype(np.float32)
    if finding.kind == "breast nodule":
        _ball(canvas, patient.warp.to_scanner(middle), finding.size / 2, 55, within=inside)
        return
    for offset in ((0, 0, 0), (9, 3, 5), (-8, -2, 8), (2, 4, -10)):
        _ball(canvas, patient.warp.to_scanner(middle + np.array(offset)), 3.8, CALCIUM, within=inside)


def pacemaker(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A metal can under the skin of the upper chest and a lead to the right ventricle."""
    side = 1 if finding.place == "right" else -1
    can = patient.warp.to_scanner([72 * side, 62 + patient.fat * 0.6, 62])
    turn = np.array([[0.9, 0.44 * side, 0], [-0.44 * side, 0.9, 0], [0, 0, 1.0]])
    found = boxed_ellipsoid(canvas, can, [23, 6, 25], turn)
    if found:
        canvas.paint(canvas.cover(found[1]), METAL, found[0])
    stops = [[50 * side, 34, 98], [29, 12, 82], [30, 10, 30]]
    track = [can, *patient.warp.to_scanner(np.array(stops, float))]
    track += [
        heart_point(patient, *uvw)
        for uvw in ((0.5, 0.2, 0.25), (0.3, 0.4, -0.25), (-0.2, 0.5, -0.35), (-0.55, 0.42, -0.3))
    ]
    _wire(canvas, track, 2.1)


def catheter(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A port under the skin on the right and its line in the superior vena cava."""
    port = patient.warp.to_scanner([70, 60 + patient.fat * 0.6, 50])
    found = boxed_ellipsoid(canvas, port, [12, 7, 12])
    if found:
        canvas.paint(canvas.cover(found[1]), METAL, found[0])
    stops = np.array([[60, 30, 98], [36, 10, 98], [29, 12, 82], [30, 10, 52], [28, 8, 16]], float)
    _wire(canvas, [port, *patient.warp.to_scanner(stops)], 2.4)


def sternal_wires(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Steel loops around the breastbone after an operation on the heart."""
    wall = np.abs(canvas.fields["wall"] - 7) - 6.5
    x, y, z = canvas.body
    for level in (-34, -12, 10, 34, 62):
        ring = np.abs(np.maximum(np.abs(x) - 17, wall)) - 1.2
        distance = np.maximum(np.maximum(ring, np.abs(z - np.float32(level) - 0.12 * x) - 2.2), 20 - y)
        share = canvas.cover(np.asarray(distance, dtype=np.float32))
        canvas.paint(share, METAL)
        canvas.mark("bone", share > 0.4)


def _wire(canvas: Canvas, track: list[Rows], radius: float) -> None:
    for a, b in zip(track, track[1:], strict=False):
        found = boxed_capsule(canvas, a, b, radius, radius)
        if found:
            canvas.paint(canvas.cover(found[1]), METAL, found[0])


DRAW_LESION: dict[str, Callable[[Canvas, Patient, Finding], None]] = {
    "nodule": nodule,
    "nodules": nodule,
    "ground glass": ground_glass,
    "consolidation": consolidation,
    "fibrosis": fibrosis,
    "atelectasis": atelectasis,
    "bronchiectasis": bronchiectasis,
    "emphysema": emphysema,
    "coronary calcification": coronary_calcification,
    "aortic calcification": aortic_calcification,
    "lymph nodes": lymph_nodes,
    "hiatal hernia": hiatal_hernia,
    "pleural thickening": pleural_thickening,
    "pleural plaque": pleural_thickening,
    "secretion": secretion,
    "tracheal diverticulum": tracheal_diverticulum,
    "liver cyst": liver_cyst,
    "gallstone": gallstone,
    "degeneration": degeneration,
    "rib sclerosis": rib_sclerosis,
    "thyroid nodule": thyroid_nodule,
    "breast nodule": breast_finding,
    "breast calcification": breast_finding,
    "pacemaker": pacemaker,
    "catheter": catheter,
    "sternal wires": sternal_wires,
}
"""Findings drawn on top. The others are part of the anatomy (a large heart, fluid, a thick wall) and drawn with it."""
