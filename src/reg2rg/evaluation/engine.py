"""The engine: pairs of texts in, an `Evaluation` out. Pure: reads no file, prints nothing, needs no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reg2rg import __version__
from reg2rg.evaluation.bootstrap import Resamples, Statistic, interval, mean_statistic, p_value
from reg2rg.evaluation.findings import Labelled, findings_statistics, label_scores, names_of, region_findings
from reg2rg.evaluation.floors import COMMONEST_PARAGRAPHS, COMMONEST_REPORT, EMPTY, EVERYTHING, SHUFFLED, floors_of
from reg2rg.evaluation.judges import Judge
from reg2rg.evaluation.language import paragraphs, score_texts
from reg2rg.evaluation.protocols import PROTOCOLS, Protocol
from reg2rg.evaluation.reading import Pair, Reports
from reg2rg.evaluation.recognition import (
    accuracy_by_study,
    confusion,
    recognise,
    recognition_statistics,
)
from reg2rg.evaluation.results import REPORT, Difference, Evaluation, Number, RegionStatistics
from reg2rg.metrics.synonyms import SynonymSource

if TYPE_CHECKING:
    from reg2rg.metrics.labelers import Labeler

_PACKAGES = ("nltk", "sacrebleu", "rapidfuzz", "numpy", "scipy", "pandas")


@dataclass(frozen=True, slots=True)
class Settings:
    """How an evaluation runs.

    Attributes:
        protocol: how numbers are made.
        labeler: reads findings from texts; ``None`` leaves findings out, unless both label tables are given.
        reference_labels: study -> (L,) labels known otherwise; ``None``: the labeler reads the references.
        predicted_labels: the same for the predictions.
        labels: their L names; those of the labeler if there is one.
        resamples: bootstrap resamples; 0 leaves intervals out.
        confidence: of the intervals.
        seed: of resamples and shuffles.
        floors: compute the floors.
        synonyms: of METEOR.
        judges: further scorers of whole reports.
    """

    protocol: Protocol = PROTOCOLS["strict"]
    labeler: Labeler | None = None
    reference_labels: Mapping[str, NDArray[np.bool_]] | None = None
    predicted_labels: Mapping[str, NDArray[np.bool_]] | None = None
    labels: tuple[str, ...] = ()
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    floors: bool = True
    synonyms: SynonymSource = "bundled"
    judges: Mapping[str, Judge] | None = None


@dataclass(frozen=True, slots=True)
class _Scored:
    statistics: list[Statistic]
    labelled: Labelled | None
    unanswered: NDArray[np.bool_]
    per_study: pd.DataFrame
    per_region: pd.DataFrame
    dropped: Mapping[str, int]


def evaluate(
    name: str,
    reports: Reports,
    settings: Settings = Settings(),
    *,
    source: Sequence[Pair] | None = None,
    against: tuple[str, Reports] | None = None,
    inputs: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Score reports under a protocol, with intervals and floors.

    Args:
        name: of the predictions.
        reports: what to score.
        settings: how.
        source: pairs whose references say what is common, for the floors; the evaluated ones if ``None``.
        against: name and reports of other predictions of the same studies, for a paired comparison.
        inputs: option -> path, noted in the result.
        progress: told what is being done.

    Raises:
        ValueError: `against` has other studies.
    """
    pairs, regions, protocol = reports.pairs, reports.regions, settings.protocol
    scored = _score(pairs, regions, settings, progress)
    resamples = (
        Resamples([pair.patient for pair in pairs], settings.resamples, settings.seed) if settings.resamples else None
    )
    progress("intervals")
    numbers = [_number(statistic, resamples, settings.confidence) for statistic in scored.statistics]
    floors = _floors(pairs, source or pairs, regions, settings, progress) if settings.floors else {}
    found = recognise(pairs, protocol, regions)
    labelled = scored.labelled
    labels = (
        label_scores(labelled, scored.unanswered, protocol, resamples, settings.confidence)
        if labelled is not None
        else []
    )
    differences: list[Difference] = []
    if against is not None:
        differences = _compare(scored, pairs, against[1], settings, resamples, progress)
    return Evaluation(
        name=name,
        protocol=protocol.name,
        protocol_text=protocol.text,
        studies=len(pairs),
        patients=len({pair.patient for pair in pairs}),
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
        numbers=numbers,
        floors=floors,
        labels=labels,
        labeler=_labels_text(settings) if labelled is not None else "",
        confusion=confusion(found) if found is not None else None,
        regions=_region_statistics(pairs, regions, settings),
        words={
            "reference": [len(pair.reference_text.split()) for pair in pairs],
            "predicted": [len(pair.prediction_text.split()) for pair in pairs],
        },
        notes=(*reports.notes, *_notes(scored, pairs, source, settings)),
        software=_software(),
        inputs=dict(inputs or {}),
        per_study=_per_study(pairs, scored, found),
        per_region=_per_region(pairs, scored),
        against=against[0] if against is not None else "",
        differences=differences,
    )


