"""Tables of scores for the page of cases: the model's own rows first, its floors below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reg2rg.evaluation.results import REPORT, Evaluation, Number
from reg2rg.show.table import Table, cell, make_row, make_table

_COLUMNS: Mapping[str, tuple[str, str]] = {
    "recognition": ("recognition", "Recognition (mean over regions)"),
    "precision": ("precision", "Truth precision (micro)"),
    "recall": ("recall", "Truth recall (micro)"),
    "f1": ("findings F1", "Truth F1 (micro)"),
    "macro_f1": ("macro F1", "Truth F1 (macro)"),
    "abnormal": ("abnormal", "Abnormal studies, predicted"),
    "distinct": ("distinct", "Distinct reports, predicted"),
}
"""Key -> heading and number."""
NUMBERS = tuple(number for _, number in _COLUMNS.values())
"""What an evaluation must have computed."""
_BY_REGION = "Recognition recall"

Figures = Mapping[str, Number | None]


def summary_rows(own: Evaluation, others: Sequence[Evaluation]) -> list[tuple[str, bool, Figures]]:
    """Name, whether it is none of the model's own, and key -> number: the model, other models, floors."""
    rows = [(one.name, one is not own, _figures(one.numbers)) for one in (own, *others)]
    return [*rows, *((f"floor: {name}", True, _figures(numbers)) for name, numbers in own.floors.items())]


def _figures(numbers: Sequence[Number]) -> Figures:
    known = {number.name: number for number in numbers if number.scope == REPORT}
    return {key: known.get(name) for key, (_, name) in _COLUMNS.items()}


def as_json(rows: Sequence[tuple[str, bool, Figures]]) -> list[dict[str, Any]]:
    """The rows of the summary with their intervals."""
    return [
        {
            "name": name,
            "is_floor": is_floor,
            **{key: number.value if number is not None else None for key, number in figures.items()},
            "intervals": {
                key: [number.low, number.high]
                for key, number in figures.items()
                if number is not None and number.low is not None
            },
        }
        for name, is_floor, figures in rows
    ]


def build_tables(own: Evaluation, others: Sequence[Evaluation]) -> list[Table]:
    """The summary, recognition by region and findings by label, each with its definition."""
    confidence = f"{own.confidence:.0%} intervals over patients"
    summary = make_table(
        "summary",
        "Summary",
        ("", *(heading for heading, _ in _COLUMNS.values())),
        [
            make_row([name, *map(_cell, figures.values())], style="" if is_other else "strong")
            for name, is_other, figures in summary_rows(own, others)
        ],
        [
            f"{own.studies} held-out studies, {confidence}.",
            "Recognition: share of prompts whose paragraph names the region at its slot, averaged over regions.",
            "Findings: read from the text by keywords, against truth labels; precision, recall and F1 are "
            "micro-averaged over all labels, macro F1 is the mean over all labels, those that do not occur too.",
            "Abnormal: share of studies with any finding in the text.",
            "Distinct: different reports by number of reports.",
        ],
    )
    recognised = [n for n in own.numbers if n.name == _BY_REGION and n.scope != REPORT]
    by_region = make_table(
        "by-region",
        "Recognition by region",
        ("region", "recognition", "given"),
        [(number.scope, _cell(number), number.n) for number in recognised],
        [f"Share of the prompts with a region in which the paragraph at its slot names it; {confidence}."],
    )
    by_label = make_table(
        "by-label",
        "Findings by label",
        ("finding", "precision", "recall", "F1", "support"),
        [
            (row.label, row.precision, row.recall, _interval(row.f1, row.low, row.high), row.support)
            for row in own.truth_labels
        ],
        [f"F1 with {confidence}. Support: studies in which the finding is present."],
    )
    return [table for table in (summary, by_region, by_label) if table.rows]


def _cell(number: Number | None) -> object:
    return None if number is None else _interval(number.value, number.low, number.high)


def _interval(value: float, low: float | None, high: float | None) -> object:
    return value if low is None or high is None else cell(value, after=f"[{low:.3f}, {high:.3f}]")
