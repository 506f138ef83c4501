"""Masks of a scan, kept as their boxes: ten whole masks of a long scan take more memory than the scan itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from reg2rg.core.types import Mask
from reg2rg.scans.grid import Box, bounding_box, box_slices


@dataclass(frozen=True, slots=True)
class RegionMask:
    """The mask of one region in its box.

    Attributes:
        box: where `array` stands in the whole.
        array: bool, of the box's shape; true on all six faces of the box somewhere.
    """

    box: Box
    array: Mask

    @classmethod
    def of(cls, mask: Mask) -> Self | None:
        """The part of a mask that has voxels, a view of it; ``None`` if there is none."""
        box = bounding_box(mask)
        return None if box is None else cls(box, mask[box_slices(box)])

    def whole(self, shape: tuple[int, ...]) -> Mask:
        """The mask with the zeros around it, the first axis fastest in memory."""
        result = np.zeros(shape, bool, order="F")
        result[box_slices(self.box)] = self.array
        return result

    def within(self, crop: Box) -> Self | None:
        """The mask in a crop of the whole, in the crop's indices; ``None`` if no voxel of it lies there."""
        spans = [(max(low, first), min(high, last)) for (low, high), (first, last) in zip(self.box, crop, strict=True)]
        if any(low >= high for low, high in spans):
            return None
        starts = [start for start, _ in self.box]
        inside = self.array[tuple(slice(a - start, b - start) for (a, b), start in zip(spans, starts, strict=True))]
        part = type(self).of(inside)
        if part is None:
            return None
        moves = [low - first for (low, _), (first, _) in zip(spans, crop, strict=True)]
        at = [(move + low, move + high) for move, (low, high) in zip(moves, part.box, strict=True)]
        return type(self)((at[0], at[1], at[2]), part.array)


class BoxedMasks(Mapping[str, Mask]):
    """Region -> (H, W, D) bool, made whole when it is asked for; the first axis is fastest in memory.

    Args:
        shape: (H, W, D)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._parts: dict[str, RegionMask] = {}

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
        part = RegionMask.of(mask)
        if part is not None:
            own = replace(part, array=np.array(part.array, order="F"))
            self._parts[name] = _together(self._parts[name], own) if name in self._parts else own

    def part(self, name: str) -> RegionMask:
        """The mask in the smallest box that holds it."""
        return self._parts[name]

    def only(self, names: Iterable[str]) -> Self:
        """Some of them, in this order."""
        found = type(self)(self.shape)
        found._parts = {name: self._parts[name] for name in names}
        return found

    def thinned(self, name: str, step: npt.NDArray[np.intp]) -> Mask:
        """Every so many voxels of the whole mask along each axis, as ``whole[::i, ::j, ::k]`` has them."""
        box, part = self._parts[name].box, self._parts[name].array
        result = np.zeros([-(-n // int(by)) for n, by in zip(self.shape, step, strict=True)], bool)
        firsts = [-(-start // int(by)) for (start, _), by in zip(box, step, strict=True)]
        offsets = [first * int(by) - start for first, by, (start, _) in zip(firsts, step, box, strict=True)]
        inside = part[tuple(slice(offset, None, int(by)) for offset, by in zip(offsets, step, strict=True))]
        result[tuple(slice(first, first + n) for first, n in zip(firsts, inside.shape, strict=True))] = inside
        return result

    def __getitem__(self, name: str) -> Mask:
        return self._parts[name].whole(self.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _together(*parts: RegionMask) -> RegionMask:
    spans = zip(*(part.box for part in parts), strict=True)
    ranges = [(min(low for low, _ in both), max(high for _, high in both)) for both in spans]
    result = np.zeros([high - low for low, high in ranges], bool, order="F")
    for part in parts:
        places = zip(part.box, ranges, strict=True)
        result[tuple(slice(low - first, high - first) for (low, high), (first, _) in places)] |= part.array
    return RegionMask((ranges[0], ranges[1], ranges[2]), result)
