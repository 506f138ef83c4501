"""One self-contained HTML page of an evaluation: scores beside their floors, plots, tables, studies."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from reg2rg import __version__
from reg2rg.core.files import atomic_write
from reg2rg.evaluation.metrics.base import headline_names
from reg2rg.evaluation.results import REPORT, Evaluation, Number
from reg2rg.show.evaluation_tables import Cell, build_tables
from reg2rg.show.phrases import (
    below_floor,
    best_floors,
    format_interval,
    format_value,
    headline,
    percent,
    verdict,
)
from reg2rg.show.plots import BLUE, GREY, INK, ON_DARK, draw_plots, svg

_SECTION = {  # table -> the plot that is shown above it
    "numbers": "numbers",
    "by-region": "regions",
    "labels": "labels",
    "confusion": "confusion",
    "statistics": "words",
    "differences": "differences",
}
_CAPTIONS = {
    "numbers": "Scores of whole reports: the dot is the value, the bar its interval, open marks are floors, which are "
    "reports written without a look at the scan.",
    "words": "Words per report, predicted and reference; vertical lines are the medians.",
    "regions": "Scores of the paragraphs of each region: the dot is the value, the bar its interval, open marks are "
    "floors.",
    "labels": "F1 of each finding with its interval, by number of references with the finding; open marks are the best "
    "floor of each.",
    "confusion": "Rows: the region that stands in the slot. Columns: the region that the text names. Numbers count "
    "paragraphs.",
    "differences": "Paired differences with their intervals; right of zero, this file is better.",
}
_PROSE = 60
_SCHEME = {INK: "currentColor", BLUE: "var(--blue)", ON_DARK: "var(--on-dark)", GREY: "var(--grey)"}


@dataclass(frozen=True, slots=True)
class Card:
    """One number of the headline.

    Attributes:
        name: of the number.
        value: as printed.
        interval: as printed, or ``""``.
        floor: the best floor's name, or ``""``.
        floor_value: as printed.
        marked: the value does not exceed it.
    """

    name: str
    value: str
    interval: str
    floor: str
    floor_value: str
    marked: bool


def write_evaluation_page(
    path: str | Path,
    evaluation: Evaluation,
    max_studies: int = 50,
    drawings: Mapping[str, str] | None = None,
) -> None:
    """Write the page atomically. It asks for nothing from the network, and all text from outside is escaped.

    Args:
        path: the HTML file.
        evaluation: what to show.
        max_studies: rows of the table of studies; 0 leaves it out. The page says how many there are in all.
        drawings: plot -> ``<svg>`` element, trusted, where `draw_plots` has been called already.
    """
    if drawings is None:
        drawings = {name: svg(figure) for name, figure in draw_plots(evaluation).items()}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("reg2rg.show").joinpath("evaluation_page.html.j2").read_text(encoding="utf-8")
    tables = build_tables(evaluation)
    plots = {name: (_inline(drawing, name), _CAPTIONS[name]) for name, drawing in drawings.items()}
    keys = {table.key for table in tables}
    below = below_floor(evaluation)
    html = environment.from_string(source).render(
        evaluation=evaluation,
        headline=headline(evaluation),
        verdict=verdict(evaluation),
        warned=bool(below),
        cards=_cards(evaluation),
        tables=tables,
        plots=plots,
        above={table: plot for table, plot in _SECTION.items() if plot in plots},
        orphans=[plot for table, plot in _SECTION.items() if plot in plots and table not in keys],
        studies=_studies(evaluation.per_study, max_studies),
        study_columns=[(str(name), _kind(evaluation.per_study[name])) for name in evaluation.per_study.columns],
        study_count=len(evaluation.per_study),
        confidence=percent(evaluation.confidence),
        version=__version__,
    )
    with atomic_write(path, "w") as stream:
        stream.write(html)


def _cards(evaluation: Evaluation) -> list[Card]:
    """The numbers that are quoted most, or the first scores where none of those is there."""
    whole = [n for n in evaluation.numbers if n.scope == REPORT and n.group != "statistics" and math.isfinite(n.value)]
    by_name: dict[str, Number] = {number.name: number for number in whole}
    wanted = [next((name for name in names if name in by_name), None) for names in headline_names()]
    chosen = [by_name[name] for name in wanted if name] or [number for number in whole if number.score][:6]
    best = best_floors(evaluation)
    below = {number.key for number in below_floor(evaluation)}
    cards = []
    for number in chosen:
        floor, value = best.get(number.key, ("", math.nan))
        cards.append(
            Card(
                number.name,
                format_value(number.value),
                format_interval(number.low, number.high),
                floor,
                format_value(value),
                number.key in below,
            )
        )
    return cards


def _inline(drawing: str, name: str) -> str:
    """A drawing in the page's colours, with ids of its own, named for those who do not see it.

    The drawing's text is black on white where it stands alone; here it takes the page's ink, light or dark.
    """
    for colour, variable in _SCHEME.items():
        drawing = drawing.replace(colour, variable)
    # Every drawing counts its parts from 1; in one page each needs ids of its own.
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    return drawing.replace("<svg ", f'<svg role="img" aria-labelledby="caption-{name}" ', 1)


def _studies(frame: pd.DataFrame, most: int) -> list[list[Cell]]:
    return [
        [_study_cell(value) for value in row] for row in frame.head(max(most, 0)).itertuples(index=False, name=None)
    ]


def _study_cell(value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(value)
    if value is None or value is pd.NA or value is pd.NaT:
        return Cell(format_value(None))
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return Cell("yes" if value else "no", float(value))
    if isinstance(value, int) or (hasattr(value, "dtype") and value.dtype.kind in "iu"):
        return Cell(f"{int(value):,}", float(value))
    if isinstance(value, float) or (hasattr(value, "dtype") and value.dtype.kind == "f"):
        number = float(value)
        return Cell(format_value(number), number if math.isfinite(number) else None)
    return Cell(str(value))


def _kind(column: pd.Series[Any]) -> str:
    """How a column is set: sentences wrap, words stand to the left, numbers to the right."""
    lengths = [len(value) for value in column if isinstance(value, str)]
    return "prose" if max(lengths, default=0) > _PROSE else "words" if lengths else ""
