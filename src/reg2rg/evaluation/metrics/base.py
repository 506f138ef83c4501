"""What a metric is: one class in one file that turns reports into statistics, with everything that is known of it.

A number is a statistic that is additive over studies (`reg2rg.evaluation.bootstrap.Statistic`), so that its interval,
its comparison with another model and its baselines need no code of their own. Who prints, logs, draws or puts it into
tables asks the class: there is no list of metrics anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.registry import Registry, load_plugins
from reg2rg.evaluation.bootstrap import Array, Statistic, mean_statistic
from reg2rg.evaluation.metrics.ngrams import TextSet
from reg2rg.evaluation.results import REPORT, Group

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cells, Cohort

GROUPS: tuple[Group, ...] = ("language", "findings", "regions", "statistics")
_COLUMNS_OF_ABLATIONS: tuple[Group, ...] = ("regions", "findings", "language", "statistics")


@dataclass(frozen=True, slots=True)
class Column:
    """A value a unit, for the tables of studies and paragraphs.

    Attributes:
        scope: ``"report"`` for the table of studies, or a region.
        name: of the column.
        rows: (units,) the study of each value; values of one study are averaged.
        values: (units,)
    """

    scope: str
    name: str
    rows: NDArray[np.intp]
    values: Array


@dataclass(frozen=True, slots=True)
class Scores:
    """What a metric says of reports: its numbers, and what stands in the tables of studies and paragraphs."""

    statistics: Sequence[Statistic] = ()
    columns: Sequence[Column] = ()


class Metric(ABC):
    """A metric. A class registered in `METRICS` is found by its name; everything else about it are its attributes.

    Attributes:
        group: which table its numbers belong to.
        keys: names of its numbers; ``*`` and ``[1-4]`` stand for what the data decide, as in names of files.
        place: where it stands among the others; ties go by name.
        always: computed without being asked for.
        costly: too slow or too dear for baselines, unless they are asked for.
        reads_labels: depends on labels alone, so that it can score a reader that affirms every finding.
        depends_on_set: a study's part depends on which others are scored with it, as CIDEr's frequencies do.
        english: made for texts in Latin letters: of others it says that it is not available.
        logged: number -> name that it is logged under in validation and test. A name with ``{scope}`` is of the
            number by region.
        headline: numbers on top of the page of ``reg2rg evaluate``; of the names in one entry the first that is there.
        plotted: numbers that are drawn by region.
        tabled: numbers that are columns in tables of ablations where a sweep does not say otherwise.
    """

    group: ClassVar[Group]
    keys: ClassVar[tuple[str, ...]]
    place: ClassVar[int] = 80
    always: ClassVar[bool] = False
    costly: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = False
    depends_on_set: ClassVar[bool] = False
    english: ClassVar[bool] = False
    logged: ClassVar[Mapping[str, str]] = {}
    headline: ClassVar[tuple[tuple[str, ...], ...]] = ()
    plotted: ClassVar[tuple[str, ...]] = ()
    tabled: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def score(self, cohort: Cohort) -> Scores:
        """Score reports; nothing where they lack what the metric needs."""

    def score_all(self, cohorts: Sequence[Cohort]) -> list[Scores]:
        """`score` of each, such as predictions and their baselines: the same studies under the same settings."""
        return [self.score(cohort) for cohort in cohorts]

    def covers(self, cohort: Cohort) -> bool:
        """Whether the metric covers the script that the texts are written in."""
        return not (self.english and cohort.unread)

    def gives(self, name: str) -> bool:
        """Whether a number of this name is this metric's."""
        return any(fnmatchcase(name, key) for key in self.keys)


METRICS: Registry[Metric] = Registry("metric", Metric)  # type: ignore[type-abstract]


