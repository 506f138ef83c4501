"""Whether studies look like those that a model was calibrated on: measured HU of each region, held against reference.

A promise of conformal prediction holds for exchangeable studies. Noise, blur and an offset of HU break that, and show
in what is measured of the regions long before anybody sees it in reports. Each number is tested by the two-sample
Kolmogorov-Smirnov test, and the least p is corrected for the number of tests (Bonferroni). It sees what moves these
numbers and nothing else: another mix of diseases may pass unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstwobign

Floats = NDArray[np.float64]
QUANTILES = 65
FEWEST = 20
"""Studies with a region on either side, for it to be compared."""


@dataclass(frozen=True, slots=True)
class Shift:
    """What the comparison found.

    Attributes:
        p: of no difference, corrected for all numbers that were compared; 1 where there was nothing to compare.
        region: where the largest difference is, ``""`` for none.
        number: in what.
        studies: how many were compared.
    """

    p: float
    region: str
    number: str
    studies: int

    def __str__(self) -> str:
        where = f"; most of all in {self.number} of {self.region}" if self.region else ""
        return f"p = {self.p:.2g} over {self.studies} studies{where}"


def reference(values: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Quantiles (R, K, `QUANTILES`) of the K numbers of reference studies (S, R, K), and how many have each region."""
    count = np.isfinite(values[..., 0]).sum(0)
    levels = np.linspace(0, 1, QUANTILES)
    quantiles = np.full((*values.shape[1:], QUANTILES), np.nan)
    for place in np.flatnonzero(count):
        own = values[np.isfinite(values[:, place, 0]), place]
        quantiles[place] = np.quantile(own, levels, axis=0).T
    return quantiles, count.astype(np.int64)


def compare(
    values: Floats, quantiles: Floats, count: NDArray[np.int64], regions: Sequence[str], numbers: Sequence[str]
) -> Shift:
    """Hold studies against a `reference`.

    Args:
        values: (S, R, K) numbers of their regions, nan where a study lacks one.
        quantiles: of the reference.
        count: of the reference.
        regions: R names.
        numbers: K names.

    Returns:
        p and where the largest difference is; regions with fewer than `FEWEST` studies on a side are left out.
    """
    own = np.isfinite(values[..., 0]).sum(0)
    places = np.flatnonzero((own >= FEWEST) & (count >= FEWEST))
    found: dict[tuple[int, int], float] = {}
    for place in places.tolist():
        known = values[np.isfinite(values[:, place, 0]), place]
        for index in range(len(numbers)):
            found[place, index] = _p(known[:, index], quantiles[place, index], int(count[place]))
    if not found:
        return Shift(1.0, "", "", len(values))
    (place, index), least = min(found.items(), key=lambda item: item[1])
    return Shift(min(1.0, least * len(found)), regions[place], numbers[index], len(values))


def _p(sample: Floats, quantiles: Floats, count: int) -> float:
    """Two-sample Kolmogorov-Smirnov p (asymptotic) of a sample against `count` values of which quantiles are known."""
    sample, levels = np.sort(sample), np.linspace(0, 1, len(quantiles))
    # Of equal quantiles the last for "at most", the first for "below": ties (shares of nothing) make no difference.
    grid = np.unique(np.concatenate([sample, quantiles]))
    most = max(
        np.abs(_share(sample, grid, side) - _reference_share(quantiles, levels, grid, side)).max()
        for side in ("left", "right")
    )
    return float(kstwobign.sf(most * np.sqrt(len(sample) * count / (len(sample) + count))))


def _share(sample: Floats, grid: Floats, side: str) -> Floats:
    return np.asarray(np.searchsorted(sample, grid, side=side) / len(sample))  # type: ignore[call-overload]


def _reference_share(quantiles: Floats, levels: Floats, grid: Floats, side: str) -> Floats:
    """Share of the reference below (left) or at most (right) each value: between quantiles in proportion."""
    low, high = np.searchsorted(quantiles, grid, side="left"), np.searchsorted(quantiles, grid, side="right")
    between = np.interp(grid, quantiles, levels)
    exact = levels[np.clip(high - 1 if side == "right" else low, 0, len(levels) - 1)]
    return np.where(high > low, exact, np.where(grid < quantiles[0], 0.0, np.where(grid > quantiles[-1], 1.0, between)))
