"""Report files in, pairs of reference and prediction out: the same studies on both sides, or an error lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.datasets.names import patient_of
from reg2rg.evaluation.labelers.base import some
from reg2rg.evaluation.pairs import Pair, Side, chose_no_names, pair_sides, pair_texts, whole_pair
from reg2rg.evaluation.prefixes import has_prefixes
from reg2rg.evaluation.sources import Columns, Texts, read_texts

__all__ = ["Columns", "Pair", "Reports", "pair_texts", "read_references", "read_reports", "reference_pairs"]

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Reports:
    """What was read.

    Attributes:
        pairs: in the order of the prediction file, which published medians of resamples depend on.
        regions: region names in the order of the set, those that any reference describes.
        notes: what was detected, one sentence each.
    """

    pairs: Sequence[Pair]
    regions: tuple[str, ...]
    notes: tuple[str, ...]


def read_reports(
    predictions: Path,
    references: Path | None,
    regions: RegionSet,
    columns: Columns = Columns(),  # noqa: B008 (frozen)
    intersection: bool = False,
    encoding: str | None = None,
) -> Reports:
    """Read predictions with their references.

    Args:
        predictions: a folder or file in any form that `reg2rg.evaluation.sources.read_texts` knows.
        references: the same with the references; ``None`` if they stand beside the predictions.
        regions: whose names and spellings are understood.
        columns: names of columns that are not found by themselves.
        intersection: score the studies that both sides have, where they differ.
        encoding: of tables; ``None``: UTF-8, or UTF-16 where a byte-order mark says so.

    Raises:
        ConfigError: a column that is missing or not clear, studies that only one side has, references without text,
            nothing to score.
        DataFault: a table that cannot be read, with the line.
    """
    predicted = read_texts(predictions, "prediction", regions, columns, encoding)
    source = references if references is not None else predictions
    expected = read_texts(source, "reference", regions, columns, encoding)
    column = expected.columns.get("reference")
    if references is None and column is not None and column == predicted.columns.get("prediction"):
        raise ConfigError(
            f"{predictions}: the column '{column}' would be compared with itself. Fix: name the columns with "
            "--reference-column and --prediction-column, or the file of references with --references"
        )
    studies, notes = _matched(expected, predicted, intersection)
    pairs, whole = _pairs(studies, expected, predicted, regions)
    silent = [pair.study for pair in pairs if not pair.reference_text]
    if silent and not intersection:
        raise ConfigError(
            f"{expected.source}: {len(silent)} studies have no reference text, such as {', '.join(silent[:_SHOWN])} "
            "(expected a text to compare with). Fix: complete them, or leave them out with --intersection"
        )
    if silent:
        notes.append(f"{len(silent)} studies without reference text are left out.")
    pairs = [pair for pair in pairs if pair.reference_text]
    if not pairs:
        raise ConfigError(
            f"{predicted.source}: no study to score (expected studies with a reference). Fix: check that ids of both "
            "sides agree"
        )
    notes += _columns(predictions, predicted, source, expected)
    notes += dict.fromkeys((*predicted.notes, *expected.notes))
    return Reports(pairs, _described(pairs, regions), (*notes, *_detected(pairs, whole)))


def read_predictions(
    path: Path,
    regions: RegionSet,
    columns: Columns = Columns(),  # noqa: B008 (frozen)
    encoding: str | None = None,
) -> Reports:
    """Predictions alone, to be scored against labels, as pairs with empty references.

    Raises:
        ConfigError: as `read_reports`.
        DataFault: as `read_reports`.
    """
    texts = read_texts(path, "prediction", regions, columns, encoding)
    pairs = [
        pair_sides(study, texts.patients.get(study) or patient_of(study), Side(), side, regions)
        for study, side in texts.sides.items()
    ]
    notes = (*_columns(path, texts, path, texts), *texts.notes)
    return Reports(pairs, (), (*notes, "There are no references: findings are scored against labels, texts are not."))


def read_references(
    path: Path,
    regions: RegionSet,
    columns: Columns = Columns(),  # noqa: B008 (frozen)
    encoding: str | None = None,
) -> list[Pair]:
    """References alone, such as those of the training split, as pairs with empty predictions.

    Raises:
        ConfigError: as `read_reports`.
        DataFault: as `read_reports`.
    """
    texts = read_texts(path, "reference", regions, columns, encoding)
    pairs = [
        pair_sides(study, study, side, Side(), regions) for study, side in texts.sides.items() if side.text(regions)
    ]
    if not pairs:
        raise ConfigError(
            f"{path}: no reference has a text (expected some). Fix: check the file and --reference-column"
        )
    return pairs


def reference_pairs(reports: Mapping[str, Mapping[str, str]], regions: RegionSet) -> list[Pair]:
    """References alone, whose paragraphs are known, as pairs with empty predictions.

    Args:
        reports: study -> region -> text; a whole report stands under ``""``.
        regions: whose names are understood.
    """
    pairs = []
    for study, texts in reports.items():
        given = [region for region in texts if region]
        side = Side.of_paragraphs(given, [texts[region] for region in given] or list(texts.values()) or [""])
        pairs.append(pair_sides(study, patient_of(study), side, Side(), regions))
    return [pair for pair in pairs if pair.reference_text]


def _pairs(
    studies: Sequence[str], expected: Texts, predicted: Texts, regions: RegionSet
) -> tuple[list[Pair], tuple[str, ...]]:
    """Pairs, and which sides know regions that the other side's files never name; whole reports are compared then."""
    references, predictions = ([texts.sides[study] for study in studies] for texts in (expected, predicted))
    known = {
        "references": any(side.by_region for side in references),
        # Reports of `predict` are asked for regions: one without any is a report without regions.
        "predictions": any(side.by_region or (predicted.own and side.given) for side in predictions),
    }
    apart = len(set(known.values())) > 1 and any(side.text(regions) for side in predictions)
    patients = [expected.patients.get(study) or predicted.patients.get(study) or patient_of(study) for study in studies]
    paired, make = zip(studies, patients, references, predictions, strict=True), whole_pair if apart else pair_sides
    pairs = [make(*one, regions) for one in paired]
    return pairs, tuple(name for name, by_region in known.items() if by_region) if apart else ()


