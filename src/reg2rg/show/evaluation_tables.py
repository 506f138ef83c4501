"""Tables of an evaluation, each score beside its floors; the page shows the same ones that the terminal prints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from reg2rg.core.progress import MISSING
from reg2rg.evaluation.results import REPORT, Confusion, Difference, Evaluation, Group, Number
from reg2rg.show.phrases import best_floors, floor_values, format_interval, format_p, is_below, percent
from reg2rg.show.table import MARK, Cell, Column, Row, Table, cell, format_value, make_row, make_table

_HEADINGS: Mapping[Group, str] = {
    "language": "Language", "findings": "Findings", "regions": "Regions", "statistics": "Statistics"
}  # fmt: skip
_FLOOR_ROW, _PROSE = "  best floor", 60
COMPARED = ("difference [interval]", "p")
UNAVAILABLE = "not available"
"""Where what makes a number does not cover the script of the texts."""
_Best = Mapping[tuple[str, str, str], tuple[str, float]]


def build_tables(evaluation: Evaluation) -> list[Table]:
    """All tables of an evaluation that have rows, in the order of reading."""
    tables = [
        _numbers(evaluation, "numbers", "Numbers of whole reports", ("language", "findings")),
        _by_region(evaluation, "by-region", "Language by region", "language"),
        _by_region(evaluation, "findings-by-region", "Findings by region", "findings"),
        _labels(evaluation),
        _numbers(evaluation, "recognition", "Region recognition", ("regions",)),
        _by_region(evaluation, "recognition-by-region", "Recognition by region", "regions"),
        _confusion(evaluation.confusion),
        _numbers(evaluation, "statistics", "Statistics", ("statistics",)),
        _by_region(evaluation, "statistics-by-region", "Statistics by region", "statistics"),
        _paragraphs(evaluation),
        _commonest(evaluation),
        *_differences(evaluation),
    ]
    return [table for table in tables if table is not None and table.rows]


def studies_table(evaluation: Evaluation, most: int) -> Table:
    """The first `most` rows of the table of studies."""
    frame, heads = evaluation.per_study.head(max(most, 0)), []
    for name, column in evaluation.per_study.items():
        lengths = [len(value) for value in column if isinstance(value, str)]
        heads.append(Column(str(name), "prose" if max(lengths, default=0) > _PROSE else "words" if lengths else ""))
    whole = len(evaluation.per_study)
    shown = f"The first {len(frame)} of {whole:,} studies; all are in per_study.csv."
    notes = [shown if len(frame) < whole else f"All {whole} studies.", "A click on a heading sorts by it."]
    return make_table("studies", "Studies", heads, frame.itertuples(index=False, name=None), notes)


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
    # Spread and counts come last: what a narrow terminal continues below is not the floors.
    heads = ["", "value [interval]" if has_interval else "value", *floors, *["std"] * spread, *["n"] * counts]
    rows = [
        make_row(
            (
                number.name,
                _score(number, best),
                *(_floor(number, values.get(number.key, {}).get(floor), best) for floor in floors),
                *[number.std] * spread,
                *[number.n] * counts,
            ),
            _HEADINGS[number.group] if len(groups) > 1 else "",
        )
        for number in numbers
    ]
    notes = [] if counts else [f"n = {numbers[0].n:,}."]
    if has_interval:
        notes.append(f"[low, high]: {percent(evaluation.confidence)} bootstrap interval over patients.")
    if floors:
        notes.append("Floors, to the right, are reports written without a look at the scan.")
    if any(number.key in best for number in numbers):
        marked = any(row.cells[1].style == "marked" for row in rows)
        judged = f"{MARK} marks a score that does not exceed it" if marked else "every score exceeds it"
        notes.append(f"The best floor of each score is bold; {judged}.")
    return make_table(key, title, heads, rows, [*notes, *_definitions(numbers)])


def _score(number: Number, best: _Best) -> Cell:
    if not number.available:
        return Cell(UNAVAILABLE)
    interval = format_interval(number.low, number.high)
    return cell(_whole(number, number.value), "marked" if is_below(number, best) else "", interval)


def _alone(number: Number, best: _Best) -> Cell:
    if not number.available:
        return Cell(UNAVAILABLE)
    return cell(_whole(number, number.value), "marked" if is_below(number, best) else "")


def _floor(number: Number, value: float | None, best: _Best) -> Cell:
    if not number.available:
        return Cell(UNAVAILABLE)
    # Floors that tie are all the best one.
    is_best = value is not None and number.key in best and value == best[number.key][1]
    return cell(_whole(number, value), "strong" if is_best else "")


def _whole(number: Number, value: float | None) -> float | None:
    return round(value) if number.count and value is not None and math.isfinite(value) else value


def _by_region(evaluation: Evaluation, key: str, title: str, group: Group) -> Table:
    numbers = [number for number in evaluation.numbers if number.scope != REPORT and number.group == group]
    best, found = best_floors(evaluation), {(number.scope, number.name): number for number in numbers}
    names = list(dict.fromkeys(number.name for number in numbers))
    rows = []
    for region in dict.fromkeys(number.scope for number in numbers):
        own = [found.get((region, name)) for name in names]
        sizes = sorted({number.n for number in own if number})
        # Texts and labels may be known for different numbers of paragraphs.
        count = cell(sizes[0]) if len(sizes) == 1 else Cell(f"{sizes[0]:,} to {sizes[-1]:,}", sizes[-1])
        scores = [_alone(n, best) if n else MISSING for n in own]
        floors = [best[n.key][1] if n and n.key in best else "" for n in own]
        rows.append(make_row([region, count, *scores]))
        if any(floor != "" for floor in floors):
            rows.append(make_row([_FLOOR_ROW, "", *floors], style="soft"))
    notes = []
    if any(number.key in best for number in numbers):
        notes.append(
            f"{MARK} marks a score that does not exceed the best floor of its region."
            if any(cell.style == "marked" for row in rows for cell in row.cells)
            else "Every score exceeds the best floor of its region."
        )
    # The same number of whole reports is defined in the table before this one.
    told = {(number.name, number.definition) for number in evaluation.numbers if number.scope == REPORT}
    fresh = [number for number in numbers if (number.name, number.definition) not in told]
    if len(fresh) < len(numbers):
        notes.append("Scored as for whole reports, on the paragraphs of one region.")
    return make_table(key, title, ["region", "n", *names], rows, [*notes, *_definitions(fresh)])


def _definitions(numbers: Iterable[Number]) -> list[str]:
    """One line for each distinct definition, after the names that share it."""
    first: dict[str, str] = {}
    for number in numbers:
        first.setdefault(number.name, number.definition)
    shared: dict[str, list[str]] = {}
    for name, definition in first.items():
        shared.setdefault(definition, []).append(name)
    return [f"{', '.join(names)}: {definition}" for definition, names in shared.items() if definition]


def _labels(evaluation: Evaluation) -> Table:
    has_floor = any(row.floor is not None for row in evaluation.labels)
    rows = []
    for row in evaluation.labels:
        below = row.support > 0 and row.floor is not None and row.f1 <= row.floor + 1e-12
        f1 = cell(row.f1, "marked" if below else "", format_interval(row.low, row.high))
        floor = [cell(row.floor, "strong")] if has_floor else []
        rows.append((row.label, row.support, row.predicted, row.precision, row.recall, f1, *floor))
    has_interval = any(format_interval(row.low, row.high) for row in evaluation.labels)
    heads = ["finding", "support", "predicted", "precision", "recall", "F1 [interval]" if has_interval else "F1"]
    notes = [
        *([evaluation.labeler] if evaluation.labeler else []),
        "Support: references with the finding. Predicted: predictions with it. Precision TP/(TP+FP), recall "
        "TP/(TP+FN), F1 2TP/(2TP+FP+FN); 0 where the denominator is 0.",
        *([f"Best floor: the highest F1 of a floor; {MARK} marks an F1 that does not exceed it."] if has_floor else []),
    ]
    return make_table("labels", "Findings by label", [*heads, *["best floor"] * has_floor], rows, notes)


def _confusion(confusion: Confusion | None) -> Table | None:
    if confusion is None:
        return None
    rows = []
    for region, counts in zip(confusion.rows, confusion.counts, strict=True):
        total = sum(counts)
        named = dict(zip(confusion.columns, counts, strict=True))
        right = named.pop(region, 0)
        wrong = sorted(((count, name) for name, count in named.items() if count), key=lambda pair: -pair[0])
        instead = ", ".join(f"{name} {count:,}" for count, name in wrong[:3]) + (", …" if len(wrong) > 3 else "")
        rows.append((region, total, right, right / total if total else None, instead or MISSING))
    heads = ("region", "stands", "named", "share", Column("named instead", "prose"))
    note = (
        "Stands: slots that hold the region. Named: those where the text names it. Named instead: the three commonest."
    )
    return make_table("confusion", "Regions that the text names", heads, rows, [note])


def _paragraphs(evaluation: Evaluation) -> Table:
    # Without a labeler no paragraph is known to be abnormal.
    labelled = any(math.isfinite(f.abnormal_references + f.abnormal_predictions) for f in evaluation.regions)
    rows = []
    for found in evaluation.regions:
        pairs = [
            (found.distinct_references, found.distinct_predictions),
            (found.commonest_reference_share, found.commonest_share),
            *([(found.abnormal_references, found.abnormal_predictions)] if labelled else []),
        ]
        shares = [f"{format_value(reference)} / {format_value(predicted)}" for reference, predicted in pairs]
        rows.append((found.region, f"{found.references:,} / {found.predictions:,}", *shares))
    heads = ["region", "paragraphs", "distinct", "commonest text", *["abnormal"] * labelled]
    note = (
        "References / predictions. Distinct: share of different texts among the paragraphs. Commonest text: share of "
        f"the paragraphs that are the one commonest text.{' Abnormal: share with any finding.' if labelled else ''}"
    )
    return make_table("paragraphs", "Paragraphs by region", heads, rows, [note])


def _commonest(evaluation: Evaluation) -> Table:
    rows = [(found.region, found.commonest_share, found.commonest or MISSING) for found in evaluation.regions]
    note = "The text that is predicted most often for each region, and its share of the predicted paragraphs."
    heads = ("region", "share", Column("text", "prose"))
    return make_table("commonest", "Commonest paragraphs", heads, rows, [note], lengthy=True)


def _differences(evaluation: Evaluation) -> list[Table]:
    whole = [found for found in evaluation.differences if found.number.scope == REPORT]
    # Scores of one region stand together, whichever group they belong to.
    regions = list(dict.fromkeys(found.number.scope for found in evaluation.differences))
    rest = [found for found in evaluation.differences if found.number.scope != REPORT]
    rest.sort(key=lambda found: regions.index(found.number.scope))
    return [
        _difference_table(evaluation, "differences", "Differences", whole, False),
        # Ten regions with ten scores each are no reading for a terminal, which has those of whole reports.
        _difference_table(evaluation, "differences-by-region", "Differences by region", rest, bool(whole)),
    ]


def _difference_table(
    evaluation: Evaluation, key: str, title: str, differences: Sequence[Difference], lengthy: bool
) -> Table:
    rows = [difference_row(found) for found in differences]
    note = (
        f"This file minus {evaluation.against or 'the other'}, on the same studies. Intervals and two-sided p are "
        "from a paired bootstrap over patients; p is not corrected for the number of rows."
    )
    title += f", to {evaluation.against}" if evaluation.against else ""
    return make_table(key, title, ["", "this file", "the other", *COMPARED], rows, [note], lengthy)


def difference_row(found: Difference) -> Row:
    """Name, both values, and the columns `COMPARED`."""
    number, difference = found.number, found.number.value - found.other
    text = f"{'+' if difference > 0 else ''}{format_value(difference)} {format_interval(found.low, found.high)}"
    compared = (Cell(text.strip(), difference), Cell(format_p(found.p), found.p))
    return make_row((number.name, number.value, found.other, *compared), "" if number.scope == REPORT else number.scope)
