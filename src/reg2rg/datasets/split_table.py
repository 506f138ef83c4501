"""A table with one report column -> the same table with a column a region, row by row: nothing is held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.text import TextGate
from reg2rg.datasets.manifest import Manifest
from reg2rg.datasets.splitters.base import OTHER, Placement, Sentence, Splitter, by_region, checked
from reg2rg.datasets.splitters.sentences import sentences
from reg2rg.datasets.tables import is_empty


@dataclass(frozen=True, slots=True)
class SplitRow:
    """A row of the table.

    Attributes:
        study: its id, as it stands there.
        values: column -> text, without those that are made here.
        sentences: of its report, with their regions; none where it has no report, or already has text by region.
        texts: column ``report:<region>`` or ``other`` -> text.
        fault: why its report could not be split.
    """

    study: str
    values: Mapping[str, str]
    sentences: tuple[Sentence, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    fault: DataFault | None = None


def region_columns(manifest: Manifest) -> tuple[str, ...]:
    """The columns that are made: one a region of the set, then `OTHER`."""
    return (*(f"report:{name}" for name in manifest.regions.names), OTHER)


def whole_reports(manifest: Manifest) -> Iterator[tuple[str, list[str]]]:
    """Id and sentences of every report that has no text by region.

    Raises:
        DataFault: the table cannot be read, or has no column of reports.
    """
    for study, _, report in _rows(manifest):
        if report:
            yield study, sentences(report)


def split_rows(
    manifest: Manifest,
    splitter: Splitter,
    known: Mapping[tuple[str, ...], Sequence[Placement]] | None = None,
    answered: Callable[[str, Sequence[str], Sequence[Placement]], None] | None = None,
) -> Iterator[SplitRow]:
    """Every row of the manifest's table with its report split.

    Args:
        manifest: whose table and region set; no file that the table names is looked for.
        splitter: places the sentences.
        known: sentences of reports that were placed before.
        answered: told of every report that was placed now: id, sentences, places.

    Raises:
        DataFault: the table cannot be read, or has no column of reports. One report that cannot be placed is told in
            its row.
        ConfigError: nothing can be placed, such as without a vocabulary for the region set.
    """
    for study, values, report in _rows(manifest):
        told = sentences(report)
        places = (known or {}).get(tuple(told))
        if not told:
            yield SplitRow(study, values)
            continue
        try:
            if places is None:
                places = splitter.place(told, manifest.regions)
                if answered is not None:
                    answered(study, told, checked(places, told, manifest.regions, splitter))
            places = checked(places, told, manifest.regions, splitter)
        except DataFault as fault:
            yield SplitRow(study, values, fault=fault.for_study(study))
            continue
        placed = tuple(
            Sentence(sentence, place.regions, place.reason) for sentence, place in zip(told, places, strict=True)
        )
        named = by_region(placed, manifest.regions).items()
        texts = {name if name == OTHER else f"report:{name}": text for name, text in named}
        yield SplitRow(study, values, placed, texts)


def _rows(manifest: Manifest) -> Iterator[tuple[str, dict[str, str], str]]:
    """Id, cells and report of every row; the report is empty where there is text by region already."""
    made, report = set(region_columns(manifest)), manifest.column("report")
    for row in manifest.rows(TextGate(), ("id", "report")):
        values = dict(row.values)
        split = any(not is_empty(values.get(name, "")) for name in made - {OTHER})
        whole = "" if split or is_empty(values[report]) else values[report]
        yield values[manifest.column("id")].strip(), values, whole


def manifest_of(dataset: object) -> Manifest:
    """The dataset, if it has a table of one's own.

    Raises:
        ConfigError: another one, whose layout has texts by region.
    """
    if isinstance(dataset, Manifest):
        return dataset
    raise ConfigError(
        f"config: data.dataset is a {type(dataset).__name__}: only the table of a Manifest is split. Fix: name the "
        "table on the command line, with --id-column and --report-column where they have other names"
    )
