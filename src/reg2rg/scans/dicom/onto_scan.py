"""Planes of a mask on the voxels of their scan: each by where it lies in the patient, each matched to one slice."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.core.types import Mask
from reg2rg.scans.base import Scan
from reg2rg.scans.dicom.frames import Vector
from reg2rg.scans.grid import Orientation

MATCH = 0.1
"""Voxels by which a plane may miss a slice, or a pixel a voxel."""
_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(slots=True)
class OntoScan:
    """Masks of regions that grow on the grid of a scan.

    Attributes:
        scan: where they lie.
        path: their file, for messages.
        masks: region -> mask in RAS, first axis fastest, and its view with the axes of the scan's file.
        outside: set pixels that lie outside the scan.
    """

    scan: Scan
    path: Path
    masks: dict[str, tuple[Mask, Mask]] = field(default_factory=dict)
    outside: int = 0
    _inverse: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self._inverse = np.asarray(np.linalg.inv(self.scan.stored.affine), np.float64)

    def voxels(self, points: Vector) -> Vector:
        """(N, 3) LPS mm as indices of the scan's file, not rounded."""
        return np.asarray(points * _TO_RAS @ self._inverse[:3, :3].T + self._inverse[:3, 3], np.float64)

    def stored(self, name: str) -> Mask:
        """The mask of a region with the axes of the scan's file."""
        if name not in self.masks:
            self.masks[name] = Orientation.of(self.scan.stored.affine).empty_mask(self.scan.stored.shape)
        return self.masks[name][1]

    def slice_of(self, index: float, axis: int) -> int:
        """The slice at a place along an axis.

        Raises:
            DataFault: MASK_SLICE, it lies between two slices or beyond them.
        """
        place = round(index)
        if abs(index - place) > MATCH or not 0 <= place < self.scan.stored.shape[axis]:
            last = self.scan.stored.shape[axis] - 1
            raise self.other(f"a plane at slice {index:.2f} of slices 0 to {last}", "planes that each lie on a slice")
        return place

    def add(self, name: str, pixels: Mask, position: Vector, steps: Vector) -> None:
        """Add a plane of pixels to a region.

        Args:
            name: the region.
            pixels: (rows, columns).
            position: (3,) centre of the first pixel, LPS mm.
            steps: (2, 3) from column to column, and from row to row, LPS mm.

        Raises:
            DataFault: MASK_SLICE, it lies on no slice, or its pixels on no voxels.
        """
        first, *ends = self.voxels(np.array([position, position + steps[0], position + steps[1]]))
        moves = np.array(ends) - first
        axes = [int(np.abs(move).argmax()) for move in moves]
        drift = np.abs(moves - np.rint(moves)) * (np.array(pixels.shape[::-1]) - 1)[:, None]
        if axes[0] == axes[1] or np.abs(np.rint(moves)).sum() != 2 or drift.max() > 2 * MATCH:
            raise self.other("pixels of another size or direction", "the scan's own pixels")
        [normal] = {0, 1, 2} - set(axes)
        place = self.slice_of(float(first[normal]), normal)
        starts = [round(float(first[axis])) for axis in axes]
        if max(abs(first[axis] - start) for axis, start in zip(axes, starts, strict=True)) > 2 * MATCH:
            raise self.other("pixels between the scan's", "the scan's own pixels")
        target = np.moveaxis(self.stored(name), (*axes, normal), (0, 1, 2))[:, :, place]
        here, there = zip(
            *(
                _overlap(start, round(float(move[axis])), count, self.scan.stored.shape[axis])
                for start, move, axis, count in zip(starts, moves, axes, pixels.shape[::-1], strict=True)
            ),
            strict=True,
        )
        inside = pixels.T[np.ix_(*here)]
        self.outside += int(np.count_nonzero(pixels)) - int(np.count_nonzero(inside))
        target[np.ix_(*there)] |= inside

    def result(self) -> tuple[dict[str, Mask], list[str]]:
        """The masks that have a voxel, and notes."""
        found = {name: mask for name, (mask, _) in self.masks.items() if mask.any()}
        notes = [f"{name}: the mask is empty" for name in self.masks if name not in found]
        return found, [*notes, *([f"masks: {self.outside} pixels lie outside the scan"] if self.outside else [])]

    def other(self, found: str, expected: str) -> DataFault:
        """The fault of what was drawn on another grid."""
        fix = "give the series that the masks were drawn on, as it is, and read without resampling (tilt, uneven)"
        return DataFault.of("MASK_SLICE", found=found, expected=expected, fix=fix, path=self.path)


def _overlap(start: int, step: int, count: int, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Pixels that lie on voxels 0 to `size` - 1, and those voxels."""
    voxels = start + step * np.arange(count)
    pixels = np.flatnonzero((voxels >= 0) & (voxels < size))
    return pixels, voxels[pixels]
