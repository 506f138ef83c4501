"""Voxel grids: bring one to RAS by views, tell whether two agree, carry voxels from one to the other."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from reg2rg.core.types import Mask
from reg2rg.scans.base import Affine, Shape

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open index range along each array axis."""
# Nearest neighbour of a point halfway between two voxels: rounding noise must not decide, so all go the same way.
_HALF = 0.5 - 1e-4


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored axes become RAS axes: permuted, then some reversed.

    Attributes:
        axes: stored axis that becomes each RAS axis.
        flipped: whether that RAS axis runs against the stored one.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: Affine) -> Orientation:
        """The orientation that brings `affine` closest to RAS; an oblique one stays oblique."""
        return _orientation(np.asarray(affine, np.float64)[:3, :3].tobytes())

    def to_ras(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view of `array` with its axes in RAS order and direction."""
        return array.transpose(self.axes)[self._steps]

    def from_ras(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view of a RAS `array` as it was stored; inverse of `to_ras`."""
        return array[self._steps].transpose(np.argsort(self.axes))

    def affine(self, affine: Affine, shape: tuple[int, ...]) -> Affine:
        """The affine of `to_ras(array)` where `affine` belongs to an array of `shape`."""
        result = np.array(affine, np.float64)
        result[:, :3] = result[:, self.axes]
        for axis, flipped in enumerate(self.flipped):
            if flipped:
                result[:3, 3] += result[:3, axis] * (shape[self.axes[axis]] - 1)
                result[:3, axis] *= -1
        return result

    def empty_mask(self, stored_shape: tuple[int, ...]) -> tuple[Mask, Mask]:
        """A mask of zeros in RAS, first axis fastest, and the view of it that has the stored axes."""
        mask = np.zeros([stored_shape[axis] for axis in self.axes], bool, order="F")
        return mask, self.from_ras(mask)

    @property
    def _steps(self) -> tuple[slice, slice, slice]:
        first, second, third = (slice(None, None, -1 if flipped else 1) for flipped in self.flipped)
        return first, second, third


@functools.lru_cache(maxsize=256)  # a study's masks have the affine of its scan
def _orientation(directions: bytes) -> Orientation:
    affine = np.eye(4)
    affine[:3, :3] = np.frombuffer(directions, np.float64).reshape(3, 3)
    table = nib.orientations.io_orientation(affine)
    axes = [int(np.flatnonzero(table[:, 0] == axis)[0]) for axis in range(3)]
    flips = [bool(table[axis, 1] < 0) for axis in axes]
    return Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))


_SMALL = 1 << 16
"""Voxels that stay in the processor's cache all at once."""


