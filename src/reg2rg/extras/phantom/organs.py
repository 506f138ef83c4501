"""Heart, great vessels, airways, esophagus, thyroid and upper abdomen. Numbers are mm in the standard body."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reg2rg.extras.phantom.body import lung_space
from reg2rg.extras.phantom.grid import Box, Canvas, Float
from reg2rg.extras.phantom.patient import Patient
from reg2rg.extras.phantom.shapes import boxed_capsule, boxed_ellipsoid, ellipsoid, smooth_max

BLOOD, FLUID, MYOCARDIUM = 40.0, 8.0, 56.0
Chain = tuple[tuple[float, float, float, float], ...]
"""A tube as (x, y, z, radius) along its course."""

ASCENDING: Chain = ((4, 18, -4, 16), (14, 24, 24, 16), (14, 22, 48, 15.5), (6, 8, 66, 15))
ARCH: Chain = ((6, 8, 66, 15), (-14, -4, 72, 13.5), (-24, -24, 69, 12.5), (-24, -43, 57, 13))
DESCENDING: Chain = (
    (-24, -43, 57, 13),
    (-27, -54, 30, 12.5),
    (-26, -56, -40, 12),
    (-16, -54, -110, 11),
    (-6, -46, -200, 10),
)
_VEINS: tuple[Chain, ...] = (
    ((28, 12, 84, 9), (30, 10, 50, 9.5), (28, 8, 8, 10)),  # superior vena cava
    ((-34, 26, 94, 6.5), (4, 34, 84, 7), (28, 14, 80, 7.5)),  # left brachiocephalic vein
    ((36, 10, 100, 7), (28, 12, 82, 8)),
    ((30, -6, -62, 11), (28, -10, -130, 11), (22, -22, -200, 11)),  # inferior vena cava
)
_ARTERIES: tuple[Chain, ...] = (
    ((-14, 38, 4, 14), (-20, 22, 30, 13.5), (-22, 6, 38, 12)),  # pulmonary trunk
    ((-22, 6, 38, 11), (4, -8, 34, 10), (36, -12, 26, 9), (52, -18, 8, 7)),  # right pulmonary artery
    ((-22, 6, 38, 11), (-42, -22, 36, 9.5), (-52, -34, 14, 7)),  # left pulmonary artery
    ((6, 4, 78, 6), (20, 4, 104, 5.5), (26, -2, 150, 4.5)),  # branches of the arch
    ((-6, -10, 80, 4.5), (-16, -10, 120, 4.5), (-20, -8, 165, 4)),
    ((-14, -22, 78, 5.5), (-24, -22, 110, 5), (-52, -12, 122, 4.5)),
)
TRACHEA: Chain = ((0, -4, 178, 9), (0, -12, 120, 9), (1, -24, 66, 9), (2, -28, 42, 9.5))
BRONCHI: tuple[Chain, ...] = (
    ((3, -28, 42, 8), (24, -31, 24, 7.5), (38, -32, 4, 6.5), (50, -42, -22, 5.2)),
    ((22, -31, 26, 6), (40, -28, 34, 5.5), (56, -22, 44, 4.5)),
    ((38, -30, 0, 5), (54, -6, -16, 4.2)),
    ((0, -28, 42, 7.5), (-26, -34, 22, 7), (-40, -36, 10, 6.5), (-52, -46, -18, 5.2)),
    ((-38, -34, 14, 6), (-54, -18, 26, 5), (-60, -4, 34, 4.2)),
)
ESOPHAGUS: Chain = (
    (-2, -20, 178, 7),
    (-3, -30, 120, 7.5),
    (-5, -44, 60, 8),
    (-4, -48, 0, 8),
    (-10, -42, -60, 8.5),
    (-20, -30, -92, 9),
    (-38, -8, -104, 9),
)
HEART_MIDDLE = np.array([-19.0, 20.0, -38.0])
HEART_RADII = np.array([57.0, 43.0, 45.0])
_tilt, _yaw = np.deg2rad(28), np.deg2rad(-34)
HEART_TURN: npt.NDArray[np.float64] = np.array(
    [[np.cos(_tilt), 0, np.sin(_tilt)], [0, 1, 0], [-np.sin(_tilt), 0, np.cos(_tilt)]]
) @ np.array([[np.cos(_yaw), np.sin(_yaw), 0], [-np.sin(_yaw), np.cos(_yaw), 0], [0, 0, 1]])
"""Rows: the heart's long axis (to the right, back and head), and the two across it."""


