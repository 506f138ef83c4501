"""Findings of both sides, counted, and averaged in every usual way: with labels of texts or of the data set.

The averages are those of scikit-learn with ``zero_division=0``. Macro figures are the mean over *all* labels, also over
those that no reference has: their F1 is 0, whatever is said of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from reg2rg.evaluation.bootstrap import Array, Resamples, Statistic, interval, mean_statistic, no_interval, summed
from reg2rg.evaluation.metrics import efficacy
from reg2rg.evaluation.results import REPORT, LabelScore

FIGURES = ("precision", "recall", "F1")
_AVERAGES: Mapping[str, tuple[Callable[[Array], Array], str]] = {
    "micro": (efficacy.micro, "all labels of all {} in one pot"),
    "macro": (efficacy.macro, "mean over all labels, those that no reference has too"),
    "weighted": (efficacy.weighted, "mean over labels, weighted by support"),
}
_SAMPLES = "mean over {} of each one's own; 0 for one without any label on both sides"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels of references and predictions.

    Attributes:
        labels: their names, L of them.
        truth: (n, L) present in the reference.
        said: (n, L) present in the prediction.
        silent: (n,) which leave something out and so have every label wrong that they do not rightly affirm; ``None``:
            silence denies every finding.
        known: (n, L) whether the truth is known; ``None``: of all.
    """

    labels: tuple[str, ...]
    truth: NDArray[np.bool_]
    said: NDArray[np.bool_]
    silent: NDArray[np.bool_] | None = None
    known: NDArray[np.bool_] | None = None

    @property
    def counts(self) -> efficacy.Counts:
        """(n, L, 3) true positives, false positives, false negatives."""
        counts = efficacy.count(self.truth, self.said, self.silent)
        return counts if self.known is None else counts * self.known[..., None]


def averages(
    name: str, scope: str, counts: efficacy.Counts, rows: NDArray[np.intp], studies: int, unit: str, tail: str
) -> list[Statistic]:
    """Precision, recall and F1 in all averages, and the support they have.

    Args:
        name: what stands before them: ``"CE"``.
        scope: ``"report"`` or a region.
        counts: (units, L, 3)
        rows: (units,) the study of each.
        studies: how many there are.
        unit: what is counted: ``"study"`` or ``"paragraph"``.
        tail: end of the definitions: who labels, and what silence means.
    """
    size, plural = counts.shape[1], {"study": "studies"}.get(unit, f"{unit}s")
    units = summed(rows, counts.reshape(len(rows), -1), studies)
    text = f"labels that are present in the references, of {size} in each of the {plural}"
    total = float(counts[..., [0, 2]].sum())
    make = partial(Statistic, "findings", scope)
    found = [
        make(f"{name} support", text, units, no_interval, len(rows), point=total, score=False, count=True),
        *(
            make(
                f"{name} {figure} ({average})",
                text.format(plural) + tail,
                units,
                _figure(function, size, i),
                len(rows),
                score=figure != "recall",  # saying everything has them all
            )
            for average, (function, text) in _AVERAGES.items()
            for i, figure in enumerate(FIGURES)
        ),
    ]
    own, mean = efficacy.samples(counts), partial(mean_statistic, "findings", scope, rows=rows, studies=studies)
    found += [
        mean(f"{name} {figure} (samples)", _SAMPLES.format(plural) + tail, values=own[:, i], score=figure != "recall")
        for i, figure in enumerate(FIGURES)
    ]
    return found


def label_f1(name: str, definition: str, counts: efficacy.Counts) -> Statistic:
    """F1 of one label from its (n, 3) counts."""
    return Statistic("findings", REPORT, name, definition, counts, efficacy.figure_at(2), len(counts))


def label_scores(
    labelled: Labelled, resamples: Resamples | None, confidence: float, floors: Mapping[str, Labelled] | None = None
) -> list[LabelScore]:
    """A row for each label.

    Args:
        labelled: labels of all studies.
        resamples: for intervals; ``None`` leaves them out.
        confidence: of the intervals.
        floors: floor's name -> its labels.
    """
    counts = labelled.counts
    figures, totals = efficacy.precision_recall_f1(counts.sum(axis=0)), counts.sum(axis=0)
    blind = {name: efficacy.precision_recall_f1(one.counts.sum(axis=0))[:, 2] for name, one in (floors or {}).items()}
    known = np.ones_like(labelled.said) if labelled.known is None else labelled.known
    said = (labelled.said & known).sum(axis=0)
    drawn = (
        resamples.each(label_f1(label, "", counts[:, i]) for i, label in enumerate(labelled.labels))
        if resamples
        else None
    )
    rows = []
    for i, label in enumerate(labelled.labels):
        low, high = interval(next(drawn), confidence) if drawn is not None else (None, None)
        precision, recall, f_one = map(float, figures[i])
        support = int(totals[i, 0] + totals[i, 2])
        best = max(((float(values[i]), name) for name, values in blind.items()), default=None)
        rows.append(
            LabelScore(label, precision, recall, f_one, support, int(said[i]), low, high, *(best or (None, "")))
        )
    return rows


def names_of(labels: Sequence[str], present: NDArray[np.bool_]) -> list[str]:
    """(n, L) -> each study's labels in words."""
    return ["; ".join(label for label, there in zip(labels, row, strict=True) if there) for row in present]


def _figure(function: Callable[[Array], Array], size: int, index: int) -> Callable[[Array], Array]:
    return lambda sums: function(sums[..., : size * 3].reshape(*sums.shape[:-1], size, 3))[..., index]
