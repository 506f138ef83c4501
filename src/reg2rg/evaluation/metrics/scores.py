"""What a folder of predictions is worth: region recognition and findings, each beside its floors.

Every number has one definition here, and every table that shows it carries the definition:

* recognition of a region: share of the prompts with this region in which the paragraph at its slot names it. A slot
  without a valid paragraph counts as wrong. The headline is the mean over regions, so that rare regions count alike.
* findings: a finding is predicted if the keyword reader finds it in any paragraph of the study. Micro-averaged over
  all studies and all findings of the label set, never over those that a text happens to mention.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reg2rg.core.report import Paragraph, Report
from reg2rg.core.types import Study
from reg2rg.evaluation.metrics import efficacy
from reg2rg.evaluation.metrics.blind import commonest_by_region, givers

Reader = Callable[[str], Mapping[str, bool]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A study's generated report beside what is known of the study.

    Attributes:
        study: its id.
        given: regions in the order of the prompt.
        report: the parsed report.
        findings: label -> present in truth; ``None`` if the dataset has no labels.
    """

    study: str
    given: tuple[str, ...]
    report: Report
    findings: Mapping[str, bool] | None = None

    @property
    def text(self) -> str:
        """All paragraphs, without their prefixes."""
        return " ".join(paragraph.text for paragraph in self.report.paragraphs)


@dataclass(frozen=True, slots=True)
class Counts:
    """True positives, false positives and false negatives, and the figures made of them.

    A figure whose denominator is 0 is 0: a model that says nothing has precision 0, not 1.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return self._figure(0)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return self._figure(1)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return self._figure(2)

    def _figure(self, index: int) -> float:
        return float(efficacy.precision_recall_f1(np.array([self.tp, self.fp, self.fn]))[index])


def recognised(given: Sequence[str], report: Report) -> list[bool]:
    """For each slot, whether its paragraph names the region that stands there."""
    named = {paragraph.slot: paragraph.region for paragraph in report.paragraphs}
    return [named.get(slot) == region for slot, region in enumerate(given)]


def recognition(given: Sequence[str], report: Report) -> float:
    """Share of one study's slots that are recognised; 0 without slots."""
    hits = recognised(given, report)
    return sum(hits) / len(hits) if hits else 0.0


def recognition_by_region(predictions: Iterable[Prediction]) -> dict[str, tuple[int, int]]:
    """Region -> (times recognised, times given)."""
    given: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for prediction in predictions:
        hits = recognised(prediction.given, prediction.report)
        given.update(prediction.given)
        right.update(region for region, hit in zip(prediction.given, hits, strict=True) if hit)
    return {region: (right[region], total) for region, total in sorted(given.items())}


def mean_recognition(by_region: Mapping[str, tuple[int, int]]) -> float:
    """Mean over regions of their recognition; 0 where nothing was given."""
    shares = [right / total for right, total in by_region.values() if total]
    return sum(shares) / len(shares) if shares else 0.0


def findings_by_label(predictions: Iterable[Prediction], read: Reader) -> dict[str, Counts]:
    """Label -> counts over all studies that have truth labels."""
    known = [
        (prediction.findings, read(prediction.text)) for prediction in predictions if prediction.findings is not None
    ]
    found = {}
    for label in dict.fromkeys(label for truth, _ in known for label in truth):
        pairs = [(truth[label], said.get(label, False)) for truth, said in known if label in truth]
        there, told = np.array(pairs, dtype=bool).T
        found[label] = Counts(*map(int, efficacy.count(there[:, None], told[:, None]).sum(axis=(0, 1))))
    return found


def micro(counts: Mapping[str, Counts]) -> Counts:
    """Counts summed over labels: the base of micro-averaged figures."""
    return sum(counts.values(), Counts())


def macro_f1(counts: Mapping[str, Counts]) -> float:
    """Mean F1 over the labels that occur in truth."""
    supported = [count.f1 for count in counts.values() if count.tp + count.fn]
    return sum(supported) / len(supported) if supported else 0.0


def share_called_abnormal(predictions: Sequence[Prediction], read: Reader) -> float:
    """Share of studies in whose text at least one finding is read. Stands beside every F1."""
    return sum(any(read(p.text).values()) for p in predictions) / len(predictions) if predictions else 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """One row of the summary table."""

    recognition: float | None
    precision: float
    recall: float
    f1: float
    macro_f1: float
    abnormal: float
    distinct: float | None


def summarise(predictions: Sequence[Prediction], read: Reader) -> Summary:
    """The headline figures of a set of predictions."""
    counts = findings_by_label(predictions, read)
    total, by_region = micro(counts), recognition_by_region(predictions)
    return Summary(
        recognition=mean_recognition(by_region) if by_region else None,
        precision=total.precision,
        recall=total.recall,
        f1=total.f1,
        macro_f1=macro_f1(counts),
        abnormal=share_called_abnormal(predictions, read),
        distinct=len({p.text for p in predictions}) / len(predictions) if predictions else None,
    )


def commonest_paragraphs(train: Iterable[Study]) -> dict[str, str]:
    """Region -> the text that describes it most often in training; ties go to the first in alphabetical order."""
    return commonest_by_region(study.reports for study in train)


def floor_commonest(predictions: Sequence[Prediction], commonest: Mapping[str, str]) -> list[Prediction]:
    """Every region described by its commonest training paragraph, the regions named in one fixed order.

    The fixed order is what a model can do that does not look: it knows which regions there are, not which stands where.
    """
    floor = []
    for prediction in predictions:
        order = sorted(prediction.given)
        paragraphs = tuple(Paragraph(slot, region, commonest.get(region, "")) for slot, region in enumerate(order))
        floor.append(Prediction(prediction.study, prediction.given, Report(paragraphs), prediction.findings))
    return floor


def say_everything(predictions: Sequence[Prediction]) -> Counts:
    """Counts of a reader that calls every finding present in every study."""
    truths = [truth for p in predictions if p.findings is not None for truth in p.findings.values()]
    return Counts(tp=sum(truths), fp=len(truths) - sum(truths))


def floor_swapped(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Every study given the report of the next one: what is left when the image does not matter."""
    places = givers([prediction.study for prediction in predictions])
    return [
        Prediction(own.study, own.given, predictions[place].report, own.findings)
        for own, place in zip(predictions, places, strict=True)
    ]
