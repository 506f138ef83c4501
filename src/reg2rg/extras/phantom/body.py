"""The trunk: skin, fat, muscle, chest wall, diaphragm, the bed of the mediastinum, breasts."""

from __future__ import annotations

import numpy as np

from reg2rg.extras.phantom.grid import Canvas, Float
from reg2rg.extras.phantom.patient import Patient
from reg2rg.extras.phantom.shapes import Profile, boxed_ellipsoid, ellipsoid, ripple, rounded, smooth_max

FAT, MUSCLE, SKIN = -112.0, 52.0, 30.0

_INNER_WIDTH = Profile(
    [(-220, 116), (-120, 124), (-60, 126), (0, 122), (50, 108), (80, 90), (100, 68), (112, 46), (119, 12), (126, 3)]
)
_INNER_DEPTH = Profile(
    [(-220, 84), (-120, 92), (-60, 92), (0, 87), (50, 73), (80, 60), (100, 44), (112, 28), (119, 8), (126, 3)]
)
_INNER_MIDDLE = Profile([(-220, 0), (0, 0), (50, -7), (80, -15), (100, -22), (120, -27)])
_WIDTH = Profile(
    [(-220, 146), (-60, 148), (0, 147), (50, 154), (85, 164), (112, 162), (128, 122), (142, 78), (152, 64), (175, 58)]
)
_DEPTH = Profile([(-220, 112), (-60, 116), (0, 113), (50, 103), (85, 90), (112, 78), (128, 68), (142, 60), (175, 56)])
_MIDDLE = Profile([(-220, -5), (0, -5), (50, -10), (85, -17), (112, -24), (175, -24)])
SPINE_Y = Profile([(-220, -62), (-100, -72), (-40, -77), (20, -77), (70, -67), (110, -53), (150, -42), (180, -38)])
"""Middle of the vertebral bodies, from back to front, along the body."""

_MEDIASTINUM_WIDTH = Profile(
    [(-95, 10), (-70, 20), (-45, 26), (-25, 30), (5, 31), (25, 28), (45, 18), (62, 7), (100, 5)]
)
_MEDIASTINUM_LEVEL = Profile([(-140, 0.75), (-20, 0.85), (20, 1.0), (60, 1.08), (95, 1.0), (125, 0.85)])


def draw_trunk(canvas: Canvas, patient: Patient) -> None:
    """Paint skin, fat, muscle and the fatty bed inside the chest; leave the distances that later steps share.

    Fields left: ``wall`` (to the inside of the chest wall, negative inside), ``skin`` (to the surface), ``muscle`` (to
    the surface of the muscles), ``diaphragm`` (height above it: positive in the chest).
    """
    x, y, z = canvas.body
    wall = rounded(x, y - _INNER_MIDDLE(z), _INNER_WIDTH(z), _INNER_DEPTH(z))
    fat = np.float32(patient.fat / patient.scale)
    skin = rounded(x, y - _MIDDLE(z), _WIDTH(z) + fat * 0.9, _DEPTH(z) + fat)
    muscle = skin + (fat + np.float32(4))
    np.minimum(muscle, wall - np.float32(16), out=muscle)
    np.minimum(skin, wall - np.float32(20), out=skin)
    canvas.fields.update(wall=wall, skin=skin, muscle=muscle, diaphragm=_above_diaphragm(canvas, patient))
    _draw_breasts(canvas, patient)
    body = canvas.cover(canvas.fields["skin"])
    inside = (FAT + 2 * patient.tone[0]) + 12 * ripple(x[:, :1, :1], y[:1, :, :1], z[:1, :1, :], 31, patient.number)
    canvas.paint(body, np.where(canvas.fields["skin"] > -2.5, np.float32(SKIN), inside))
    strands = np.abs(wall - np.float32(15) - 3 * np.sin(x * np.float32(0.05) + z * np.float32(0.03)))
    tissue = np.where((strands < 1.6) & (z < 70), np.float32(-40), np.float32(MUSCLE + patient.tone[0]))
    canvas.paint(canvas.cover(muscle) * (1 - canvas.cover(wall)), tissue)


def _above_diaphragm(canvas: Canvas, patient: Patient) -> Float:
    """Height above the two domes of the diaphragm, in mm."""
    x, y, z = canvas.body
    right, left = patient.domes
    collapse = patient.has("atelectasis")
    if collapse and "lower" in collapse.place:  # lost volume draws the dome up
        right, left = right + 10 * ("right" in collapse.place), left + 10 * ("left" in collapse.place)
    depth2 = (y / np.float32(90)) ** 2
    height = np.full_like(x, -128)
    for middle, dome in ((61, right), (-61, left)):
        rest = np.maximum(1 - depth2 - ((x - np.float32(middle)) / np.float32(70)) ** 2, 0)
        np.maximum(
            height,
            (np.float32(0.55) * np.sqrt(rest) + np.float32(0.45) * rest) * np.float32(dome) - np.float32(128),
            out=height,
        )
    return np.asarray(z - height, dtype=np.float32)


def lung_space(canvas: Canvas) -> Float:
    """Distance to the space of both lungs with their pleura (negative inside): chest less mediastinum and spine."""
    x, y, z = canvas.body
    outer = smooth_max(canvas.fields["wall"], -canvas.fields["diaphragm"], 12)
    middle = np.abs(x - np.float32(2)) - _MEDIASTINUM_WIDTH(y) * _MEDIASTINUM_LEVEL(z)
    spine = np.sqrt(x * x + (y - SPINE_Y(z) + np.float32(4)) ** 2) - np.float32(25)
    return smooth_max(outer, -np.minimum(middle, spine), 8)


def _draw_breasts(canvas: Canvas, patient: Patient) -> None:
    """Extend the skin over the breasts, paint nothing yet but the mask and the gland (see `draw_glands`)."""
    if "breast" not in patient.regions:
        return
    rng = patient.rng(1)
    size = rng.uniform(0.85, 1.2) if patient.female else 0.62
    skin = canvas.fields["skin"]
    for side in (1, -1):
        middle = np.array([72.0 * side, 84 + 0.8 * patient.fat, 2.0])
        distance = ellipsoid(*canvas.body, middle, np.array([49, 40, 50]) * size)
        np.minimum(skin, distance, out=skin)
        inside = (distance < 0) & (canvas.fields["muscle"] > 2)
        canvas.mark("breast", inside)


def draw_glands(canvas: Canvas, patient: Patient) -> None:
    """Paint the glandular tissue behind the nipples: strands in women, a firm disc in men with gynecomastia."""
    if "breast" not in patient.regions:
        return
    rng = patient.rng(2)
    dense = rng.uniform(0.1, 0.5) if patient.female else 1.0
    for side in (1, -1):
        middle = patient.warp.to_scanner([72 * side, 100 + 0.8 * patient.fat, -2])
        radii = np.array([24, 17, 26]) if patient.female else np.array([17, 12, 17])
        found = boxed_ellipsoid(canvas, middle, radii * patient.scale)
        if found is None:
            continue
        box, distance = found
        share = canvas.cover(distance) * canvas.masks["breast"][box]
        lumps = ripple(*canvas.local(box), 21, patient.number + side)
        share *= np.clip(dense + 0.7 * lumps, 0, 1) if patient.female else 1
        canvas.paint(share, 35, box)