def _described(pairs: Sequence[Pair], regions: RegionSet) -> tuple[str, ...]:
    described = {region for pair in pairs for region in (*pair.reference_regions, *pair.given)}
    return tuple(name for name in regions.names if name in described)


def _columns(predictions: Path, predicted: Texts, source: Path, expected: Texts) -> Iterator[str]:
    """Which columns were read."""
    parts = [(predictions, predicted.columns), (source, expected.columns)]
    if predictions == source:
        parts = [(source, {**expected.columns, **predicted.columns})]
    for path, columns in parts:
        if columns:
            yield f"{path.name}: {', '.join(f'{what} from {name!r}' for what, name in columns.items())}."


def _detected(pairs: Sequence[Pair], whole: Sequence[str]) -> Iterator[str]:
    prefixed = sum(has_prefixes(pair.reference) for pair in pairs), sum(has_prefixes(pair.prediction) for pair in pairs)
    if whole:
        yield f"Only the {' and '.join(whole)} are divided by region: whole reports are scored."
    if any(prefixed):
        yield (
            f"Region prefixes found in {prefixed[0]} references and {prefixed[1]} predictions of {len(pairs)}; they "
            "are taken off before texts are compared."
        )
    elif any(pair.reference_regions for pair in pairs):
        yield "Texts are given by region; whole reports are these texts joined in the order of the region set."
    elif not whole:
        yield "No region prefixes found: whole reports are scored."
    if forced := sum(pair.forced for pair in pairs):
        yield (
            f"Decoding was forced in {forced} of {len(pairs)} predictions: the names of regions were given to the "
            "decoder and recognise nothing. Recognition is not scored."
        )
    elif chose_no_names(pairs):
        yield "The predictions name no region, so that there is no recognition to score; paragraphs go by their slots."
    patients = len({pair.patient for pair in pairs})
    if patients < len(pairs):
        yield f"{len(pairs):,} studies of {patients:,} patients, told apart by their ids or by the patient column."


def _matched(expected: Texts, predicted: Texts, intersection: bool) -> tuple[list[str], list[str]]:
    only_expected = sorted(expected.sides.keys() - predicted.sides.keys())
    only_predicted = sorted(predicted.sides.keys() - expected.sides.keys())
    notes = []
    if only_expected or only_predicted:
        if not intersection:
            raise ConfigError(
                f"{predicted.source} and {expected.source} hold different studies. Without a prediction: "
                f"{_listed(only_expected)}. Without a reference: {_listed(only_predicted)}. Fix: complete the files, "
                "or score what both have with --intersection"
            )
        notes.append(
            f"Only studies of both files are scored: {len(only_expected)} without prediction and "
            f"{len(only_predicted)} without reference are left out."
        )
    return [study for study in predicted.sides if study in expected.sides], notes


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({some(names, _SHOWN)})" if names else "none"
