"""Template collapse, from text alone: reports that are fluent, alike, and normal.

Maye-Lasserre et al. (arXiv 2605.30984) diagnose it by fidelity, output diversity, normal-template bias and survival of
rare findings. The definitions here are this library's: each is additive over studies, needs nothing but texts, and
stands beside the same of the references.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reg2rg.evaluation.bootstrap import Array, Statistic, mean_statistic, ratio, summed
from reg2rg.evaluation.labelers.keywords import SENTENCES
from reg2rg.evaluation.metrics.base import METRICS, Metric, Scores
from reg2rg.evaluation.results import REPORT

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cells, Cohort

TEMPLATES = 10
"""Sentences that count as templates: so many of the commonest ones of a side."""


@METRICS.register
class TemplateCollapse(Metric):
    """Template fidelity, diversity, normal bias, and survival of rare findings: of predictions beside references."""

    group, place, depends_on_set = "statistics", 92, True
    keys = ("Template sentences, *", "Diversity, *", "Normal bias", "Survival of *")

    def score(self, cohort: Cohort) -> Scores:
        """Score paragraphs by region where there are any, whole reports elsewhere."""
        found: list[Statistic] = []
        groups = list(cohort.cells.values()) or [cohort.undivided]
        studies = len(cohort.pairs)
        for name, side in (("predicted", "predictions"), ("reference", "references")):
            rows, texts = _side(groups, side)
            found += _templates(name, rows, texts, studies)
            found += _diversity(name, groups, side, studies)
        labeler = cohort.settings.labeler
        if labeler is not None and not (labeler.english and cohort.unread):
            rows = np.concatenate([cell.rows for cell in groups])
            truth, said = (
                cohort.label(labeler, _side(groups, side)[1], f"findings of {side}")
                for side in ("references", "predictions")
            )
            found.append(
                mean_statistic(
                    "statistics",
                    REPORT,
                    "Normal bias",
                    "share of paragraphs without any finding, predicted minus reference; above 0 is too normal",
                    rows=rows,
                    values=(~said.any(1)).astype(float) - (~truth.any(1)).astype(float),
                    studies=studies,
                    score=False,
                )
            )
            found += _survival(rows, truth, said, studies)
        return Scores(found)


def _side(groups: Sequence[Cells], side: str) -> tuple[NDArray[np.intp], list[str]]:
    texts = [text for cell in groups for text in getattr(cell, side)]
    return np.concatenate([cell.rows for cell in groups]), texts


def _templates(name: str, rows: NDArray[np.intp], texts: Sequence[str], studies: int) -> Iterator[Statistic]:
    sentences = [list(_sentences(text)) for text in texts]
    times = Counter(sentence for own in sentences for sentence in own)
    templates = {sentence for sentence, _ in sorted(times.items(), key=lambda one: (-one[1], one[0]))[:TEMPLATES]}
    values = [(sum(sentence in templates for sentence in own), len(own)) for own in sentences]
    yield Statistic(
        "statistics",
        REPORT,
        f"Template sentences, {name}",
        f"share of the sentences that are one of the {TEMPLATES} commonest of all of this side, case and white space "
        "aside",
        summed(rows, np.asarray(values, dtype=np.float64).reshape(-1, 2), studies),
        ratio,
        int(times.total()),
        score=False,
    )


def _sentences(text: str) -> Iterator[str]:
    for part in SENTENCES.split(text):
        if folded := " ".join(part.lower().split()).rstrip("."):
            yield folded


def _diversity(name: str, groups: Sequence[Cells], side: str, studies: int) -> Iterator[Statistic]:
    rows, values = [], []
    for cell in groups:
        texts: Sequence[str] = getattr(cell, side)
        times = Counter(texts)
        if len(texts) > 1:
            rows.append(cell.rows)
            values.append([1 - (times[text] - 1) / (len(texts) - 1) for text in texts])
    if rows:
        yield mean_statistic(
            "statistics",
            REPORT,
            f"Diversity, {name}",
            "chance that two studies have different words on the same region; resampled with its frequencies held",
            rows=np.concatenate(rows),
            values=np.concatenate(values),
            studies=studies,
            score=False,
        )


def _survival(
    rows: NDArray[np.intp], truth: NDArray[np.bool_], said: NDArray[np.bool_], studies: int
) -> Iterator[Statistic]:
    """Recall of the rarer and of the commoner half of the labels that references state."""
    support = truth.sum(0)
    stated = [int(label) for label in np.argsort(support, kind="stable") if support[label]]
    if len(stated) < 2:
        return
    half = len(stated) // 2
    halves: Mapping[str, list[int]] = {"rare": stated[:half], "common": stated[half:]}
    for name, labels in halves.items():
        hits = np.stack([truth[:, labels] & said[:, labels], truth[:, labels]], axis=-1)
        yield Statistic(
            "statistics",
            REPORT,
            f"Survival of {name} findings",
            f"mean over the {'rarer' if name == 'rare' else 'commoner'} half of the findings that references state of "
            "the share of their paragraphs that the prediction states too",
            summed(rows, hits.reshape(len(rows), -1).astype(np.float64), studies),
            _mean_of_shares,
            int(support[labels].sum()),
            score=False,
        )


def _mean_of_shares(sums: Array) -> Array:
    """A resample may lack a rare finding: it is left out of that resample's mean."""
    pairs = sums.reshape(*sums.shape[:-1], -1, 2)
    seen = pairs[..., 1] > 0
    shares = np.divide(pairs[..., 0], pairs[..., 1], out=np.zeros(seen.shape), where=seen)
    return ratio(np.stack([shares.sum(-1), seen.sum(-1)], axis=-1))
