"""Clinical efficacy: how the findings that a text states agree with those that are there.

Counts are additive over studies, so that averages, intervals and comparisons all come from the same sums. The averages
are those of scikit-learn with ``zero_division=0``: a figure whose denominator is 0 is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int8]
Figures = NDArray[np.float64]


def count(truth: NDArray[np.bool_], said: NDArray[np.bool_], unanswered: NDArray[np.bool_] | None = None) -> Counts:
    """True positives, false positives and false negatives of each study and label.

    Args:
        truth: (n, L) finding present in the reference.
        said: (n, L) finding present in the prediction.
        unanswered: (n,) studies whose prediction leaves out what it was asked for. Each of their labels that is not
            affirmed rightly counts as wrong: what silence would have said is not known, and only the worst case makes
            sure that it never pays. ``None``: silence says that nothing is there.

    Returns:
        (n, L, 3)
    """
    tp, fp, fn = truth & said, ~truth & said, truth & ~said
    if unanswered is not None:
        fp = fp | (~truth & unanswered[:, None])
    return np.stack([tp, fp, fn], axis=-1).astype(np.int8)


def precision_recall_f1(counts: NDArray[Any]) -> Figures:
    """Figures of counts.

    Args:
        counts: (..., 3) true positives, false positives, false negatives.

    Returns:
        (..., 3) precision, recall, F1.
    """
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return np.stack([_ratio(tp, tp + fp), _ratio(tp, tp + fn), _ratio(2 * tp, 2 * tp + fp + fn)], axis=-1)


def figure_at(index: int) -> Callable[[NDArray[Any]], Figures]:
    """(..., 3) counts -> (...,): precision (0), recall (1) or F1 (2) alone."""
    return lambda counts: np.asarray(precision_recall_f1(counts)[..., index])


def micro(counts: NDArray[Any]) -> Figures:
    """(..., L, 3) counts -> (..., 3): all labels in one pot."""
    return precision_recall_f1(np.asarray(counts).sum(axis=-2))


def macro(counts: NDArray[Any]) -> Figures:
    """(..., L, 3) counts -> (..., 3): mean over all labels, those without support too."""
    mean: Figures = precision_recall_f1(counts).mean(axis=-2)
    return mean


def weighted(counts: NDArray[Any]) -> Figures:
    """(..., L, 3) counts -> (..., 3): mean over labels, weighted by their support."""
    figures = precision_recall_f1(counts)
    support = np.asarray(counts, dtype=np.float64)[..., [0, 2]].sum(axis=-1, keepdims=True)
    return _ratio((figures * support).sum(axis=-2), support.sum(axis=-2))


def samples(counts: Counts) -> Figures:
    """(n, L, 3) counts of studies -> (n, 3) figures of each; their mean is scikit-learn's ``samples`` average."""
    return precision_recall_f1(counts.sum(axis=-2))


def crg(counts: NDArray[Any], cells: NDArray[Any]) -> Figures:
    """CRG score (Hamamci et al., 2025): hits, misses and false alarms weighted by how rare findings are.

    With ``A`` positives among `cells` decisions, ``U = (cells - A) / 2`` and ``r = U / A``, a hit earns ``r``, a miss
    costs ``r``, a false alarm costs 1, and the sum ``s`` becomes ``U / (2 U - s)``. A silent model and one that says
    every finding both get 1/3, a perfect one gets 1. Not defined (NaN) without positives or without negatives.

    Args:
        counts: (..., L, 3) counts.
        cells: (...,) decisions: studies times labels.
    """
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=np.float64).sum(axis=-2), -1, 0)
    positives = tp + fn
    u = (np.asarray(cells, dtype=np.float64) - positives) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        r = u / positives
        return np.where((positives > 0) & (u > 0), u / (2 * u - (r * tp - r * fn - fp)), np.nan)


def _ratio(over: Figures, under: Figures) -> Figures:
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)
