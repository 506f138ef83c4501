"""Plots of an evaluation: legible in print and on a page, told apart by shape as well as by colour. No window."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from reg2rg.evaluation.metrics.base import plotted_names
from reg2rg.evaluation.results import REPORT, Difference, Evaluation, Number
from reg2rg.show.phrases import MARK, below_floor, floor_values, format_p, percent

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
_ROW, _MARGIN = 0.31, 1.0
_MAX_PANELS = 6


def draw_plots(evaluation: Evaluation) -> dict[str, Figure]:
    """All plots for which the evaluation has data, by file name, in the order of reading."""
    drawn: dict[str, Callable[[Evaluation], Figure]] = {
        "numbers": draw_numbers,
        "words": draw_words,
        "regions": draw_regions,
        "labels": draw_labels,
        "confusion": draw_confusion,
        "differences": draw_differences,
    }
    present = {
        "numbers": bool(_scores(evaluation)),
        "words": any(evaluation.words.values()),
        "regions": bool(_region_scores(evaluation)),
        "labels": bool(evaluation.labels),
        "confusion": evaluation.confusion is not None and bool(evaluation.confusion.rows),
        "differences": bool(_compared(evaluation)),
    }
    return {name: draw(evaluation) for name, draw in drawn.items() if present[name]}


PLOTS = ("numbers", "words", "regions", "labels", "confusion", "differences")
"""Names of all plots that `draw_plots` can return."""


def svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element without XML prologue, the same bytes for the same numbers."""
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    # Who made it and in which format is said by addresses of other places; a self-contained drawing names none.
    drawing = re.sub(r"\s*<metadata>.*?</metadata>", "", drawing, count=1, flags=re.DOTALL)
    return drawing


def png(figure: Figure) -> bytes:
    """The figure as a PNG on white."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def word_bins(words: Mapping[str, Sequence[int]], most: int = 36) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Edges of bins of whole numbers of words that all lists share: at most `most` bins."""
    values = [value for numbers in words.values() for value in numbers]
    if not values:
        return np.array([0.0, 1.0])
    low, high = min(values), max(values)
    width = max(1, math.ceil((high - low + 1) / most))
    return np.arange(low, high + width + 1, width, dtype=np.float64) - 0.5


