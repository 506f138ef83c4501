"""Region masks on the grid of their scan, from one file a region or from one multilabel file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.data.grid import (
    Box,
    Orientation,
    Shape,
    bounding_box,
    index_map,
    overlap,
    resample_nearest,
    scatter,
)
from reg2rg.data.nifti import Affine, Nifti, corner_shift, open_nifti
from reg2rg.data.volumes import ReadOptions, Scan, read_scan
from reg2rg.errors import ConfigError, DataFault
from reg2rg.regions import RegionSet
from reg2rg.types import LabelMap, Mask, RegionVolume, Study

_ROUNDING = 1e-3
_MAX_LABEL = 65535
_MAX_SHIFT = 0.5  # voxels of the scan, at any corner
_MIN_OVERLAP = 0.5
_LISTED = 8


def load_region_volume(study: Study, regions: RegionSet, options: ReadOptions | None = None) -> RegionVolume:
    """Read a study's CT and masks, the masks on the CT's grid in RAS.

    Args:
        study: where the files are.
        regions: which regions, and in which order.
        options: how files are read; the defaults if ``None``.

    Returns:
        the CT, the masks that are not empty, and notes. Mask arrays have their first axis fastest in memory.

    Raises:
        DataFault: with the study's id: what `reg2rg.data.volumes.read_volume` raises for either kind of file, and
            MASK_VALUES, MASK_OFFSET, NO_OVERLAP, IDENTITY_AFFINE, MASK_SHAPE, UNKNOWN_REGION, NO_REGION.
    """
    options = options or ReadOptions()
    try:
        scan = read_scan(study.image, options)
        if isinstance(study.masks, LabelMap):
            found, notes = _from_labels(study.masks, scan, regions, options)
        else:
            found, notes = _from_files(study.masks.files, scan, regions, options)
    except DataFault as fault:
        raise fault.for_study(study.id) from fault.__cause__
    masks = {name: found[name] for name in regions.names if name in found}
    if not masks:
        raise DataFault.of(
            "NO_REGION",
            found="no region with a voxel in it",
            expected=f"a mask for at least one of {', '.join(regions.names)}",
            fix="look at the masks, or leave the study out",
            path=study.image,
            study=study.id,
        )
    return RegionVolume(scan.volume, masks, (*scan.notes, *notes))


def _canonical(named: Mapping[str, Any], regions: RegionSet) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in named.items():
        try:
            canonical = regions.canonical(name)
        except ConfigError as error:
            raise DataFault.of(
                "UNKNOWN_REGION",
                found=str(error),
                expected="names of the region set",
                fix="rename the region, or add the spelling to the aliases of the region set",
            ) from error
        if canonical in result:
            raise DataFault.of(
                "UNKNOWN_REGION",
                found=f"two masks for region '{canonical}'",
                expected="one",
                fix="keep one, or merge them",
            )
        result[canonical] = value
    return result


def _from_files(
    files: Mapping[str, Path], scan: Scan, regions: RegionSet, options: ReadOptions
) -> tuple[dict[str, Mask], list[str]]:
    masks: dict[str, Mask] = {}
    notes: list[str] = []
    for name, path in _canonical(files, regions).items():
        image = open_nifti(path)
        stored = _whole_numbers(image)
        if stored.max() > 1:
            values = np.unique(stored)
            raise _bad_values(image, f"values {_list(values)}", "use 0 and 1, or read the file as a label map")
        mask = _place(stored.view(np.bool_), image, scan, options, name, notes)
        if mask is None:
            notes.append(f"{name}: the mask is empty")
        else:
            masks[name] = mask
    return masks, notes


def _from_labels(
    source: LabelMap, scan: Scan, regions: RegionSet, options: ReadOptions
) -> tuple[dict[str, Mask], list[str]]:
    wanted: dict[str, tuple[int, ...]] = _canonical(source.labels, regions)
    image = open_nifti(source.file)
    notes: list[str] = []
    stored = _whole_numbers(image)
    labels = _place(stored, image, scan, options, "labels", notes)
    if labels is None:
        return {}, [*notes, "the label map is empty"]
    masks, seen = _split(labels, wanted)
    known = {label for values in wanted.values() for label in values}
    other = sorted(seen - known - {0})
    if other:
        notes.append(f"labels of no region: {_list(other)}")
    notes += [f"{name}: the label map has no voxel of it" for name in wanted if name not in masks]
    return masks, notes


def _split(labels: npt.NDArray[Any], wanted: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Mask], set[int]]:
    """Masks of the wanted labels, and which labels occur; slice by slice, only where a region has voxels."""
    masks: dict[str, Mask] = {}
    seen: set[int] = set()
    for k in range(labels.shape[2]):
        plane = labels[:, :, k]
        present = _labels_in(plane)
        seen |= present
        for name, values in wanted.items():
            for value in present.intersection(values):
                mask = masks.get(name)
                if mask is None:
                    mask = masks[name] = np.zeros(labels.shape, bool, order="F")
                mask[:, :, k] |= plane == value
    return masks, seen


def _labels_in(plane: npt.NDArray[Any]) -> set[int]:
    """The values in a slice, found where they change along memory: far fewer places than voxels."""
    line = plane.ravel(order="K")
    starts = np.flatnonzero(line[1:] != line[:-1]) + 1
    return {int(line[0]), *np.unique(line[starts]).tolist()}


def _whole_numbers(image: Nifti) -> npt.NDArray[Any]:
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


def _rounded(image: Nifti) -> npt.NDArray[Any]:
    stored = image.stored
    result = np.empty(stored.shape, np.uint16, order="F")
    for k in range(stored.shape[2]):
        values = stored[:, :, k].astype(np.float32) * np.float32(image.slope) + np.float32(image.inter)
        whole = np.rint(values)
        off = ~(np.abs(values - whole) <= _ROUNDING) | (whole < 0) | (whole > _MAX_LABEL)
        if off.any():
            fix = "threshold it to whole numbers: soft masks and images are not taken"
            raise _bad_values(image, f"value {values[off].flat[0]:g}", fix)
        result[:, :, k] = whole
    return result.astype(np.uint8, order="F") if result.max() < 256 else result


def _bad_values(image: Nifti, found: str, fix: str) -> DataFault:
    expected = "0 and 1 in a mask, whole numbers from 0 in a label map"
    return DataFault.of("MASK_VALUES", found=found, expected=expected, fix=fix, path=image.path)


def _list(values: Any) -> str:
    items = [str(value) for value in values]
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more


def _place(
    stored: npt.NDArray[Any], image: Nifti, scan: Scan, options: ReadOptions, name: str, notes: list[str]
) -> npt.NDArray[Any] | None:
    """Bring a mask onto the scan's grid in RAS; ``None`` if it has no voxel there."""
    notes += [f"{name}: {note}" for note in image.notes]
    box = bounding_box(stored)
    affine = _trusted_affine(image, scan, options)
    orientation = Orientation.of(affine)
    affine = orientation.affine(affine, stored.shape)
    moved = orientation.to_ras(stored)
    if _same_grid(image, moved.shape, affine, scan):
        return None if box is None else _reorient(stored, box, orientation)
    mapping = index_map(scan.volume.affine, affine)
    shape: Shape = scan.volume.array.shape
    share = overlap(shape, (moved.shape[0], moved.shape[1], moved.shape[2]), mapping)
    if share < _MIN_OVERLAP:
        raise DataFault.of(
            "NO_OVERLAP",
            found=f"a frame that shares {share:.0%} with the scan's",
            expected=f"at least {_MIN_OVERLAP:.0%} of the smaller one",
            fix="check that the mask belongs to this scan",
            path=image.path,
        )
    notes.append(f"{name}: resampled from {' x '.join(map(str, moved.shape))} onto the scan's grid")
    if box is None:
        return None
    result = resample_nearest(moved, mapping, shape)
    if not result.any():
        if result.dtype == bool:
            result = scatter(moved, mapping, shape)
        if not result.any():
            notes.append(f"{name}: all its voxels lie outside the scan")
            return None
    return result


