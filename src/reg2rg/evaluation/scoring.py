"""Scores of one set of predictions as statistics: what all metrics say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reg2rg.evaluation.bootstrap import Statistic, no_interval
from reg2rg.evaluation.cohort import Cohort
from reg2rg.evaluation.metrics.base import GROUPS, Column, Scores, usual_metrics
from reg2rg.evaluation.results import REPORT


@dataclass(frozen=True, slots=True)
class Scored:
    """What one set of predictions is worth.

    Attributes:
        cohort: what was scored.
        statistics: all numbers, in the order of printing.
        columns: for the tables of studies and paragraphs.
    """

    cohort: Cohort
    statistics: Sequence[Statistic]
    columns: Sequence[Column]


def score_cohort(cohort: Cohort) -> Scored:
    """All numbers of the chosen metrics; of those that read labels alone, for a reader that affirms everything."""
    chosen = cohort.settings.metrics
    metrics = usual_metrics() if chosen is None else chosen
    asked = [metric for metric in metrics if metric.reads_labels or not cohort.everything]
    found = [metric.score(cohort) if metric.covers(cohort) else _unavailable(metric.score(cohort)) for metric in asked]
    scopes = (REPORT, *cohort.regions)
    statistics = [statistic for scores in found for statistic in scores.statistics]
    statistics.sort(key=lambda one: (GROUPS.index(one.group), scopes.index(one.scope)))
    return Scored(cohort, statistics, [column for scores in found for column in scores.columns])


def _unavailable(scores: Scores) -> Scores:
    """The same numbers without values: what made them does not cover the script of the texts."""
    blank = [
        replace(one, point=math.nan, std=None, value=no_interval, available=False, score=False)
        for one in scores.statistics
    ]
    return Scores(blank)
