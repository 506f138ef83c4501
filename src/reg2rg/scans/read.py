"""From paths to a scan with its regions: the one place that opens files and says what happens to them, in order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import reg2rg.scans.nifti
import reg2rg.scans.nrrd  # noqa: F401 (both register their readers)
from reg2rg.core.errors import DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.registry import load_plugins
from reg2rg.core.types import LabelMap, Mask, RegionFiles, RegionVolume, Study, Volume
from reg2rg.scans.base import READERS, Reader, ReadOptions, Scan, StoredImage
from reg2rg.scans.hounsfield import to_hounsfield
from reg2rg.scans.inflate import refuse
from reg2rg.scans.masks import canonical, mask_of, masks_of_labels
from reg2rg.scans.plausibility import judge


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
            IDENTITY_AFFINE, MASK_SHAPE, UNKNOWN_REGION, MASK_IMPLAUSIBLE, NO_REGION.
    """
    options = options or ReadOptions()
    try:
        scan = read_scan(study.image, options)
        found, notes = _read_masks(study.masks, scan, regions, options)
        notes += _judged(found, study, scan, regions, options)
    except DataFault as fault:
        raise fault.for_study(study.id) from fault.__cause__
    if needs_regions and not found:
        raise no_region(study, regions)
    masks = {name: found[name] for name in regions.names if name in found}
    return RegionVolume(scan.volume, masks, (*scan.notes, *notes), scan.stored)


def read_volume(path: str | Path, options: ReadOptions | None = None) -> tuple[Volume, tuple[str, ...]]:
    """A CT as int16 HU in RAS, and notes on what was repaired; see `read_scan`."""
    scan = read_scan(path, options or ReadOptions())
    return scan.volume, scan.notes


def read_scan(path: str | Path, options: ReadOptions) -> Scan:
    """Read a CT as int16 HU, clipped to [-1024, 3071], in RAS, keeping its stored grid.

    Raises:
        DataFault: what `read_image` and `reg2rg.scans.hounsfield.to_hounsfield` raise.
    """
    return to_hounsfield(read_image(path), options)


def read_image(path: str | Path) -> StoredImage:
    """Read a file of any known kind to its last byte.

    Raises:
        DataFault: MISSING_FILE, UNREADABLE, EMPTY_FILE, NOT_NIFTI (of no known kind), or what its reader raises.
    """
    path = Path(path)
    reader = reader_of(path)
    if reader is None:
        refuse(path)
    return reader.read(path)


def reader_of(path: Path) -> Reader | None:
    """The reader whose content `path` has; if none knows it, the one whose name it bears, to say what is wrong.

    Plug-ins are imported for a path that no reader of this process knows, for that may take seconds.
    """
    found = _reader_of(path)
    if found is None and path.exists():
        load_plugins()
        found = _reader_of(path)
    return found


def _reader_of(path: Path) -> Reader | None:
    readers = [READERS.get(name)() for name in READERS]
    named = [reader for reader in readers if path.name.lower().endswith(reader.suffixes)]
    return next((reader for reader in (*named, *readers) if reader.matches(path)), named[0] if named else None)


def files_of(path: Path) -> tuple[Path, ...]:
    """All files that the image at `path` is made of."""
    reader = reader_of(path)
    return (path,) if reader is None else reader.files(path)


def no_region(study: Study, regions: RegionSet) -> DataFault:
    """The fault of a study without regions where some are needed."""
    return DataFault.of(
        "NO_REGION",
        found="no mask" if study.masks is None else "no region with a voxel in it",
        expected=f"a mask for at least one of {', '.join(regions.names)}",
        fix="look at the masks, or leave the study out; reports without regions need none (task.target whole)",
        path=study.image,
        study=study.id,
    )


def _judged(
    found: Mapping[str, Mask], study: Study, scan: Scan, regions: RegionSet, options: ReadOptions
) -> tuple[str, ...]:
    """A note on masks that look implausible, as far as they are no error."""
    if study.masks is None or options.implausible == "ignore":
        return ()
    verdict = judge(scan.volume, found, regions)
    if verdict is None:
        return ()
    if verdict.strength == "strong" and options.implausible == "error":
        files = [study.masks.file] if isinstance(study.masks, LabelMap) else [*study.masks.files.values()]
        raise verdict.fault(files[0] if len(files) == 1 else files[0].parent)
    return (verdict.note(),)


def _read_masks(
    masks: RegionFiles | LabelMap | None, scan: Scan, regions: RegionSet, options: ReadOptions
) -> tuple[Mapping[str, Mask], list[str]]:
    if masks is None:
        return {}, []
    masks = canonical(masks, regions)
    if isinstance(masks, LabelMap):
        return masks_of_labels(read_image(masks.file), masks.labels, scan, options)
    found: dict[str, Mask] = {}
    notes: list[str] = []
    for name, path in masks.files.items():
        mask, said = mask_of(read_image(path), name, scan, options)
        notes += said
        if mask is not None:
            found[name] = mask
    return found, notes