def _reorient(stored: npt.NDArray[Any], box: Box, orientation: Orientation) -> npt.NDArray[Any]:
    """A copy in RAS. Only the box is written: the rest of the zeros never takes up memory."""
    result = np.zeros(orientation.to_ras(stored).shape, stored.dtype, order="F")
    orientation.from_ras(result)[box] = stored[box]
    return result


def _trusted_affine(image: Nifti, scan: Scan, options: ReadOptions) -> Affine:
    """The affine to go by: the file's own, or the scan's where the option says so."""
    same_shape = image.stored.shape == scan.stored_shape
    if options.mask_grid == "scan":
        if same_shape:
            return scan.stored_affine
        raise DataFault.of(
            "MASK_SHAPE",
            found=f"shape {image.stored.shape}",
            expected=f"the scan's {scan.stored_shape}, as mask_grid=scan says",
            fix="use mask_grid=header if the masks have true affines",
            path=image.path,
        )
    identity = np.array_equal(image.affine, np.eye(4))
    if identity and not np.allclose(scan.stored_affine, np.eye(4)):
        fix = "set mask_grid=scan if the array lies on the scan's stored grid (SAT writes such files)"
        raise DataFault.of(
            "IDENTITY_AFFINE",
            found=f"an identity affine, shape {image.stored.shape} beside the scan's {scan.stored_shape}",
            expected="the affine of the scan",
            fix=fix if same_shape else "write the masks again with their true affine",
            path=image.path,
        )
    return image.affine


def _same_grid(image: Nifti, shape: tuple[int, ...], affine: Affine, scan: Scan) -> bool:
    """Whether the mask, in RAS, lies on the scan's grid; a pure shift of an equal grid is refused as a header error."""
    if shape != scan.volume.array.shape:
        return False
    mapping = index_map(affine, scan.volume.affine)
    if corner_shift(mapping, np.eye(4), shape) < _MAX_SHIFT:
        return True
    shift = mapping[:3, 3].copy()
    mapping[:3, 3] = 0
    if corner_shift(mapping, np.eye(4), shape) < _MAX_SHIFT:
        raise DataFault.of(
            "MASK_OFFSET",
            found=f"the scan's shape and spacing, but an origin {_list(np.round(shift, 1))} voxels off",
            expected=f"less than {_MAX_SHIFT:g} voxels",
            fix="check that the mask belongs to this scan; if only its header is wrong, set mask_grid=scan",
            path=image.path,
        )
    return False
