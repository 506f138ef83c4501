"""Runs with several seeds, compared: spread, noise floor, and a paired bootstrap over patients that knows of seeds.

The procedure. A run's number is the mean over its seeds. It is compared with the full model on the same studies:

1. Runs are paired by seed: the difference of one seed is (run with that seed) - (full model with that seed). Seeds that
   one of the two lacks are left out.
2. A resample draws patients with replacement, the same draw for all runs and seeds, all studies of a patient together.
   The metric of each run and seed is computed on it anew, and the differences are averaged over the seeds. This is how
   much the mean difference depends on who is in the test set.
3. It also depends on the few trainings that were made. To each resample a random term is added: the standard error over
   seeds of the paired differences, s / sqrt(S), times a draw of Student's t with S - 1 degrees of freedom. Drawing the
   seeds themselves with replacement would not do: three equal models have all differences on one side in a quarter of
   all cases, and no resample of them would ever cross 0. With the t term, a comparison in which seeds are all that
   matters is the paired t test, and one in which patients are all that matters is the bootstrap over patients. What
   seeds and patients do together is counted in both terms, which errs on the side of caution. With one seed there is
   no such term, and the interval says nothing of training noise.
4. The interval is the percentile interval of these values; p is two-sided: twice the smaller share of resamples on one
   side of 0, never 0 for finitely many.
5. Over the runs of a table, p values of a metric are corrected by Holm's method. A difference is marked when the
   corrected p is below 1 - confidence. Metrics are not corrected for: choose the one that you ask about beforehand.

The noise floor stands beside it: the full model against itself, for every pair of its seeds. A difference that is no
larger than the largest of these is said to lie within the noise, whatever its p.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reg2rg.ablation.scoring import Scores
from reg2rg.evaluation.bootstrap import Array, Resamples, interval, p_value

SeedScores = Mapping[int, Scores]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run against the full model in one metric.

    Attributes:
        difference: mean over paired seeds of run minus full model.
        low: lower end of the interval.
        high: upper end.
        p: two-sided.
        seeds: that were paired.
        corrected: p by Holm's method over the runs of the table.
        within_noise: no larger than the largest difference between two seeds of the full model; ``None`` if it has one.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: tuple[int, ...]
    corrected: float = 1.0
    within_noise: bool | None = None


@dataclass(frozen=True, slots=True)
class Noise:
    """The full model against itself in one metric.

    Attributes:
        mean: absolute difference between two seeds, mean over all pairs.
        largest: the largest of them.
        pairs: of seeds.
        different: pairs that a bootstrap over patients alone calls different at the table's level.
    """

    mean: float
    largest: float
    pairs: int
    different: int


class Comparer:
    """Compares runs with the full model on the same resamples.

    Args:
        full: seed -> scores of the full model.
        count: resamples.
        confidence: of the intervals.
        seed: of the draws.
    """

    def __init__(self, full: SeedScores, count: int = 1000, confidence: float = 0.95, seed: int = 0) -> None:
        self.full, self.count, self.confidence, self.seed = dict(full), count, confidence, seed
        first = next(iter(self.full.values()), None)
        self.studies = first.studies if first is not None else ()
        self._resamples = Resamples(first.patients, count, seed) if first is not None else None
        self._known: dict[tuple[int, str], Array] = {}

    def comparable(self, scores: Scores) -> bool:
        """Whether it is of the same studies."""
        return scores.studies == self.studies

    def compare(self, run: SeedScores, metric: str) -> Comparison | None:
        """A run against the full model; ``None`` if no seed has both."""
        seeds = tuple(
            seed
            for seed in sorted(self.full.keys() & run.keys())
            if self.comparable(run[seed])
            and self.comparable(self.full[seed])
            and self.full[seed].value(metric) is not None
            and run[seed].value(metric) is not None
        )
        if not seeds:
            return None
        points = [_value(run[seed], metric) - _value(self.full[seed], metric) for seed in seeds]
        draws = np.stack([self._draws(run[seed], metric) - self._full_draws(seed, metric) for seed in seeds])
        means = self._over_seeds(draws, points)
        low, high = interval(means, self.confidence)
        if low is None or high is None:
            return None
        return Comparison(float(np.mean(points)), low, high, p_value(means), seeds)

    def noise(self, metric: str) -> Noise | None:
        """The full model against itself; ``None`` with fewer than two seeds."""
        known = {seed: s for seed, s in self.full.items() if s.value(metric) is not None and self.comparable(s)}
        pairs = list(itertools.combinations(sorted(known), 2))
        if not pairs:
            return None
        gaps, different = [], 0
        for one, other in pairs:
            gaps.append(abs(_value(known[one], metric) - _value(known[other], metric)))
            draws = self._full_draws(one, metric) - self._full_draws(other, metric)
            different += p_value(draws) < round(1 - self.confidence, 12)
        return Noise(float(np.mean(gaps)), float(np.max(gaps)), len(pairs), different)

    def _over_seeds(self, draws: Array, points: Sequence[float]) -> Array:
        """(seeds, count) differences, and those of all studies -> (count,) means with the uncertainty of few seeds."""
        seeds, count = draws.shape
        means = np.asarray(draws.mean(axis=0))
        if seeds == 1:
            return means
        error = float(np.std(points, ddof=1)) / np.sqrt(seeds)
        return np.asarray(means + error * np.random.default_rng((self.seed, seeds)).standard_t(seeds - 1, size=count))

    def _full_draws(self, seed: int, metric: str) -> Array:
        if (seed, metric) not in self._known:
            self._known[seed, metric] = self._draws(self.full[seed], metric)
        return self._known[seed, metric]

    def _draws(self, scores: Scores, metric: str) -> Array:
        assert self._resamples is not None
        return self._resamples.draws(scores.statistics[metric])


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's step-down method."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    corrected, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = highest
    return corrected


def _value(scores: Scores, metric: str) -> float:
    found = scores.value(metric)
    assert found is not None
    return found
