"""Clinical efficacy of an evaluation: labels of both sides, counted under a protocol, averaged in every usual way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from reg2rg.evaluation.bootstrap import (
    Array,
    Resamples,
    Statistic,
    interval,
    mean_statistic,
    no_interval,
    summed,
)
from reg2rg.evaluation.metrics import efficacy
from reg2rg.evaluation.protocols import Protocol
from reg2rg.evaluation.results import REPORT, LabelScore

_FIGURES = ("precision", "recall", "F1")
_AVERAGES: Mapping[str, tuple[Callable[[Array], Array], str]] = {
    "micro": (efficacy.micro, "all labels of all {} in one pot"),
    "macro": (efficacy.macro, "mean over all labels"),
    "weighted": (efficacy.weighted, "mean over labels, weighted by support"),
}
_SAMPLES = "mean over {} of each one's own; 0 for one without any label on both sides"
_SILENCE = {
    "study": "a study that leaves something unanswered has every label wrong that it does not rightly affirm",
    "paragraph": "a missing paragraph has every label wrong",
}


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


def findings_statistics(
    labelled: Labelled, unanswered: NDArray[np.bool_], protocol: Protocol, source: str = ""
) -> list[Statistic]:
    """Micro, macro, weighted and samples averages, support, and CRG, over whole reports.

    Args:
        labelled: labels of all studies.
        unanswered: (n,) studies that leave something out (see `reg2rg.evaluation.pairs.Pair`).
        protocol: whether that counts as wrong.
        source: who labels, for the definitions.
    """
    counts = _counts(labelled, unanswered, protocol)
    studies, size, _ = counts.shape
    tail = _tail(protocol, "study", source)
    found = _averages(REPORT, counts, np.arange(studies), studies, "study", tail)
    units = np.concatenate([counts.reshape(studies, -1), np.full((studies, 1), size)], axis=1)
    silent = "a silent one less" if protocol.silence_is_wrong else "so does a silent one"
    floor = f"one that says every finding gets 1/3, {silent}"
    text = f"CRG score over studies times labels; a perfect report gets 1, {floor}{tail}"
    found.append(Statistic("findings", REPORT, "CRG", text, units, _of_cells(size, efficacy.crg), studies))
    if protocol.accuracy:
        text = f"mean over labels of the share of studies that have it right{tail}"
        name = "CE accuracy (macro)"
        found.append(Statistic("findings", REPORT, name, text, units, _of_cells(size, _accuracy), studies, score=False))
    return found


def region_findings(
    region: str,
    rows: NDArray[np.intp],
    truth: NDArray[np.bool_],
    said: NDArray[np.bool_],
    answered: NDArray[np.bool_],
    protocol: Protocol,
    studies: int,
    source: str = "",
) -> list[Statistic]:
    """The same averages over one region's paragraphs.

    Args:
        region: its name.
        rows: (units,) the study of each paragraph.
        truth: (units, L) labels of the reference paragraph.
        said: (units, L) labels of the predicted one.
        answered: (units,) whether there is one.
        protocol: whether silence counts as wrong.
        studies: how many there are.
        source: who labels, for the definitions.
    """
    counts = efficacy.count(truth, said, ~answered if protocol.silence_is_wrong else None)
    return _averages(region, counts, rows, studies, "paragraph", _tail(protocol, "paragraph", source))


def label_scores(
    labelled: Labelled,
    unanswered: NDArray[np.bool_],
    protocol: Protocol,
    resamples: Resamples | None,
    confidence: float,
    floors: Mapping[str, tuple[Labelled, NDArray[np.bool_]]] | None = None,
) -> list[LabelScore]:
    """A row for each label.

    Args:
        labelled: labels of all studies.
        unanswered: (n,) studies that leave something out.
        protocol: whether that counts as wrong.
        resamples: for intervals; ``None`` leaves them out.
        confidence: of the intervals.
        floors: floor's name -> its labels, and which of its reports leave something out.
    """
    counts = _counts(labelled, unanswered, protocol)
    figures = efficacy.precision_recall_f1(counts.sum(axis=0))
    blind = {
        name: efficacy.precision_recall_f1(_counts(*one, protocol).sum(axis=0))[:, 2]
        for name, one in (floors or {}).items()
    }
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
        best = max(((float(values[i]), name) for name, values in blind.items()), default=None)
        rows.append(LabelScore(label, precision, recall, f_one, support, said, low, high, *(best or (None, ""))))
    return rows


def names_of(labels: Sequence[str], present: NDArray[np.bool_]) -> list[str]:
    """(n, L) -> each study's labels in words."""
    return ["; ".join(label for label, there in zip(labels, row, strict=True) if there) for row in present]


def _counts(labelled: Labelled, unanswered: NDArray[np.bool_], protocol: Protocol) -> efficacy.Counts:
    return efficacy.count(labelled.truth, labelled.said, unanswered if protocol.silence_is_wrong else None)


def _tail(protocol: Protocol, unit: str, source: str) -> str:
    silence = _SILENCE[unit] if protocol.silence_is_wrong else "silence denies every finding"
    return f"; {silence}{f'; labels: {source}' if source else ''}"


def _averages(
    scope: str, counts: efficacy.Counts, rows: NDArray[np.intp], studies: int, unit: str, tail: str
) -> list[Statistic]:
    """All averages of (units, L, 3) counts, and the support they have."""
    size, plural = counts.shape[1], {"study": "studies"}.get(unit, f"{unit}s")
    units = summed(rows, counts.reshape(len(rows), -1), studies)
    text = f"labels that are present in the references, of {size} in each of the {plural}"
    total = float(counts[..., [0, 2]].sum())
    found = [
        Statistic(
            "findings", scope, "CE support", text, units, no_interval, len(rows), point=total, score=False, count=True
        )
    ]
    found += [
        Statistic(
            "findings",
            scope,
            f"CE {figure} ({average})",
            text.format(plural) + tail,
            units,
            _figure(function, size, i),
            len(rows),
            score=figure != "recall",  # saying everything has them all
        )
        for average, (function, text) in _AVERAGES.items()
        for i, figure in enumerate(_FIGURES)
    ]
    own, mean = efficacy.samples(counts), partial(mean_statistic, "findings", scope, rows=rows, studies=studies)
    found += [
        mean(f"CE {figure} (samples)", _SAMPLES.format(plural) + tail, values=own[:, i], score=figure != "recall")
        for i, figure in enumerate(_FIGURES)
    ]
    return found


def _figure(function: Callable[[Array], Array], size: int, index: int) -> Callable[[Array], Array]:
    return lambda sums: function(sums[..., : size * 3].reshape(*sums.shape[:-1], size, 3))[..., index]


def _of_cells(size: int, function: Callable[[Array, Array], Array]) -> Callable[[Array], Array]:
    return lambda sums: function(sums[..., :-1].reshape(*sums.shape[:-1], size, 3), sums[..., -1])


def _accuracy(counts: Array, cells: Array) -> Array:
    wrong = counts[..., 1] + counts[..., 2]
    return np.asarray(1 - wrong.sum(axis=-1) / cells)
