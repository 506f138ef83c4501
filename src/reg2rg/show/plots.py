"""Plots: legible in print and on a page, told apart by shape as well as by colour. No window."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from reg2rg.evaluation.metrics.base import plotted_names
from reg2rg.evaluation.results import REPORT, Difference, Evaluation, Number
from reg2rg.show.phrases import below_floor, floor_values, format_p, percent
from reg2rg.show.table import MARK

# Okabe and Ito: apart from each other for every kind of colour vision. A page swaps INK, BLUE, ON_DARK and GREY for
# colours of its own scheme, light or dark, wherever these exact values stand in a drawing.
INK, BLUE, ON_DARK, ORANGE, GREY = "#111827", "#0072b2", "#fffffe", "#d55e00", "#6b7280"
_FLOORS = (("o", "#d55e00"), ("s", "#009e73"), ("^", "#cc79a7"), ("D", "#b8860b"), ("v", "#6b7280"), ("P", "#56b4e9"))
# Any: releases of matplotlib differ in what they call the type of its settings.
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#9ca3af",
    "grid.alpha": 0.35,
    "text.parse_math": False,  # names come from files: "$" in one is a letter
    "svg.fonttype": "none",
    "svg.hashsalt": "reg2rg",  # the same ids, and so the same bytes, for the same numbers
}
_OPEN: Any = {"linestyle": "none", "markerfacecolor": "none", "markersize": 5.2, "markeredgewidth": 1.3}
_SMALL: Any = {"fontsize": 9, "fontweight": "normal"}
_ROW, _MARGIN = 0.31, 1.0
_MAX_PANELS = 6
Item = TypeVar("Item")
_Floors = Mapping[tuple[str, str, str], Mapping[str, float]]


def plot_style() -> AbstractContextManager[None]:
    """How all plots look."""
    return mpl.rc_context(_STYLE)


def svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element without XML prologue, the same bytes for the same numbers."""
    buffer = io.StringIO()
    with plot_style():
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    # Who made it and in which format is said by addresses of other places; a self-contained drawing names none.
    return re.sub(r"\s*<metadata>.*?</metadata>", "", drawing, count=1, flags=re.DOTALL)


def png(figure: Figure) -> bytes:
    """The figure as a PNG on white."""
    buffer = io.BytesIO()
    with plot_style():
        figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def draw_plot(evaluation: Evaluation, name: str) -> Figure | None:
    """One plot of `PLOTS`; ``None`` where the evaluation has no data for it."""
    with plot_style():
        return PLOTS[name](evaluation)


def draw_curves(runs: Mapping[str, pd.DataFrame], panels: Mapping[str, Sequence[str]]) -> str:
    """Draw training curves, one panel beside another, a line a run.

    Args:
        runs: name -> the run's logged values.
        panels: title -> the columns that may hold the value; the first that a run has is drawn.

    Returns:
        an ``<svg>`` element without XML prologue.
    """
    with plot_style():
        figure, axes = _figure(4.2 * len(panels), 2.9, 1, len(panels))
        for panel, (title, columns) in zip(axes, panels.items(), strict=True):
            for colour, (name, frame) in zip((BLUE, *dict(_FLOORS).values()), runs.items(), strict=False):
                column = next((column for column in columns if column in frame.columns), None)
                if column is not None:
                    values = frame[["step", column]].dropna()
                    panel.plot(values["step"], values[column], color=colour, label=name, linewidth=1.6)
            panel.set_title(title)
            panel.set_xlim(left=0)  # a run that logs a value late is seen to
            panel.set_xlabel("optimiser step")
            panel.grid()
            if panel.lines:
                panel.legend()
    return svg(figure)


