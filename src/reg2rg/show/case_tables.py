"""Tables of scores for the page of cases: the model's own rows first, its floors below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable

from reg2rg.evaluation.results import REPORT, Evaluation, Number
from reg2rg.show.case_page import Table

_ANY_WIDTH = 10_000
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
    rows = summary_rows(own, others)
    confidence = f"{own.confidence:.0%} intervals over patients"
    summary = Table(
        "Summary",
        f"{own.studies} held-out studies, {confidence}. Recognition: share of prompts whose paragraph names the "
        "region at its slot, averaged over regions. Findings: read from the text by keywords, against truth labels; "
        "precision, recall and F1 are micro-averaged over all labels, macro F1 is the mean over all labels, those that "
        "do not occur too. Abnormal: share of studies with any finding in the text. Distinct: different reports by "
        "number of reports.",
        ("", *(heading for heading, _ in _COLUMNS.values())),
        [(name, *map(_cell, figures.values())) for name, _, figures in rows],
        emphasis=1,
    )
    by_region = Table(
        "Recognition by region",
        f"Share of the prompts with a region in which the paragraph at its slot names it; {confidence}.",
        ("region", "recognition", "given"),
        [(number.scope, _cell(number), number.n) for number in own.numbers if number.name == _BY_REGION
         and number.scope != REPORT],
        emphasis=0,
    )  # fmt: skip
    by_label = Table(
        "Findings by label",
        f"F1 with {confidence}. Support: studies in which the finding is present.",
        ("finding", "precision", "recall", "F1", "support"),
        [
            (row.label, row.precision, row.recall, _interval(row.f1, row.low, row.high), row.support)
            for row in own.truth_labels
        ],
        emphasis=0,
    )
    return [table for table in (summary, by_region, by_label) if table.rows]


def _cell(number: Number | None) -> str | float | None:
    return None if number is None else _interval(number.value, number.low, number.high)


def _interval(value: float, low: float | None, high: float | None) -> str | float:
    return value if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """The same tables in a terminal; one whose words it would have to cut is turned on its side."""
    wide = console.options.update(max_width=_ANY_WIDTH)
    for table in tables:
        lines = [table.columns, *([_shown(cell) for cell in cells] for cells in table.rows)]
        drawn = _drawn(table, lines)
        if Measurement.get(console, wide, drawn).minimum > console.width:
            drawn = _drawn(table, list(zip(*lines, strict=True)))
        console.print(drawn)


def _shown(cell: object) -> str:
    return "–" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _drawn(table: Table, lines: Sequence[Sequence[str]]) -> RichTable:
    heads, *rows = lines
    drawn = RichTable(title=table.title, caption=table.note, title_justify="left", caption_justify="left")
    for index, head in enumerate(heads):
        drawn.add_column(head, justify="left" if index == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    return drawn