class TextMetric(Metric):
    """A metric that compares texts, one pair after another: paragraphs by region, and whole reports."""

    group = "language"

    @abstractmethod
    def measure(self, references: Sequence[str], predictions: Sequence[str], cohort: Cohort) -> NDArray[Any]:
        """(n, k) what is known of each pair."""

    @abstractmethod
    def values(self, measured: NDArray[Any], cohort: Cohort) -> Mapping[str, Array]:
        """Name -> (n,) value of each pair: the numbers whose means are printed, and columns of tables."""

    @abstractmethod
    def definition(self, cohort: Cohort) -> str:
        """What a value is: implementation and settings."""

    def statistics(
        self, scope: str, measured: NDArray[Any], rows: NDArray[np.intp], unit: str, cohort: Cohort
    ) -> list[Statistic]:
        """Numbers of the pairs of one scope: means of `values`.

        Args:
            scope: ``"report"`` or a region.
            measured: of `measure`.
            rows: (n,) the study of each pair.
            unit: ``"report"`` or ``"paragraph"``.
            cohort: what is scored.
        """
        text, studies = f"mean over {unit}s; {self.definition(cohort)}", len(cohort.pairs)
        return [
            mean_statistic(self.group, scope, name, text, rows=rows, values=values, studies=studies)
            for name, values in self.values(measured, cohort).items()
        ]

    def together(self, sets: Sequence[TextSet], cohort: Cohort) -> Sequence[NDArray[Any]]:
        """`measure` of many sets of pairs, among which texts come again."""
        return [self.measure(*sides, cohort) for sides in sets]

    def score(self, cohort: Cohort) -> Scores:
        """Score the paragraphs of each region, and reports: as wholes, or as the paragraphs of all regions."""
        return self.score_all([cohort])[0]

    def score_all(self, cohorts: Sequence[Cohort]) -> list[Scores]:
        """`score` of each; all texts are measured together."""
        cells = [[*one.compared.values(), *([one.undivided] if len(one.undivided.rows) else [])] for one in cohorts]
        texts = sum(len(cell.rows) for of_cohort in cells for cell in of_cohort)
        cohorts[0].progress(f"{type(self).__name__}: {texts:,} texts, those of floors among them")
        sets = [(cell.references, cell.predictions) for of_cohort in cells for cell in of_cohort]
        measured = iter(self.together(sets, cohorts[0]))
        return [
            self._scores(cohort, of_cohort, [next(measured) for _ in of_cohort])
            for cohort, of_cohort in zip(cohorts, cells, strict=True)
        ]

    def _scores(self, cohort: Cohort, cells: Sequence[Cells], measured: Sequence[NDArray[Any]]) -> Scores:
        """Numbers and columns from what is known of the pairs of each region, and of the undivided reports."""
        kept = [place for place, cell in enumerate(cells) if cohort.unit == "paragraph" or place == len(cells) - 1]
        whole, rows = (np.concatenate([part[place] for place in kept]) for part in (measured, [c.rows for c in cells]))
        statistics = self.statistics(REPORT, whole, rows, cohort.unit, cohort)
        columns = [Column(REPORT, name, rows, values) for name, values in self.values(whole, cohort).items()]
        for region, cell, found in zip(cohort.compared, cells, measured, strict=False):
            if cohort.settings.by_region:
                statistics += self.statistics(region, found, cell.rows, "paragraph", cohort)
                values = self.values(found, cohort)
                columns += [Column(region, name, cell.rows, column) for name, column in values.items()]
        return Scores(statistics, columns)


class SharedTextMetric(TextMetric):
    """A metric that measures many sets of pairs at once: what is known of a text is found once."""

    def measure(self, references: Sequence[str], predictions: Sequence[str], cohort: Cohort) -> NDArray[Any]:
        """Of one set."""
        return self.together([(references, predictions)], cohort)[0]

    @abstractmethod
    def together(self, sets: Sequence[TextSet], cohort: Cohort) -> Sequence[NDArray[Any]]:
        """(n, k) what is known of each pair, of each set."""


@cache
def _load() -> None:
    """Import this folder, whose modules register their metrics."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


def metric_classes() -> list[type[Metric]]:
    """All registered metrics, in the order of printing."""
    _load()
    return sorted((METRICS.get(name) for name in METRICS), key=lambda metric: (metric.place, metric.__name__))


def usual_metrics() -> tuple[Metric, ...]:
    """The metrics that are computed without being asked for."""
    return tuple(metric() for metric in metric_classes() if metric.always)


def metrics_giving(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics that any of these numbers belong to; those of plug-ins too, where no other gives one."""
    metrics = [cls() for cls in metric_classes()]
    if not all(any(metric.gives(name) for metric in metrics) for name in names):
        load_plugins()  # last: it may import much
        metrics = [cls() for cls in metric_classes()]
    return tuple(metric for metric in metrics if any(metric.gives(name) for name in names))


def tabled_names() -> tuple[str, ...]:
    """Numbers that tables of ablations show where a sweep does not say otherwise."""
    rank = _COLUMNS_OF_ABLATIONS.index
    return tuple(
        name for metric in sorted(metric_classes(), key=lambda metric: rank(metric.group)) for name in metric.tabled
    )


def headline_names() -> tuple[tuple[str, ...], ...]:
    """Numbers on top of a page; of the names in one entry the first that is there."""
    return tuple(names for metric in metric_classes() for names in metric.headline)


def plotted_names() -> tuple[str, ...]:
    """Numbers that are drawn by region, in the order of panels."""
    return tuple(name for metric in metric_classes() for name in metric.plotted)
