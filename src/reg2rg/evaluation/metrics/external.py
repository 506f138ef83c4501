"""Judges: scorers from other packages, found by name. Model-based metrics live there, in environments of their own.

A judge is a function, made a metric here; or a registered metric that is not computed unasked.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean, load_plugins
from reg2rg.evaluation.bootstrap import mean_statistic
from reg2rg.evaluation.metrics.base import METRICS, Column, Metric, Scores, metric_classes
from reg2rg.evaluation.pairs import Pair
from reg2rg.evaluation.records import as_cell
from reg2rg.evaluation.results import REPORT

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

GROUP = "reg2rg.judges"
"""Entry-point group: an installed package names its functions there."""

Function = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""``score(references, predictions) -> one score a report``, higher is better."""


class Judge(Metric):
    """The mean over reports of a function's scores.

    Args:
        name: of the number.
        function: scores whole reports.
    """

    group, place, costly, depends_on_set = "language", 45, True, True

    def __init__(self, name: str, function: Function) -> None:
        self.name, self.function = name, function

    def gives(self, name: str) -> bool:
        """Whether the number is this judge's."""
        return name == self.name

    def score(self, cohort: Cohort) -> Scores:
        """Score whole reports."""
        studies = len(cohort.pairs)
        cohort.progress(f"judge {self.name}: {studies:,} reports")
        values, rows = judge_reports(self.name, self.function, cohort.pairs), np.arange(studies)
        text = f"mean over reports of the judge '{self.name}'"
        number = mean_statistic(self.group, REPORT, self.name, text, rows=rows, values=values, studies=studies)
        return Scores([number], [Column(REPORT, self.name, rows, values)])


def load_judge(name: str) -> Metric:
    """The judge of this name: a registered metric, or a function that an installed package offers.

    Raises:
        ConfigError: none does, or what it names cannot be called.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    asked_for = [metric.__name__ for metric in metric_classes() if not metric.always]
    if name not in known and name not in METRICS:
        load_plugins()  # last: it may import much
    if name in METRICS:
        return METRICS.get(name)()
    if name not in known:
        there = sorted({*known, *asked_for})
        raise ConfigError(
            f"there is no judge '{name}'.{did_you_mean(name, there)} Installed: {', '.join(there)}. Fix: install a "
            f"package that names one under the entry-point group '{GROUP}', or registers a metric of this name"
        )
    try:
        judge = known[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"judge '{name}' ({known[name].value}) cannot be loaded: {type(error).__name__}: {error}. Fix: install "
            "what it needs, or correct its entry point"
        ) from None
    if not callable(judge):
        raise ConfigError(
            f"judge '{name}' is a {type(judge).__name__} (expected a function of references and predictions)"
        )
    return Judge(name, judge)


def judge_reports(name: str, judge: Function, pairs: Sequence[Pair]) -> NDArray[np.float64]:
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


def exported_texts(path: Path, pairs: Sequence[Pair]) -> str:
    """The content of a file of the texts that are compared, without prefixes, for tools in other environments.

    Args:
        path: ``.json``: ``{"studies": [...], "refs": [...], "hyps": [...]}``, whose lists are the arguments of radeval,
            letter by letter; ``.csv``: a row a study, safe to open in a spreadsheet.
        pairs: what it holds.

    Raises:
        ConfigError: another ending.
    """
    if path.suffix.lower() == ".json":
        lists = {
            "studies": [pair.study for pair in pairs],
            "refs": [pair.reference_text for pair in pairs],
            "hyps": [pair.prediction_text for pair in pairs],
        }
        return json.dumps(lists, indent=2, ensure_ascii=False) + "\n"
    check_export(path)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("study", "reference", "prediction"))
    writer.writerows((pair.study, as_cell(pair.reference_text), as_cell(pair.prediction_text)) for pair in pairs)
    return stream.getvalue()


def check_export(path: Path) -> None:
    """Refuse an ending that `exported_texts` does not know."""
    if path.suffix.lower() not in (".json", ".csv"):
        raise ConfigError(
            f"{path}: '{path.suffix}' is no form that texts are exported in (expected .json, which radeval takes, or "
            ".csv). Fix: rename the file"
        )
