"""From paths to a scan with its regions: the one place that opens files and says what happens to them, in order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import reg2rg.scans.dicom.reader
import reg2rg.scans.nifti
import reg2rg.scans.npz
import reg2rg.scans.nrrd
import reg2rg.scans.pictures  # noqa: F401 (they register their readers)
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.registry import load_plugins
from reg2rg.core.types import Grid, LabelMap, Mask, MaskChannels, RegionFiles, RegionVolume, Study, Volume
from reg2rg.scans.archives import through
from reg2rg.scans.base import READERS, Reader, ReadOptions, Scan, StoredImage
from reg2rg.scans.boxed import BoxedMasks
from reg2rg.scans.dicom.region_file import region_file
from reg2rg.scans.hounsfield import to_hounsfield
from reg2rg.scans.inflate import refuse
from reg2rg.scans.label_names import by_name
from reg2rg.scans.mask_sets import grid_without_affine
from reg2rg.scans.masks import canonical, mask_of, masks_of_labels
from reg2rg.scans.placement import without_affine
from reg2rg.scans.plausibility import judge
from reg2rg.scans.rescale import rescaled


def read_study(
    study: Study, regions: RegionSet, options: ReadOptions | None = None, needs_regions: bool = True
) -> RegionVolume:
    """Read a study's CT and masks, the masks on the CT's grid in RAS.

    Args:
        study: where the files are.
        regions: which regions, and in which order.
        options: how files are read; the defaults if ``None``.
        needs_regions: refuse a study without any region; otherwise it is a scan alone.

    Returns:
        the CT, the masks that are not empty, and notes. Mask arrays have their first axis fastest in memory.

    Raises:
        DataFault: with the study's id: what `read_image` raises for either kind of file, what
            `reg2rg.scans.hounsfield.to_hounsfield` raises for the CT, and MASK_VALUES, MASK_OFFSET, NO_OVERLAP,
            IDENTITY_AFFINE, MASK_SHAPE, MASK_AXES, MASK_SIGNS, LABEL_NAMES, UNKNOWN_REGION, MASK_IMPLAUSIBLE,
            NO_REGION.
    """
    options = (options or ReadOptions()).for_study(study)
    if isinstance(study.masks, MaskChannels):
        raise ConfigError(
            f"study {study.id} has features in place of a scan, but data.read.grid does not say how they lie. Fix: "
            "give data.read.grid and task.views.features, as the packaged features/colipri.yaml does"
        )
    try:
        scan = read_scan(study.image, options)
        found, notes = _read_masks(study.masks, scan, regions, options)
        found, said = _judged(found, study, scan, regions, options)
    except DataFault as fault:
        raise fault.for_study(study.id) from fault.__cause__
    if needs_regions and not found:
        raise no_region(study, regions)
    masks = found.only(name for name in regions.names if name in found)
    return RegionVolume(scan.volume, masks, (*scan.notes, *notes, *said), scan.stored)


def read_volume(path: str | Path, options: ReadOptions | None = None) -> tuple[Volume, tuple[str, ...]]:
    """A CT as int16 HU in RAS, and notes on what was repaired; see `read_scan`."""
    scan = read_scan(path, options or ReadOptions())
    return scan.volume, scan.notes


def read_scan(path: str | Path, options: ReadOptions) -> Scan:
    """Read a CT as int16 HU, clipped to [-1024, 3071], in RAS, keeping its stored grid.

    Raises:
        DataFault: what `read_image` and `reg2rg.scans.hounsfield.to_hounsfield` raise.
    """
    path = Path(path)
    image = _reader(path).read_scan(path, options)
    return to_hounsfield(image if options.rescale is None else rescaled(image, options), options)


def read_image(path: str | Path) -> StoredImage:
    """Read a file of any known kind to its last byte.

    Raises:
        DataFault: MISSING_FILE, UNREADABLE, EMPTY_FILE, NOT_NIFTI (of no known kind), or what its reader raises.
    """
    path = Path(path)
    return _reader(path).read(path)


def read_grid(path: str | Path, options: ReadOptions | None = None) -> Grid | None:
    """Where the voxels of a CT lie, by its header alone; ``None`` for a kind of file whose header does not tell.

    Raises:
        DataFault: MISSING_FILE, NOT_NIFTI (of no known kind), or a header that its reader refuses.
    """
    path = Path(path)
    return _reader(path).grid(path, options or ReadOptions())


def _reader(path: Path) -> Reader:
    reader = reader_of(path)
    if reader is None:
        refuse(path)
    return reader


def reader_of(path: Path) -> Reader | None:
    """The reader whose content `path` has; if none knows it, the one whose name it bears, to say what is wrong.

    Plug-ins are imported for a path that no reader of this process knows, for that may take seconds.
    """
    if "\0" in str(path):  # no file has such a name, and what looks at one may raise anything
        return None
    found = _reader_of(path)
    if found is None and path.exists():
        load_plugins()
        found = _reader_of(path)
    return found


def _reader_of(path: Path) -> Reader | None:
    readers, name = [READERS.get(name) for name in READERS], path.name.lower()
    named = [reader() for reader in readers if name.endswith(reader.suffixes)]
    others = (reader() for reader in readers)
    return next(
        (reader for reader in itertools.chain(named, others) if reader.matches(path)), named[0] if named else None
    )


def files_of(path: Path) -> tuple[Path, ...]:
    """All files that the image at `path` is made of."""
    if through(path) is not None:
        return (path,)
    reader = reader_of(path)
    return (path,) if reader is None else reader.files(path)


def no_region(study: Study, regions: RegionSet, empty: str = "no region with a voxel in it") -> DataFault:
    """The fault of a study without regions where some are needed."""
    return DataFault.of(
        "NO_REGION",
        found="no mask" if study.masks is None else empty,
        expected=f"a mask for at least one of {', '.join(regions.names)}",
        fix="look at the masks, or leave the study out; reports without regions need none (task.target whole)",
        path=study.image,
        study=study.id,
    )


def _judged(
    found: BoxedMasks, study: Study, scan: Scan, regions: RegionSet, options: ReadOptions
) -> tuple[BoxedMasks, tuple[str, ...]]:
    """Masks that can be those of the scan, and notes on those that look implausible, as far as they are no error."""
    if study.masks is None or options.implausible == "ignore" or not options.measures:
        return found, ()
    verdict = judge(scan.volume, found, regions)
    if verdict is None:
        return found, ()
    if verdict.strength == "strong" and options.implausible == "drop" and verdict.regions:
        dropped = tuple(f"{name}: implausible, left out: {why}" for name, why in verdict.regions.items())
        others = found.only(name for name in found if name not in verdict.regions)
        rest, notes = _judged(others, study, scan, regions, options)
        return rest, dropped + notes
    if verdict.strength == "strong" and options.implausible in ("error", "drop"):
        masks = study.masks
        files = (
            [masks.file] if isinstance(masks, LabelMap) else [file for part in masks.parts().values() for file in part]
        )
        raise verdict.fault(files[0] if len(files) == 1 else files[0].parent)
    return found, (verdict.note(),)


def _read_masks(
    masks: RegionFiles | LabelMap | None, scan: Scan, regions: RegionSet, options: ReadOptions
) -> tuple[BoxedMasks, list[str]]:
    if masks is None:
        return BoxedMasks(scan.volume.array.shape), []
    masks = canonical(masks, regions)
    found, notes = _drawn(masks, scan, regions)
    lost: ReadOptions | None = None  # for files without an affine; all of a set lie on the same grid
    for name, image in _mask_images(masks):
        here = options
        if options.mask_grid == "header" and without_affine(image, scan):
            if lost is None:
                grid, said = grid_without_affine(_without_affine(masks, scan), scan)
                lost = replace(options, mask_grid=grid)
                notes.append(said)
            here = lost
        if isinstance(masks, LabelMap):
            labels, said_of_names = by_name(image, masks.labels, regions)
            of_labels, said_of_labels = masks_of_labels(image, labels, scan, here)
            return of_labels, [*notes, *said_of_names, *said_of_labels]
        mask, said_of_mask = mask_of(image, name, scan, here)
        notes += said_of_mask
        if mask is not None:
            found.add(name, mask)
    return found, notes


def _drawn(masks: RegionFiles | LabelMap, scan: Scan, regions: RegionSet) -> tuple[BoxedMasks, list[str]]:
    """Masks from DICOM SEG and RTSTRUCT: by name from the one file of all, or all that the file of a region holds."""
    found = BoxedMasks(scan.volume.array.shape)
    notes: list[str] = []
    for name, path in _mask_files(masks):
        if (file := region_file(path)) is None:
            continue
        if isinstance(masks, LabelMap):
            wanted, said = by_name(file, masks.labels, regions)
            notes += said
        else:
            wanted = {name: tuple(file.names)}
        drawn, said = file.masks(wanted, scan)
        notes += said
        for region, mask in drawn.items():
            found.add(region, mask)
    return found, notes


def _mask_files(masks: RegionFiles | LabelMap) -> Iterator[tuple[str, Path]]:
    if isinstance(masks, LabelMap):
        yield "labels", masks.file
    else:
        yield from ((name, path) for name, paths in masks.parts().items() for path in paths)


def _mask_images(masks: RegionFiles | LabelMap) -> Iterator[tuple[str, StoredImage]]:
    """The mask files of a study that hold an image, read one after the other, each with its region."""
    yield from ((name, read_image(path)) for name, path in _mask_files(masks) if region_file(path) is None)


def _without_affine(masks: RegionFiles | LabelMap, scan: Scan) -> Iterator[tuple[StoredImage, Mask]]:
    """The voxels of each region, as stored, of the files without an affine."""
    for _, image in _mask_images(masks):
        if without_affine(image, scan):
            groups = masks.labels.values() if isinstance(masks, LabelMap) else [None]
            values = image.values()
            yield from ((image, values > 0 if labels is None else np.isin(values, labels)) for labels in groups)
