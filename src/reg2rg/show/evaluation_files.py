"""An evaluation as files: JSON and CSV for programs, plots for papers, one page for people. Each is whole or absent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reg2rg.core.files import atomic_write, write_json
from reg2rg.evaluation.records import as_cell
from reg2rg.evaluation.results import Evaluation, Number
from reg2rg.show.evaluation_page import write_evaluation_page
from reg2rg.show.phrases import best_floors, floor_values, is_below
from reg2rg.show.plots import PLOTS, draw_plots, png, svg, word_bins

FORMAT = 1
"""Version of ``metrics.json``: raised when a key changes its meaning or goes, not when one is added."""
METRICS, PER_STUDY, PER_REGION, PAGE, PLOT_FOLDER = (
    "metrics.json",
    "per_study.csv",
    "per_region.csv",
    "report.html",
    "plots",
)
_OF_FLOOR = ("group", "scope", "name", "value", "n")
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def write_evaluation(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write all outputs of an evaluation, each atomically; ``metrics.json`` last, so that it says that all are there.

    Files of an earlier evaluation in the same folder that this one has no data for are removed: an old plot beside new
    numbers would be read as theirs.

    Args:
        evaluation: what to write.
        out: the folder; created if it is not there.

    Returns:
        the files written, in that order.
    """
    out = Path(out)
    (out / METRICS).unlink(missing_ok=True)
    written = [
        path
        for name, frame in ((PER_STUDY, evaluation.per_study), (PER_REGION, evaluation.per_region))
        if (path := _write_frame(out / name, frame))
    ]
    figures = draw_plots(evaluation)
    drawings: dict[str, str] = {}
    for name, figure in figures.items():
        drawings[name] = svg(figure)
        for path, content in (
            (out / PLOT_FOLDER / f"{name}.png", png(figure)),
            (out / PLOT_FOLDER / f"{name}.svg", drawings[name].encode()),
        ):
            with atomic_write(path) as stream:
                stream.write(content)
            written.append(path)
    write_evaluation_page(out / PAGE, evaluation, drawings=drawings)
    written.append(out / PAGE)
    for name in PLOTS:
        if name not in figures:
            for ending in ("png", "svg"):
                (out / PLOT_FOLDER / f"{name}.{ending}").unlink(missing_ok=True)
    write_json(out / METRICS, as_json(evaluation))
    return [*written, out / METRICS]


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the tables of studies and regions, as JSON has it: NaN and infinity are null."""
    values, best = floor_values(evaluation), best_floors(evaluation)
    numbers = []
    for number in evaluation.numbers:
        floor = best.get(number.key)
        numbers.append(
            {
                **_number(number),
                "protocol": evaluation.protocol,
                "floors": {name: values.get(number.key, {}).get(name) for name in evaluation.floors},
                "best_floor": floor[0] if floor else None,
                "exceeds_best_floor": not is_below(number, best) if floor else None,
            }
        )
    found: dict[str, Any] = {
        "format": FORMAT,
        "name": evaluation.name,
        "against": evaluation.against or None,
        "protocol": {"name": evaluation.protocol, "text": evaluation.protocol_text},
        "studies": evaluation.studies,
        "patients": evaluation.patients,
        "intervals": {
            "method": "bootstrap over patients" if evaluation.resamples else None,
            "resamples": evaluation.resamples,
            "confidence": evaluation.confidence,
            "seed": evaluation.seed,
        },
        "notes": list(evaluation.notes),
        "numbers": numbers,
        # In full here too: a floor may have a number that the evaluation itself has not.
        "floors": {
            name: [{key: value for key, value in _number(number).items() if key in _OF_FLOOR} for number in floor]
            for name, floor in evaluation.floors.items()
        },
        "labeler": evaluation.labeler or None,
        "labels": [asdict(label) for label in evaluation.labels],
        "confusion": asdict(evaluation.confusion) if evaluation.confusion else None,
        "regions": [asdict(region) for region in evaluation.regions],
        "words": _words(evaluation.words),
        "differences": [
            {
                "group": found.number.group,
                "scope": found.number.scope,
                "name": found.number.name,
                "value": found.number.value,
                "other": found.other,
                "difference": found.number.value - found.other,
                "low": found.low,
                "high": found.high,
                "p": found.p,
            }
            for found in evaluation.differences
        ],
        "inputs": dict(evaluation.inputs),
        "software": dict(sorted(evaluation.software.items())),
    }
    plain: dict[str, Any] = _plain(found)
    return plain


def _number(number: Number) -> dict[str, Any]:
    return {
        "group": number.group,
        "scope": number.scope,
        "name": number.name,
        "value": number.value,
        "n": number.n,
        "std": number.std,
        "low": number.low,
        "high": number.high,
        "score": number.score,
        "definition": number.definition,
    }


def _words(words: Mapping[str, Sequence[int]]) -> dict[str, Any] | None:
    """Words per report in short: moments, quantiles and a histogram with shared edges."""
    if not any(words.values()):
        return None
    edges = word_bins(words)
    by_name = {}
    for name, numbers in words.items():
        values = np.asarray(numbers, dtype=np.float64)
        if values.size:
            quantiles = np.quantile(values, _QUANTILES).tolist()
            by_name[name] = {
                "n": int(values.size),
                "mean": float(values.mean()),
                "std": float(values.std()),
                "quantiles": {f"{q:g}": value for q, value in zip(_QUANTILES, quantiles, strict=True)},
                "histogram": np.histogram(values, edges)[0].tolist(),
            }
    return {"edges": edges.tolist(), "by_name": by_name}


def _plain(value: Any) -> Any:
    """`value` of JSON's own types: what comes from NumPy or pandas is turned, what is no number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


def _write_frame(path: Path, frame: pd.DataFrame) -> Path | None:
    """Write a frame as CSV that a spreadsheet can open without running any of its texts."""
    if not len(frame.columns):
        path.unlink(missing_ok=True)
        return None
    safe = frame.copy()
    for name in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            safe[name] = safe[name].map(_cell)
    safe.columns = pd.Index([as_cell(str(name)) for name in safe.columns])
    with atomic_write(path, "w") as stream:
        safe.to_csv(stream, index=False, lineterminator="\n")
    return path


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(_plain(value), ensure_ascii=False)
    return as_cell(value) if isinstance(value, str) else value
