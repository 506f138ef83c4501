"""Predictions of a run as statistics that a paired bootstrap can resample; and floors, which have no seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.regions import RegionSet
from reg2rg.core.types import Study
from reg2rg.evaluation.baselines import COMMONEST_PARAGRAPHS, EVERYTHING, SHUFFLED, floors_of
from reg2rg.evaluation.bootstrap import Array, Statistic
from reg2rg.evaluation.findings import Labelled, findings_statistics
from reg2rg.evaluation.metrics import efficacy
from reg2rg.evaluation.metrics.findings import KeywordReader
from reg2rg.evaluation.metrics.labelers import Labeler
from reg2rg.evaluation.metrics.scores import (
    Prediction,
    commonest_paragraphs,
    floor_commonest,
    floor_swapped,
    say_everything,
    summarise,
)
from reg2rg.evaluation.protocols import find_protocol
from reg2rg.evaluation.reading import Pair, read_reports
from reg2rg.evaluation.recognition import recognise, recognition_statistics
from reg2rg.evaluation.records import read_predictions
from reg2rg.evaluation.results import REPORT
from reg2rg.evaluation.text import score_texts

TRUTH = ("Truth precision (micro)", "Truth recall (micro)", "Truth F1 (micro)")
_LANGUAGE = ("BLEU", "METEOR", "ROUGE", "CIDEr")
SHOWN_FLOORS = (COMMONEST_PARAGRAPHS, SHUFFLED)
Truth = Mapping[str, Mapping[str, bool]]


@dataclass(frozen=True)
class Scores:
    """What one run with one seed is worth.

    Attributes:
        studies: ids, in the order of the statistics' units.
        patients: whose each study is.
        statistics: metric -> statistic.
    """

    studies: tuple[str, ...]
    patients: tuple[str, ...]
    statistics: Mapping[str, Statistic]

    def value(self, metric: str) -> float | None:
        """A metric's number, ``None`` if there is none."""
        statistic = self.statistics.get(metric)
        if statistic is None:
            return None
        found = statistic.number().value
        return found if np.isfinite(found) else None