_CHAMBERS = (
    ((-0.30, -0.18, -0.04), (0.46, 0.42, 0.46)),  # left ventricle
    ((-0.16, 0.50, -0.20), (0.52, 0.30, 0.44)),  # right ventricle
    ((0.52, 0.22, -0.02), (0.30, 0.48, 0.52)),  # right atrium
    ((0.46, -0.56, 0.16), (0.36, 0.30, 0.44)),  # left atrium
)
"""Middle and radii of the chambers in parts of the heart's radii."""


def tubes(
    canvas: Canvas, patient: Patient, chain: Chain, extra: float = 0, factor: float = 1.0
) -> list[tuple[Box, Float]]:
    """Distances to the pieces of a tube, each in its own box; `extra` mm are added to its radius."""
    points = patient.warp.to_scanner([knot[:3] for knot in chain])
    radii = [knot[3] * patient.scale * factor + extra for knot in chain]
    found = (boxed_capsule(canvas, points[i], points[i + 1], radii[i], radii[i + 1]) for i in range(len(chain) - 1))
    return [piece for piece in found if piece is not None]


def draw_vessels(canvas: Canvas, patient: Patient) -> None:
    """Aorta, pulmonary arteries, great veins, and the mask of the mediastinum with the fat between them."""
    dilated = patient.has("aortic dilatation")
    wide = dilated.size / (32 * patient.scale) if dilated else 1.0
    blood = BLOOD + patient.tone[0]
    chains = [(chain, 1.0) for chain in (*_VEINS, *_ARTERIES, ARCH, DESCENDING)] + [(ASCENDING, wide)]
    chest = (canvas.fields["wall"] < 2) & (canvas.fields["diaphragm"] > -4)
    for chain, factor in chains:
        for box, distance in tubes(canvas, patient, chain, factor=factor):
            canvas.paint(canvas.cover(distance), blood, box)
            canvas.mark("mediastinum", (distance < 1) & chest[box], box)
    bed = (
        chest
        & (canvas.fields["heart"] > 4)
        & (canvas.fields["wall"] < -2)
        & (canvas.fields["lungs"] > 1)
        & (canvas.body[2] > -70)
        & (canvas.body[1] > -66)
    )
    canvas.mark("mediastinum", bed & ~canvas.masks["bone"] & (canvas.fields["diaphragm"] > 0))


def _lift(size: float) -> npt.NDArray[np.float64]:
    """A large heart grows to the left and front."""
    return np.array([-10.0, 4.0, -2.0]) * max(0.0, size - 1) * 4


def _size(size: float) -> npt.NDArray[np.float64]:
    """Factors of the heart's radii: a large heart grows most along its long axis, which fluid around it does not."""
    return size + np.array([0.5, -0.1, -0.1]) * max(0.0, size - 1.05)


def _fluid(patient: Patient) -> float:
    fluid = patient.has("pericardial effusion")
    return fluid.size / patient.scale if fluid else 0.0


def heart_window(canvas: Canvas, patient: Patient) -> Box | None:
    """The part of the canvas around the heart."""
    reach = (_size(patient.heart)[0] * HEART_RADII[0] + _fluid(patient) + 10) * patient.scale
    middle = patient.warp.to_scanner(HEART_MIDDLE + _lift(patient.heart))
    return canvas.box(middle - reach, middle + reach)


def _oval(canvas: Canvas, size: float, middle: npt.ArrayLike = (0, 0, 0), radii: npt.ArrayLike = (1, 1, 1)) -> Float:
    """An ellipsoid in the heart's own axes, in parts of the heart's radii."""
    full = HEART_RADII * _size(size)
    centre = HEART_MIDDLE + _lift(size) + (np.asarray(middle) * full) @ HEART_TURN
    return ellipsoid(*canvas.body, centre, full * np.asarray(radii), HEART_TURN)