def bounding_box(array: npt.NDArray[Any], above: int | None = None) -> Box | None:
    """Smallest box that holds all non-zero voxels, or all voxels above a value; ``None`` if there are none.

    One slice at a time along the last axis, so that the work stays in the processor's cache where the first axis is the
    fastest in memory.

    Args:
        array: (I, J, K).
        above: the value.
    """
    if array.size <= _SMALL:
        hit = array.astype(bool, copy=False) if above is None else array > above
        lines = [hit.any(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
        return (_span(lines[0]), _span(lines[1]), _span(lines[2])) if lines[0].any() else None
    slices = array.transpose(2, 1, 0)
    plane = np.zeros(slices.shape[1:], dtype=bool)
    filled = np.zeros(slices.shape[0], dtype=bool)
    for index, part in enumerate(slices):
        hit = part.astype(bool, copy=False) if above is None else part > above
        if hit.any():
            filled[index] = True
            plane |= hit
    if not filled.any():
        return None
    return _span(np.any(plane, axis=0)), _span(np.any(plane, axis=1)), _span(filled)


def box_slices(box: Box) -> tuple[slice, slice, slice]:
    """The box as an index into an array."""
    return slice(*box[0]), slice(*box[1]), slice(*box[2])


def _span(line: Any) -> tuple[int, int]:
    places = np.flatnonzero(line)
    return int(places[0]), int(places[-1]) + 1


def index_map(target: Affine, source: Affine) -> Affine:
    """(4, 4) map of target voxel indices to source voxel indices, for two affines in the same space."""
    return np.asarray(np.linalg.solve(source, target), np.float64)


def _inverse(mapping: Affine) -> Affine:
    return np.asarray(np.linalg.inv(mapping), np.float64)


def overlap(target_shape: Shape, source_shape: Shape, mapping: Affine) -> float:
    """Share of the smaller frame that lies in the other, measured on bounding boxes in target voxels: 0 to 1.

    Args:
        target_shape: shape of the target grid.
        source_shape: shape of the source grid.
        mapping: from `index_map(target, source)`.
    """
    lows, highs = _frame(source_shape, _inverse(mapping))
    size = np.array(target_shape, np.float64)
    common = np.clip(np.minimum(highs, size - 0.5) - np.maximum(lows, -0.5), 0, None).prod()
    return float(common / min(size.prod(), (highs - lows).prod()))


def _frame(shape: Shape, mapping: Affine) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Bounds of a grid's frame, voxel edges included, after `mapping`."""
    edges = np.array(np.meshgrid(*[(-0.5, size - 0.5) for size in shape], indexing="ij")).reshape(3, -1)
    points = mapping[:3, :3] @ edges + mapping[:3, 3:]
    return points.min(1), points.max(1)


def resample_nearest(source: npt.NDArray[Any], mapping: Affine, shape: Shape) -> npt.NDArray[Any]:
    """Nearest-neighbour values of `source` on another grid; 0 outside its frame.

    Works slice by slice within the box that the non-zero source voxels reach, so that memory stays at one result.

    Args:
        source: (I, J, K) array.
        mapping: target voxel indices -> source voxel indices.
        shape: of the target grid.

    Returns:
        array of `shape` and the source's type, first axis fastest.
    """
    result = np.zeros(shape, source.dtype, order="F")
    box = bounding_box(source)
    target = None if box is None else _reach(box, _inverse(mapping), shape)
    if target is None:
        return result
    ranges = [np.arange(*span) for span in target]
    linear, offset = mapping[:3, :3], mapping[:3, 3]
    drift = np.abs(linear - np.diag(np.diag(linear))) @ np.array(shape, np.float64)
    if drift.max() < 1e-3:
        _resample_straight(source, result, ranges, np.diag(linear), offset)
        return result
    first, second = ranges[0][:, None], ranges[1][None, :]
    planes = [linear[axis, 0] * first + linear[axis, 1] * second + offset[axis] for axis in range(3)]
    for k in ranges[2]:
        indices = [np.floor(planes[axis] + (linear[axis, 2] * k + _HALF)).astype(np.intp) for axis in range(3)]
        inside = np.logical_and.reduce([(i >= 0) & (i < size) for i, size in zip(indices, source.shape, strict=True)])
        values = source[tuple(np.where(inside, i, 0) for i in indices)]
        result[slice(*target[0]), slice(*target[1]), k] = np.where(inside, values, 0)
    return result


def _reach(box: Box, mapping: Affine, shape: Shape) -> Box | None:
    """The box of target voxels that a box of source voxels can touch."""
    edges = np.array(np.meshgrid(*[(low - 1, high) for low, high in box], indexing="ij")).reshape(3, -1)
    points = mapping[:3, :3] @ edges + mapping[:3, 3:]
    lows = np.clip(np.floor(points.min(1)), 0, shape).astype(int)
    highs = np.clip(np.ceil(points.max(1)) + 1, 0, shape).astype(int)
    if (lows >= highs).any():
        return None
    spans = [(int(low), int(high)) for low, high in zip(lows, highs, strict=True)]
    return spans[0], spans[1], spans[2]


def _resample_straight(
    source: npt.NDArray[Any],
    result: npt.NDArray[Any],
    ranges: list[npt.NDArray[Any]],
    scale: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64],
) -> None:
    """Fill `result` where the two grids are parallel: one index vector an axis."""
    targets, sources = [], []
    for axis in range(3):
        index = np.floor(ranges[axis] * scale[axis] + (offset[axis] + _HALF)).astype(np.intp)
        inside = (index >= 0) & (index < source.shape[axis])
        targets.append(ranges[axis][inside])
        sources.append(index[inside])
    for k_target, k_source in zip(targets[2], sources[2], strict=True):
        values = source[:, :, k_source][np.ix_(sources[0], sources[1])]
        result[np.ix_(targets[0], targets[1], [k_target])] = values[:, :, None]


def scatter(source: Mask, mapping: Affine, shape: Shape) -> Mask:
    """A mask on another grid with every voxel set that holds the centre of a set source voxel.

    Keeps structures that are thinner than the target's voxels and that nearest neighbour would miss.
    """
    points = np.argwhere(source).T
    inverse = _inverse(mapping)
    indices = np.floor(inverse[:3, :3] @ points + (inverse[:3, 3:] + 0.5)).astype(np.intp)
    inside = np.logical_and.reduce([(i >= 0) & (i < size) for i, size in zip(indices, shape, strict=True)])
    result = np.zeros(shape, bool, order="F")
    result[tuple(indices[:, inside])] = True
    return result
