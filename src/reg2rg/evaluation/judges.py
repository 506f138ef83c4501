"""Judges: scorers from other packages, found by name. Model-based metrics live there, in environments of their own."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from reg2rg.errors import ConfigError
from reg2rg.evaluation.reading import Pair
from reg2rg.files import atomic_write
from reg2rg.records import as_cell
from reg2rg.registry import did_you_mean

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
    judge = known[name].load()
    if not callable(judge):
        raise ConfigError(
            f"judge '{name}' is a {type(judge).__name__} (expected a function of references and predictions)"
        )
    found: Judge = judge
    return found


def export_texts(path: Path, pairs: Sequence[Pair]) -> None:
    """Write study, reference and prediction without prefixes as CSV, for tools in other environments."""
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("study", "reference", "prediction"))
        writer.writerows((pair.study, as_cell(pair.reference_text), as_cell(pair.prediction_text)) for pair in pairs)
