"""Where the masks of a scan are: one finder for patterns, folders, mappings and files of labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import reg2rg.scans.read  # noqa: F401 (registers the readers, whose suffixes count)
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import LabelMap, RegionFiles
from reg2rg.scans.base import READERS

log = logging.getLogger(__name__)

MaskSource = str | Path | Mapping[str, str | Path] | LabelMap


def find_masks(masks: MaskSource, regions: RegionSet) -> RegionFiles | LabelMap:
    """Where the masks are.

    Args:
        masks: a pattern such as ``"masks/{region}.nii.gz"``; a folder with one file a region; a mapping from region to
            file; one file of labels, such as TotalSegmentator's ``--ml`` writes, as a path or as a `LabelMap`.
        regions: which regions are looked for.

    Raises:
        ConfigError: nothing there, or files of no region of the set.
    """
    if isinstance(masks, LabelMap):
        return masks
    if isinstance(masks, Mapping):
        return RegionFiles({name: Path(path).expanduser() for name, path in masks.items()})
    path = Path(masks).expanduser()
    if "{region}" in str(masks):
        return RegionFiles(_by_pattern(str(path), regions))
    if path.is_dir():
        return RegionFiles(_in_folder(path, regions))
    if not path.is_file():
        raise ConfigError(
            f"masks {path}: not there (expected a folder, a file of labels, or a pattern as "
            '"masks/{region}.nii.gz"). Fix: the path'
        )
    labels = regions.from_totalsegmentator()
    if not labels:
        raise ConfigError(
            f"masks {path}: one file of labels, but region set '{regions.name}' says no label for any of its regions. "
            "Fix: give a LabelMap with the file and region -> labels, or a file a region"
        )
    if without := regions.without_source():
        log.info("%s: TotalSegmentator has no labels for %s; they are left out", path, ", ".join(without))
    return LabelMap(path, labels)


def first_there(path_of: Callable[[str], Path], regions: RegionSet, aliases: bool) -> dict[str, Path]:
    """Region -> its file, for the regions that have one.

    Args:
        path_of: name of a region -> where its file would be.
        regions: in this order.
        aliases: look under the regions' other spellings too.
    """
    found: dict[str, Path] = {}
    for region in regions:
        words = (region.name, *region.aliases) if aliases else (region.name,)
        if there := next((path for path in map(path_of, words) if path.is_file()), None):
            found[region.name] = there
    return found


def images_in(folder: Path) -> dict[str, Path]:
    """Name without suffix -> file, of all files of a known kind in a folder; empty if there is no such folder."""
    try:
        files = sorted(folder.iterdir())
    except OSError:
        return {}
    images = [file for file in files if _suffix(file) and not file.name.startswith(".")]
    found: dict[str, Path] = {}
    for file in images:
        found.setdefault(image_stem(file), file)
    return found


def image_stem(path: Path) -> str:
    """File name without the suffix of an image: what stands for a scan's id."""
    return path.name[: -len(suffix)] if (suffix := _suffix(path)) else path.stem


def _suffix(path: Path) -> str:
    """The longest suffix of a known kind that the name has, ``""`` if none."""
    suffixes = (suffix for name in READERS for suffix in READERS.get(name).suffixes)
    return max((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), key=len, default="")


def _by_pattern(pattern: str, regions: RegionSet) -> dict[str, Path]:
    found = first_there(lambda word: Path(pattern.replace("{region}", word)), regions, aliases=True)
    if not found:
        raise ConfigError(
            f"masks {pattern}: no file for any region. Looked for: {', '.join(regions.names)}. Fix: the pattern, or "
            "give a mapping from region to file"
        )
    return found


def _in_folder(folder: Path, regions: RegionSet) -> dict[str, Path]:
    files = images_in(folder)
    unknown = sorted(name for name in files if name not in regions)
    if unknown or not files:
        held = f"{', '.join(unknown[:6])}{', ...' if len(unknown) > 6 else ''}" if unknown else "no image file"
        raise ConfigError(
            f"masks {folder}: holds {held}, which the model does not know as regions "
            f"(it knows {', '.join(regions.names)}). "
            'Fix: give a pattern as "folder/{region}.nii.gz", or a mapping from region to file'
        )
    return files
