"""Scores of one set of predictions as statistics: what all metrics say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reg2rg.evaluation.bootstrap import Statistic, no_interval
from reg2rg.evaluation.cohort import Cohort
from reg2rg.evaluation.metrics.base import GROUPS, Column, Metric, Scores, usual_metrics
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
    return score_with_baselines(cohort, [])[0]


def score_with_baselines(cohort: Cohort, baselines: Sequence[Cohort]) -> tuple[Scored, list[Scored]]:
    """`score_cohort` of predictions and of their baselines, metric by metric: what they share is found once.

    Of baselines the numbers are kept, and not what each study adds to them.
    """
    cohorts = [cohort, *baselines]
    found: list[list[Scores]] = [[] for _ in cohorts]
    wanted = [_metrics(one) for one in cohorts]
    for metric in dict.fromkeys(metric for metrics in wanted for metric in metrics):
        asked = [place for place, metrics in enumerate(wanted) if metric in metrics]
        for place, scores in zip(asked, metric.score_all([cohorts[place] for place in asked]), strict=True):
            kept = scores if metric.covers(cohorts[place]) else _unavailable(scores)
            found[place].append(kept if place == 0 else Scores([one.total() for one in kept.statistics]))
    scored = [_sorted(one, scores) for one, scores in zip(cohorts, found, strict=True)]
    return scored[0], scored[1:]


def _metrics(cohort: Cohort) -> list[Metric]:
    chosen = cohort.settings.metrics
    metrics = usual_metrics() if chosen is None else chosen
    return [metric for metric in metrics if metric.reads_labels or not cohort.everything]


def _sorted(cohort: Cohort, found: Sequence[Scores]) -> Scored:
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