class Scorer:
    """Scores folders of predictions the same way.

    Args:
        protocol: name of the evaluation's protocol.
        labeler: reads findings; ``None`` leaves them out.
        regions: region set of the data.
        metrics: names that are wanted.
        truth: study -> labels, where the data set has them.
    """

    def __init__(
        self, protocol: str, labeler: Labeler | None, regions: RegionSet, metrics: Sequence[str], truth: Truth
    ) -> None:
        self.protocol, self.labeler, self.regions = find_protocol(protocol), labeler, regions
        self.metrics, self.truth = tuple(metrics), truth
        self._reader = KeywordReader()
        self._read: dict[str, Mapping[str, bool]] = {}

    def score(self, predictions: Path, identity: bool = True) -> Scores:
        """Score a folder that ``reg2rg predict`` wrote.

        Args:
            predictions: the folder.
            identity: its reports name their regions; otherwise nothing is recognised, rightly or wrongly.
        """
        reports = read_reports(predictions, None, self.regions)
        pairs = reports.pairs
        kept = self._statistics(pairs, reports.regions, identity)
        studies = tuple(pair.study for pair in pairs)
        if self.truth and any(name.startswith("Truth") for name in self.metrics):
            kept |= self._truth_statistics(read_predictions(predictions, self.truth), studies)
        return Scores(studies, tuple(pair.patient for pair in pairs), kept)

    def floors(self, predictions: Path, train: Path | None) -> dict[str, dict[str, float]]:
        """Floors of the studies in a folder of predictions: floor -> metric -> value, by the same rules as `score`.

        Args:
            predictions: of the full model; what is shuffled between studies.
            train: table of training reports, for what is common; the evaluated references where there is none.
        """
        reports = read_reports(predictions, None, self.regions)
        source = reports.pairs if train is None else read_reports(train, train, self.regions, intersection=True).pairs
        found: dict[str, dict[str, float]] = {}
        for name, pairs in floors_of(reports.pairs, source, reports.regions, 0).items():
            if name in SHOWN_FLOORS:
                statistics = self._statistics(pairs, reports.regions, True)
                found[name] = {metric: item.number().value for metric, item in statistics.items()}
        if self.labeler is not None:
            truth = self.labeler.label([pair.reference_text for pair in reports.pairs])
            everything = Labelled(self.labeler.labels, truth, np.ones_like(truth))
            silent = np.zeros(len(reports.pairs), dtype=bool)
            statistics = self._wanted(findings_statistics(everything, silent, self.protocol))
            found[EVERYTHING] = {metric: item.number().value for metric, item in statistics.items()}
        return found

    def _statistics(self, pairs: Sequence[Pair], regions: Sequence[str], identity: bool) -> dict[str, Statistic]:
        statistics: list[Statistic] = []
        if any(name.startswith(_LANGUAGE) for name in self.metrics):
            statistics += score_texts(pairs, self.protocol, regions).statistics
        if self.labeler is not None:
            truth = self.labeler.label([pair.reference_text for pair in pairs])
            said = self.labeler.label([pair.prediction_text for pair in pairs])
            unanswered = np.asarray([pair.unanswered for pair in pairs])
            statistics += findings_statistics(Labelled(self.labeler.labels, truth, said), unanswered, self.protocol)
        if identity and (found := recognise(pairs, self.protocol, regions)) is not None:
            statistics += recognition_statistics(found, self.protocol, len(pairs))
        return self._wanted(statistics)

    def _wanted(self, statistics: Sequence[Statistic]) -> dict[str, Statistic]:
        return {item.name: item for item in statistics if item.scope == REPORT and item.name in self.metrics}

    def _truth_statistics(self, predictions: Sequence[Prediction], studies: Sequence[str]) -> dict[str, Statistic]:
        """Findings in the text against labels of the data set, as on the page of ``reg2rg page``."""
        by_study = {prediction.study: prediction for prediction in predictions}
        own = [by_study[study] for study in studies]
        labels = sorted(set().union(*(prediction.findings or {} for prediction in own)))
        there = _matrix(labels, [prediction.findings or {} for prediction in own])
        known = _matrix(labels, [dict.fromkeys(prediction.findings or {}, True) for prediction in own])
        told = known & _matrix(labels, [self.read(prediction.text) for prediction in own])
        counts = efficacy.count(there, told).astype(np.float64)
        wanted = {name: (counts.sum(1), index, "all labels in one pot") for index, name in enumerate(TRUTH)}
        wanted |= {f"Truth F1 ({label})": (counts[:, at], 2, label) for at, label in enumerate(labels)}
        text = "findings read from the paragraphs by keywords, against the data set's labels; "
        return {
            name: Statistic("findings", REPORT, name, text + what, units, partial(_figure, index=index), len(studies))
            for name, (units, index, what) in wanted.items()
            if name in self.metrics
        }

    def read(self, text: str) -> Mapping[str, bool]:
        """Findings that a text affirms; a text that comes again is not read again."""
        if text not in self._read:
            self._read[text] = self._reader.read(text)
        return self._read[text]


def _matrix(labels: Sequence[str], rows: Sequence[Mapping[str, bool]]) -> NDArray[np.bool_]:
    """(n, L); what a row does not say is false."""
    return np.array([[row.get(label, False) for label in labels] for row in rows], dtype=bool).reshape(-1, len(labels))


def _figure(sums: Array, index: int) -> Array:
    """Precision, recall or F1 of (..., 3) counts."""
    return np.asarray(efficacy.precision_recall_f1(sums)[..., index])


def truth_floors(
    predictions: Path, truth: Truth, train: Sequence[Study], read: Callable[[str], Mapping[str, bool]]
) -> dict[str, dict[str, float]]:
    """The same floors against the data set's labels."""
    own = [item for item in read_predictions(predictions, truth) if item.findings is not None]
    if not own:
        return {}
    rows: dict[str, tuple[float, float, float]] = {}
    floors = {SHUFFLED: floor_swapped(own)}
    if train:
        floors[COMMONEST_PARAGRAPHS] = floor_commonest(own, commonest_paragraphs(train))
    for name, told in floors.items():
        summary = summarise(told, read)
        rows[name] = summary.precision, summary.recall, summary.f1
    everything = say_everything(own)
    rows[EVERYTHING] = everything.precision, everything.recall, everything.f1
    return {name: dict(zip(TRUTH, row, strict=True)) for name, row in rows.items()}