def heart_point(patient: Patient, u: float, v: float, w: float) -> npt.NDArray[np.float64]:
    """A place given in parts of the heart's radii along its own axes -> scanner mm."""
    body = HEART_MIDDLE + _lift(patient.heart) + (np.array([u, v, w]) * HEART_RADII * _size(patient.heart)) @ HEART_TURN
    return patient.warp.to_scanner(body)


def draw_heart(whole: Canvas, patient: Patient) -> None:
    """Pericardium with fat or fluid, muscle, four chambers a little darker than their walls."""
    box = heart_window(whole, patient)
    if box is None:
        return
    canvas = whole.window(box)
    sac, tone = canvas.fields["heart"], patient.tone[0]
    fluid = patient.has("pericardial effusion")
    outer = _oval(canvas, patient.heart)
    canvas.paint(canvas.cover(sac), FLUID if fluid else -85.0)
    if fluid:
        canvas.paint(canvas.cover(outer - 3), -80.0)
    canvas.paint(canvas.cover(outer + 2), MYOCARDIUM + tone)
    groove = _groove(canvas, patient)
    canvas.paint(canvas.cover(np.maximum(groove, outer)) * (1 - canvas.cover(outer + 9)), -70.0)
    for middle, radii in _CHAMBERS:
        canvas.paint(canvas.cover(_oval(canvas, patient.heart, middle, radii)), BLOOD - 4 + tone)
    canvas.mark("heart", sac < 0)


def _groove(canvas: Canvas, patient: Patient) -> Float:
    """Distance to the fatty groove between atria and ventricles."""
    x, y, z = canvas.body
    along = HEART_TURN[0].astype(np.float32)
    middle = HEART_MIDDLE + HEART_TURN[0] * HEART_RADII[0] * 0.16 * patient.heart
    plane = (x - middle[0]) * along[0] + (y - middle[1]) * along[1] + (z - middle[2]) * along[2]
    return np.asarray(np.abs(plane) - 4.5, dtype=np.float32)


def draw_airways(canvas: Canvas, patient: Patient) -> None:
    """Trachea and bronchi: walls first, then all lumens, so that they stay open at forks."""
    thick = patient.has("peribronchial thickening")
    pieces = [(chain, 1.6 if chain is TRACHEA else (6.0 if thick else 1.6)) for chain in (TRACHEA, *BRONCHI)]
    inside = canvas.cover(canvas.fields["skin"])
    for chain, wall in pieces:
        for box, distance in tubes(canvas, patient, chain, extra=wall):
            canvas.paint(canvas.cover(distance) * inside[box], 35.0, box)
            canvas.mark("trachea and bronchie", distance < 0.6, box)
    for chain, _ in pieces:
        for box, distance in tubes(canvas, patient, chain):
            canvas.paint(canvas.cover(distance) * inside[box], -990.0, box)


def draw_esophagus(canvas: Canvas, patient: Patient) -> None:
    """A soft tube with a thread of air; thick-walled where it is inflamed."""
    extra = 5.0 if patient.has("esophageal thickening") else 0.0
    above = canvas.fields["diaphragm"] > -8
    for box, distance in tubes(canvas, patient, ESOPHAGUS, extra=extra):
        share = canvas.cover(distance)
        share *= ~canvas.masks["trachea and bronchie"][box]
        canvas.paint(share, 38.0 + patient.tone[0], box)
        canvas.mark("esophagus", (share > 0.5) & above[box], box)
    for box, distance in tubes(canvas, patient, ESOPHAGUS[:5], factor=0.36):
        canvas.paint(canvas.cover(distance) * 0.8, -600.0, box)


def draw_thyroid(canvas: Canvas, patient: Patient) -> None:
    """Two bright lobes and their bridge beside the upper trachea."""
    if "thyroid" not in patient.regions:
        return
    size = 1.5 if patient.has("goitre") else float(patient.rng(3).uniform(0.9, 1.08))
    for side in (1, -1):
        found = boxed_ellipsoid(canvas, thyroid_middle(patient, side), np.array([9.5, 11.5, 20]) * size * patient.scale)
        if found:
            _gland(canvas, patient, *found)
    bridge = patient.warp.to_scanner([[-12, 9, 134], [12, 9, 134]])
    found = boxed_capsule(canvas, bridge[0], bridge[1], 4.0 * size, 4.0 * size)
    if found:
        _gland(canvas, patient, *found)


