"""Texts by region from a table of their own, for data sets whose reports come as one text.

Three forms are told by the columns:

- long, a row a region (RadGenome-ChestCT): id, ``Anatomy`` or ``region``, ``Sentence`` or ``text``;
- wide, a row a study (what ``reg2rg data split`` writes): id, ``report:<region>``, ``other``;
- published results of Reg2RG: ``AccNum`` and ``GT_whole_report``, a text with region prefixes and a tail.

What belongs to no region stands under the region ``other``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reg2rg.core.errors import DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.report import OTHER, split_report, split_tail
from reg2rg.core.text import TextGate
from reg2rg.datasets.base import Notes, Skip
from reg2rg.datasets.columns import any_rows
from reg2rg.datasets.names import study_id
from reg2rg.datasets.tables import Row, clean, is_empty

IDS = ("id", "AccNum", "Volumename", "VolumeName", "study")
REGIONS = ("Anatomy", "region")
TEXTS = ("Sentence", "text")
PUBLISHED = ("GT_whole_report", "GT_combined_report")
_WIDE = "report:"


@dataclass(slots=True)
class RegionTexts:
    """What a table says of one study.

    Attributes:
        regions: region -> text.
        other: text of no region.
        conflict: two different texts of one region, in words; ``""`` if there are none.
    """

    regions: dict[str, str] = field(default_factory=dict)
    other: str = ""
    conflict: str = ""


class RegionTable:
    """A table of texts by region, read once.

    Args:
        path: the table.
        regions: the region set.
        encoding: of its bytes.
        notes: gets what is counted.
        skipped: gets rows whose id cannot be one.

    Attributes:
        published: it has the published results' form, and so their studies.

    Raises:
        DataFault: the table cannot be read, or has none of the three forms.
    """

    def __init__(self, path: Path, regions: RegionSet, encoding: str, notes: Notes, skipped: list[Skip]) -> None:
        self.path, self.regions, self.notes, self.skipped = path, regions, notes, skipped
        self.texts: dict[str, RegionTexts] = {}
        self.published = False
        gate = TextGate()
        for row in any_rows(path, (), encoding, gate):
            self._read(row)
        for told in gate.told(path.name):
            notes.add("TEXT_CLEANED", told)

    def of(self, study: str) -> RegionTexts:
        """The texts of a study; none if the table does not list it.

        Raises:
            DataFault: DUPLICATE_ROWS.
        """
        found = self.texts.get(study, RegionTexts())
        if found.conflict:
            raise DataFault.of(
                "DUPLICATE_ROWS",
                study=study,
                path=self.path,
                found=found.conflict,
                expected="one text a region",
                fix="keep one of the rows",
            )
        return found

    def _read(self, row: Row) -> None:
        name = _needed(self.path, row.values, IDS)
        where = f"{self.path.name} line {row.line}"
        try:
            study = study_id(row.values[name])
        except DataFault as fault:
            self.skipped.append(Skip(where, fault.code, str(fault)))
            return
        texts = self.texts.setdefault(study, RegionTexts())
        for region, text in self._cells(row.values):
            self._add(texts, region, clean(text), f"{where}: {study}")

    def _cells(self, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Region and text of each cell of a row."""
        published = next((name for name in PUBLISHED if name in values), None)
        if published is not None:
            self.published = True
            main, others = split_tail(values[published])
            yield from ((part.name, part.text) for part in split_report(main) if part.slot is not None)
            yield from ((entry.key, entry.text) for entry in others)
        elif any(name.startswith(_WIDE) for name in values):
            yield from ((name[len(_WIDE) :], text) for name, text in values.items() if name.startswith(_WIDE))
            yield OTHER, values.get(OTHER, "")
        else:
            yield values[_needed(self.path, values, REGIONS)], values[_needed(self.path, values, TEXTS)]

    def _add(self, texts: RegionTexts, name: str, text: str, where: str) -> None:
        if name.strip().lower() == OTHER:
            texts.other = texts.other or ("" if is_empty(text) else text)
            return
        region = self.regions.find(name)
        if is_empty(name):  # the whole report, in RadGenome's table
            return
        if region is None:
            self.notes.add("HIERARCHY_ROW" if "/" in name else "UNKNOWN_REGION", f"{where} {name}")
        elif is_empty(text):
            self.notes.add("EMPTY_SENTENCE", f"{where} {region}")
        elif texts.regions.setdefault(region, text) != text:
            texts.conflict = texts.conflict or f"two texts that differ for {region!r}, the second in {where}"


def _needed(path: Path, values: Mapping[str, str], names: Sequence[str]) -> str:
    found = next((name for name in names if name in values), None)
    if found is not None:
        return found
    raise DataFault.of(
        "TABLE_COLUMNS",
        path=path,
        found=f"none of {', '.join(names)}; the header has: {', '.join(values)}",
        expected=f"an id ({', '.join(IDS)}), and {'/'.join(REGIONS)} with {'/'.join(TEXTS)}, or {_WIDE}<region>, or "
        f"{PUBLISHED[0]}",
        fix="rename the columns in the header",
    )
