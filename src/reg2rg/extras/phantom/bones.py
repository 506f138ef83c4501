"""Spine, ribs, sternum, collar bones and shoulder blades."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reg2rg.core.types import Mask
from reg2rg.extras.phantom.body import SPINE_Y
from reg2rg.extras.phantom.grid import Canvas, Float
from reg2rg.extras.phantom.patient import Patient
from reg2rg.extras.phantom.shapes import boxed_capsule, boxed_ellipsoid

Indices = npt.NDArray[np.intp]

CORTEX, MARROW, DISC = 620.0, 190.0, 75.0
VERTEBRA = 25.0
"""Height of a thoracic vertebra with its disc, mm."""


def draw_bones(canvas: Canvas, patient: Patient) -> None:
    """Paint the skeleton and mark it as bone."""
    _spine(canvas, patient)
    _ribs(canvas)
    _sternum(canvas)
    _shoulder_girdle(canvas, patient)


def _subset(canvas: Canvas, inside: Mask) -> tuple[Indices, list[Float]]:
    """Flat indices of some voxels and their body coordinates: bones fill a small part of the volume."""
    where = np.flatnonzero(inside)
    return where, [axis.ravel()[where] for axis in canvas.body]


def _lay(canvas: Canvas, where: Indices, share: Float, hu: Float | float) -> None:
    flat = canvas.hu.reshape(-1)
    flat[where] += share * (hu - flat[where])
    mask = canvas.masks["bone"].reshape(-1)
    mask[where] |= share > 0.5


def _spine(canvas: Canvas, patient: Patient) -> None:
    x, y, _ = canvas.body
    where, (px, py, pz) = _subset(canvas, (np.abs(x) < 44) & (y < -20) & (y > -135) & (canvas.fields["skin"] < -3))
    back = py - SPINE_Y(pz)
    steps = (pz + np.float32(150)) / np.float32(VERTEBRA)
    level = np.floor(steps)
    middle = np.abs(steps - level - np.float32(0.5)) * np.float32(
        VERTEBRA
    )  # height above or below the vertebra's middle
    compression = patient.has("compression")
    sunk = level == (6 + compression.salt % 2 if compression else -99)
    round_ = np.sqrt((px / np.float32(1.25)) ** 2 + back**2) - np.float32(13.5)
    body = np.maximum(round_, middle - np.where(sunk, np.float32(5.5), np.float32(10.2)))
    _lay(canvas, where, canvas.cover(round_ + np.float32(1)), DISC)
    hard = np.where(body > -2.6, np.float32(CORTEX * 0.75), np.where(sunk, np.float32(420), np.float32(MARROW)))
    _lay(canvas, where, canvas.cover(body), hard)
    canal = np.sqrt(px**2 + (back + 24) ** 2)
    _lay(canvas, where, canvas.cover(np.abs(canal - np.float32(11.5)) - np.float32(3)), CORTEX * 0.7)
    _lay(canvas, where, canvas.cover(_processes(px, back, middle, canal)), CORTEX * 0.75)
    flat = canvas.hu.reshape(-1)
    flat[where] += canvas.cover(canal - np.float32(8.5)) * (30 - flat[where])


def _processes(x: Float, back: Float, middle: Float, canal: Float) -> Float:
    """Distance to the spinous and transverse processes of the vertebrae."""
    spinous = np.maximum(np.maximum(np.abs(x) - 3.5, np.abs(back + 47) - 13), middle - 8)
    across = np.maximum(np.maximum(np.abs(x) - 32, np.abs(back + 20 + 0.2 * np.abs(x)) - 4), middle - 6)
    return np.asarray(np.minimum(spinous, np.maximum(across, 10 - canal)), dtype=np.float32)


_RIB_STEP = 24.0


def rib_phase(x: Float, y: Float, z: Float) -> Float:
    """Which rib runs through a place of the chest wall: whole numbers are the middles of ribs, counted upwards.

    From the spine ribs run outwards and down; from the side to the breastbone their cartilages come up again.
    """
    drop = np.float32(0.34) * (y + np.float32(80)) + np.float32(0.5) * np.abs(x)
    return np.asarray((z + drop + np.float32(112)) / np.float32(_RIB_STEP), dtype=np.float32)


def _ribs(canvas: Canvas) -> None:
    _, _, z = canvas.body
    wall = canvas.fields["wall"]
    where, (px, py, pz) = _subset(canvas, (wall > 0) & (wall < 12) & (z < 118) & (canvas.fields["skin"] < -4))
    phase = rib_phase(px, py, pz)
    number = np.round(phase)
    across = np.abs(phase - number) * np.float32(_RIB_STEP * 0.88)
    depth = np.abs(wall.ravel()[where] - np.float32(5.2))
    rib = np.sqrt((across / np.float32(5.6)) ** 2 + (depth / np.float32(4.2)) ** 2)
    rib = (rib - 1) * np.float32(4.6)
    gone = (np.abs(px) < 18) | (number < 0) | (number > 10) | ((number < 3) & (py > -30 + 22 * number))
    cartilage = (py > 30) & (np.abs(px) < 36 + 0.6 * np.maximum(0, 60 - pz))
    share = canvas.cover(np.where(gone, np.float32(9), rib))
    hu = np.where(cartilage, np.float32(105), np.where(rib > -1.6, np.float32(CORTEX), np.float32(MARROW + 60)))
    _lay(canvas, where, share, hu)


def _sternum(canvas: Canvas) -> None:
    x, y, z = canvas.body
    wall = canvas.fields["wall"]
    where, (px, _, pz) = _subset(canvas, (np.abs(x) < 30) & (y > 10) & (wall > 0) & (wall < 14) & (z > -62) & (z < 96))
    half = np.where(pz > 52, 13 + 0.28 * (pz - 52), 13 - 0.07 * np.maximum(0, -pz)).astype(np.float32)
    level = np.maximum(pz - 84, -50 - pz)
    plate = np.maximum(np.maximum(np.abs(px) - half, np.abs(wall.ravel()[where] - 7) - 5), level)
    plate = np.where(np.abs(pz - 52) < 1.5, np.maximum(plate, 0.5), plate).astype(np.float32)
    _lay(canvas, where, canvas.cover(plate), np.where(plate > -2.2, np.float32(430), np.float32(140)))


def _shoulder_girdle(canvas: Canvas, patient: Patient) -> None:
    point, scale = patient.warp.to_scanner, patient.scale
    for side in (1, -1):
        ends = ([24, 48, 88], [70, 28, 106], [140, -18, 116])
        rods = [(ends[0], ends[1], 7.0, 6.0), (ends[1], ends[2], 6.0, 7.0)]
        rods += [([118, -42, 104], [76, -98, 88], 4.5, 4.0), ([118, -42, 104], [146, -26, 112], 6.0, 9.0)]
        for a, b, ra, rb in rods:
            mirrored = point(np.array([a, b]) * [side, 1, 1])
            found = boxed_capsule(canvas, mirrored[0], mirrored[1], ra * scale, rb * scale)
            if found:
                _paint_bone(canvas, *found)
        turn = np.array([[0.78 * side, -0.62, 0.05], [0.62 * side, 0.78, 0.12], [0, -0.12, 1]])
        blade = boxed_ellipsoid(canvas, point([98 * side, -80, 62]), np.array([30, 4.0, 50]) * scale, turn)
        head = boxed_ellipsoid(canvas, point([160 * side, -24, 112]), np.array([23, 23, 24]) * scale)
        for found in (blade, head):
            if found:
                _paint_bone(canvas, *found)


def _paint_bone(canvas: Canvas, box: tuple[slice, slice, slice], distance: Float) -> None:
    share = canvas.cover(distance) * canvas.cover(canvas.fields["skin"][box])
    canvas.paint(share, np.where(distance > -2.5, np.float32(CORTEX), np.float32(MARROW)), box)
    canvas.mark("bone", share > 0.5, box)
