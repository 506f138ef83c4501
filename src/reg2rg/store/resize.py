"""Area resizing (adaptive average pooling) of volumes, in NumPy.

Output voxel i along an axis of n input voxels and m output voxels is the mean of the input voxels
``floor(i n / m) <= j < ceil((i + 1) n / m)``, which is what PyTorch's adaptive pooling computes and what MONAI calls
mode "area". It shrinks and enlarges alike. The mean over a box is separable, so each axis is done on its own: integer
sums along the last axis first, because they shrink the data at the speed of memory and are exact, then two products
with banded averaging matrices, the second of which also brings the result into row-major order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Size = tuple[int, int, int]
SlabSum = Callable[[int, int], npt.NDArray[Any]]
"""``slab_sum(start, stop)``: the (w, h) sum of slices ``start <= z < stop`` of a volume, its second axis first."""

_BAND = 32  # output rows of one block: its input columns stay narrow, so the product wastes little work


@dataclass(frozen=True, slots=True)
class Windows:
    """The input range that each output voxel averages along one axis.

    Attributes:
        start: (m,) first input index.
        stop: (m,) one past the last.
    """

    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]

    @classmethod
    def of(cls, inputs: int, outputs: int) -> Windows:
        """Windows of adaptive average pooling."""
        index = np.arange(outputs, dtype=np.int64)
        return cls(index * inputs // outputs, -(-(index + 1) * inputs // outputs))

    def touching(self, low: int, high: int) -> tuple[int, int]:
        """Range of outputs whose window meets the input range ``low <= j < high``."""
        return int(np.searchsorted(self.stop, low, side="right")), int(np.searchsorted(self.start, high, side="left"))

    def clipped(self, low: int, high: int) -> tuple[Windows, npt.NDArray[np.int64]]:
        """The windows that meet an input range, cut to it and counted from it, with their uncut lengths."""
        first, last = self.touching(low, high)
        start, stop = self.start[first:last], self.stop[first:last]
        return Windows(np.maximum(start, low) - low, np.minimum(stop, high) - low), stop - start


@dataclass(frozen=True, slots=True)
class _Axis:
    """Cut windows of one axis and what each sum is divided by."""

    windows: Windows
    lengths: npt.NDArray[np.int64]

    def bands(self, inputs: int) -> list[tuple[slice, slice, Float]]:
        """Blocks (output rows, input columns, averaging matrix) of the banded averaging matrix."""
        blocks = []
        starts, stops = self.windows.start, self.windows.stop
        for first in range(0, len(starts), _BAND):
            rows = slice(first, min(first + _BAND, len(starts)))
            low, high = int(starts[rows][0]), int(stops[rows][-1])
            column = np.arange(low, high)
            inside = (column >= starts[rows, None]) & (column < stops[rows, None])
            matrix = (inside / self.lengths[rows, None]).astype(np.float32)
            blocks.append((rows, slice(low, min(high, inputs)), matrix))
        return blocks


def area_pool(slab_sum: SlabSum, shape: Size, size: Size, scale: float = 1.0) -> Float:
    """Resize a whole volume.

    Args:
        slab_sum: sums of slices, see `SlabSum`.
        shape: (h, w, d) of the volume.
        size: (H, W, D) of the result.
        scale: factor on the result.

    Returns:
        (H, W, D) float32, row-major.
    """
    axes = [_whole_axis(inputs, outputs) for inputs, outputs in zip(shape, size, strict=True)]
    return _pool(slab_sum, shape, axes, scale)


def area_pool_boxed(
    slab_sum: SlabSum,
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
    shape: Size,
    size: Size,
    scale: float = 1.0,
) -> tuple[tuple[slice, slice, slice], Float]:
    """Resize a volume that is zero outside a box, computing only what is not zero.

    Args:
        slab_sum: as in `area_pool`, but inside the box: slices count from its lower corner.
        box: index range along each axis of the volume.
        shape: (h, w, d) of the whole volume.
        size: (H, W, D) of the whole result.
        scale: factor on the result.

    Returns:
        where the part stands in the result, and the part.
    """
    axes, place = [], []
    for (low, high), inputs, outputs in zip(box, shape, size, strict=True):
        windows = Windows.of(inputs, outputs)
        axes.append(_Axis(*windows.clipped(low, high)))
        place.append(slice(*windows.touching(low, high)))
    inner = (box[0][1] - box[0][0], box[1][1] - box[1][0], box[2][1] - box[2][0])
    return (place[0], place[1], place[2]), _pool(slab_sum, inner, axes, scale)


def _whole_axis(inputs: int, outputs: int) -> _Axis:
    windows = Windows.of(inputs, outputs)
    return _Axis(windows, windows.stop - windows.start)


def _pool(slab_sum: SlabSum, shape: Size, axes: list[_Axis], scale: float) -> Float:
    rows_h, rows_w, rows_d = (len(axis.lengths) for axis in axes)
    width_bands = axes[1].bands(shape[1])
    # (W, D, h): row w of the plane goes where the last product wants it, so that no transposition is left to do.
    half = np.empty((rows_w, rows_d, shape[0]), dtype=np.float32)
    depth = axes[2]
    previous: tuple[int, int, int] | None = None
    for index in range(rows_d):
        start, stop, length = int(depth.windows.start[index]), int(depth.windows.stop[index]), int(depth.lengths[index])
        if (start, stop, length) == previous:  # enlarging: neighbours average the same slices
            half[:, index] = half[:, index - 1]
            continue
        previous = start, stop, length
        plane = slab_sum(start, stop).astype(np.float32)
        plane *= scale / length
        for rows, columns, matrix in width_bands:
            np.matmul(matrix, plane[columns], out=half[rows, index])
    flat = half.reshape(rows_w * rows_d, shape[0])
    out = np.empty((rows_h, rows_w * rows_d), dtype=np.float32)
    for rows, columns, matrix in axes[0].bands(shape[0]):
        np.matmul(matrix, flat[:, columns].T, out=out[rows])
    return out.reshape(rows_h, rows_w, rows_d)
