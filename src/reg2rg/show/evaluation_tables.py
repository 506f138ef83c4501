"""Tables of an evaluation, each score beside its floors; the page shows the same ones that the terminal prints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reg2rg.core.progress import MISSING
from reg2rg.evaluation.results import REPORT, Confusion, Difference, Evaluation, Group, Number
from reg2rg.show.phrases import (
    MARK,
    best_floors,
    floor_values,
    format_interval,
    format_p,
    format_value,
    is_below,
    percent,
)

_HEADINGS: Mapping[Group, str] = {
    "language": "Language",
    "findings": "Findings",
    "regions": "Regions",
    "statistics": "Statistics",
}
_FLOOR_ROW = "  best floor"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: as printed.
        value: what the cell is sorted by, where it is a number.
        marked: a score that does not exceed its best floor.
        strong: the best floor of its row.
        soft: of less weight: a floor below its number.
    """

    text: str
    value: float | None = None
    marked: bool = False
    strong: bool = False
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: its heading.
        optional: may be left out where the table would not fit.
        prose: holds words, not numbers: to the left, and wrapped.
    """

    title: str
    optional: bool = False
    prose: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table of an evaluation.

    Attributes:
        key: short name: the anchor on the page.
        title: heading.
        columns: the first one names the rows.
        rows: group (a heading is printed where it changes) and cells.
        notes: what the numbers are, one sentence each.
        lengthy: holds texts, for the page only.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()
    lengthy: bool = False


def build_tables(evaluation: Evaluation) -> list[Table]:
    """All tables of an evaluation that have rows, in the order of reading."""
    tables = [
        _numbers(evaluation, "numbers", "Numbers of whole reports", ("language", "findings")),
        _by_region(evaluation, "by-region", "Language by region", ("language",)),
        _by_region(evaluation, "findings-by-region", "Findings by region", ("findings",)),
        _labels(evaluation),
        _numbers(evaluation, "recognition", "Region recognition", ("regions",)),
        _by_region(evaluation, "recognition-by-region", "Recognition by region", ("regions",)),
        _confusion(evaluation.confusion),
        _numbers(evaluation, "statistics", "Statistics", ("statistics",)),
        _by_region(evaluation, "statistics-by-region", "Statistics by region", ("statistics",)),
        _paragraphs(evaluation),
        _commonest(evaluation),
        _differences(evaluation),
        _differences_by_region(evaluation),
    ]
    return [table for table in tables if table is not None]


def _numbers(evaluation: Evaluation, key: str, title: str, groups: tuple[Group, ...]) -> Table | None:
    numbers = [number for number in evaluation.numbers if number.scope == REPORT and number.group in groups]
    if not numbers:
        return None
    values, best = floor_values(evaluation), best_floors(evaluation)
    floors = [floor for floor in evaluation.floors if any(floor in values.get(n.key, {}) for n in numbers)]
    spread = any(number.std is not None for number in numbers)
    # One count for all rows is said once, below the table.
    counts = len({number.n for number in numbers}) > 1
    has_interval = any(format_interval(number.low, number.high) for number in numbers)
    columns = [
        Column(""),
        Column("value [interval]" if has_interval else "value"),
        *([Column("std", optional=True)] if spread else []),
        *([Column("n", optional=True)] if counts else []),
        *(Column(floor) for floor in floors),
    ]
    rows = [
        (
            _HEADINGS[number.group] if len(groups) > 1 else "",
            (
                Cell(number.name),
                _value(number, best),
                *([Cell(format_value(number.std), number.std)] if spread else []),
                *([Cell(f"{number.n:,}", number.n)] if counts else []),
                *(_floor(number, floor, values.get(number.key, {}), best) for floor in floors),
            ),
        )
        for number in numbers
    ]
    notes = [] if counts else [f"n = {numbers[0].n:,}."]
    if has_interval:
        notes.append(f"[low, high]: {percent(evaluation.confidence)} bootstrap interval over patients.")
    if floors:
        notes.append("Floors, to the right, are reports written without a look at the scan.")
    if any(number.key in best for number in numbers):
        marked = any(cells[1].marked for _, cells in rows)
        judged = f"{MARK} marks a score that does not exceed it" if marked else "every score exceeds it"
        notes.append(f"The best floor of each score is bold; {judged}.")
    notes += _definitions(numbers)
    return Table(key, title, tuple(columns), tuple(rows), tuple(notes))


def _value(number: Number, best: Mapping[tuple[str, str, str], tuple[str, float]]) -> Cell:
    interval = format_interval(number.low, number.high)
    text = f"{_text_of(number, number.value)} {interval}".strip()
    return Cell(text, number.value, marked=is_below(number, best))


def _floor(
    number: Number,
    floor: str,
    values: Mapping[str, float],
    best: Mapping[tuple[str, str, str], tuple[str, float]],
) -> Cell:
    value = values.get(floor)
    # Floors that tie are all the best one.
    strong = value is not None and number.key in best and value == best[number.key][1]
    return Cell(_text_of(number, value), value, strong=strong)


def _text_of(number: Number, value: float | None) -> str:
    return f"{value:,.0f}" if number.count and value is not None else format_value(value)


def _by_region(evaluation: Evaluation, key: str, title: str, groups: tuple[Group, ...]) -> Table | None:
    numbers = [number for number in evaluation.numbers if number.scope != REPORT and number.group in groups]
    if not numbers:
        return None
    best = best_floors(evaluation)
    names = list(dict.fromkeys((number.group, number.name) for number in numbers))
    regions = list(dict.fromkeys(number.scope for number in numbers))
    found = {number.key: number for number in numbers}
    sizes = {region: {n.n for n in numbers if n.scope == region} for region in regions}
    rows = []
    for region in regions:
        least, most = min(sizes[region]), max(sizes[region])
        # Texts and labels may be known for different numbers of paragraphs.
        cells = [Cell(region), Cell(f"{least:,}" if least == most else f"{least:,} to {most:,}", most)]
        blind = [Cell(_FLOOR_ROW, soft=True), Cell("")]
        for group, name in names:
            number = found.get((group, region, name))
            floor = best.get(number.key) if number else None
            cells.append(
                Cell(_text_of(number, number.value), number.value, marked=is_below(number, best))
                if number
                else Cell(MISSING)
            )
            blind.append(Cell(format_value(floor[1]), floor[1], soft=True) if floor else Cell(""))
        rows.append(("", tuple(cells)))
        if any(cell.value is not None for cell in blind):
            rows.append(("", tuple(blind)))
    columns = [Column("region"), Column("n"), *(Column(name) for _, name in names)]
    marked = sum(cell.marked for _, cells in rows for cell in cells)
    notes = []
    if any(number.key in best for number in numbers):
        notes.append(
            f"{MARK} marks a score that does not exceed the best floor of its region."
            if marked
            else "Every score exceeds the best floor of its region."
        )
    # The same number of whole reports is defined in the table before this one.
    told = {(number.name, number.definition) for number in evaluation.numbers if number.scope == REPORT}
    fresh = [number for number in numbers if (number.name, number.definition) not in told]
    if len(fresh) < len(numbers):
        notes.append("Scored as for whole reports, on the paragraphs of one region.")
    return Table(key, title, tuple(columns), tuple(rows), (*notes, *_definitions(fresh)))


def _definitions(numbers: Iterable[Number]) -> list[str]:
    """One line for each distinct definition, after the names that share it."""
    first: dict[str, str] = {}
    for number in numbers:
        first.setdefault(number.name, number.definition)
    shared: dict[str, list[str]] = {}
    for name, definition in first.items():
        shared.setdefault(definition, []).append(name)
    return [f"{', '.join(names)}: {definition}" for definition, names in shared.items() if definition]


def _labels(evaluation: Evaluation) -> Table | None:
    if not evaluation.labels:
        return None
    has_floor = any(row.floor is not None for row in evaluation.labels)
    rows = [
        (
            "",
            (
                Cell(row.label),
                Cell(f"{row.support:,}", row.support),
                Cell(f"{row.predicted:,}", row.predicted),
                Cell(format_value(row.precision), row.precision),
                Cell(format_value(row.recall), row.recall),
                Cell(
                    f"{format_value(row.f1)} {format_interval(row.low, row.high)}".strip(),
                    row.f1,
                    marked=row.support > 0 and row.floor is not None and row.f1 <= row.floor + 1e-12,
                ),
                *([Cell(format_value(row.floor), row.floor, strong=True)] if has_floor else []),
            ),
        )
        for row in evaluation.labels
    ]
    has_interval = any(format_interval(row.low, row.high) for row in evaluation.labels)
    titles = ["finding", "support", "predicted", "precision", "recall", "F1 [interval]" if has_interval else "F1"]
    if has_floor:
        titles.append("best floor")
    notes = [
        *([evaluation.labeler] if evaluation.labeler else []),
        "Support: references with the finding. Predicted: predictions with it. Precision TP/(TP+FP), recall "
        "TP/(TP+FN), F1 2TP/(2TP+FP+FN); 0 where the denominator is 0.",
        *([f"Best floor: the highest F1 of a floor; {MARK} marks an F1 that does not exceed it."] if has_floor else []),
    ]
    return Table("labels", "Findings by label", tuple(Column(title) for title in titles), tuple(rows), tuple(notes))


def _confusion(confusion: Confusion | None) -> Table | None:
    if confusion is None or not confusion.rows:
        return None
    rows = []
    for region, counts in zip(confusion.rows, confusion.counts, strict=True):
        total = sum(counts)
        named = dict(zip(confusion.columns, counts, strict=True))
        right = named.pop(region, 0)
        wrong = sorted(((count, name) for name, count in named.items() if count), key=lambda pair: -pair[0])
        instead = ", ".join(f"{name} {count:,}" for count, name in wrong[:3]) + (", …" if len(wrong) > 3 else "")
        share = right / total if total else math.nan
        cells = (
            Cell(region),
            Cell(f"{total:,}", total),
            Cell(f"{right:,}", right),
            Cell(format_value(share), share),
            Cell(instead or MISSING),
        )
        rows.append(("", cells))
    columns = (
        Column("region"),
        Column("stands"),
        Column("named"),
        Column("share"),
        Column("named instead", prose=True),
    )
    note = (
        "Stands: slots that hold the region. Named: those where the text names it. Named instead: the three commonest."
    )
    return Table("confusion", "Regions that the text names", columns, tuple(rows), (note,))


def _paragraphs(evaluation: Evaluation) -> Table | None:
    if not evaluation.regions:
        return None
    rows = []
    # Without a labeler no paragraph is known to be abnormal.
    labelled = any(math.isfinite(f.abnormal_references + f.abnormal_predictions) for f in evaluation.regions)
    for found in evaluation.regions:
        pairs = [
            (found.distinct_references, found.distinct_predictions),
            (found.commonest_reference_share, found.commonest_share),
            *([(found.abnormal_references, found.abnormal_predictions)] if labelled else []),
        ]
        cells = (
            Cell(found.region),
            Cell(f"{found.references:,} / {found.predictions:,}"),
            *(Cell(f"{format_value(reference)} / {format_value(predicted)}") for reference, predicted in pairs),
        )
        rows.append(("", cells))
    titles = ("region", "paragraphs", "distinct", "commonest text", *(["abnormal"] if labelled else []))
    notes = (
        "References / predictions. Distinct: share of different texts among the paragraphs. Commonest text: share of "
        f"the paragraphs that are the one commonest text.{' Abnormal: share with any finding.' if labelled else ''}",
    )
    return Table("paragraphs", "Paragraphs by region", tuple(Column(t) for t in titles), tuple(rows), notes)


def _commonest(evaluation: Evaluation) -> Table | None:
    if not evaluation.regions:
        return None
    rows = tuple(
        ("", (Cell(f.region), Cell(format_value(f.commonest_share), f.commonest_share), Cell(f.commonest or MISSING)))
        for f in evaluation.regions
    )
    columns = (Column("region"), Column("share"), Column("text", prose=True))
    note = "The text that is predicted most often for each region, and its share of the predicted paragraphs."
    return Table("commonest", "Commonest paragraphs", columns, rows, (note,), lengthy=True)


def _differences(evaluation: Evaluation) -> Table | None:
    whole = [found for found in evaluation.differences if found.number.scope == REPORT]
    return _difference_table(evaluation, "differences", "Differences", whole, False)


def _differences_by_region(evaluation: Evaluation) -> Table | None:
    # Scores of one region stand together, whichever group they belong to.
    by_region: dict[str, list[Difference]] = {}
    for found in evaluation.differences:
        if found.number.scope != REPORT:
            by_region.setdefault(found.number.scope, []).append(found)
    rows = [found for of_region in by_region.values() for found in of_region]
    # Ten regions with ten scores each are no reading for a terminal, which has those of whole reports.
    lengthy = len(rows) < len(evaluation.differences)
    return _difference_table(evaluation, "differences-by-region", "Differences by region", rows, lengthy)


def _difference_table(
    evaluation: Evaluation, key: str, title: str, differences: Sequence[Difference], lengthy: bool
) -> Table | None:
    if not differences:
        return None
    rows = []
    for found in differences:
        number = found.number
        difference = number.value - found.other
        text = f"{_signed(difference)} {format_interval(found.low, found.high)}".strip()
        cells = (
            Cell(number.name),
            Cell(format_value(number.value), number.value),
            Cell(format_value(found.other), found.other),
            Cell(text, difference),
            Cell(format_p(found.p), found.p),
        )
        rows.append(("" if number.scope == REPORT else number.scope, cells))
    titles = ("", "this file", "the other", "difference [interval]", "p")
    note = (
        f"This file minus {evaluation.against or 'the other'}, on the same studies. Intervals and two-sided p are "
        "from a paired bootstrap over patients; p is not corrected for the number of rows."
    )
    if evaluation.against:
        title = f"{title}, to {evaluation.against}"
    return Table(key, title, tuple(Column(t) for t in titles), tuple(rows), (note,), lengthy)


def _signed(value: float) -> str:
    return f"+{format_value(value)}" if value > 0 else format_value(value)
