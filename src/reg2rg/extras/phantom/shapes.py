"""Shapes as signed distances in mm (negative inside), and textures, all of them functions of position alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reg2rg.extras.phantom.grid import Box, Canvas, Float


class Profile:
    """A smooth curve through knots, read from a table with 0.5 mm steps: much faster than interpolating each voxel."""

    _low, _high, _step = -260.0, 260.0, 0.5

    def __init__(self, knots: Sequence[tuple[float, float]]) -> None:
        at = np.arange(self._low, self._high + self._step, self._step)
        x, y = zip(*sorted(knots), strict=True)
        curve = np.interp(at, x, y)
        kernel = np.hanning(31)
        padded = np.pad(curve, 15, mode="edge")
        self._table = np.convolve(padded, kernel / kernel.sum(), mode="valid").astype(np.float32)

    def __call__(self, position: Float) -> Float:
        """The curve's value at each position in mm."""
        index = ((position - np.float32(self._low)) * np.float32(1 / self._step)).astype(np.int32)
        return self._table[np.clip(index, 0, len(self._table) - 1)]


def rounded(u: Float, v: Float, a: Float | float, b: Float | float) -> Float:
    """Distance to a rounded rectangle-like oval with half axes `a` and `b`: between an ellipse and a squircle."""
    s, t = u / a, v / b
    s *= s
    t *= t
    r = np.sqrt(s + t)
    r += np.sqrt(np.sqrt(s * s + t * t))
    r *= np.float32(0.5)
    slope = np.sqrt(s / (a * a) + t / (b * b)) + np.float32(1e-4)
    return np.asarray(r * (r - np.float32(1)) / slope, dtype=np.float32)


def ellipsoid(
    x: Float,
    y: Float,
    z: Float,
    centre: npt.ArrayLike,
    radii: npt.ArrayLike,
    turn: npt.NDArray[np.floating] | None = None,
) -> Float:
    """Distance to an ellipsoid whose axes are the rows of `turn` (default: the coordinate axes)."""
    c, r = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
    dx, dy, dz = x - c[0], y - c[1], z - c[2]
    if turn is not None:
        m = np.asarray(turn, np.float32)
        dx, dy, dz = (m[i, 0] * dx + m[i, 1] * dy + m[i, 2] * dz for i in range(3))
    sx, sy, sz = (dx / r[0]) ** 2, (dy / r[1]) ** 2, (dz / r[2]) ** 2
    k = np.sqrt(sx + sy + sz)
    slope = np.sqrt(sx / r[0] ** 2 + sy / r[1] ** 2 + sz / r[2] ** 2) + np.float32(1e-4)
    return np.asarray(k * (k - np.float32(1)) / slope, dtype=np.float32)


def capsule(x: Float, y: Float, z: Float, a: npt.ArrayLike, b: npt.ArrayLike, ra: float, rb: float) -> Float:
    """Distance to a tapered rod from `a` (radius `ra`) to `b` (radius `rb`)."""
    p, q = np.asarray(a, np.float32), np.asarray(b, np.float32)
    d = q - p
    length2 = np.float32(max(float(d @ d), 1e-3))
    px, py, pz = x - p[0], y - p[1], z - p[2]
    t = np.clip((px * d[0] + py * d[1] + pz * d[2]) / length2, 0, 1)
    gap = np.sqrt((px - t * d[0]) ** 2 + (py - t * d[1]) ** 2 + (pz - t * d[2]) ** 2)
    return np.asarray(gap - (ra + (rb - ra) * t), dtype=np.float32)


def smooth_max(a: Float, b: Float, k: float) -> Float:
    """Intersection of two shapes with the edge between them rounded over `k` mm."""
    h = np.maximum(np.float32(k) - np.abs(a - b), 0)
    return np.asarray(np.maximum(a, b) + h * h * np.float32(0.25 / k), dtype=np.float32)


