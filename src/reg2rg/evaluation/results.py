"""What an evaluation is: plain data that every output (terminal, JSON, CSV, plots, page) is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

Group = Literal["language", "findings", "regions", "statistics"]
REPORT = "report"
"""The scope of a number over whole reports; any other scope is a region's name."""


@dataclass(frozen=True, slots=True)
class Number:
    """One number with everything that a reader needs to compare it.

    Attributes:
        group: which table it belongs to.
        scope: ``"report"``, or the region whose paragraphs were scored.
        name: as printed: ``"BLEU-1"``, ``"CE F1 (micro)"``.
        value: the number.
        n: how many units (reports, paragraphs, studies) it is made of.
        definition: one sentence: unit, averaging, implementation.
        std: population standard deviation over the units, where the number is their mean.
        low: lower end of the bootstrap interval over patients.
        high: upper end of it.
        score: higher is better, so that it is ranked against floors. Precision and F1 of recognition and recall of
            findings are none: naming less, or more, raises them.
        count: a whole number of things.
        available: whether what makes the number covers the script of the texts.
    """

    group: Group
    scope: str
    name: str
    value: float
    n: int
    definition: str
    std: float | None = None
    low: float | None = None
    high: float | None = None
    score: bool = True
    count: bool = False
    available: bool = True

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes the number the same number in another evaluation."""
        return self.group, self.scope, self.name


@dataclass(frozen=True, slots=True)
class Difference:
    """The paired difference of one number between two prediction files.

    Attributes:
        number: the number of the first file.
        other: its value for the second file.
        low: lower end of the interval of first minus second.
        high: upper end of it.
        p: two-sided bootstrap p-value of no difference.
    """

    number: Number
    other: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One row of the findings table.

    Attributes:
        label: the finding.
        precision: TP / (TP + FP), 0 where nothing was predicted.
        recall: TP / (TP + FN), 0 where nothing is there to find.
        f1: 2 TP / (2 TP + FP + FN).
        support: references with the finding.
        predicted: predictions with the finding.
        low: lower end of the interval of F1.
        high: upper end of it.
        floor: highest F1 of a floor, where floors were labelled.
        floor_name: which floor's.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    floor_name: str = ""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Which region the text names where which region stands.

    Attributes:
        rows: regions that stand there.
        columns: regions that are named, then ``"(none)"`` and ``"(unknown name)"``.
        counts: one list a row.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class RegionStatistics:
    """How the paragraphs of one region look.

    Attributes:
        region: its name.
        references: paragraphs in the references.
        predictions: paragraphs in the predictions.
        distinct_references: share of distinct texts among them.
        distinct_predictions: the same for the predictions.
        commonest: the text that is predicted most often.
        commonest_share: its share of the predicted paragraphs.
        commonest_reference_share: share of the commonest reference text among the reference paragraphs.
        abnormal_references: share of reference paragraphs with any finding.
        abnormal_predictions: the same for the predictions.
    """

    region: str
    references: int
    predictions: int
    distinct_references: float
    distinct_predictions: float
    commonest: str
    commonest_share: float
    commonest_reference_share: float
    abnormal_references: float
    abnormal_predictions: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that one run of ``reg2rg evaluate`` found.

    Attributes:
        name: of the prediction file.
        protocol: its name.
        protocol_text: what the protocol is, in a few sentences.
        studies: how many were scored.
        patients: of how many patients.
        resamples: bootstrap resamples behind the intervals, 0 for none.
        confidence: of the intervals, such as 0.95.
        seed: of the resamples and of shuffled floors.
        numbers: all numbers, in the order of printing.
        floors: floor's name -> its numbers, without intervals.
        labels: the findings table; empty if no labels were read.
        truth_labels: the same against the labels of the data set; empty if it has none.
        labeler: one sentence that says where labels come from, or ``""``.
        confusion: of the regions, where slots are known.
        regions: statistics by region.
        words: words per report: ``"reference"`` and ``"predicted"`` -> one number a study.
        notes: what was detected, dropped or assumed while reading; one sentence each.
        software: package -> version.
        inputs: what was read: option -> path.
        per_study: one row a study: id, patient, scores, labels.
        per_region: one row a (study, region): id, region, texts' scores.
        against: name of the other prediction file, or ``""``.
        differences: paired differences to it.
    """

    name: str
    protocol: str
    protocol_text: str
    studies: int
    patients: int
    resamples: int
    confidence: float
    seed: int
    numbers: Sequence[Number]
    floors: Mapping[str, Sequence[Number]]
    labels: Sequence[LabelScore] = ()
    truth_labels: Sequence[LabelScore] = ()
    labeler: str = ""
    confusion: Confusion | None = None
    regions: Sequence[RegionStatistics] = ()
    words: Mapping[str, Sequence[int]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    software: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    per_study: pd.DataFrame = field(default_factory=pd.DataFrame)
    per_region: pd.DataFrame = field(default_factory=pd.DataFrame)
    against: str = ""
    differences: Sequence[Difference] = ()

    def number(self, name: str, scope: str = REPORT) -> Number:
        """The number of this name.

        Raises:
            KeyError: none; the message lists those of the scope.
        """
        for number in self.numbers:
            if number.name == name and number.scope == scope:
                return number
        known = [number.name for number in self.numbers if number.scope == scope]
        raise KeyError(f"no number '{name}' for '{scope}'; there are: {', '.join(known)}")
