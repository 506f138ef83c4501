"""Scores of one set of predictions as statistics: text, findings, recognition, judges, what reports look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reg2rg.evaluation.bootstrap import Array, Statistic, mean_statistic
from reg2rg.evaluation.describing import report_statistics
from reg2rg.evaluation.external_metrics import Judge, judge_reports
from reg2rg.evaluation.findings import Labelled, findings_statistics, region_findings
from reg2rg.evaluation.metrics.labelers import Labeler
from reg2rg.evaluation.metrics.synonyms import SynonymSource
from reg2rg.evaluation.pairs import Pair
from reg2rg.evaluation.protocols import PROTOCOLS, Protocol
from reg2rg.evaluation.recognition import Recognition, recognise, recognition_statistics
from reg2rg.evaluation.results import REPORT
from reg2rg.evaluation.text import region_cells, score_texts, whole_texts

_LABELLED_AT_ONCE = 256

Progress = Callable[[str], None]
Labels = Mapping[str, NDArray[np.bool_]]
"""Study -> (L,) labels."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How an evaluation runs.

    Attributes:
        protocol: how numbers are made.
        labeler: reads findings from texts; ``None`` leaves findings out, unless both label tables are given.
        reference_labels: study -> (L,) labels known otherwise; ``None``: the labeler reads the references.
        predicted_labels: the same for the predictions.
        against_labels: the same for the predictions that are compared with.
        labels: their L names; those of the labeler if there is one.
        resamples: bootstrap resamples; 0 leaves intervals out.
        confidence: of the intervals.
        seed: of resamples and shuffles.
        floors: compute the floors.
        synonyms: of METEOR.
        judges: name -> further scorers of whole reports.
        judge_floors: let the judges score the floors too.
    """

    protocol: Protocol = PROTOCOLS["strict"]
    labeler: Labeler | None = None
    reference_labels: Labels | None = None
    predicted_labels: Labels | None = None
    against_labels: Labels | None = None
    labels: tuple[str, ...] = ()
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    floors: bool = True
    synonyms: SynonymSource = "bundled"
    judges: Mapping[str, Judge] = field(default_factory=dict)
    judge_floors: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """What one set of predictions is worth.

    Attributes:
        statistics: all of them, in the order of printing.
        labelled: labels of whole reports, where they are known.
        unanswered: (n,) studies that leave something out.
        recognition: of regions, where slots are known.
        judged: judge -> (n,) its scores.
        per_study: a row a study.
        per_region: a row a paragraph.
        dropped: region -> pairs that the protocol left out.
    """

    statistics: list[Statistic]
    labelled: Labelled | None
    unanswered: NDArray[np.bool_]
    recognition: Recognition | None
    judged: Mapping[str, Array]
    per_study: pd.DataFrame
    per_region: pd.DataFrame
    dropped: Mapping[str, int]


def score_pairs(pairs: Sequence[Pair], regions: Sequence[str], settings: Settings, progress: Progress) -> Scored:
    """Score predictions.

    Args:
        pairs: what to score.
        regions: names that may occur, in the order of printing.
        settings: how.
        progress: told what is being done.
    """
    protocol, studies = settings.protocol, len(pairs)
    texts = score_texts(pairs, protocol, regions, settings.synonyms, progress)
    statistics = list(texts.statistics)
    unanswered = np.asarray([pair.unanswered for pair in pairs])
    labelled = _labelled(pairs, settings, progress)
    if labelled is not None:
        statistics += findings_statistics(labelled, unanswered, protocol, label_source(settings))
    if settings.labeler is not None:
        statistics += findings_by_region(pairs, regions, settings, settings.labeler, progress)
    found = recognise(pairs, protocol, regions)
    if found is not None:
        statistics += recognition_statistics(found, protocol, studies)
    judged = {}
    for name, judge in settings.judges.items():
        progress(f"judge {name}: {studies:,} reports")
        judged[name] = judge_reports(name, judge, pairs)
        text, rows = f"mean over reports of the judge '{name}'", np.arange(studies)
        statistics.append(
            mean_statistic("language", REPORT, name, text, rows=rows, values=judged[name], studies=studies)
        )
    statistics += report_statistics(pairs, labelled, unanswered)
    return Scored(statistics, labelled, unanswered, found, judged, texts.per_study, texts.per_region, texts.dropped)


def _labelled(pairs: Sequence[Pair], settings: Settings, progress: Progress) -> Labelled | None:
    labeler = settings.labeler
    if settings.protocol.reading == "published":
        whole = [whole_texts(pair, settings.protocol) for pair in pairs]
    else:
        whole = [(pair.reference_text, pair.prediction_text) for pair in pairs]
    sides = []
    for side, table, texts in (
        ("references", settings.reference_labels, [reference for reference, _ in whole]),
        ("predictions", settings.predicted_labels, [prediction for _, prediction in whole]),
    ):
        if table is not None:
            sides.append(np.stack([table[pair.study] for pair in pairs]))
        elif labeler is not None:
            sides.append(_label(labeler, texts, f"findings of {side}", progress))
        else:
            return None
    labels = labeler.labels if labeler is not None else settings.labels
    return Labelled(labels, sides[0], sides[1])


def _label(labeler: Labeler, texts: Sequence[str], what: str, progress: Progress) -> NDArray[np.bool_]:
    """Labels of many texts, a part at a time: a classifier may take a while. No text has no finding."""
    found = np.zeros((len(texts), len(labeler.labels)), dtype=bool)
    written = [row for row, text in enumerate(texts) if text]
    for start in range(0, len(written), _LABELLED_AT_ONCE):
        progress(f"{what}: {start:,} of {len(written):,}")
        rows = written[start : start + _LABELLED_AT_ONCE]
        found[rows] = labeler.label([texts[row] for row in rows])
    return found


def findings_by_region(
    pairs: Sequence[Pair],
    regions: Sequence[str],
    settings: Settings,
    labeler: Labeler,
    progress: Progress,
    everything: bool = False,
) -> list[Statistic]:
    """Statistics of findings by region; of predictions that say `everything`, if so."""
    protocol, found = settings.protocol, []
    for region, cell in region_cells(pairs, protocol, regions).items():
        truth = _label(labeler, cell.references, f"findings of references: {region}", progress)
        if everything:
            said, answered = np.ones_like(truth), np.ones(len(truth), dtype=bool)
        else:
            said = _label(labeler, cell.predictions, f"findings of predictions: {region}", progress)
            answered = np.asarray([bool(text) for text in cell.predictions])
        found += region_findings(region, cell.rows, truth, said, answered, protocol, len(pairs), labeler.name)
    return found


def label_source(settings: Settings) -> str:
    """Who labels, in a word or two."""
    labeler = settings.labeler.name if settings.labeler is not None else ""
    sides = {
        side: "given table" if table is not None else labeler
        for side, table in (("references", settings.reference_labels), ("predictions", settings.predicted_labels))
    }
    if len(set(sides.values())) == 1:
        return sides["references"]
    return ", ".join(f"{name} for {side}" for side, name in sides.items())