def _score(
    pairs: Sequence[Pair],
    regions: Sequence[str],
    settings: Settings,
    progress: Callable[[str], None],
    judge: bool = True,
) -> _Scored:
    protocol, studies = settings.protocol, len(pairs)
    texts = score_texts(pairs, protocol, regions, settings.synonyms, progress)
    statistics = list(texts.statistics)
    unanswered = np.asarray([pair.unanswered for pair in pairs])
    labelled = _labelled(pairs, settings, progress)
    if labelled is not None:
        statistics += findings_statistics(labelled, unanswered, protocol)
    if settings.labeler is not None:
        statistics += _region_findings(pairs, regions, settings)
    found = recognise(pairs, protocol, regions)
    if found is not None:
        statistics += recognition_statistics(found, protocol, studies)
    if judge:
        statistics += _judged(pairs, settings, progress)
    statistics += _statistics(pairs, labelled, unanswered)
    return _Scored(statistics, labelled, unanswered, texts.per_study, texts.per_region, texts.dropped)


def _labelled(pairs: Sequence[Pair], settings: Settings, progress: Callable[[str], None]) -> Labelled | None:
    labeler = settings.labeler
    sides = []
    for table, texts in (
        (settings.reference_labels, [pair.reference_text for pair in pairs]),
        (settings.predicted_labels, [pair.prediction_text for pair in pairs]),
    ):
        if table is not None:
            sides.append(np.stack([table[pair.study] for pair in pairs]))
        elif labeler is not None:
            progress(f"findings of {len(pairs)} reports")
            sides.append(labeler.label(texts))
        else:
            return None
    labels = settings.labels or (labeler.labels if labeler is not None else ())
    return Labelled(labels, sides[0], sides[1])


def _region_findings(pairs: Sequence[Pair], regions: Sequence[str], settings: Settings) -> list[Statistic]:
    labeler = settings.labeler
    assert labeler is not None
    cut = [paragraphs(pair, settings.protocol, regions) for pair in pairs]
    found = []
    for region in regions:
        rows = [
            row
            for row, (reference, told) in enumerate(cut)
            if reference.get(region) and (settings.protocol.missing == "empty" or told.get(region))
        ]
        if not rows:
            continue
        truth = labeler.label([cut[row][0][region] for row in rows])
        said = labeler.label([cut[row][1].get(region, "") for row in rows])
        answered = np.asarray([bool(cut[row][1].get(region)) for row in rows])
        found += region_findings(region, np.asarray(rows), truth, said, answered, settings.protocol, len(pairs))
    return found


def _judged(pairs: Sequence[Pair], settings: Settings, progress: Callable[[str], None]) -> list[Statistic]:
    found = []
    for name, judge in (settings.judges or {}).items():
        progress(f"judge {name}")
        values = np.asarray(
            judge([p.reference_text for p in pairs], [p.prediction_text for p in pairs]), dtype=np.float64
        )
        if values.shape != (len(pairs),):
            raise ValueError(f"judge {name}: {values.shape} scores (expected one for each of {len(pairs)} reports)")
        rows = np.arange(len(pairs))
        text = f"mean over reports of the judge '{name}'"
        found.append(mean_statistic("language", REPORT, name, text, rows=rows, values=values, studies=len(pairs)))
    return found


