"""Lungs and pleura: parenchyma, vessels, fluid and thickening around the lungs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reg2rg.extras.phantom.grid import Canvas, Float
from reg2rg.extras.phantom.organs import FLUID
from reg2rg.extras.phantom.patient import Patient
from reg2rg.extras.phantom.shapes import boxed_capsule, cells

PLEURA_INSIDE, PLEURA_OUTSIDE = 3.0, 3.2
"""The pleura's mask reaches this far to both sides of the lung surface, mm."""


def draw_lungs(canvas: Canvas, patient: Patient) -> None:
    """Paint air-filled lungs with fluid around them, mark lung and pleura; leaves the shares ``lung``."""
    space = canvas.fields["lungs"]
    fluid = _fluid(canvas, patient)
    chest = canvas.cover(space)
    canvas.paint(chest, FLUID + 4)
    lung = canvas.cover(np.maximum(space, -fluid)) if patient.has("pleural effusion") else chest
    wet = space < 0
    wet &= fluid < 0
    canvas.fields["lung"] = lung
    canvas.paint(lung, _parenchyma(canvas, patient))
    shell = (space > -PLEURA_INSIDE) & (space < PLEURA_OUTSIDE)
    canvas.mark("lung", (lung > 0.5) & (space < -1))
    canvas.mark("pleura", shell | wet)
    canvas.masks["lung"] &= ~canvas.masks["pleura"] | (space < -2)
    _vessels(canvas, patient)


def _fluid(canvas: Canvas, patient: Patient) -> Float:
    """Distance to the free fluid: a crescent that is thickest behind and below, since patients lie on their backs."""
    effusion = patient.has("pleural effusion")
    if effusion is None:
        return np.full_like(canvas.hu, 50)
    x, y, z = canvas.body
    thick = np.float32(effusion.size / patient.scale)
    back = np.clip((12 - y) / 48, 0, 1)
    low = np.clip((effusion.size * 3.0 - 62 - z) / 60, 0, 1)
    height = thick * back * low
    if effusion.place != "both":
        height = height * ((x > 0) if effusion.place == "right" else (x < 0))
    outer = np.maximum(canvas.fields["wall"], -canvas.fields["diaphragm"])
    return np.asarray(-outer - height, dtype=np.float32)


def _parenchyma(canvas: Canvas, patient: Patient) -> Float:
    """HU of lung tissue: denser behind and below; rarefied, patchy where the patient has such a disease."""
    _, y, z = canvas.body
    base = np.float32(-862 + patient.tone[2]) - y * np.float32(0.28) - z * np.float32(0.10)
    if patient.has("emphysema"):
        base -= np.float32(35)
    where = np.flatnonzero(canvas.fields["lung"] > 0.05)
    points = np.stack([axis.ravel()[where] for axis in canvas.body], axis=1)
    flat = base.reshape(-1)
    mosaic, septa = patient.has("mosaic"), patient.has("septal thickening")
    if mosaic:
        bent = points + 7 * np.sin(points[:, [1, 2, 0]] * np.float32(0.13))  # no straight edges in life
        value, edge = cells(bent, 46, mosaic.salt)
        trapped = np.where(value < 0.5, -1, 1) * np.clip(edge / 6 + 0.3, 0, 1)
        flat[where] += 25 + 115 * trapped.astype(np.float32)
    if septa:
        _, edge = cells(points, 26, septa.salt)
        wall = np.clip((3.0 - edge) / 3.0 + 0.25, 0, 1) * np.clip((70 - points[:, 2]) / 60, 0.15, 1)
        flat[where] += 330 * wall.astype(np.float32)
    return base


_HILA = {1: np.array([44.0, -22.0, 14.0]), -1: np.array([-46.0, -26.0, 18.0])}
_TARGETS = np.array(
    [[40, 20, 85], [80, 10, 60], [70, 50, 40], [90, -30, 40], [50, -60, 60], [95, 30, 0], [70, 62, -10], [60, 10, -60],
     [105, -10, -20], [90, -60, 0], [60, -75, -20], [75, 40, -55], [100, 0, -75], [95, -50, -80], [60, -70, -90],
     [105, -35, -50]],
    dtype=float,
)  # fmt: skip
"""Ends of the main branches of the right lung; the left lung's are mirrored."""


def _tree(patient: Patient) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float, float]]:
    """Vessels of both lungs as rods (start, end, radii) in the standard body: three generations that part and taper."""
    rng = patient.rng(5)
    rods = []
    for side, hilum in _HILA.items():
        for target in _TARGETS:
            end = target * [side, 1, 1] + rng.normal(0, 7, 3)
            knee = hilum + (end - hilum) * rng.uniform(0.4, 0.5) + rng.normal(0, 4, 3)
            rods.append((hilum + rng.normal(0, 3, 3), knee, 4.6, 3.0))
            for _ in range(2):
                tip = end + rng.normal(0, 13, 3)
                fork = knee + (tip - knee) * rng.uniform(0.45, 0.6) + rng.normal(0, 3, 3)
                rods.append((knee, fork, 2.8, 1.9))
                rods.extend((fork, tip + rng.normal(0, 9, 3), 1.8, 0.8) for _ in range(2))
    return rods


def _vessels(canvas: Canvas, patient: Patient) -> None:
    rods = _tree(patient)
    points = patient.warp.to_scanner(np.array([[a, b] for a, b, _, _ in rods]))
    lung = canvas.fields["lung"]
    thin = 0.75 if patient.has("emphysema") else 1.0
    for (_, _, ra, rb), (a, b) in zip(rods, points, strict=True):
        found = boxed_capsule(canvas, a, b, ra * thin, rb * thin)
        if found is None:
            continue
        box, distance = found
        radius = max(ra, rb) * thin
        share = canvas.cover(distance) * lung[box] * min(1.0, 1.6 * radius / canvas.blur + 0.15)
        canvas.paint(share, 35.0, box)
