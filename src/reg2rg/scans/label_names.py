"""Names of labels that stand in a file: they win over numbers, or contradict them loudly."""

from __future__ import annotations

from collections.abc import Mapping

from reg2rg.core.errors import DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.scans.base import StoredImage
from reg2rg.scans.class_names import VERSION_1, label_of
from reg2rg.scans.dicom.region_file import RegionFile

Labels = Mapping[str, tuple[int, ...]]
Named = StoredImage | RegionFile
_LISTED = 6


def version_1(regions: RegionSet) -> dict[str, tuple[int, ...]]:
    """Region name -> labels of TotalSegmentator's version 1, for the regions that have some."""
    found = {}
    for name, labels in regions.from_totalsegmentator().items():
        if numbers := tuple(number for word, number in VERSION_1.items() if label_of(word) in labels):
            found[name] = numbers
    return found


def by_name(image: Named, wanted: Labels, regions: RegionSet) -> tuple[Labels, list[str]]:
    """The labels of each region by the names in the file, if there are any, and notes.

    Numbers that are TotalSegmentator's own (of version 2) are only a guess: names take their place. Numbers that
    somebody gave must agree with the names that the region set knows.

    Args:
        image: a label map, or another file with names.
        wanted: region -> its labels.
        regions: says what names mean, by its spellings and by the classes behind its labels.

    Raises:
        DataFault: LABEL_NAMES.
    """
    names = {number: name for number, name in image.names.items() if number}
    if not names:
        return wanted, []
    meant = {number: _regions_of(name, regions) for number, name in names.items()}
    if dict(wanted) != regions.from_totalsegmentator():
        for region, labels in wanted.items():
            for label in labels:
                if meant.get(label) and region not in meant[label]:
                    raise _contradiction(image, region, label, names[label])
        return wanted, []
    named = {
        region: numbers
        for region in regions.names
        if (numbers := tuple(number for number, found in meant.items() if region in found))
    }
    if not named:
        raise DataFault.of(
            "LABEL_NAMES",
            found=f"labels named {_list(list(names.values()))}",
            expected=f"names of regions of the set '{regions.name}', or of TotalSegmentator's classes",
            fix="say which labels make up which region (label_map), or add the names as aliases to the region set",
            path=image.path,
        )
    moved = [region for region in named if not set(named[region]) <= set(wanted.get(region, ()))]
    return named, [f"labels: read by the names in the file, other numbers for {_list(moved)}"] if moved else []


def _regions_of(name: str, regions: RegionSet) -> set[str]:
    if name in regions:
        return {regions.canonical(name)}
    label = label_of(name)
    return {region for region, labels in regions.from_totalsegmentator().items() if label in labels}


def _contradiction(image: Named, region: str, label: int, name: str) -> DataFault:
    return DataFault.of(
        "LABEL_NAMES",
        found=f"label {label}, which label_map gives to '{region}', is named '{name}' in the file",
        expected="numbers and names that agree",
        fix="correct label_map; label_map: totalsegmentator goes by the names",
        path=image.path,
    )


def _list(words: list[str]) -> str:
    more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return ", ".join(words[:_LISTED]) + more
