"""What reports look like, beside what they score: lengths, repetition, how much is called abnormal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from reg2rg.evaluation.baselines import commonest
from reg2rg.evaluation.bootstrap import Statistic, mean_statistic, no_interval
from reg2rg.evaluation.metrics.base import METRICS, Metric, Scores
from reg2rg.evaluation.results import REPORT

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


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
        pairs = cohort.pairs
        labelled = None if cohort.unread and cohort.reads_findings else cohort.labelled
        sides = {
            "reference": [pair.reference_text for pair in pairs],
            "predicted": [pair.prediction_text for pair in pairs],
        }
        columns: list[tuple[str, str, Any]] = []
        for side, texts in sides.items():
            columns.append((f"Words per report, {side}", "white-space words", [len(text.split()) for text in texts]))
        text = "share without a report, or without a region that the reference describes"
        columns.append(("Unanswered studies", text, cohort.unanswered))
        if labelled is not None:
            for side, labels in (("reference", labelled.truth), ("predicted", labelled.said)):
                columns.append((f"Abnormal studies, {side}", "share with any finding", labels.any(axis=1)))
            for side, labels in (("reference", labelled.truth), ("predicted", labelled.said)):
                columns.append((f"Findings per report, {side}", "labels a report", labels.sum(axis=1)))
        for side, texts in sides.items():
            whole, sentence = commonest_share(texts)[0], _commonest_sentence(texts)
            text = "share of reports that are the one commonest text"
            columns.append((f"Commonest report, {side}", text, [one == whole for one in texts]))
            text = "share of reports that hold the one commonest sentence"
            columns.append((f"Commonest sentence, {side}", text, [sentence in _sentences(one) for one in texts]))
        rows, mean = np.arange(len(pairs)), partial(mean_statistic, self.group, REPORT, studies=len(pairs), score=False)
        found = [
            mean(name, text, rows=rows, values=np.asarray(values, dtype=np.float64)) for name, text, values in columns
        ]
        return Scores([*found, *(_distinct(side, texts) for side, texts in sides.items())])


def _distinct(side: str, texts: Sequence[str]) -> Statistic:
    # A resample repeats reports, so that its share of distinct ones is another quantity: no interval.
    share, units = len(set(texts)) / len(texts), np.zeros((len(texts), 1))
    text, name = "different texts by number of reports", f"Distinct reports, {side}"
    return Statistic("statistics", REPORT, name, text, units, no_interval, len(texts), point=share, score=False)


def commonest_share(texts: Sequence[str]) -> tuple[str, float]:
    """The text that comes most often, of several the first in alphabetical order, and its share."""
    times = Counter(texts)
    text = commonest(times)
    return text, times[text] / len(texts) if texts else float("nan")


def _sentences(text: str) -> frozenset[str]:
    return frozenset(sentence.strip() for sentence in _SENTENCE.split(text) if sentence.strip())


def _commonest_sentence(texts: Sequence[str]) -> str:
    return commonest(Counter(sentence for text in texts for sentence in _sentences(text)))
