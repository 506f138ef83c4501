"""What reports look like, beside what they score: lengths, repetition, how much is called abnormal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.report import SENTENCE_BREAK
from reg2rg.evaluation.baselines import commonest
from reg2rg.evaluation.bootstrap import Statistic, mean_statistic, no_interval
from reg2rg.evaluation.metrics.base import METRICS, Metric, Scores
from reg2rg.evaluation.results import REPORT

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort


@METRICS.register
class ReportStatistics(Metric):
    """Lengths, unanswered and abnormal studies, repetition: of references and predictions alike."""

    group, place, always, depends_on_set = "statistics", 90, True, True
    keys = (
        "Words per report, *", "Unanswered studies", "Abnormal studies, *", "Findings per report, *",
        "Commonest *", "Distinct reports, *",
    )  # fmt: skip
    logged: ClassVar = {"Abnormal studies, predicted": "called_abnormal", "Distinct reports, predicted": "distinct"}

    def score(self, cohort: Cohort) -> Scores:
        """Describe whole reports."""
        return self.score_all([cohort])[0]

    def score_all(self, cohorts: Sequence[Cohort]) -> list[Scores]:
        """`score` of each; what is said of the references is found once."""
        sides: dict[tuple[str, ...], _Side] = {}
        found = []
        for cohort in cohorts:
            texts = [
                tuple(pair.reference_text for pair in cohort.pairs),
                tuple(pair.prediction_text for pair in cohort.pairs),
            ]
            sides |= {one: _Side.of(one) for one in texts if one not in sides}
            found.append(self._scores(cohort, [sides[one] for one in texts]))
        return found

    def _scores(self, cohort: Cohort, sides: Sequence[_Side]) -> Scores:
        labelled = None if cohort.unread and cohort.reads_findings else cohort.labelled
        named = dict(zip(("reference", "predicted"), sides, strict=True))
        columns: list[tuple[str, str, Any]] = []
        for name, side in named.items():
            columns.append((f"Words per report, {name}", "white-space words", side.words))
        text = "share without a report, or without a region that the reference describes"
        columns.append(("Unanswered studies", text, cohort.unanswered))
        if labelled is not None:
            for name, labels in (("reference", labelled.truth), ("predicted", labelled.said)):
                columns.append((f"Abnormal studies, {name}", "share with any finding", labels.any(axis=1)))
            for name, labels in (("reference", labelled.truth), ("predicted", labelled.said)):
                columns.append((f"Findings per report, {name}", "labels a report", labels.sum(axis=1)))
        for name, side in named.items():
            columns.append(
                (f"Commonest report, {name}", "share of reports that are the one commonest text", side.commonest)
            )
            text = "share of reports that hold the one commonest sentence"
            columns.append((f"Commonest sentence, {name}", text, side.usual))
        studies = len(cohort.pairs)
        rows, mean = np.arange(studies), partial(mean_statistic, self.group, REPORT, studies=studies, score=False)
        found = [
            mean(name, text, rows=rows, values=np.asarray(values, dtype=np.float64)) for name, text, values in columns
        ]
        return Scores([*found, *(_distinct(name, side) for name, side in named.items())])


@dataclass(frozen=True, slots=True)
class _Side:
    """What the reports of one side look like.

    Attributes:
        words: (n,) words of each.
        commonest: (n,) which are the one commonest text.
        usual: (n,) which hold the one commonest sentence.
        distinct: how many texts there are.
    """

    words: NDArray[np.int64]
    commonest: NDArray[np.bool_]
    usual: NDArray[np.bool_]
    distinct: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Side:
        """Read each text once."""
        times = Counter(texts)
        sentences = {text: _sentences(text) for text in times}
        counts: Counter[str] = Counter()
        for text, held in sentences.items():
            for sentence in held:
                counts[sentence] += times[text]
        whole, usual = commonest(times), commonest(counts)
        facts = {text: (len(text.split()), text == whole, usual in held) for text, held in sentences.items()}
        table = np.array([facts[text] for text in texts], np.int64).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1] > 0, table[:, 2] > 0, len(times))


def _distinct(name: str, side: _Side) -> Statistic:
    # A resample repeats reports, so that its share of distinct ones is another quantity: no interval.
    studies = len(side.words)
    text, name = "different texts by number of reports", f"Distinct reports, {name}"
    units, share = np.zeros((studies, 1)), side.distinct / studies
    return Statistic("statistics", REPORT, name, text, units, no_interval, studies, point=share, score=False)


def commonest_share(texts: Sequence[str]) -> tuple[str, float]:
    """The text that comes most often, of several the first in alphabetical order, and its share."""
    times = Counter(texts)
    text = commonest(times)
    return text, times[text] / len(texts) if texts else float("nan")


def _sentences(text: str) -> frozenset[str]:
    return frozenset(sentence.strip() for sentence in SENTENCE_BREAK.split(text) if sentence.strip())
