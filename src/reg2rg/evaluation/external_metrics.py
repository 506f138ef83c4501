"""Judges: scorers from other packages, found by name. Model-based metrics live there, in environments of their own."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.errors import ConfigError
from reg2rg.core.files import atomic_write, write_json
from reg2rg.core.registry import did_you_mean
from reg2rg.evaluation.pairs import Pair
from reg2rg.evaluation.records import as_cell

GROUP = "reg2rg.judges"
"""Entry-point group: an installed package names its functions there."""

Judge = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""``score(references, predictions) -> one score a report``, higher is better."""


def load_judge(name: str) -> Judge:
    """The judge that an installed package offers under this name.

    Raises:
        ConfigError: none does, or what it names cannot be called.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise ConfigError(
            f"there is no judge '{name}'.{did_you_mean(name, list(known))} Installed: {there}. Fix: install a package "
            f"that names one under the entry-point group '{GROUP}'"
        )
    try:
        judge = known[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"judge '{name}' ({known[name].value}) cannot be loaded: {type(error).__name__}: {error}. Fix: install "
            "what it needs, or correct its entry point"
        ) from error
    if not callable(judge):
        raise ConfigError(
            f"judge '{name}' is a {type(judge).__name__} (expected a function of references and predictions)"
        )
    found: Judge = judge
    return found


def judge_reports(name: str, judge: Judge, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """(n,) scores of whole reports without prefixes. A report that it cannot score may be NaN.

    Raises:
        ConfigError: not one number a report.
    """
    scores = judge([pair.reference_text for pair in pairs], [pair.prediction_text for pair in pairs])
    try:
        values = np.asarray(list(scores), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"judge '{name}' gave {type(scores).__name__} ({error}) (expected a list of numbers, one a report). Fix: "
            "correct the judge"
        ) from None
    if values.shape != (len(pairs),):
        raise ConfigError(
            f"judge '{name}' gave scores of the shape {values.shape} (expected one number for each of {len(pairs)} "
            "reports). Fix: correct the judge"
        )
    return values


def export_texts(path: Path, pairs: Sequence[Pair]) -> None:
    """Write the texts that are compared, without prefixes, for tools in other environments.

    Args:
        path: ``.json``: ``{"studies": [...], "refs": [...], "hyps": [...]}``, whose lists are the arguments of radeval,
            letter by letter; ``.csv``: a row a study, safe to open in a spreadsheet.
        pairs: what is written.

    Raises:
        ConfigError: another ending.
    """
    if path.suffix.lower() == ".json":
        lists = {
            "studies": [pair.study for pair in pairs],
            "refs": [pair.reference_text for pair in pairs],
            "hyps": [pair.prediction_text for pair in pairs],
        }
        write_json(path, lists)
        return
    check_export(path)
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("study", "reference", "prediction"))
        writer.writerows((pair.study, as_cell(pair.reference_text), as_cell(pair.prediction_text)) for pair in pairs)


def check_export(path: Path) -> None:
    """Refuse an ending that `export_texts` does not know."""
    if path.suffix.lower() not in (".json", ".csv"):
        raise ConfigError(
            f"{path}: '{path.suffix}' is no form that texts are exported in (expected .json, which radeval takes, or "
            ".csv). Fix: rename the file"
        )
