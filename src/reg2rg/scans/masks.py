"""Stored masks -> region masks on the grid of their scan: from one file a region, or from one multilabel file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import LabelMap, Mask, RegionFiles
from reg2rg.scans.base import ReadOptions, Scan, StoredImage
from reg2rg.scans.boxed import BoxedMasks
from reg2rg.scans.grid import Orientation, bounding_box, box_slices
from reg2rg.scans.placement import Placement

T = TypeVar("T")
_ROUNDING = 1e-3
_MAX_LABEL = 65535
_LISTED = 8


def _by_canonical_name(named: Mapping[str, T], regions: RegionSet) -> dict[str, T]:
    result: dict[str, T] = {}
    for name, value in named.items():
        try:
            canonical = regions.canonical(name)
        except ConfigError as error:
            raise DataFault.of(
                "UNKNOWN_REGION",
                found=str(error),
                expected="names of the region set",
                fix="rename the region, or add the spelling to the aliases of the region set",
            ) from None
        if canonical in result:
            raise DataFault.of(
                "UNKNOWN_REGION",
                found=f"two masks for region '{canonical}'",
                expected="one",
                fix="keep one, or merge them",
            )
        result[canonical] = value
    return result


def canonical(masks: RegionFiles | LabelMap, regions: RegionSet) -> RegionFiles | LabelMap:
    """The same masks under the region set's own names.

    Raises:
        DataFault: UNKNOWN_REGION, a name that is none of the set, or two of one region.
    """
    if isinstance(masks, LabelMap):
        return LabelMap(masks.file, _by_canonical_name(masks.labels, regions))
    return RegionFiles(_by_canonical_name(masks.files, regions))


def mask_of(image: StoredImage, name: str, scan: Scan, options: ReadOptions) -> tuple[Mask | None, list[str]]:
    """The mask of one region on the scan's grid, ``None`` if no voxel of it lies there, and notes.

    Raises:
        DataFault: MASK_VALUES, and what `Placement.of` raises.
    """
    stored = _whole_numbers(image)
    if stored.max() > 1:
        values = _list(np.unique(stored))
        raise _bad_values(image, f"values {values}", "use 0 and 1, or read the file as a label map")
    placement = Placement.of(image, scan, options)
    notes = _notes(name, image, placement)
    box = bounding_box(stored)
    if box is None:
        return None, [*notes, f"{name}: the mask is empty"]
    # Only the box is written: the rest of the zeros never takes up memory.
    mask, as_stored = placement.orientation.empty_mask(stored.shape)
    as_stored[box_slices(box)] = stored[box_slices(box)]
    return _inside(name, placement.onto_scan(mask), notes), notes


def masks_of_labels(
    image: StoredImage, wanted: Mapping[str, tuple[int, ...]], scan: Scan, options: ReadOptions
) -> tuple[BoxedMasks, list[str]]:
    """Masks on the scan's grid of the regions that have a voxel there, and notes.

    Args:
        image: whole numbers.
        wanted: region -> its labels.
        scan: where the masks are to lie.
        options: how they are placed.

    Raises:
        DataFault: MASK_VALUES, and what `Placement.of` raises.
    """
    stored = _whole_numbers(image)
    placement = Placement.of(image, scan, options)
    notes = _notes("labels", image, placement)
    found, seen = _split(stored, wanted, placement.orientation)
    known = {label for values in wanted.values() for label in values}
    other = sorted(seen - known - {0})
    if other:
        notes.append(f"labels of no region: {_list(other)}")
    masks = BoxedMasks(scan.volume.array.shape)
    for name in wanted:
        if name not in found:
            notes.append(f"{name}: the label map has no voxel of it")
        elif (mask := _inside(name, placement.onto_scan(found.pop(name)), notes)) is not None:
            masks.add(name, mask)
    return masks, notes


def _notes(name: str, image: StoredImage, placement: Placement) -> list[str]:
    notes = [f"{name}: {note}" for note in image.notes]
    if placement.mapping is not None:
        shape = placement.orientation.to_ras(image.stored).shape
        notes.append(f"{name}: resampled from {' x '.join(map(str, shape))} onto the scan's grid")
    return notes


def _inside(name: str, mask: Mask, notes: list[str]) -> Mask | None:
    if mask.any():
        return mask
    notes.append(f"{name}: all its voxels lie outside the scan")
    return None


def _split(
    labels: npt.NDArray[Any], wanted: Mapping[str, tuple[int, ...]], orientation: Orientation
) -> tuple[dict[str, Mask], set[int]]:
    """Masks of the wanted labels in RAS, and which labels occur; slice by slice, only where a region has voxels."""
    masks: dict[str, tuple[Mask, Mask]] = {}
    seen: set[int] = set()
    for k in range(labels.shape[2]):
        plane = labels[:, :, k]
        present = _labels_in(plane)
        seen |= present
        for name, values in wanted.items():
            hit = None
            for value in present.intersection(values):
                hit = plane == value if hit is None else np.logical_or(hit, plane == value, out=hit)
            if hit is not None:
                if name not in masks:
                    masks[name] = orientation.empty_mask(labels.shape)
                masks[name][1][:, :, k] = hit
    return {name: pair[0] for name, pair in masks.items()}, seen


_FEW = 1000
"""Values that a set takes in sooner than NumPy sorts them."""


def _labels_in(plane: npt.NDArray[Any]) -> set[int]:
    """The values in a slice, found where they change along memory: far fewer places than voxels."""
    line = plane.ravel(order="K")
    starts = np.flatnonzero(line[1:] != line[:-1]) + 1
    values = line[starts]
    return {int(line[0]), *(values if len(values) < _FEW else np.unique(values)).tolist()}


def _whole_numbers(image: StoredImage) -> npt.NDArray[Any]:
    """The voxels of a mask file as uint8 or uint16, after its scaling; rounding errors of float files are forgiven."""
    stored = image.stored
    if stored.dtype == np.uint8 and not image.scaled:
        return stored
    if stored.dtype.kind == "f" or image.scaled:
        return _rounded(image)
    low, high = int(stored.min()), int(stored.max())
    if low < 0 or high > _MAX_LABEL:
        raise _bad_values(image, f"values {low} to {high}", "this does not look like a mask")
    return stored.astype(np.uint8 if high < 256 else np.uint16, order="F")


def _rounded(image: StoredImage) -> npt.NDArray[Any]:
    stored = image.stored
    result = np.empty(stored.shape, np.uint16, order="F")
    for k in range(stored.shape[2]):
        with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN are found below
            values = stored[:, :, k].astype(np.float32) * np.float32(image.slope) + np.float32(image.inter)
            whole = np.rint(values)
            off = ~(np.abs(values - whole) <= _ROUNDING) | (whole < 0) | (whole > _MAX_LABEL)
        if off.any():
            fix = "threshold it to whole numbers: soft masks and images are not taken"
            raise _bad_values(image, f"value {values[off].flat[0]:g}", fix)
        result[:, :, k] = whole
    return result.astype(np.uint8, order="F") if result.max() < 256 else result


def _bad_values(image: StoredImage, found: str, fix: str) -> DataFault:
    expected = "0 and 1 in a mask, whole numbers from 0 in a label map"
    return DataFault.of("MASK_VALUES", found=found, expected=expected, fix=fix, path=image.path)


def _list(values: Any) -> str:
    items = [str(value) for value in values]
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