def boxed_ellipsoid(
    canvas: Canvas,
    centre: npt.ArrayLike,
    radii: npt.ArrayLike,
    turn: npt.NDArray[np.floating] | None = None,
    margin: float = 0,
) -> tuple[Box, Float] | None:
    """An ellipsoid in scanner mm with the index box that holds it; ``None`` when it is off the canvas."""
    c, r = np.asarray(centre, float), np.asarray(radii, float)
    reach = (r if turn is None else np.sqrt(((np.asarray(turn) * r[:, None]) ** 2).sum(0))) + margin
    box = canvas.box(c - reach, c + reach)
    return None if box is None else (box, ellipsoid(*canvas.local(box), c, r, turn))


def boxed_capsule(
    canvas: Canvas, a: npt.ArrayLike, b: npt.ArrayLike, ra: float, rb: float, margin: float = 0
) -> tuple[Box, Float] | None:
    """A tapered rod in scanner mm with the index box that holds it; ``None`` when it is off the canvas."""
    p, q, r = np.asarray(a, float), np.asarray(b, float), max(ra, rb) + margin
    box = canvas.box(np.minimum(p, q) - r, np.maximum(p, q) + r)
    return None if box is None else (box, capsule(*canvas.local(box), p, q, ra, rb))


def _hash(
    i: npt.NDArray[np.int32], j: npt.NDArray[np.int32], k: npt.NDArray[np.int32], salt: int
) -> npt.NDArray[np.uint32]:
    """A cell's number from its indices: the same on any grid."""
    h = i.astype(np.uint32) * np.uint32(0x8DA6B343) ^ j.astype(np.uint32) * np.uint32(0xD8163841)
    h ^= k.astype(np.uint32) * np.uint32(0xCB1AB31F) + np.uint32(salt & 0xFFFFFFFF)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    h = (h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39)
    return np.asarray(h ^ (h >> np.uint32(15)))


def cells(points: Float, size: float, salt: int) -> tuple[Float, Float]:
    """Split space into irregular cells of about `size` mm (Worley noise).

    Args:
        points: (n, 3) positions in mm.
        size: mean width of a cell.
        salt: chooses the pattern.

    Returns:
        A value in [0, 1) for the cell each point lies in, and the distance in mm to the nearest wall between cells.
    """
    scaled = points / np.float32(size)
    base = np.floor(scaled - np.float32(0.5)).astype(np.int32)
    first = np.full(len(points), 1e9, np.float32)
    second, value = first.copy(), np.zeros(len(points), np.float32)
    for corner in np.ndindex(2, 2, 2):
        cell = base + np.asarray(corner, np.int32)
        h = _hash(cell[:, 0], cell[:, 1], cell[:, 2], salt)
        gap = np.zeros(len(points), np.float32)
        for axis in range(3):
            offset = ((h >> np.uint32(10 * axis)) & np.uint32(1023)).astype(np.float32) * np.float32(0.5 / 1023)
            gap += (scaled[:, axis] - cell[:, axis] - np.float32(0.25) - offset) ** 2
        gap = np.sqrt(gap)
        nearer = gap < first
        second = np.where(nearer, first, np.minimum(second, gap))
        value = np.where(nearer, (h & np.uint32(0xFFFF)).astype(np.float32) / np.float32(65536), value)
        first = np.where(nearer, gap, first)
    return value, (second - first) * np.float32(size / 2)


def ripple(x: Float, y: Float, z: Float, wave: float, phase: float) -> Float:
    """A smooth bumpy field in [-1, 1] with bumps about `wave` mm apart; broadcastable arguments, cheap on boxes."""
    k = np.float32(2 * np.pi / wave)
    p = np.float32(phase)
    a = np.sin(k * x + p) * np.sin(k * y + p * 2 + 1)
    b = np.sin(k * np.float32(0.8) * y - p) * np.sin(k * np.float32(0.9) * z + p * 3)
    c = np.sin(k * np.float32(1.1) * z + p) * np.sin(k * np.float32(0.7) * x - p * 2)
    return np.asarray((a + b + c) * np.float32(1 / 1.5), dtype=np.float32)
