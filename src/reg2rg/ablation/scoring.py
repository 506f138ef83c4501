"""Predictions of a run as statistics that a paired bootstrap can resample; and floors, which have no seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reg2rg.core.regions import RegionSet
from reg2rg.evaluation.baselines import COMMONEST_PARAGRAPHS, EVERYTHING, SHUFFLED
from reg2rg.evaluation.bootstrap import Statistic
from reg2rg.evaluation.cohort import Cohort, Settings, Truth
from reg2rg.evaluation.engine import baselines
from reg2rg.evaluation.labelers import Labeler
from reg2rg.evaluation.metrics.base import metrics_giving
from reg2rg.evaluation.protocols import find_protocol
from reg2rg.evaluation.reading import read_reports
from reg2rg.evaluation.results import REPORT
from reg2rg.evaluation.scoring import score_cohort

SHOWN_FLOORS = (COMMONEST_PARAGRAPHS, SHUFFLED, EVERYTHING)


@dataclass(frozen=True)
class Scores:
    """What one run with one seed is worth.

    Attributes:
        studies: ids, in the order of the statistics' units.
        patients: whose each study is.
        statistics: metric -> statistic.
    """

    studies: tuple[str, ...]
    patients: tuple[str, ...]
    statistics: Mapping[str, Statistic]

    def value(self, metric: str) -> float | None:
        """A metric's number, ``None`` if there is none."""
        statistic = self.statistics.get(metric)
        if statistic is None:
            return None
        found = statistic.number().value
        return found if np.isfinite(found) else None


class Scorer:
    """Scores folders of predictions the same way, as ``reg2rg evaluate`` does.

    Args:
        protocol: name of the evaluation's protocol.
        labeler: reads findings; ``None`` leaves them out.
        regions: region set of the data.
        metrics: names of the numbers that are wanted.
        truth: study -> labels, where the data set has them.
    """

    def __init__(
        self, protocol: str, labeler: Labeler | None, regions: RegionSet, metrics: Sequence[str], truth: Truth
    ) -> None:
        self.regions, self.metrics = regions, tuple(metrics)
        self.settings = Settings(
            find_protocol(protocol), labeler, truth=truth, metrics=metrics_giving(metrics), by_region=False
        )

    def score(self, predictions: Path, identity: bool = True) -> Scores:
        """Score a folder that ``reg2rg predict`` wrote.

        Args:
            predictions: the folder.
            identity: its reports name their regions; otherwise nothing is recognised, rightly or wrongly.
        """
        cohort = self._cohort(predictions)
        studies, patients = zip(*((pair.study, pair.patient) for pair in cohort.pairs), strict=True)
        kept = self._wanted(cohort)
        if not identity:
            kept = {name: statistic for name, statistic in kept.items() if statistic.group != "regions"}
        return Scores(studies, patients, kept)

    def floors(self, predictions: Path, train: Path | None) -> dict[str, dict[str, float]]:
        """Floors of the studies in a folder of predictions: floor -> metric -> value, by the same rules as `score`.

        Args:
            predictions: of the full model; what is shuffled between studies.
            train: table of training reports, for what is common; the evaluated references where there is none.
        """
        cohort = self._cohort(predictions)
        source = cohort.pairs if train is None else read_reports(train, train, self.regions, intersection=True).pairs
        return {
            name: {metric: item.number().value for metric, item in self._wanted(baseline).items()}
            for name, baseline in baselines(cohort, source)
            if name in SHOWN_FLOORS
        }

    def _cohort(self, predictions: Path) -> Cohort:
        reports = read_reports(predictions, None, self.regions)
        return Cohort(reports.pairs, reports.regions, self.settings)

    def _wanted(self, cohort: Cohort) -> dict[str, Statistic]:
        found = score_cohort(cohort).statistics
        return {item.name: item for item in found if item.scope == REPORT and item.name in self.metrics}