def word_bins(words: Mapping[str, Sequence[int]], most: int = 36) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Edges of bins of whole numbers of words that all lists share: at most `most` bins."""
    values = [value for numbers in words.values() for value in numbers]
    if not values:
        return np.array([0.0, 1.0])
    low, high = min(values), max(values)
    width = max(1, math.ceil((high - low + 1) / most))
    return np.arange(low, high + width + 1, width, dtype=np.float64) - 0.5


def draw_lengths(words: Mapping[str, Sequence[int]]) -> str:
    """Words per report of a reference and of several models, as an ``<svg>`` element; ``""`` where there are none.

    Args:
        words: name -> words of each report: the reference first, then the models.
    """
    with plot_style():
        figure = _draw_lengths(words)
        return "" if figure is None else svg(figure)


def _draw_words(evaluation: Evaluation) -> Figure | None:
    """Words per report, predicted over reference, with medians."""
    return _draw_lengths(evaluation.words)


def _draw_lengths(lengths: Mapping[str, Sequence[int]]) -> Figure | None:
    if not any(lengths.values()):
        return None
    figure, (axes,) = _figure(7.6, 3.3)
    edges = word_bins(lengths).tolist()
    looks = [(GREY, "--"), (BLUE, "-"), *((colour, ":") for _, colour in _FLOORS)]
    for (colour, line), (name, words) in zip(itertools.cycle(looks), lengths.items(), strict=False):
        if words:
            median = float(np.median(words))
            label = f"{name}: median {median:,.0f} words"
            axes.hist(words, bins=edges, color=colour, alpha=0.32, histtype="stepfilled", label=label)
            axes.hist(words, bins=edges, color=colour, histtype="step", linewidth=1.3, linestyle=line)
            axes.axvline(median, color=colour, linestyle=line, linewidth=1.6)
    axes.set_xlabel("words per report")
    axes.set_ylabel("studies")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.grid(axis="y")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _draw_confusion(evaluation: Evaluation) -> Figure | None:
    """Which region is named where which one stands: counts, shaded by their share of the row."""
    confusion = evaluation.confusion
    if confusion is None or not confusion.rows:
        return None
    down, across = len(confusion.rows), len(confusion.columns)
    counts = np.array(confusion.counts, dtype=np.float64).reshape(down, across)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, (axes,) = _figure(2.4 + 0.55 * across, 2.0 + 0.40 * down)
    for row, column in np.argwhere(counts).tolist():
        colour = BLUE if confusion.rows[row] == confusion.columns[column] else ORANGE
        # A lone mistake among thousands is still seen: no cell with a count is paler than 0.2.
        strength = 0.2 + 0.8 * shares[row, column]
        axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=colour, alpha=strength, lw=0))
        count, ink = int(counts[row, column]), ON_DARK if strength > 0.6 else INK
        size = 8.5 if count < 10_000 else 7.5
        axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=size, color=ink)
    axes.set_xlim(-0.5, across - 0.5)
    axes.set_ylim(down - 0.5, -0.5)
    axes.set_xticks(range(across), confusion.columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(down), confusion.rows)
    axes.set_xticks(np.arange(across + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(down + 1) - 0.5, minor=True)
    axes.grid(which="minor", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("region that the text names (paragraphs)")
    axes.set_ylabel("region that stands there")
    axes.set_title("blue: right, orange: wrong; shade: share of the row", **_SMALL)
    return figure


def _draw_numbers(evaluation: Evaluation) -> Figure | None:
    """Scores of whole reports with intervals, each on a row with its floors."""
    floors = floor_values(evaluation)
    scores = [n for n in evaluation.numbers if n.scope == REPORT and n.score and math.isfinite(n.value)]
    # CIDEr has no upper end at 1; on one axis with it the others could not be read.
    panels = _split(scores, lambda n: max(n.value, n.high or 0.0, *floors.get(n.key, {}).values(), 0.0))
    if not panels:
        return None
    below = {number.key for number in below_floor(evaluation)}
    figure, grid = _stacked(panels)
    for axes, panel in zip(grid, panels, strict=True):
        names = [f"{MARK} {number.name}" if number.key in below else number.name for number in panel]
        _dots(axes, names, panel, floors, evaluation.floors, _label(evaluation, scores))
        axes.set_xlabel("score")
    if below:
        grid[0].set_title(f"{MARK} does not exceed its best floor", **_SMALL)
    _legend(figure, 2)
    return figure


def _draw_regions(evaluation: Evaluation) -> Figure | None:
    """Scores of the paragraphs of each region with intervals and floors, one panel a score."""
    scores = _region_scores(evaluation)
    if not scores:
        return None
    floors, numbers = floor_values(evaluation), [number for of_name in scores.values() for number in of_name]
    regions = list(dict.fromkeys(number.scope for number in numbers))
    columns = min(3, len(scores))
    rows = math.ceil(len(scores) / columns)
    height = rows * (_ROW * len(regions) + 0.75) + 0.6
    figure, grid = _figure(2.2 + 2.6 * columns, height, rows, columns, sharey=True)
    for axes in grid[len(scores) :]:
        axes.set_visible(False)
    for index, (axes, (name, of_name)) in enumerate(zip(grid, scores.items(), strict=False)):
        found = {number.scope: number for number in of_name}
        own = [found.get(region) for region in regions]
        _dots(axes, regions, own, floors, evaluation.floors, _label(evaluation, numbers))
        axes.set_title(name)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        if index + columns >= len(scores):
            axes.set_xlabel("score")
    _legend(figure, 2 if columns < 3 else 3)
    return figure


def _draw_labels(evaluation: Evaluation) -> Figure | None:
    """F1 of each finding with its interval, beside how often it is there and how often it is predicted."""
    rows = sorted(evaluation.labels, key=lambda row: -row.support)
    if not rows:
        return None
    figure, (left, right) = _figure(8.4, _ROW * len(rows) + _MARGIN + 0.2, 1, 2, sharey=True, widths=(1.5, 1))
    scores = [Number("findings", r.label, "F1", r.f1, r.support, "", low=r.low, high=r.high) for r in rows]
    floors = {n.key: {"best floor": r.floor} for n, r in zip(scores, rows, strict=True) if r.floor is not None}
    shown = [number if math.isfinite(number.value) else None for number in scores]
    _dots(left, [row.label for row in rows], shown, floors, ["best floor"], _label(evaluation, scores))
    left.set_xlim(-0.02, 1.02)
    left.set_xlabel("F1")
    places = np.arange(len(rows))
    right.barh(places - 0.19, [row.support for row in rows], 0.36, color=GREY, label="references (support)")
    right.barh(places + 0.19, [row.predicted for row in rows], 0.36, color=BLUE, label="predictions")
    right.set_xlabel("studies with the finding")
    right.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    right.grid(axis="x")
    right.tick_params(axis="y", length=0)
    _legend(figure, 4)
    return figure


def _draw_differences(evaluation: Evaluation) -> Figure | None:
    """Paired differences with intervals, one row a score; right of zero this file is better."""
    # As with numbers: a difference of CIDEr may be larger than any other score can be.
    panels = _split(_compared(evaluation), lambda d: max(abs(d.low), abs(d.high), abs(d.number.value - d.other)))
    if not panels:
        return None
    figure, grid = _stacked(panels)
    for axes, panel in zip(grid, panels, strict=True):
        several = any(d.number.scope != REPORT for d in panel)
        _rows(axes, [f"{d.number.scope}: {d.number.name}" if several else d.number.name for d in panel])
        axes.axvline(0, color=INK, linewidth=1)
        for y, difference in enumerate(panel):
            apart = difference.low > 0 or difference.high < 0
            colour, fill = (BLUE, BLUE) if apart else (GREY, "none")
            _interval(axes, y, difference.low, difference.high, colour)
            value = difference.number.value - difference.other
            axes.plot(value, y, "o", color=colour, markerfacecolor=fill, markersize=6)
            p = f"p {format_p(difference.p)}".replace("p <", "p < ")
            axes.text(1.01, y, p, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
        ends = [0.0, *(end for difference in panel for end in (difference.low, difference.high))]
        pad = 0.06 * (max(ends) - min(ends)) or 1.0
        axes.set_xlim(min(ends) - pad, max(ends) + pad)
        axes.set_xlabel("difference in score")
    grid[0].set_title(f"filled: the {percent(evaluation.confidence)} interval excludes 0", **_SMALL)
    sides = f"left: {_short(evaluation.against or 'the other')} better, right: {_short(evaluation.name)} better"
    grid[-1].set_xlabel(f"difference in score ({sides})")
    return figure


PLOTS: Mapping[str, Callable[[Evaluation], Figure | None]] = {
    "numbers": _draw_numbers,
    "words": _draw_words,
    "regions": _draw_regions,
    "labels": _draw_labels,
    "confusion": _draw_confusion,
    "differences": _draw_differences,
}
"""All plots of an evaluation, by file name."""


def _figure(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    *,
    sharey: bool = False,
    heights: Sequence[float] | None = None,
    widths: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey, height_ratios=heights, width_ratios=widths)
    return figure, list(grid.flat)


def _stacked(panels: Sequence[Sequence[object]]) -> tuple[Figure, list[Axes]]:
    """One panel above another, a row of equal height for each of their items."""
    heights = [len(panel) + 1.2 for panel in panels]
    return _figure(8.4, _ROW * sum(heights) + _MARGIN, len(panels), heights=heights)


def _split(items: Sequence[Item], reach: Callable[[Item], float]) -> list[list[Item]]:
    """Those that reach no further than 1, and the others; without empty lists."""
    parts = [item for item in items if reach(item) <= 1], [item for item in items if reach(item) > 1]
    return [part for part in parts if part]


def _short(name: str, most: int = 32) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _region_scores(evaluation: Evaluation) -> dict[str, list[Number]]:
    """Name -> its numbers by region: the most telling names, at most `_MAX_PANELS`."""
    scores: dict[str, list[Number]] = {}
    for number in evaluation.numbers:
        if number.scope != REPORT and number.score and math.isfinite(number.value):
            scores.setdefault(number.name, []).append(number)
    wanted = [name for name in plotted_names() if name in scores]
    chosen = [*wanted, *(name for name in scores if name not in wanted)][:_MAX_PANELS]
    return {name: scores[name] for name in scores if name in chosen}


def _compared(evaluation: Evaluation) -> list[Difference]:
    found = [
        difference
        for difference in evaluation.differences
        if difference.number.score
        and all(map(math.isfinite, (difference.number.value, difference.other, difference.low, difference.high)))
    ]
    whole = [d for d in found if d.number.scope == REPORT]
    # Ten regions with ten scores each would be a page of rows; the table has them all.
    return whole if whole and len(found) > 30 else found


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="both")


def _interval(axes: Axes, y: float, low: float | None, high: float | None, colour: str = BLUE) -> None:
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        axes.plot([low, high], [y, y], color=colour, linewidth=2.4, alpha=0.75, solid_capstyle="butt")


def _dots(
    axes: Axes,
    names: Sequence[str],
    numbers: Sequence[Number | None],
    floors: _Floors,
    order: Iterable[str],
    label: str,
) -> None:
    """One row a number: floors as open marks, the interval as a bar, the value as a dot."""
    _rows(axes, names)
    known = [(y, number) for y, number in enumerate(numbers) if number is not None]
    ys, values = [y for y, _ in known], [number.value for _, number in known]
    axes.plot(values, ys, "o", color=BLUE, markersize=5.5, label=label, zorder=3)
    for (marker, colour), name in zip(itertools.cycle(_FLOORS), order, strict=False):
        if marks := [(floors[n.key][name], y) for y, n in known if name in floors.get(n.key, {})]:
            named = name if name == "best floor" else f"floor: {name}"
            axes.plot(*zip(*marks, strict=True), marker=marker, markeredgecolor=colour, label=named, **_OPEN)
    for y, number in known:
        _interval(axes, y, number.low, number.high)
    low, high = axes.get_xlim()
    # From 0, so that lengths compare; a value below 0 still shows.
    axes.set_xlim(min(low, -0.02 * high), high)


def _label(evaluation: Evaluation, numbers: Iterable[Number]) -> str:
    shown = any(number.low is not None for number in numbers)
    return _short(evaluation.name) + (f", {percent(evaluation.confidence)} interval" if shown else "")


def _legend(figure: Figure, columns: int) -> None:
    """All that the panels name, each once."""
    found = {label: one for axes in figure.axes for one, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=columns)
