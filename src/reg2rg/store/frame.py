"""A scan with its masks brought to another orientation and voxel size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.core.types import HU, Mask, RegionVolume, Volume
from reg2rg.scans.grid import Orientation, resample_nearest

_SAME_SPACING = 0.01  # relative; less than the difference of two vendors' rounding
_MOST_VOXELS = 1 << 31
_AS_IT_IS = Orientation((0, 1, 2), (False, False, False))


def conform(
    source: RegionVolume, orientation: str = "RAS", spacing: tuple[float, float, float] | None = None
) -> RegionVolume:
    """A scan with its masks in another orientation, which loses nothing, and another spacing.

    Args:
        source: the scan.
        orientation: patient directions that the axes are to point to. An oblique scan stays as oblique as it is.
        spacing: voxel size in mm that is wanted along the axes after that; ``None`` keeps what there is, and so does a
            difference below 1 %. HU are interpolated linearly, masks take the nearest voxel.

    Raises:
        DataFault: the result would be too large.
    """
    turn = _Turn.between(source.volume.affine, orientation)
    array, affine = turn.array(source.volume.array), turn.affine(source.volume.affine, source.volume.array.shape)
    volume = Volume(array, affine)
    resized = spacing is not None and any(
        abs(a / b - 1) > _SAME_SPACING for a, b in zip(volume.spacing, spacing, strict=True)
    )
    if turn.into == _AS_IT_IS and not resized:
        return source
    masks = {name: turn.array(mask) for name, mask in source.masks.items()}
    notes = list(source.notes)
    if spacing is not None and resized:
        shown = [" x ".join(f"{mm:g}" for mm in one) for one in (volume.spacing, spacing)]
        notes.append(f"resampled from {shown[0]} to {shown[1]} mm")
        volume, masks = _resampled(volume, masks, spacing)
    return RegionVolume(volume, masks, tuple(notes))


@dataclass(frozen=True, slots=True)
class _Turn:
    """Axes of an array permuted and reversed."""

    into: Orientation

    @classmethod
    def between(cls, affine: npt.NDArray[np.float64], orientation: str) -> _Turn:
        have = nib.orientations.io_orientation(affine)
        want = nib.orientations.axcodes2ornt(tuple(orientation.upper()))
        change = nib.orientations.ornt_transform(have, want)
        axes = [int(np.flatnonzero(change[:, 0] == axis)[0]) for axis in range(3)]
        flips = [bool(change[axis, 1] < 0) for axis in axes]
        return cls(Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])))

    def array(self, array: Any) -> Any:
        return np.asfortranarray(self.into.to_ras(array))

    def affine(self, affine: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        return self.into.affine(affine, shape)


def _resampled(
    volume: Volume, masks: dict[str, Mask], spacing: tuple[float, float, float]
) -> tuple[Volume, dict[str, Mask]]:
    """Onto a grid of the same frame: the outer faces of the first and last voxels stay where they are."""
    factors = np.array(spacing) / np.array(volume.spacing)
    shape = [max(1, round(length / factor)) for length, factor in zip(volume.array.shape, factors, strict=True)]
    if int(np.prod(np.array(shape, np.float64))) > _MOST_VOXELS:
        raise DataFault.of(
            "TOO_LARGE",
            found=f"{volume.array.shape} voxels of {volume.spacing} mm, which become {tuple(shape)}",
            expected=f"at most {_MOST_VOXELS} voxels at {spacing} mm, the spacing of the model's input contract",
            fix="check the spacing in the header",
        )
    mapping = np.eye(4)  # new voxel indices -> old ones
    mapping[:3, :3] = np.diag(factors)
    mapping[:3, 3] = (factors - 1) / 2
    size = (shape[0], shape[1], shape[2])
    array = _linear(volume.array, factors, mapping[:3, 3], size)
    moved = {name: resample_nearest(mask, mapping, size) for name, mask in masks.items()}
    return Volume(array, volume.affine @ mapping), {name: mask for name, mask in moved.items() if mask.any()}


def _linear(array: HU, factors: npt.NDArray[np.float64], offset: npt.NDArray[np.float64], shape: Any) -> HU:
    """Linear interpolation, edges repeated; one axis after the other, slab by slab to bound the memory."""
    for axis in range(3):
        if shape[axis] == array.shape[axis] and abs(factors[axis] - 1) < 1e-9:
            continue
        places = np.clip(np.arange(shape[axis]) * factors[axis] + offset[axis], 0, array.shape[axis] - 1)
        low = np.floor(places).astype(np.intp)
        high = np.minimum(low + 1, array.shape[axis] - 1)
        weight = (places - low).astype(np.float32)
        target = np.empty([shape[axis] if k == axis else n for k, n in enumerate(array.shape)], np.int16, order="F")
        source, result = np.moveaxis(array, axis, 0), np.moveaxis(target, axis, 0)
        for place, (a, b, w) in enumerate(zip(low, high, weight, strict=True)):
            mixed = source[a] * (1 - w) + source[b] * w if w else source[a]
            np.copyto(result[place], np.rint(mixed), casting="unsafe")
        array = target
    return array