def _statistics(pairs: Sequence[Pair], labelled: Labelled | None, unanswered: NDArray[np.bool_]) -> list[Statistic]:
    rows, texts = np.arange(len(pairs)), [pair.prediction_text for pair in pairs]
    columns: list[tuple[str, str, Any]] = [
        ("Words per report, reference", "white-space words", [len(pair.reference_text.split()) for pair in pairs]),
        ("Words per report, predicted", "white-space words", [len(text.split()) for text in texts]),
        ("Unanswered studies", "share without a report, or without a region that the reference describes", unanswered),
    ]
    if labelled is not None:
        columns += [
            ("Abnormal studies, reference", "share with any finding", labelled.truth.any(axis=1)),
            ("Abnormal studies, predicted", "share with any finding", labelled.said.any(axis=1)),
            ("Findings per report, reference", "labels a report", labelled.truth.sum(axis=1)),
            ("Findings per report, predicted", "labels a report", labelled.said.sum(axis=1)),
        ]
    found = [
        mean_statistic(
            "statistics",
            REPORT,
            name,
            text,
            rows=rows,
            values=np.asarray(values, dtype=np.float64),
            studies=len(pairs),
            score=False,
        )
        for name, text, values in columns
    ]
    for name, side in (("reference", [pair.reference_text for pair in pairs]), ("predicted", texts)):
        # A resample repeats reports, so that its share of distinct ones is another quantity: no interval.
        share = len(set(side)) / len(side)
        units = np.zeros((len(pairs), 1))
        text = "different texts by number of reports"
        title = f"Distinct reports, {name}"
        found.append(Statistic("statistics", REPORT, title, text, units, _nothing, len(side), point=share, score=False))
    return found


def _nothing(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.full(sums.shape[:-1], np.nan)


def _number(statistic: Statistic, resamples: Resamples | None, confidence: float) -> Number:
    if resamples is None:
        return statistic.number()
    return statistic.number(*interval(resamples.draws(statistic), confidence))


def _floors(
    pairs: Sequence[Pair],
    source: Sequence[Pair],
    regions: Sequence[str],
    settings: Settings,
    progress: Callable[[str], None],
) -> dict[str, list[Number]]:
    found: dict[str, list[Number]] = {}
    for name, told in floors_of(pairs, source, regions, settings.seed).items():
        progress(f"floor: {name}")
        own = replace(settings, predicted_labels=_floor_labels(name, pairs, told, settings), judges=None)
        scored = _score(told, regions, own, lambda text: None, judge=False)
        found[name] = [statistic.number() for statistic in scored.statistics]
    labelled = _labelled(pairs, settings, lambda text: None)
    if labelled is not None:
        everything = Labelled(labelled.labels, labelled.truth, np.ones_like(labelled.truth))
        answered = np.zeros(len(pairs), dtype=bool)
        statistics = findings_statistics(everything, answered, settings.protocol)
        found[EVERYTHING] = [statistic.number() for statistic in statistics]
    return found


def _floor_labels(
    name: str, pairs: Sequence[Pair], told: Sequence[Pair], settings: Settings
) -> Mapping[str, NDArray[np.bool_]] | None:
    """Labels of a floor's predictions: read by the labeler; where predictions had a table of labels, taken from it."""
    if settings.predicted_labels is None or settings.labeler is not None:
        return None
    if name == EMPTY:
        return {study: np.zeros_like(row) for study, row in settings.predicted_labels.items()}
    by_text = {pair.prediction_text: settings.predicted_labels[pair.study] for pair in pairs}
    by_text |= {
        pair.reference_text: row
        for pair in pairs
        if (row := (settings.reference_labels or {}).get(pair.study)) is not None
    }
    known = {pair.study: by_text[pair.prediction_text] for pair in told if pair.prediction_text in by_text}
    return known if len(known) == len(told) else {pair.study: np.zeros(len(settings.labels), bool) for pair in told}


def _compare(
    scored: _Scored,
    pairs: Sequence[Pair],
    other: Reports,
    settings: Settings,
    resamples: Resamples | None,
    progress: Callable[[str], None],
) -> list[Difference]:
    if [pair.study for pair in pairs] != [pair.study for pair in other.pairs]:
        raise ValueError("the other predictions are of other studies (expected the same ones)")
    progress("the other predictions")
    second = _score(other.pairs, other.regions, replace(settings, predicted_labels=None), progress)
    theirs = {statistic.key: statistic for statistic in second.statistics}
    found = []
    for statistic in scored.statistics:
        match = theirs.get(statistic.key)
        if match is None or resamples is None or not statistic.score:
            continue
        difference = resamples.draws(statistic) - resamples.draws(match)
        low, high = interval(difference, settings.confidence)
        if low is not None and high is not None:
            found.append(Difference(statistic.number(), match.number().value, low, high, p_value(difference)))
    return found


def _region_statistics(pairs: Sequence[Pair], regions: Sequence[str], settings: Settings) -> list[RegionStatistics]:
    found = []
    for region in regions:
        references = [text for pair in pairs if (text := pair.reference_regions.get(region))]
        told = [text for pair in pairs if (text := pair.predicted_regions.get(region))]
        commonest, share = _commonest(told)
        labeler = settings.labeler
        abnormal = [
            float(labeler.label(texts).any(axis=1).mean()) if labeler is not None and texts else float("nan")
            for texts in (references, told)
        ]
        found.append(
            RegionStatistics(
                region=region,
                references=len(references),
                predictions=len(told),
                distinct_references=len(set(references)) / len(references) if references else float("nan"),
                distinct_predictions=len(set(told)) / len(told) if told else float("nan"),
                commonest=commonest,
                commonest_share=share,
                commonest_reference_share=_commonest(references)[1],
                abnormal_references=abnormal[0],
                abnormal_predictions=abnormal[1],
            )
        )
    return found


def _commonest(texts: Sequence[str]) -> tuple[str, float]:
    if not texts:
        return "", float("nan")
    names, times = np.unique(np.asarray(texts, dtype=object).astype(str), return_counts=True)
    place = int(times.argmax())
    return str(names[place]), float(times[place] / len(texts))


def _per_study(pairs: Sequence[Pair], scored: _Scored, found: Any) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "study": [pair.study for pair in pairs],
            "patient": [pair.patient for pair in pairs],
            "words_reference": [len(pair.reference_text.split()) for pair in pairs],
            "words_predicted": [len(pair.prediction_text.split()) for pair in pairs],
            "unanswered": scored.unanswered,
        }
    )
    for column in scored.per_study.columns:
        table[column] = scored.per_study[column].to_numpy()
    if found is not None:
        shares = accuracy_by_study(found)
        table["recognition"] = [shares.get(row, float("nan")) for row in range(len(pairs))]
    if scored.labelled is not None:
        table["findings_reference"] = names_of(scored.labelled.labels, scored.labelled.truth)
        table["findings_predicted"] = names_of(scored.labelled.labels, scored.labelled.said)
    table["reference"] = [pair.reference_text for pair in pairs]
    table["prediction"] = [pair.prediction_text for pair in pairs]
    return table


