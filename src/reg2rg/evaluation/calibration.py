"""How well probabilities rank, and whether they mean what they say. NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float32] | NDArray[np.float64]
Truth = NDArray[np.bool_]
BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability plot.

    Attributes:
        said: mean probability.
        found: share that is true.
        count: how many.
    """

    said: float
    found: float
    count: int


def reliability(shares: Shares, truth: Truth, bins: int = BINS) -> list[Bin]:
    """Probabilities in bins of equal width, empty ones left out."""
    place = np.minimum((np.asarray(shares, np.float64) * bins).astype(np.intp), bins - 1)
    groups = (place == index for index in range(bins))
    return [Bin(float(np.mean(shares[own])), float(np.mean(truth[own])), int(own.sum())) for own in groups if own.any()]


def expected_calibration_error(shares: Shares, truth: Truth, bins: int = BINS) -> float:
    """Mean distance of what is said from what is found, bin by bin of equal width, weighted by count; 0 of nothing."""
    if not len(shares):
        return 0.0
    return sum(one.count * abs(one.said - one.found) for one in reliability(shares, truth, bins)) / len(shares)


def roc_area(shares: Shares, truth: Truth) -> float:
    """Area under the receiver operating characteristic: how often a positive stands above a negative; ties half.

    Returns:
        nan without a positive or without a negative.
    """
    values, places = np.unique(np.asarray(shares), return_inverse=True)
    positives = np.bincount(places[truth], minlength=len(values)).astype(float)
    negatives = np.bincount(places[~truth], minlength=len(values)).astype(float)
    if not positives.sum() or not negatives.sum():
        return float("nan")
    below = np.concatenate([[0.0], negatives.cumsum()[:-1]])
    return float((positives * (below + negatives / 2)).sum() / (positives.sum() * negatives.sum()))


def average_precision(shares: Shares, truth: Truth) -> float:
    """Mean of the precision over steps of recall, as scikit-learn has it; nan without a positive."""
    values, places = np.unique(-np.asarray(shares, np.float64), return_inverse=True)
    positives = np.bincount(places[truth], minlength=len(values)).astype(float)
    if not positives.sum():
        return float("nan")
    found, claimed = positives.cumsum(), np.bincount(places, minlength=len(values)).cumsum()
    return float((positives * found / claimed).sum() / positives.sum())
