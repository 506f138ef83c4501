"""The canvas of one phantom: a voxel grid in RAS millimetres, and the smooth map from it to the standard body.

The anatomy is written down once, in the millimetres of a standard body: x to the right, y to the front, z to the head,
with the origin in the middle of the chest. A patient is a map from the scanner's millimetres to that body (size, turn,
bend), so that any grid shows the same patient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]

FIELD_OF_VIEW = (345.6, 345.6, 320.0)
"""Size of the scanned block in mm: 3.6 x 3.6 x 5 mm voxels at 96 x 96 x 64."""

_VOXELS_AT_A_TIME = 640_000
"""Voxels of a slab: bounds the memory of large grids, and lets the demo's grid be one slab."""


@dataclass(frozen=True, slots=True)
class Warp:
    """Map from scanner millimetres to the standard body: a bend, then a turn and a scaling.

    Attributes:
        matrix: (3, 3) applied after the bend.
        shift: (3,) mm, added last.
        waves: (3, K, 5) bends of x, y and z: amplitude in mm, two wave numbers in 1/mm, two phases. The bend of an
            axis depends on the other two alone, so it costs a plane and not a volume.
    """

    matrix: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]
    waves: npt.NDArray[np.float64]

    def _bend(self, axis: int, first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> Float:
        total = np.zeros(np.broadcast_shapes(first.shape, second.shape))
        for amplitude, k1, k2, p1, p2 in self.waves[axis]:
            total += amplitude * np.sin(k1 * first + p1) * np.sin(k2 * second + p2)
        return total.astype(np.float32)

    def to_body(self, x: Float, y: Float, z: Float) -> tuple[Float, Float, Float]:
        """Scanner coordinates (broadcastable) -> coordinates of the standard body, all of the broadcast shape."""
        bx, by, bz = x + self._bend(0, y, z), y + self._bend(1, x, z), z + self._bend(2, x, y)
        m, s = self.matrix.astype(np.float32), self.shift.astype(np.float32)
        out = [m[i, 0] * bx + m[i, 1] * by + m[i, 2] * bz + s[i] for i in range(3)]
        return out[0], out[1], out[2]

    def to_scanner(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Points of the standard body (..., 3) -> scanner millimetres, by fixed-point iteration."""
        bent = (np.asarray(points, dtype=np.float64) - self.shift) @ np.linalg.inv(self.matrix).T
        out = bent.copy()
        for _ in range(6):
            x, y, z = out[..., 0], out[..., 1], out[..., 2]
            out = bent - np.stack([self._bend(0, y, z), self._bend(1, x, z), self._bend(2, x, y)], axis=-1)
        return out


@dataclass(frozen=True, slots=True)
class Grid:
    """A voxel grid over the field of view, centred on the scanner's origin.

    Attributes:
        size: voxels along x, y and z.
    """

    size: tuple[int, int, int]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        x, y, z = (extent / count for extent, count in zip(FIELD_OF_VIEW, self.size, strict=True))
        return x, y, z

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """(4, 4) voxel indices -> RAS millimetres."""
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = [axis[0] for axis in self.axes()]
        return affine

    def axes(self) -> tuple[Float, Float, Float]:
        """Voxel centres in mm along each axis."""
        x, y, z = (
            ((np.arange(count) - (count - 1) / 2) * step).astype(np.float32)
            for count, step in zip(self.size, self.spacing, strict=True)
        )
        return x, y, z

    def slabs(self) -> Iterator[tuple[int, int]]:
        """First and last-plus-one slice of each slab."""
        depth = max(1, _VOXELS_AT_A_TIME // (self.size[0] * self.size[1]))
        for start in range(0, self.size[2], depth):
            yield start, min(start + depth, self.size[2])


@dataclass(slots=True)
class Canvas:
    """One slab that is being drawn.

    Attributes:
        axes: voxel centres in scanner mm, shaped (H,1,1), (1,W,1), (1,1,D).
        body: coordinates in the standard body, three arrays (H, W, D).
        hu: (H, W, D) float32 attenuation.
        masks: region name -> (H, W, D) bool.
        fields: named (H, W, D) arrays that later steps need (distance to the chest wall, share of lung, ...).
        blur: width in mm over which an edge fades: partial volume.
    """

    axes: tuple[Float, Float, Float]
    body: tuple[Float, Float, Float]
    hu: Float
    blur: float
    masks: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    fields: dict[str, Float] = field(default_factory=dict)

    @classmethod
    def of(cls, grid: Grid, warp: Warp, start: int, stop: int, regions: Iterable[str]) -> Canvas:
        """An empty canvas (air) for slices `start` to `stop` with an empty mask for each region."""
        x, y, z = grid.axes()
        axes = x[:, None, None], y[None, :, None], z[None, None, start:stop]
        body = warp.to_body(*axes)
        masks = {name: np.zeros(body[0].shape, dtype=bool) for name in regions}
        blur = max(math.prod(grid.spacing) ** (1 / 3), 1.0)
        return cls(axes, body, np.full(body[0].shape, -1000, np.float32), blur, masks)

    def window(self, box: Box) -> Canvas:
        """A canvas on a part of this one; what is painted and marked there is painted and marked here."""
        axes, body = self.local(box), (self.body[0][box], self.body[1][box], self.body[2][box])
        masks = {name: mask[box] for name, mask in self.masks.items()}
        fields = {name: values[box] for name, values in self.fields.items()}
        return Canvas(axes, body, self.hu[box], self.blur, masks, fields)

    def box(self, low: npt.ArrayLike, high: npt.ArrayLike) -> Box | None:
        """Index box of the voxels between two scanner points, widened by the blur; ``None`` when it is empty."""
        slices = []
        for axis, a, b in zip(self.axes, np.asarray(low), np.asarray(high), strict=True):
            line = axis.ravel()
            first, last = np.searchsorted(line, [a - self.blur, b + self.blur])
            if first >= last:
                return None
            slices.append(slice(int(first), int(last)))
        return slices[0], slices[1], slices[2]

    def local(self, box: Box) -> tuple[Float, Float, Float]:
        """Scanner coordinates of a box, broadcastable."""
        x, y, z = self.axes
        return x[box[0]], y[:, box[1]], z[:, :, box[2]]

    def cover(self, distance: Float, blur: float | None = None) -> Float:
        """Share of each voxel inside a surface, from the signed distance in mm (negative inside)."""
        share = np.multiply(distance, np.float32(-1 / (blur or self.blur)))
        share += np.float32(0.5)
        return np.clip(share, 0, 1, out=share)

    def paint(self, share: Float, hu: float | Float, box: Box | None = None) -> None:
        """Lay `hu` over the canvas, `share` of it in each voxel."""
        target = self.hu if box is None else self.hu[box]
        target += share * (np.asarray(hu, dtype=np.float32) - target)

    def leave_out(self, inside: npt.NDArray[np.bool_], box: Box) -> None:
        """Take voxels out of every mask: what no segmentation of regions covers."""
        for mask in self.masks.values():
            mask[box] &= ~inside

    def mark(self, region: str, inside: npt.NDArray[np.bool_], box: Box | None = None) -> None:
        """Add voxels to a region's mask."""
        mask = self.masks[region] if box is None else self.masks[region][box]
        mask |= inside
