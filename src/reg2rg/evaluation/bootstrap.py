"""Intervals over patients: every number is a function of sums over studies, so that a resample is a weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg2rg.evaluation.results import Group, Number

Array = NDArray[np.float64]
_PATIENTS_AT_ONCE, _COLUMNS_AT_ONCE = 4096, 64


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number before it has an interval.

    Attributes:
        group: as in `Number`.
        scope: as in `Number`.
        name: as in `Number`.
        definition: as in `Number`.
        units: (studies, k) what each study adds.
        value: (..., k) sums -> (...,) numbers.
        n: how many units it is made of.
        std: standard deviation over them, where the number is their mean.
        point: the number, where it is not ``value`` of the sums (a published median); the interval stays that of
            ``value``.
        score: higher is better.
        count: as in `Number`.
        available: as in `Number`.
    """

    group: Group
    scope: str
    name: str
    definition: str
    units: NDArray[Any]
    value: Callable[[Array], Array]
    n: int
    std: float | None = None
    point: float | None = None
    score: bool = True
    count: bool = False
    available: bool = True

    @property
    def key(self) -> tuple[str, str, str]:
        """As `Number.key`."""
        return self.group, self.scope, self.name

    def total(self) -> Statistic:
        """The same number, of all studies as one."""
        return replace(self, units=self.units.sum(axis=0, dtype=np.float64)[None])

    def number(self, low: float | None = None, high: float | None = None) -> Number:
        """The number with its interval."""
        value = float(self.value(self.units.sum(axis=0, dtype=np.float64))) if self.point is None else self.point
        return Number(
            self.group,
            self.scope,
            self.name,
            value,
            self.n,
            self.definition,
            std=self.std,
            low=low,
            high=high,
            score=self.score,
            count=self.count,
            available=self.available,
        )


class Resamples:
    """Resamples of patients: how often each is drawn.

    Args:
        patients: whose each study is; studies of a patient are drawn together.
        count: resamples.
        seed: of the draws. The same studies and seed give the same draws, which is what makes comparisons paired.
    """

    def __init__(self, patients: Sequence[str], count: int = 1000, seed: int = 0) -> None:
        names, self._of_study = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
        generator = np.random.default_rng(seed)
        shares = np.full(len(names), 1 / len(names))
        # A byte holds it: one patient is drawn once on average, and 255 times with a chance of 1e-500.
        self._times = np.empty((count, len(names)), np.uint8)
        for row in self._times:
            row[:] = generator.multinomial(len(names), shares)
        self.patients, self.count = len(names), count

    def draws(self, statistic: Statistic) -> Array:
        """(count,) values of the statistic."""
        return next(self.each([statistic]))

    def each(self, statistics: Iterable[Statistic]) -> Iterator[Array]:
        """(count,) values of each statistic, many at once: most of the time goes into reading the resamples."""
        for group in _groups(statistics):
            parts = {id(one.units): one.units for one in group}  # precision, recall and F1 are made of the same sums
            sums = [summed(self._of_study, units, self.patients) for units in parts.values()]
            ends = np.cumsum([part.shape[1] for part in sums])[:-1]
            weighted = dict(
                zip(parts, np.split(self._weighted(np.concatenate(sums, axis=1)), ends, axis=1), strict=True)
            )
            for one in group:
                yield np.asarray(one.value(weighted[id(one.units)]), dtype=np.float64)

    def _weighted(self, sums: Array) -> Array:
        """(count, k) sums over patients of their (patients, k), each as often as it was drawn."""
        found = np.zeros((self.count, sums.shape[1]))
        for start in range(0, self.patients, _PATIENTS_AT_ONCE):
            part = slice(start, start + _PATIENTS_AT_ONCE)
            found += self._times[:, part].astype(np.float64) @ sums[part]
        return found


def _groups(statistics: Iterable[Statistic]) -> Iterator[list[Statistic]]:
    """Statistics in their order, so many together that their sums have about `_COLUMNS_AT_ONCE` columns."""
    group: list[Statistic] = []
    for one in statistics:
        group.append(one)
        if sum({id(other.units): other.units.shape[1] for other in group}.values()) >= _COLUMNS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def summed(rows: NDArray[Any], values: NDArray[Any], size: int) -> Array:
    """(units, k) values of units -> (size, k) sums over the row that each unit belongs to."""
    columns = [np.bincount(rows, column, minlength=size) for column in np.asarray(values, dtype=np.float64).T]
    return np.stack(columns, axis=-1) if columns else np.zeros((size, 0))


def interval(draws: Array, confidence: float) -> tuple[float, float] | tuple[None, None]:
    """Percentile interval; none if no draw has a value."""
    known = draws[np.isfinite(draws)]
    if not known.size:
        return None, None
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def p_value(differences: Array) -> float:
    """Two-sided: how often a resample shows no difference or one to the other side; never 0 for finitely many."""
    known = differences[np.isfinite(differences)]
    if not known.size:
        return 1.0
    down, up = (known <= 0).sum(), (known >= 0).sum()
    return float(min(1.0, 2 * (min(down, up) + 1) / (known.size + 1)))


def mean_statistic(
    group: Group,
    scope: str,
    name: str,
    definition: str,
    *,
    rows: NDArray[np.intp],
    values: Array,
    studies: int,
    point: float | None = None,
    score: bool = True,
) -> Statistic:
    """The mean of one value a unit.

    Args:
        group: as in `Number`.
        scope: as in `Number`.
        name: as in `Number`.
        definition: as in `Number`.
        rows: (units,) the study of each unit.
        values: (units,) its value.
        studies: how many studies there are.
        point: as in `Statistic`.
        score: as in `Statistic`.
    """
    units = summed(rows, np.stack([values, np.ones(len(values))], axis=-1), studies)
    std = float(np.std(values)) if len(values) else None
    return Statistic(group, scope, name, definition, units, ratio, len(values), std, point, score)


def no_interval(sums: Array) -> Array:
    """Stands for the value of a statistic that resampling says nothing about, such as a share of distinct texts."""
    return np.full(sums.shape[:-1], np.nan)


def ratio(sums: Array) -> Array:
    """(..., 2) hits and tries, or values and their number -> (...,) first over second; NaN where nothing was tried."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])
