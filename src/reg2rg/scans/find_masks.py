"""Where the masks of a scan are: one finder for patterns, folders, mappings and files of labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import reg2rg.scans.read  # noqa: F401 (registers the readers, whose suffixes count)
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import LabelMap, RegionFiles
from reg2rg.scans.archives import folder_files
from reg2rg.scans.base import READERS
from reg2rg.scans.class_names import label_of
from reg2rg.scans.dicom.files import is_dicom
from reg2rg.scans.dicom.frames import is_slice
from reg2rg.scans.dicom.region_file import region_file
from reg2rg.scans.label_names import by_name

log = logging.getLogger(__name__)

MaskSource = str | Path | Mapping[str, str | Path] | LabelMap | RegionFiles


def find_masks(masks: MaskSource, regions: RegionSet) -> RegionFiles | LabelMap:
    """Where the masks are.

    Args:
        masks: a pattern such as ``"masks/{region}.nii.gz"``; a folder with one file a region, or a class of
            TotalSegmentator; a mapping from region to file; one file of labels, such as TotalSegmentator's ``--ml``
            writes, or DICOM SEG or RTSTRUCT, as a path or as a `LabelMap`; `RegionFiles` are what they are.
        regions: which regions are looked for.

    Raises:
        ConfigError: nothing there, or files of no region of the set.
        DataFault: of DICOM: LABEL_NAMES, no segment is named as a region; CORRUPT.
    """
    if isinstance(masks, LabelMap | RegionFiles):
        return masks
    if isinstance(masks, Mapping):
        return RegionFiles({name: Path(path).expanduser() for name, path in masks.items()})
    path = Path(masks).expanduser()
    if "{region}" in str(masks):
        return _by_pattern(str(path), regions)
    if path.is_dir():
        return _in_folder(path, regions)
    if not path.is_file():
        raise ConfigError(
            f"masks {path}: not there (expected a folder, a file of labels, or a pattern as "
            '"masks/{region}.nii.gz"). Fix: the path'
        )
    labels = regions.from_totalsegmentator()
    if (drawn := region_file(path)) is not None:
        return LabelMap(path, by_name(drawn, labels, regions)[0])
    if not labels:
        raise ConfigError(
            f"masks {path}: one file of labels, but region set '{regions.name}' says no label for any of its regions. "
            "Fix: give a LabelMap with the file and region -> labels, or a file a region"
        )
    if without := regions.without_source():
        log.info("%s: TotalSegmentator has no labels for %s; they are left out", path, ", ".join(without))
    return LabelMap(path, labels)


def by_region(files: Mapping[str, Path], regions: RegionSet) -> tuple[RegionFiles, tuple[str, ...]]:
    """Mask files by what they are named after: a region in any of its spellings, or a class of TotalSegmentator.

    A region has the file of its own name; if there is none, or the name is that of a class (``heart``), all files of
    the classes that it is made of.

    Args:
        files: word -> file.
        regions: which regions are looked for.

    Returns:
        the files of each region that has some, in the set's order, and the words that mean neither.
    """
    labels = regions.from_totalsegmentator()
    own: dict[str, Path] = {}
    classes: dict[str, list[Path]] = {}
    unknown = []
    for word in sorted(files, key=lambda word: (word not in regions.names, word)):  # a region's own name comes first
        region = regions.canonical(word) if word in regions else None
        label = label_of(word)
        made_of = [name for name, numbers in labels.items() if label in numbers]
        if region is not None and region not in made_of:
            own.setdefault(region, files[word])
        elif not made_of and label is None:
            unknown.append(word)
        for name in made_of:
            classes.setdefault(name, []).append(files[word])
    found: dict[str, Path | tuple[Path, ...]] = {}
    for name in regions.names:
        if name in own:
            found[name] = own[name]
        elif parts := classes.get(name):
            found[name] = parts[0] if len(parts) == 1 else tuple(parts)
    return RegionFiles(found), tuple(unknown)


def matching(pattern: str | Path) -> dict[str, Path]:
    """Word -> file, of all files that stand at a pattern whose name has ``{region}`` for the word."""
    folder, name = Path(pattern).parent, Path(pattern).name
    before, _, after = name.partition("{region}")
    try:
        files = sorted(folder.iterdir())
    except (OSError, ValueError):
        return {}
    return {
        file.name[len(before) : len(file.name) - len(after)]: file
        for file in files
        if len(file.name) > len(before) + len(after) and file.name.startswith(before) and file.name.endswith(after)
    }


def images_in(folder: Path) -> dict[str, Path]:
    """Name without suffix -> file, of all files of a known kind in a folder; empty if there is no such folder.

    It may be a folder of an archive. Slices of DICOM are left out: their folder is the image.
    """
    files = folder_files(folder)
    images = [file for file in files if _suffix(file) and not file.name.startswith(".") and _is_whole(file)]
    found: dict[str, Path] = {}
    for file in images:
        found.setdefault(image_stem(file), file)
    return found


def image_stem(path: Path) -> str:
    """What stands for a scan's id: its file name without the suffix of an image, or the name of its folder."""
    if path.name.lower() == "dicomdir":
        path = path.parent
    if path.is_dir():
        return path.resolve().name
    return path.name[: -len(suffix)] if (suffix := _suffix(path)) else path.stem


def _is_whole(file: Path) -> bool:
    """Whether a file can be an image by itself: no slice of a DICOM series, no zip of something else."""
    if file.suffix.lower() == ".zip":
        return is_dicom(file)
    return file.suffix.lower() != ".dcm" or not is_slice(file)


def _suffix(path: Path) -> str:
    """The longest suffix of a known kind that the name has, ``""`` if none."""
    suffixes = (suffix for name in READERS for suffix in READERS.get(name).suffixes)
    return max((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), key=len, default="")


def _by_pattern(pattern: str, regions: RegionSet) -> RegionFiles:
    found, _ = by_region(matching(pattern), regions)
    if not found.files:
        raise ConfigError(
            f"masks {pattern}: no file for any region. Looked for: {', '.join(regions.names)}. Fix: the pattern, or "
            "give a mapping from region to file"
        )
    return found


def _in_folder(folder: Path, regions: RegionSet) -> RegionFiles:
    files = images_in(folder)
    found, unknown = by_region(files, regions)
    if not found.files:
        held = f"{', '.join(list(files)[:6])}{', ...' if len(files) > 6 else ''}" if files else "no image file"
        raise ConfigError(
            f"masks {folder}: holds {held}, which the model does not know as regions "
            f"(it knows {', '.join(regions.names)}). "
            'Fix: give a pattern as "folder/{region}.nii.gz", or a mapping from region to file'
        )
    if unknown:
        log.info("%s: files of no region are left out: %s", folder, ", ".join(unknown[:6]))
    return found
