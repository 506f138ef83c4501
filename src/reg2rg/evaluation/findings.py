"""Clinical efficacy of an evaluation: labels of both sides, counted under a protocol, averaged in every usual way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reg2rg.evaluation.bootstrap import Array, Resamples, Statistic, interval, mean_statistic
from reg2rg.evaluation.protocols import Protocol
from reg2rg.evaluation.results import REPORT, LabelScore
from reg2rg.metrics import efficacy

_FIGURES = ("precision", "recall", "F1")
_AVERAGES: Mapping[str, tuple[Callable[[Array], Array], str]] = {
    "micro": (efficacy.micro, "all labels of all studies in one pot"),
    "macro": (efficacy.macro, "mean over all labels"),
    "weighted": (efficacy.weighted, "mean over labels, weighted by support"),
}
SILENCE = "; a study that leaves something unanswered has every label wrong that it does not rightly affirm"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels of references and predictions.

    Attributes:
        labels: their names, L of them.
        truth: (n, L) present in the reference.
        said: (n, L) present in the prediction.
    """

    labels: tuple[str, ...]
    truth: NDArray[np.bool_]
    said: NDArray[np.bool_]


def findings_statistics(labelled: Labelled, unanswered: NDArray[np.bool_], protocol: Protocol) -> list[Statistic]:
    """Micro, macro, weighted and samples averages, and CRG, over whole reports.

    Args:
        labelled: labels of all studies.
        unanswered: (n,) studies that leave something out (see `reg2rg.evaluation.reading.Pair`).
        protocol: whether that counts as wrong.
    """
    counts = efficacy.count(labelled.truth, labelled.said, unanswered if protocol.silence_is_wrong else None)
    studies, size, _ = counts.shape
    units = np.concatenate([counts.reshape(studies, -1), np.full((studies, 1), size)], axis=1)
    silence = SILENCE if protocol.silence_is_wrong else "; silence denies every finding"
    found = []
    for average, (function, text) in _AVERAGES.items():
        for i, figure in enumerate(_FIGURES):
            found.append(
                Statistic(
                    "findings",
                    REPORT,
                    f"CE {figure} ({average})",
                    text + silence,
                    units,
                    _figure(function, size, i),
                    studies,
                    score=figure != "recall",  # saying everything has them all
                )
            )
    by_study = efficacy.samples(counts)
    rows = np.arange(studies)
    found += [
        mean_statistic(
            "findings",
            REPORT,
            f"CE {figure} (samples)",
            "mean over studies of each one's own" + silence,
            rows=rows,
            values=by_study[:, i],
            studies=studies,
            score=figure != "recall",
        )
        for i, figure in enumerate(_FIGURES)
    ]
    text = "CRG score over studies times labels; a silent model and one that says everything get 1/3"
    found.append(Statistic("findings", REPORT, "CRG", text + silence, units, _crg(size), studies))
    return found


def region_findings(
    region: str,
    rows: NDArray[np.intp],
    truth: NDArray[np.bool_],
    said: NDArray[np.bool_],
    answered: NDArray[np.bool_],
    protocol: Protocol,
    studies: int,
) -> list[Statistic]:
    """Micro and macro figures over one region's paragraphs.

    Args:
        region: its name.
        rows: (units,) the study of each paragraph.
        truth: (units, L) labels of the reference paragraph.
        said: (units, L) labels of the predicted one.
        answered: (units,) whether there is one.
        protocol: whether silence counts as wrong.
        studies: how many there are.
    """
    counts = efficacy.count(truth, said, ~answered if protocol.silence_is_wrong else None)
    size = counts.shape[1]
    units = np.zeros((studies, size * 3))
    np.add.at(units, rows, counts.reshape(len(rows), -1))
    return [
        Statistic(
            "findings",
            region,
            f"CE {figure} ({average})",
            f"labels of paragraphs, {_AVERAGES[average][1]}",
            units,
            _figure(_AVERAGES[average][0], size, i),
            len(rows),
        )
        for average, i, figure in (
            *(("micro", i, figure) for i, figure in enumerate(_FIGURES)),
            ("macro", 2, "F1"),
            ("weighted", 2, "F1"),
        )
    ]


def label_scores(
    labelled: Labelled,
    unanswered: NDArray[np.bool_],
    protocol: Protocol,
    resamples: Resamples | None,
    confidence: float,
) -> list[LabelScore]:
    """A row for each label."""
    counts = efficacy.count(labelled.truth, labelled.said, unanswered if protocol.silence_is_wrong else None)
    figures = efficacy.precision_recall_f1(counts.sum(axis=0))
    rows = []
    for i, label in enumerate(labelled.labels):
        low = high = None
        if resamples is not None:
            f1 = Statistic(
                "findings", REPORT, label, "", counts[:, i], lambda s: efficacy.precision_recall_f1(s)[..., 2], 0
            )
            low, high = interval(resamples.draws(f1), confidence)
        precision, recall, f_one = map(float, figures[i])
        support, said = int(labelled.truth[:, i].sum()), int(labelled.said[:, i].sum())
        rows.append(LabelScore(label, precision, recall, f_one, support, said, low, high))
    return rows


def names_of(labels: Sequence[str], present: NDArray[np.bool_]) -> list[str]:
    """(n, L) -> each study's labels in words."""
    return ["; ".join(label for label, there in zip(labels, row, strict=True) if there) for row in present]


def _figure(function: Callable[[Array], Array], size: int, index: int) -> Callable[[Array], Array]:
    return lambda sums: function(sums[..., : size * 3].reshape(*sums.shape[:-1], size, 3))[..., index]


def _crg(size: int) -> Callable[[Array], Array]:
    return lambda sums: efficacy.crg(sums[..., :-1].reshape(*sums.shape[:-1], size, 3), sums[..., -1])
