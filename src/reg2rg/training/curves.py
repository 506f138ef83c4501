"""Training curves as an SVG drawing that a page can hold."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from reg2rg.core.errors import ConfigError

COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed")


def read_curves(path: str | Path) -> pd.DataFrame:
    """Read what Lightning's CSV logger wrote.

    Args:
        path: a ``metrics.csv``, or the logger's folder: a run that was stopped and resumed has one file in each
            ``version_<n>`` below it, which are joined; where they overlap, the later one counts.

    Raises:
        ConfigError: no such file, or one without a ``step`` column.
    """
    path = Path(path)
    files = sorted(path.glob("version_*/metrics.csv"), key=_version) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ConfigError(
            f"{path}: not found (expected metrics.csv of a training run, or the folder of its CSV logger). "
            "Fix: run `reg2rg fit` first"
        )
    joined = pd.DataFrame({"step": []})
    for file in files:
        frame = pd.read_csv(file)
        if "step" not in frame.columns:
            raise ConfigError(f"{file}: columns {', '.join(frame.columns)} (expected 'step' among them)")
        joined = pd.concat([joined[joined["step"] < frame["step"].min()], frame], ignore_index=True)
    return joined


def _version(file: Path) -> int:
    return int(file.parent.name.removeprefix("version_"))


def draw_curves(runs: Mapping[str, pd.DataFrame], panels: Mapping[str, Sequence[str]]) -> str:
    """Draw one panel beside another, a line a run.

    Args:
        runs: name -> the run's logged values.
        panels: title -> the columns that may hold the value; the first that a run has is drawn.

    Returns:
        an ``<svg>`` element without XML prologue.
    """
    figure = Figure(figsize=(4.2 * len(panels), 2.9), layout="constrained")
    for axes, (title, columns) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for colour, (name, frame) in zip(COLOURS, runs.items(), strict=False):
            column = next((column for column in columns if column in frame.columns), None)
            if column is not None:
                values = frame[["step", column]].dropna()
                axes.plot(values["step"], values[column], color=colour, label=name, linewidth=1.6)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("optimiser step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(fontsize=8, frameon=False)
    buffer = io.StringIO()
    # A fixed salt keeps the drawing's ids, and so the page's bytes, the same for the same numbers.
    with mpl.rc_context({"svg.hashsalt": "reg2rg", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    drawing = buffer.getvalue()
    return drawing[drawing.index("<svg") :]
