"""One self-contained HTML page of an evaluation: scores beside their floors, plots, tables, studies."""

from __future__ import annotations

import math
from collections.abc import Mapping

from reg2rg.evaluation.metrics.base import headline_names
from reg2rg.evaluation.results import REPORT, Evaluation, Number
from reg2rg.show.evaluation_tables import build_tables, studies_table
from reg2rg.show.phrases import below_floor, best_floors, headline, percent, verdict
from reg2rg.show.render import to_figure, to_page

_SECTION = {  # plot -> the table that it is shown above
    "numbers": "numbers",
    "regions": "by-region",
    "labels": "labels",
    "confusion": "confusion",
    "words": "statistics",
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


def evaluation_page(evaluation: Evaluation, drawings: Mapping[str, str], max_studies: int = 50) -> str:
    """The page as HTML. It asks for nothing from outside.

    Args:
        evaluation: what to show.
        drawings: plot -> ``<svg>`` element, trusted, of `reg2rg.show.plots.draw_plot`.
        max_studies: rows of the table of studies; 0 leaves it out. The page says how many there are in all.
    """
    tables = build_tables(evaluation)
    plots = {_SECTION[name]: to_figure(name, drawing, _CAPTIONS[name]) for name, drawing in drawings.items()}
    keys, below = {table.key for table in tables}, below_floor(evaluation)
    best = best_floors(evaluation)
    values = {
        "title": f"Evaluation of {evaluation.name}",
        "evaluation": evaluation,
        "headline": headline(evaluation),
        "verdict": verdict(evaluation),
        "below": below,
        "cards": [(number, best.get(number.key), number in below) for number in _headline(evaluation)],
        "tables": tables,
        "plots": plots,
        "orphans": {key: plot for key, plot in plots.items() if key not in keys},
        "studies": studies_table(evaluation, max_studies),
        "confidence": percent(evaluation.confidence),
    }
    return to_page("evaluation.html.j2", values)


def _headline(evaluation: Evaluation) -> list[Number]:
    """The numbers that are quoted most, or the first scores where none of those is there."""
    whole = [n for n in evaluation.numbers if n.scope == REPORT and n.group != "statistics" and math.isfinite(n.value)]
    by_name = {number.name: number for number in whole}
    wanted = [next((name for name in names if name in by_name), None) for names in headline_names()]
    return [by_name[name] for name in wanted if name] or [number for number in whole if number.score][:6]