def draw_words(evaluation: Evaluation) -> Figure:
    """Words per report, predicted over reference, with medians."""
    with _style():
        figure = Figure(figsize=(7.6, 3.3), layout="constrained")
        axes = figure.subplots()
        edges = word_bins(evaluation.words)
        looks = {"reference": (GREY, "--"), "predicted": (BLUE, "-")}
        for index, (name, words) in enumerate(evaluation.words.items()):
            if not words:
                continue
            colour, line = looks.get(name, (_FLOORS[index % len(_FLOORS)][1], ":"))
            median = float(np.median(words))
            label = f"{name}: median {median:,.0f} words"
            axes.hist(words, bins=edges.tolist(), color=colour, alpha=0.32, histtype="stepfilled", label=label)
            axes.hist(words, bins=edges.tolist(), color=colour, histtype="step", linewidth=1.3, linestyle=line)
            axes.axvline(median, color=colour, linestyle=line, linewidth=1.6)
        axes.set_xlabel("words per report")
        axes.set_ylabel("studies")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(axis="y")
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def draw_confusion(evaluation: Evaluation) -> Figure:
    """Which region is named where which one stands: counts, shaded by their share of the row."""
    confusion = evaluation.confusion
    if confusion is None:
        raise ValueError("this evaluation has no confusion of regions; expected one with known slots")
    counts = np.array(confusion.counts, dtype=np.float64).reshape(len(confusion.rows), len(confusion.columns))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with _style():
        width = 2.4 + 0.55 * len(confusion.columns)
        figure = Figure(figsize=(width, 2.0 + 0.40 * len(confusion.rows)), layout="constrained")
        axes = figure.subplots()
        for (row, column), count in np.ndenumerate(counts):
            if not count:
                continue
            right, share = confusion.rows[row] == confusion.columns[column], shares[row, column]
            # A lone mistake among thousands is still seen: no cell with a count is paler than 0.2.
            strength = 0.2 + 0.8 * share
            axes.add_patch(
                Rectangle(
                    (column - 0.48, row - 0.48), 0.96, 0.96, facecolor=BLUE if right else ORANGE, alpha=strength, lw=0
                )
            )
            axes.text(
                column,
                row,
                f"{int(count):,}",
                ha="center",
                va="center",
                fontsize=8.5 if count < 10_000 else 7.5,
                color=ON_DARK if strength > 0.6 else INK,
            )
        axes.set_xlim(-0.5, len(confusion.columns) - 0.5)
        axes.set_ylim(len(confusion.rows) - 0.5, -0.5)
        axes.set_xticks(
            range(len(confusion.columns)), confusion.columns, rotation=40, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(confusion.rows)), confusion.rows)
        axes.set_xticks(np.arange(len(confusion.columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(confusion.rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", linewidth=0.6)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("region that the text names (paragraphs)")
        axes.set_ylabel("region that stands there")
        axes.set_title("blue: right, orange: wrong; shade: share of the row", fontsize=9, fontweight="normal")
    return figure


def draw_numbers(evaluation: Evaluation) -> Figure:
    """Scores of whole reports with intervals, each on a row with its floors."""
    floors = floor_values(evaluation)
    scores = _scores(evaluation)
    # CIDEr has no upper end at 1; on one axis with it the others could not be read.
    small = [number for number in scores if _reach(number, floors) <= 1.0]
    large = [number for number in scores if _reach(number, floors) > 1.0]
    panels = [panel for panel in (small, large) if panel]
    below = {number.key for number in below_floor(evaluation)}
    with _style():
        heights = [len(panel) + 1.2 for panel in panels]
        figure = Figure(figsize=(8.4, _ROW * sum(heights) + _MARGIN), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            names = [f"{MARK} {number.name}" if number.key in below else number.name for number in panel]
            _dots(axes, names, panel, floors, list(evaluation.floors))
            axes.set_xlabel("score")
        if below:
            grid[0, 0].set_title(f"{MARK} does not exceed its best floor", fontsize=9, fontweight="normal")
        _name_floors(figure, evaluation, panels)
    return figure


def draw_regions(evaluation: Evaluation) -> Figure:
    """Scores of the paragraphs of each region with intervals and floors, one panel a score."""
    scores = _region_scores(evaluation)
    floors = floor_values(evaluation)
    regions = list(dict.fromkeys(number.scope for numbers in scores.values() for number in numbers))
    with _style():
        columns = min(3, len(scores))
        rows = math.ceil(len(scores) / columns)
        height = rows * (_ROW * len(regions) + 0.75) + 0.6
        figure = Figure(figsize=(2.2 + 2.6 * columns, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes in grid.flat[len(scores) :]:
            axes.set_visible(False)
        for index, (axes, (name, numbers)) in enumerate(zip(grid.flat, scores.items(), strict=False)):
            found = {number.scope: number for number in numbers}
            _dots(axes, regions, [found.get(region) for region in regions], floors, list(evaluation.floors))
            axes.set_title(name)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
            if index + columns >= len(scores):
                axes.set_xlabel("score")
        _name_floors(figure, evaluation, list(scores.values()), columns=2 if columns < 3 else 3)
    return figure


def draw_labels(evaluation: Evaluation) -> Figure:
    """F1 of each finding with its interval, beside how often it is there and how often it is predicted."""
    rows = sorted(evaluation.labels, key=lambda row: -row.support)
    with _style():
        figure = Figure(figsize=(8.4, _ROW * len(rows) + _MARGIN + 0.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.5, 1))
        _rows(left, [row.label for row in rows])
        for y, row in enumerate(rows):
            _interval(left, y, row.low, row.high)
        shown = [(row.f1, y) for y, row in enumerate(rows) if math.isfinite(row.f1)]
        blind = [(row.floor, y) for y, row in enumerate(rows) if row.floor is not None]
        marker, colour = _FLOORS[0]
        if blind:
            looks = {"markerfacecolor": "none", "markeredgecolor": colour, "markersize": 5.2, "markeredgewidth": 1.3}
            left.plot(*zip(*blind, strict=True), marker, label="best floor", **looks)
        if shown:
            left.plot(*zip(*shown, strict=True), "o", color=BLUE, markersize=5.5)
        left.set_xlim(-0.02, 1.02)
        left.set_xlabel("F1")
        places = np.arange(len(rows))
        right.barh(places - 0.19, [row.support for row in rows], 0.36, color=GREY, label="references (support)")
        right.barh(places + 0.19, [row.predicted for row in rows], 0.36, color=BLUE, label="predictions")
        right.set_xlabel("studies with the finding")
        right.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        right.grid(axis="x")
        right.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper right", ncols=3)
    return figure


def draw_differences(evaluation: Evaluation) -> Figure:
    """Paired differences with intervals, one row a score; right of zero this file is better."""
    found = _compared(evaluation)
    # As in `draw_numbers`: a difference of CIDEr may be larger than any other score can be.
    small = [d for d in found if max(abs(d.low), abs(d.high), abs(d.number.value - d.other)) <= 1]
    large = [d for d in found if d not in small]
    panels = [panel for panel in (small, large) if panel]
    with _style():
        heights = [len(panel) + 1.2 for panel in panels]
        figure = Figure(figsize=(8.4, _ROW * sum(heights) + _MARGIN), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            several = any(d.number.scope != REPORT for d in panel)
            names = [f"{_scope(d.number)}: {d.number.name}" if several else d.number.name for d in panel]
            _rows(axes, names)
            axes.axvline(0, color=INK, linewidth=1)
            for y, difference in enumerate(panel):
                apart = difference.low > 0 or difference.high < 0
                _interval(axes, y, difference.low, difference.high, BLUE if apart else GREY)
                axes.plot(
                    difference.number.value - difference.other,
                    y,
                    "o",
                    color=BLUE if apart else GREY,
                    markerfacecolor=BLUE if apart else "none",
                    markersize=6,
                )
                axes.text(
                    1.01,
                    y,
                    f"p {format_p(difference.p)}".replace("p <", "p < "),
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    fontsize=8.5,
                )
            ends = [0.0, *(end for difference in panel for end in (difference.low, difference.high))]
            pad = 0.06 * (max(ends) - min(ends)) or 1.0
            axes.set_xlim(min(ends) - pad, max(ends) + pad)
            axes.set_xlabel("difference in score")
        other = evaluation.against or "the other"
        grid[0, 0].set_title(
            f"filled: the {percent(evaluation.confidence)} interval excludes 0", fontsize=9, fontweight="normal"
        )
        sides = f"left: {_short(other)} better, right: {_short(evaluation.name)} better"
        grid[-1, 0].set_xlabel(f"difference in score ({sides})")
    return figure


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(_STYLE)


def _short(name: str, most: int = 32) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _scope(number: Number) -> str:
    return "report" if number.scope == REPORT else number.scope


def _scores(evaluation: Evaluation) -> list[Number]:
    return [n for n in evaluation.numbers if n.scope == REPORT and n.score and math.isfinite(n.value)]


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


def _reach(number: Number, floors: Mapping[tuple[str, str, str], Mapping[str, float]]) -> float:
    return max(number.value, number.high or 0.0, *floors.get(number.key, {}).values(), 0.0)


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
    floors: Mapping[tuple[str, str, str], Mapping[str, float]],
    order: Sequence[str],
) -> None:
    """One row a number: floors as open marks, the interval as a bar, the value as a dot."""
    _rows(axes, names)
    known = [(y, number) for y, number in enumerate(numbers) if number is not None]
    for index, name in enumerate(order):
        marker, colour = _FLOORS[index % len(_FLOORS)]
        marks = [(floors[n.key][name], y) for y, n in known if name in floors.get(n.key, {})]
        axes.plot(
            [value for value, _ in marks],
            [y for _, y in marks],
            marker,
            markerfacecolor="none",
            markeredgecolor=colour,
            markersize=5.2,
            markeredgewidth=1.3,
        )
    for y, number in known:
        _interval(axes, y, number.low, number.high)
    axes.plot([number.value for _, number in known], [y for y, _ in known], "o", color=BLUE, markersize=5.5)
    low, high = axes.get_xlim()
    # From 0, so that lengths compare; a value below 0 still shows.
    axes.set_xlim(min(low, -0.02 * high), high)


def _name_floors(figure: Figure, evaluation: Evaluation, panels: Sequence[Sequence[Number]], columns: int = 2) -> None:
    """Legend of the value and of those floors that were drawn."""
    values = floor_values(evaluation)
    drawn = {floor for panel in panels for number in panel for floor in values.get(number.key, {})}
    shown = any(number.low is not None for panel in panels for number in panel)
    handles = [
        Line2D(
            [],
            [],
            color=BLUE,
            marker="o",
            linewidth=2.4 if shown else 0,
            markersize=5.5,
            label=f"{_short(evaluation.name)}, {percent(evaluation.confidence)} interval"
            if shown
            else _short(evaluation.name),
        )
    ]
    for index, floor in enumerate(evaluation.floors):
        if floor in drawn:
            marker, colour = _FLOORS[index % len(_FLOORS)]
            handles.append(
                Line2D(
                    [],
                    [],
                    linestyle="none",
                    marker=marker,
                    markerfacecolor="none",
                    markeredgecolor=colour,
                    markersize=5.2,
                    label=f"floor: {floor}",
                )
            )
    figure.legend(handles=handles, loc="outside upper left", ncols=columns)
