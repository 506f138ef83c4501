"""The plot of a table: a panel a metric, a line a run, points for seeds, and the noise floor as a band."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reg2rg.ablation.compare import Noise
from reg2rg.ablation.table import AblationTable, Row, head
from reg2rg.show.ablation_tables import row_title
from reg2rg.show.plots import BLUE, GREY, INK, ORANGE, plot_style

_PANELS, _ROW_INCHES = 4, 0.3
_TITLE_WIDTH = 28
_SEED: Any = {"linestyle": "none", "marker": "o", "markerfacecolor": "none", "markersize": 4}


def draw_table(table: AblationTable) -> Figure | None:
    """Draw a table; ``None`` if no run is finished."""
    rows = [row for row in table.rows if row.cells]
    if not table.metrics or not any(row.kind != "floor" for row in rows):
        return None
    across = min(_PANELS, len(table.metrics))
    down = math.ceil(len(table.metrics) / across)
    with plot_style():
        height = down * (0.75 + _ROW_INCHES * len(rows)) + 0.5
        figure = Figure(figsize=(2.6 + 2.3 * across, height), layout="constrained")
        axes = figure.subplots(down, across, sharey=True, squeeze=False)
        for place, panel in enumerate(axes.flat):
            if place < len(table.metrics):
                _panel(panel, table.metrics[place], rows, table.noise.get(table.metrics[place]))
            else:
                panel.set_visible(False)
        _name_rows(axes[0][0], rows)
        figure.supxlabel("percent", fontsize=9)
        figure.legend(handles=_handles(table), loc="outside upper left", ncols=4)
    return figure


def _panel(axes: Axes, metric: str, rows: Sequence[Row], noise: Noise | None) -> None:
    axes.set_title(textwrap.fill(head(metric), _TITLE_WIDTH))
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    full = next((row.cells[metric].mean for row in rows if row.kind == "full" and metric in row.cells), None)
    if full is not None:
        if noise is not None:
            low, high = 100 * (full - noise.largest), 100 * (full + noise.largest)
            axes.axvspan(low, high, color=BLUE, alpha=0.12, linewidth=0)
        axes.axvline(100 * full, color=BLUE, linewidth=0.9)
    for y, row in enumerate(rows):
        cell = row.cells.get(metric)
        if cell is None:
            continue
        colour = GREY if row.kind == "floor" else INK
        if cell.comparison is not None and full is not None:
            low, high = 100 * (full + cell.comparison.low), 100 * (full + cell.comparison.high)
            axes.plot([low, high], [y, y], color=colour, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
        seeds = [100 * value for value in cell.values.values()]
        axes.plot(seeds, [y] * len(seeds), markeredgecolor=colour, **_SEED)
        mark = "x" if not cell.values else "D"
        axes.plot(100 * cell.mean, y, mark, color=ORANGE if row.kind != "floor" else GREY, markersize=4.5)
    shown = [row.cells[metric] for row in rows if metric in row.cells]
    if all(0 <= value <= 1 for cell in shown for value in (*cell.values.values(), cell.mean)):
        low, high = axes.get_xlim()  # intervals of few seeds reach beyond what a share can be
        axes.set_xlim(max(low, -4), min(high, 104))


def _name_rows(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_yticks(range(len(rows)), [row_title(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)


def _handles(table: AblationTable) -> list[Line2D | Patch]:
    bar = f"full model + {table.confidence:.0%} interval of the difference"
    found: list[Line2D | Patch] = [
        Line2D([], [], markeredgecolor=INK, label="a seed", **_SEED),
        Line2D([], [], linestyle="none", marker="D", color=ORANGE, markersize=4.5, label="mean over seeds"),
        Line2D([], [], color=INK, alpha=0.55, linewidth=2.2, label=bar),
    ]
    if table.noise:
        found.append(Patch(color=BLUE, alpha=0.12, label="noise floor"))
    return found
