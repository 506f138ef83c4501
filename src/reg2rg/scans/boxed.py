"""Masks of a scan, kept as their boxes: ten whole masks of a long scan take more memory than the scan itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Self

import numpy as np
import numpy.typing as npt

from reg2rg.core.types import Mask
from reg2rg.scans.grid import Box, bounding_box, box_slices


class BoxedMasks(Mapping[str, Mask]):
    """Region -> (H, W, D) bool, made whole when it is asked for; the first axis is fastest in memory.

    Args:
        shape: (H, W, D)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._parts: dict[str, tuple[Box, Mask]] = {}

    @classmethod
    def of(cls, masks: Mapping[str, Mask]) -> Self:
        """Whole masks, or boxed ones as they are. One without a voxel is left out."""
        if isinstance(masks, cls):
            return masks
        found = cls(next((mask.shape for mask in masks.values()), (0, 0, 0)))
        for name, mask in masks.items():
            found.add(name, mask)
        return found

    def add(self, name: str, mask: Mask) -> None:
        """Keep a mask, together with what is kept under the same name. One without a voxel is left out."""
        box = bounding_box(mask)
        if box is None:
            return
        part = np.array(mask[box_slices(box)], order="F")
        if name in self._parts:
            box, part = _together(self._parts[name], (box, part))
        self._parts[name] = box, part

    def part(self, name: str) -> tuple[Box, Mask]:
        """The smallest box that holds the mask, and the mask in it."""
        return self._parts[name]

    def only(self, names: Iterable[str]) -> Self:
        """Some of them, in this order."""
        found = type(self)(self.shape)
        found._parts = {name: self._parts[name] for name in names}
        return found

    def thinned(self, name: str, step: npt.NDArray[np.intp]) -> Mask:
        """Every so many voxels of the whole mask along each axis, as ``whole[::i, ::j, ::k]`` has them."""
        box, part = self._parts[name]
        result = np.zeros([-(-n // int(by)) for n, by in zip(self.shape, step, strict=True)], bool)
        firsts = [-(-start // int(by)) for (start, _), by in zip(box, step, strict=True)]
        offsets = [first * int(by) - start for first, by, (start, _) in zip(firsts, step, box, strict=True)]
        inside = part[tuple(slice(offset, None, int(by)) for offset, by in zip(offsets, step, strict=True))]
        result[tuple(slice(first, first + n) for first, n in zip(firsts, inside.shape, strict=True))] = inside
        return result

    def __getitem__(self, name: str) -> Mask:
        box, part = self._parts[name]
        whole = np.zeros(self.shape, bool, order="F")
        whole[box_slices(box)] = part
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _together(*parts: tuple[Box, Mask]) -> tuple[Box, Mask]:
    ranges = [
        (min(low for low, _ in spans), max(high for _, high in spans))
        for spans in zip(*(b for b, _ in parts), strict=True)
    ]
    hull: Box = (ranges[0], ranges[1], ranges[2])
    result = np.zeros([high - low for low, high in hull], bool, order="F")
    for box, part in parts:
        result[tuple(slice(low - first, high - first) for (low, high), (first, _) in zip(box, hull, strict=True))] |= (
            part
        )
    return hull, result
