"""An evaluation as files: JSON and CSV for programs, plots for papers, one page for people. Each is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reg2rg.audit.results import AuditResult
from reg2rg.core.files import Outputs, json_text
from reg2rg.evaluation.results import Difference, Evaluation
from reg2rg.show.evaluation_page import evaluation_page
from reg2rg.show.phrases import best_floors, floor_values, is_below
from reg2rg.show.plots import PLOTS, draw_plot, png, svg, word_bins
from reg2rg.show.render import to_csv

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
_OF_NUMBER = (*_OF_FLOOR, "std", "low", "high", "score", "definition")
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def write_evaluation(evaluation: Evaluation, out: Path, outputs: Outputs | None = None) -> list[Path]:
    """Write all outputs of an evaluation, each whole or absent, and each on its own: a plot that fails loses no score.

    ``metrics.json`` comes last, so that it says that an evaluation was written to its end. Files of an earlier
    evaluation in the same folder that this one has no data for are removed: an old plot beside new numbers would be
    read as theirs.

    Args:
        evaluation: what to write.
        out: the folder; created if it is not there.
        outputs: collects what was written and what failed, for who goes on; ``None`` raises at the end.

    Returns:
        the files written, in that order.

    Raises:
        OutputsFailedError: some could not be written, and `outputs` is ``None``.
    """
    out, own = Path(out), outputs or Outputs()
    own.write(out / METRICS, None)
    for name, frame in ((PER_STUDY, evaluation.per_study), (PER_REGION, evaluation.per_region)):
        own.write(out / name, partial(to_csv, frame) if len(frame.columns) else None)
    drawings: dict[str, str] = {}
    for name in PLOTS:
        figure = _figure(evaluation, name, out, own)
        own.write(out / PLOT_FOLDER / f"{name}.png", partial(png, figure) if figure is not None else None)
        own.write(
            out / PLOT_FOLDER / f"{name}.svg", partial(_drawn, figure, name, drawings) if figure is not None else None
        )
    own.write(out / PAGE, lambda: evaluation_page(evaluation, drawings))
    own.write(out / METRICS, lambda: json_text(as_json(evaluation)))
    if outputs is None:
        own.check()
    return own.written


def _figure(evaluation: Evaluation, name: str, out: Path, outputs: Outputs) -> Figure | None:
    try:
        return draw_plot(evaluation, name)
    except Exception as error:  # a drawing is no reason to lose numbers
        outputs.fail(out / PLOT_FOLDER / name, error)
        return None


def _drawn(figure: Figure, name: str, drawings: dict[str, str]) -> str:
    """The drawing, kept for the page as well."""
    drawings[name] = svg(figure)
    return drawings[name]


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the tables of studies and regions, as JSON has it: NaN and infinity are null."""
    values, best = floor_values(evaluation), best_floors(evaluation)
    numbers = []
    for number in evaluation.numbers:
        floor = best.get(number.key)
        numbers.append(
            {
                **_fields(number, _OF_NUMBER),
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
        "intervals": intervals_json(evaluation),
        "notes": list(evaluation.notes),
        "numbers": numbers,
        # In full here too: a floor may have a number that the evaluation itself has not.
        "floors": {name: [_fields(n, _OF_FLOOR) for n in floor] for name, floor in evaluation.floors.items()},
        "labeler": evaluation.labeler or None,
        "labels": [asdict(label) for label in evaluation.labels],
        "confusion": asdict(evaluation.confusion) if evaluation.confusion else None,
        "regions": [asdict(region) for region in evaluation.regions],
        "words": _words(evaluation.words),
        "differences": differences_json(evaluation.differences),
        "inputs": dict(evaluation.inputs),
        "software": dict(sorted(evaluation.software.items())),
    }
    return plain_json(found)


def intervals_json(found: Evaluation | AuditResult) -> dict[str, Any]:
    """Where intervals come from."""
    method = "bootstrap over patients" if found.resamples else None
    return {"method": method, **_fields(found, ("resamples", "confidence", "seed"))}


def differences_json(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """Paired differences."""
    return [
        {
            **_fields(found.number, ("group", "scope", "name", "value")),
            "other": found.other,
            "difference": found.number.value - found.other,
            **_fields(found, ("low", "high", "p")),
        }
        for found in differences
    ]


def plain_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same in JSON's own types: NaN and infinity are null."""
    plain: dict[str, Any] = json.loads(json.dumps(found, default=_native), parse_constant=lambda _: None)  # noqa: TID251
    return plain


def _fields(found: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(found, name) for name in names}


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


def _native(value: Any) -> Any:
    """What comes from NumPy, or is no dictionary but a mapping, as JSON's own type."""
    return value.item() if isinstance(value, np.generic) else dict(value) if isinstance(value, Mapping) else str(value)