def _per_region(pairs: Sequence[Pair], scored: _Scored) -> pd.DataFrame:
    if scored.per_region.empty:
        return pd.DataFrame()
    table = scored.per_region.copy()
    table.insert(0, "study", [pairs[row].study for row in table.pop("row")])
    return table.sort_values(["study", "region"], kind="stable", ignore_index=True)


def _notes(scored: _Scored, pairs: Sequence[Pair], source: Sequence[Pair] | None, settings: Settings) -> list[str]:
    notes = []
    if unanswered := int(scored.unanswered.sum()):
        notes.append(f"{unanswered} of {len(pairs)} studies leave something unanswered that their reference describes.")
    if dropped := {region: n for region, n in scored.dropped.items() if n}:
        total = sum(dropped.values())
        listed = ", ".join(f"{region} {n}" for region, n in dropped.items())
        notes.append(f"The protocol drops {total} pairs whose prediction has no such region: {listed}.")
    if settings.floors:
        where = "the given training references" if source is not None else "the evaluated references (a head start)"
        notes.append(f"Floors '{COMMONEST_REPORT}' and '{COMMONEST_PARAGRAPHS}' are picked from {where}.")
        if settings.labeler is None and settings.predicted_labels is not None:
            notes.append(
                f"Without a labeler, findings of floors other than '{SHUFFLED}' and '{EVERYTHING}' count as none."
            )
    return notes


def _labels_text(settings: Settings) -> str:
    reader = settings.labeler.definition if settings.labeler is not None else ""
    sides = []
    for side, table in (("references", settings.reference_labels), ("predictions", settings.predicted_labels)):
        sides.append(f"{side}: {'the given table' if table is not None else reader}")
    return (
        "; ".join(sides) if settings.reference_labels is not None or settings.predicted_labels is not None else reader
    )


def _software() -> dict[str, str]:
    found = {"reg2rg": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