def thyroid_middle(patient: Patient, side: int) -> npt.NDArray[np.float64]:
    """Middle of a thyroid lobe in scanner mm."""
    shift = 4 if patient.has("goitre") else 0
    return patient.warp.to_scanner([(18 + shift) * side, -4, 137])


def _gland(canvas: Canvas, patient: Patient, box: Box, distance: Float) -> None:
    canvas.paint(canvas.cover(distance), (85.0 if patient.has("goitre") else 110.0) + patient.tone[0], box)
    canvas.mark("thyroid", distance < 0, box)


def draw_abdomen(whole: Canvas, patient: Patient) -> None:
    """What lies under the diaphragm: liver, spleen, stomach with its air bubble, kidneys, gallbladder."""
    whole.fields["liver"] = np.full_like(whole.hu, 50)
    top = patient.warp.to_scanner([0, 0, -42])[2] + 14
    box = whole.box([-999, -999, -999], [999, 999, top])
    if box is None:
        return
    canvas = whole.window(box)
    x, y, z = canvas.body
    below, wall, tone = -canvas.fields["diaphragm"], canvas.fields["wall"], patient.tone[0]
    space = (wall < -2) & (below > 1) & ((y > -64) | (np.abs(x) > 26))
    canvas.mark("abdomen", space & ~canvas.masks["bone"])
    edge = np.float32(-8) - np.float32(0.8) * x - np.float32(0.4) * y - (y / np.float32(30)) ** 2 * np.float32(2.2)
    liver = smooth_max(smooth_max(wall + 5, 4 - below, 6), edge + np.float32(0.10) * (z + np.float32(100)), 14)
    canvas.fields["liver"][...] = liver
    canvas.paint(canvas.cover(liver), (2.0 if patient.has("steatosis") else 58.0) + patient.tone[1])
    large = 1.35 if patient.has("splenomegaly") else 1.0
    inner = np.maximum(wall + 4, 3 - below)
    spleen = ellipsoid(x, y, z, (-88, -36, -112 - 12 * (large - 1)), np.array([27, 45, 40]) * large)
    spleen = np.maximum(spleen, inner)
    canvas.paint(canvas.cover(spleen), 50.0 + tone)
    stomach = np.maximum(ellipsoid(x, y, z, (-50, 26, -116), (44, 38, 36)), np.maximum(inner, -spleen))
    stomach = np.maximum(stomach, 4 - liver)
    canvas.paint(canvas.cover(stomach), 42.0 + tone)
    level = patient.rng(4).uniform(26, 42)
    canvas.paint(canvas.cover(stomach + 5), np.where(y > level, np.float32(-970), np.float32(20)))
    _retroperitoneum(canvas, patient, liver, spleen)


def _retroperitoneum(canvas: Canvas, patient: Patient, liver: Float, spleen: Float) -> None:
    """Kidneys, and the gallbladder under the liver."""
    scale = patient.scale
    for side, neighbour in ((1, liver), (-1, spleen)):
        found = boxed_ellipsoid(canvas, patient.warp.to_scanner([58 * side, -46, -168]), np.array([25, 23, 46]) * scale)
        if found:
            box, distance = found
            distance = np.maximum(distance, 3 - neighbour[box])
            canvas.paint(canvas.cover(distance), 32.0 + patient.tone[0], box)
            canvas.paint(canvas.cover(distance + 12), -60.0, box)
    found = boxed_ellipsoid(canvas, patient.warp.to_scanner([46, 40, -148]), np.array([15, 20, 20]) * scale)
    if found:
        canvas.paint(canvas.cover(found[1]), 10.0, found[0])


def share_out(canvas: Canvas, patient: Patient) -> None:
    """Work out the spaces of heart and lungs once: fields ``heart`` and ``lungs``, distances negative inside."""
    sac = np.full_like(canvas.hu, 60)
    box = heart_window(canvas, patient)
    if box is not None:
        sac[box] = _oval(canvas.window(box), patient.heart) - np.float32(_fluid(patient) + 3)
    canvas.fields["heart"] = sac
    canvas.fields["lungs"] = np.maximum(lung_space(canvas), np.float32(1.5) - sac)
