"""Tables of scores: the model's own rows first, its floors below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable

from reg2rg.core.types import Study
from reg2rg.evaluation.metrics.scores import (
    Prediction,
    Reader,
    commonest_paragraphs,
    findings_by_label,
    floor_commonest,
    floor_swapped,
    macro_f1,
    recognition_by_region,
    say_everything,
    summarise,
)
from reg2rg.show.case_page import Table

_ANY_WIDTH = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """Scores of one model or floor. A figure that it does not have is ``None``."""

    name: str
    is_floor: bool
    recognition: float | None
    precision: float
    recall: float
    f1: float
    macro_f1: float | None
    abnormal: float
    distinct: float | None


def score_all(
    name: str,
    own: Sequence[Prediction],
    others: Mapping[str, Sequence[Prediction]],
    train: Sequence[Study],
    read: Reader,
) -> list[Row]:
    """Rows of the summary: the model, other models, floors.

    Args:
        name: of the model.
        own: its predictions.
        others: name -> predictions of other models, such as one without visual tokens.
        train: training studies, from which the commonest paragraphs are taken.
        read: text -> findings.
    """
    everything = say_everything(own)
    floors = {
        "floor: commonest paragraph of each region": floor_commonest(own, commonest_paragraphs(train)),
        "floor: reports swapped between studies": floor_swapped(own),
    }
    rows = [_row(name, False, own, read)]
    rows += [_row(other, True, predictions, read) for other, predictions in others.items()]
    rows += [_row(floor, True, predictions, read) for floor, predictions in floors.items()]
    labels = findings_by_label(own, read)
    prevalences = {label: count.tp + count.fn for label, count in labels.items() if count.tp + count.fn}
    macro = [2 * n / (n + len(own)) for n in prevalences.values()]
    rows.append(
        Row(
            "floor: every finding in every study",
            True,
            None,
            everything.precision,
            everything.recall,
            everything.f1,
            sum(macro) / len(macro) if macro else None,
            1.0,
            None,
        )
    )
    return rows


def _row(name: str, is_floor: bool, predictions: Sequence[Prediction], read: Reader) -> Row:
    summary = summarise(predictions, read)
    return Row(
        name,
        is_floor,
        summary.recognition,
        summary.precision,
        summary.recall,
        summary.f1,
        summary.macro_f1,
        summary.abnormal,
        summary.distinct,
    )


def build_tables(rows: Sequence[Row], own: Sequence[Prediction], read: Reader) -> list[Table]:
    """The summary, recognition by region and findings by label, each with its definition."""
    regions = recognition_by_region(own)
    labels = findings_by_label(own, read)
    summary = Table(
        "Summary",
        f"{len(own)} held-out studies, regions in shuffled order. Recognition: share of prompts whose paragraph names "
        "the region at its slot, averaged over regions. Findings: read from the text by keywords, against truth "
        "labels; precision, recall and F1 are micro-averaged over all labels, macro F1 is the mean over labels that "
        "occur. Abnormal: share of studies with any finding in the text. Distinct: share of reports that no other "
        "study has.",
        ("", "recognition", "precision", "recall", "findings F1", "macro F1", "abnormal", "distinct"),
        [(r.name, r.recognition, r.precision, r.recall, r.f1, r.macro_f1, r.abnormal, r.distinct) for r in rows],
        emphasis=sum(not row.is_floor for row in rows),
    )
    by_region = Table(
        "Recognition by region",
        "Share of the prompts with a region in which the paragraph at its slot names it.",
        ("region", "recognition", "given"),
        [(region, right / total if total else None, total) for region, (right, total) in regions.items()],
        emphasis=0,
    )
    by_label = Table(
        "Findings by label",
        f"Macro F1 {macro_f1(labels):.3f}. Support: studies in which the finding is present.",
        ("finding", "precision", "recall", "F1", "support"),
        [(label, c.precision, c.recall, c.f1, c.tp + c.fn) for label, c in labels.items()],
        emphasis=0,
    )
    return [summary, by_region, *([by_label] if labels else [])]


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
