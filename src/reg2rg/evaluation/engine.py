"""The engine: pairs of texts in, an `Evaluation` out. Pure: reads no file, prints nothing, needs no model."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from reg2rg import __version__
from reg2rg.evaluation.baselines import (
    COMMONEST_PARAGRAPHS,
    COMMONEST_REPORT,
    EMPTY,
    EVERYTHING,
    SHUFFLED,
    baselines_of,
)
from reg2rg.evaluation.bootstrap import Resamples, Statistic, interval, p_value
from reg2rg.evaluation.cohort import Cohort, Labels, Progress, Settings
from reg2rg.evaluation.findings import label_scores
from reg2rg.evaluation.metrics.base import usual_metrics
from reg2rg.evaluation.metrics.recognition import confusion
from reg2rg.evaluation.metrics.truth import TruthLabels
from reg2rg.evaluation.pairs import Pair
from reg2rg.evaluation.reading import Reports
from reg2rg.evaluation.results import REPORT, Difference, Evaluation, LabelScore, Number
from reg2rg.evaluation.scoring import Scored, score_cohort, score_with_baselines
from reg2rg.evaluation.unit_tables import region_statistics, region_table, study_table

__all__ = ["Settings", "evaluate"]

_SAID_FROM = 0.01
_PACKAGES = ("nltk", "sacrebleu", "rapidfuzz", "numpy", "pandas")
_PACKAGES_OF_MODELS = ("torch", "transformers")


def evaluate(
    name: str,
    reports: Reports,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    source: Sequence[Pair] | None = None,
    against: tuple[str, Reports] | None = None,
    inputs: Mapping[str, str] | None = None,
    progress: Progress = lambda text: None,
) -> Evaluation:
    """Score reports under a protocol, with intervals and floors.

    Args:
        name: of the predictions.
        reports: what to score.
        settings: how.
        source: pairs whose references say what is common, for the floors; the evaluated ones if ``None``.
        against: name and reports of other predictions of the same studies, in any order, for a paired comparison.
        inputs: option -> path, noted in the result.
        progress: told what is being done.

    Raises:
        ValueError: no reports, or `against` has other studies.
    """
    pairs, regions = reports.pairs, reports.regions
    if not pairs:
        raise ValueError("there are no reports to score; expected at least one pair")
    if settings.metrics is None:
        settings = replace(settings, metrics=usual_metrics())
    cohort = Cohort(pairs, regions, settings, progress)
    named = dict(baselines(cohort, source or pairs)) if settings.floors else {}
    scored, blind = score_with_baselines(cohort, [*named.values()])
    floors = dict(zip(named, blind, strict=True))
    resamples = (
        Resamples([pair.patient for pair in pairs], settings.resamples, settings.seed) if settings.resamples else None
    )
    progress("intervals")
    numbers = _numbers(scored.statistics, resamples, settings.confidence)
    labels, truth_labels = _label_scores(cohort, floors, resamples)
    differences: list[Difference] = []
    if against is not None and resamples is not None:
        differences = _compare(scored, against[1], resamples, progress)
    return Evaluation(
        name=name,
        protocol=settings.protocol.name,
        protocol_text=settings.protocol.text,
        studies=len(pairs),
        patients=len({pair.patient for pair in pairs}),
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
        numbers=numbers,
        floors={floor: [item.number() for item in one.statistics] for floor, one in floors.items()},
        labels=labels,
        truth_labels=truth_labels,
        labeler=_labels_text(settings) if cohort.labelled is not None else "",
        confusion=confusion(cohort.recognition) if cohort.recognition is not None else None,
        regions=region_statistics(pairs, regions, None if cohort.unread else settings.labeler)
        if settings.by_region
        else (),
        words={
            "reference": [len(pair.reference_text.split()) for pair in pairs],
            "predicted": [len(pair.prediction_text.split()) for pair in pairs],
        },
        notes=(*reports.notes, *_notes(cohort, source)),
        software=_software(),
        inputs=dict(inputs or {}),
        per_study=study_table(cohort, scored.columns),
        per_region=region_table(cohort, scored.columns),
        against=against[0] if against is not None else "",
        differences=differences,
    )


def baselines(cohort: Cohort, source: Sequence[Pair]) -> Iterator[tuple[str, Cohort]]:
    """Name of each baseline, and the same studies with its predictions.

    Args:
        cohort: what is evaluated.
        source: pairs whose references say what is common.
    """
    settings = cohort.settings
    metrics = usual_metrics() if settings.metrics is None else settings.metrics
    metrics = tuple(metric for metric in metrics if settings.costly_floors or not metric.costly)
    for name, told in baselines_of(cohort.pairs, source, cohort.regions, settings.seed, settings.written).items():
        labels = _floor_labels(cohort.pairs, told, settings)
        own = replace(settings, metrics=metrics, predicted_labels=labels)
        yield name, Cohort(told, cohort.regions, own)
    if cohort.labelled is not None or settings.truth:
        yield EVERYTHING, Cohort(cohort.pairs, cohort.regions, replace(settings, metrics=metrics), everything=True)


def _label_scores(
    cohort: Cohort, floors: Mapping[str, Scored], resamples: Resamples | None
) -> tuple[list[LabelScore], list[LabelScore]]:
    """Rows of the tables of findings: against the labels of the references, and against those of the data set."""
    truth = next((metric for metric in cohort.settings.metrics or () if isinstance(metric, TruthLabels)), None)
    tables: list[list[LabelScore]] = []
    unread = cohort.unread and cohort.reads_findings
    for read in (
        lambda one: None if unread else one.labelled,
        lambda one: truth.labelled(one) if truth is not None else None,
    ):
        labelled = read(cohort)
        blind = {name: found for name, one in floors.items() if (found := read(one.cohort)) is not None}
        confidence = cohort.settings.confidence
        tables.append(label_scores(labelled, resamples, confidence, blind) if labelled is not None else [])
    return tables[0], tables[1]


def _floor_labels(pairs: Sequence[Pair], told: Sequence[Pair], settings: Settings) -> Labels | None:
    """Labels of a floor's predictions, where those of the predictions come from a table.

    A text that stands in the files has the labels that the tables give it. Any other is read by the labeler, or has
    none where there is no labeler.
    """
    if settings.predicted_labels is None:
        return None
    known = {pair.prediction_text: settings.predicted_labels[pair.study] for pair in pairs}
    if settings.reference_labels is not None:
        known |= {pair.reference_text: settings.reference_labels[pair.study] for pair in pairs}
    nothing = np.zeros(len(next(iter(known.values()))), dtype=bool)
    known[""] = nothing
    others = sorted({pair.prediction_text for pair in told} - known.keys())
    if settings.labeler is not None:
        known |= dict(zip(others, settings.labeler.label(others), strict=True))
    return {pair.study: known.get(pair.prediction_text, nothing) for pair in told}


def _compare(scored: Scored, other: Reports, resamples: Resamples, progress: Progress) -> list[Difference]:
    pairs, settings = scored.cohort.pairs, scored.cohort.settings
    by_study = {pair.study: pair for pair in other.pairs}
    if by_study.keys() != {pair.study for pair in pairs}:
        raise ValueError("the other predictions are of other studies (expected the same ones)")
    second = score_cohort(
        Cohort(
            [by_study[pair.study] for pair in pairs],
            other.regions,
            replace(settings, predicted_labels=settings.against_labels),
            lambda text: progress(f"the other predictions: {text}"),
        )
    )
    comparable = (settings.predicted_labels is None) == (settings.against_labels is None)
    theirs = {statistic.key: statistic for statistic in second.statistics}
    both = []
    for statistic in scored.statistics:
        match = theirs.get(statistic.key)
        if match is None or not statistic.score:
            continue
        if statistic.group == "findings" and statistic.scope == REPORT and not comparable:
            continue  # labels of one file from a table, of the other read: a difference of readers
        both.append((statistic, match))
    found = []
    draws = zip(*(resamples.each(side) for side in zip(*both, strict=True)), strict=True) if both else ()
    for (statistic, match), (ours, others) in zip(both, draws, strict=True):
        difference = ours - others
        low, high = interval(difference, settings.confidence)
        if low is not None and high is not None:
            found.append(Difference(statistic.number(), match.number().value, low, high, p_value(difference)))
    return found


def _numbers(statistics: Sequence[Statistic], resamples: Resamples | None, confidence: float) -> list[Number]:
    if resamples is None:
        return [statistic.number() for statistic in statistics]
    drawn = zip(statistics, resamples.each(statistics), strict=True)
    return [statistic.number(*interval(draws, confidence)) for statistic, draws in drawn]


# ---- what stands beside the numbers


def _notes(cohort: Cohort, source: Sequence[Pair] | None) -> list[str]:
    notes, pairs, settings = [], cohort.pairs, cohort.settings
    if cohort.foreign >= _SAID_FROM:
        notes.append(_script_note(cohort))
    if unanswered := int(cohort.unanswered.sum()):
        notes.append(
            f"{unanswered:,} of {len(pairs):,} studies leave something unanswered that their reference describes."
        )
    if dropped := {region: cell.dropped for region, cell in cohort.cells.items() if cell.dropped}:
        total = sum(dropped.values())
        listed = ", ".join(f"{region} {n:,}" for region, n in dropped.items())
        notes.append(f"The protocol drops {total:,} pairs whose prediction has no such region: {listed}.")
    if settings.floors and any(pair.reference_text for pair in source or pairs):
        where = "the given training references" if source is not None else "the evaluated references (a head start)"
        common = f"'{COMMONEST_REPORT}'"
        if any(pair.reference_regions for pair in pairs):
            common += f" and '{COMMONEST_PARAGRAPHS}'"
        notes.append(f"What is common in the floors {common} is picked from {where}.")
        if settings.labeler is None and settings.predicted_labels is not None:
            notes.append(
                f"Without a labeler, texts of floors that stand in no table have no findings; '{SHUFFLED}', "
                f"'{EMPTY}' and '{EVERYTHING}' are not concerned."
            )
        if any(metric.costly for metric in settings.metrics or ()) and not settings.costly_floors:
            notes.append("Judges did not score the floors: --judge-floors lets them.")
    return notes


def _script_note(cohort: Cohort) -> str:
    share = f"{cohort.foreign:.0%} of the letters of the references are none of a-z"
    if not cohort.unread:
        return f"{share}; ROUGE's tokens, METEOR's synonyms and rules for findings were made for English without them."
    names = (
        "METEOR's synonyms and rules for findings" if cohort.protocol.coco else "METEOR, ROUGE and rules for findings"
    )
    hint = (
        ""
        if cohort.protocol.cut == "characters"
        else (" BLEU and CIDEr take what stands between blanks for a word. Fix: --protocol characters.")
    )
    return f"{share}, which {names} do not cover: these are not available.{hint}"


def _software() -> dict[str, str]:
    found = {"reg2rg": __version__, "python": platform.python_version()}
    for package in (*_PACKAGES, *(name for name in _PACKAGES_OF_MODELS if name in sys.modules)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _labels_text(settings: Settings) -> str:
    """Who labels, in sentences."""
    reader = settings.labeler.definition if settings.labeler is not None else ""
    given = [
        side
        for side, table in (("references", settings.reference_labels), ("predictions", settings.predicted_labels))
        if table is not None
    ]
    if not given:
        return reader
    return f"Labels of the {' and the '.join(given)} are those of the given table. {reader}".strip()
