"""Report files in, pairs of reference and prediction out: the published layouts, and any table by its columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

from reg2rg.data.datasets.names import patient_of, study_id
from reg2rg.data.datasets.tables import read_lines, read_rows
from reg2rg.errors import ConfigError, DataFault
from reg2rg.evaluation.prefixes import given_regions, has_prefixes, other_regions, own_report, own_slots, strip_prefixes
from reg2rg.records import STUDIES, from_cell, read_records
from reg2rg.regions import RegionSet
from reg2rg.registry import did_you_mean
from reg2rg.report import write_report

IDS = ("AccNum", "AccessionNo", "VolumeName", "Volumename", "study", "study_id", "id", "image", "image_id", "filename")
REFERENCES = (
    "GT_combined_report", "GT_whole_report", "reference", "references", "ground_truth", "gt", "GT", "target",
    "report", "Findings_EN", "findings",
)  # fmt: skip
PREDICTIONS = (
    "Pred_combined_report", "Pred_whole_report", "prediction", "predictions", "predicted", "pred", "Pred", "generated",
    "generated_report", "hypothesis", "output", "report",
)  # fmt: skip
REGIONS = ("region", "Anatomy", "anatomy")
PATIENTS = ("patient", "patient_id", "PatientID")
_REGION_FILE = "_reports.csv"
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a table's columns, where they are not among those that are found by themselves."""

    study: str | None = None
    reference: str | None = None
    prediction: str | None = None
    region: str | None = None
    patient: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A study's reference and prediction.

    Attributes:
        study: its id.
        patient: whose it is; resampling draws patients.
        reference: text as read.
        prediction: text as read.
        reference_text: without region prefixes.
        prediction_text: without region prefixes.
        reference_regions: region -> text that is not empty.
        predicted_regions: the same for the prediction, strictly read.
        given: the region at each slot; empty if the text has no slots.
        named: the region that the prediction names at each slot, ``""`` for none, raw words for an unknown one.
    """

    study: str
    patient: str
    reference: str
    prediction: str
    reference_text: str
    prediction_text: str
    reference_regions: Mapping[str, str] = field(default_factory=dict)
    predicted_regions: Mapping[str, str] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    @property
    def unanswered(self) -> bool:
        """Whether the prediction leaves out what its reference describes: everything, or a region."""
        return not self.prediction_text or any(
            region not in self.predicted_regions for region in self.reference_regions
        )


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


@dataclass(frozen=True, slots=True)
class _Texts:
    """Texts of one side. ``texts``: study -> region (None: the whole report) -> text."""

    source: str
    texts: Mapping[str, Mapping[str | None, str]]
    patients: Mapping[str, str]
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    column: str = ""


def read_reports(
    predictions: Path,
    references: Path | None,
    regions: RegionSet,
    columns: Columns = Columns(),
    intersection: bool = False,
) -> Reports:
    """Read predictions with their references.

    Args:
        predictions: a folder that ``reg2rg predict`` wrote; a folder of ``<region>_reports.csv`` files; a CSV (comma,
            semicolon or tab) or a JSON-lines file, with a row a study or, with a region column, a row a region.
        references: a file of the same kinds with the references; ``None`` if they stand beside the predictions.
        regions: whose names and spellings are understood.
        columns: names of columns that are not found by themselves.
        intersection: score the studies that both sides have, where they differ.

    Raises:
        ConfigError: a column that is missing or not clear, studies that only one side has, references without text,
            nothing to score.
        DataFault: a table that cannot be read, with the line.
    """
    predicted = _read(predictions, columns, PREDICTIONS, "prediction", regions)
    source = references if references is not None else predictions
    expected = _read(source, columns, REFERENCES, "reference", regions)
    if references is None and expected.column and expected.column == predicted.column:
        raise ConfigError(
            f"{predictions}: the column '{expected.column}' would be compared with itself. Fix: name the columns with "
            "--reference-column and --prediction-column, or the file of references with --references"
        )
    studies, notes = _matched(expected, predicted, intersection)
    pairs = [_pair(study, expected, predicted, regions) for study in studies]
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
        raise ConfigError(f"{predicted.source}: no study to score. Fix: check that ids of both sides agree")
    described = {region for pair in pairs for region in (*pair.reference_regions, *pair.given)}
    return Reports(pairs, tuple(name for name in regions.names if name in described), (*notes, *_detected(pairs)))


def _detected(pairs: Sequence[Pair]) -> Iterator[str]:
    prefixed = sum(has_prefixes(pair.reference) for pair in pairs), sum(has_prefixes(pair.prediction) for pair in pairs)
    by_region = any(pair.reference_regions for pair in pairs)
    if any(prefixed):
        yield (
            f"Region prefixes found in {prefixed[0]} references and {prefixed[1]} predictions of {len(pairs)}; they "
            "are taken off before texts are compared."
        )
    elif by_region:
        yield "Texts are given by region; whole reports are these texts joined in the order of the region set."
    else:
        yield "No region prefixes found: whole reports are scored."
    patients = len({pair.patient for pair in pairs})
    if patients < len(pairs):
        yield f"{len(pairs)} studies of {patients} patients, told apart by their ids or by the patient column."


def _matched(expected: _Texts, predicted: _Texts, intersection: bool) -> tuple[list[str], list[str]]:
    only_expected = sorted(expected.texts.keys() - predicted.texts.keys())
    only_predicted = sorted(predicted.texts.keys() - expected.texts.keys())
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
    return [study for study in predicted.texts if study in expected.texts], notes


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{more})"


def _pair(study: str, expected: _Texts, predicted: _Texts, regions: RegionSet) -> Pair:
    reference, prediction = expected.texts[study], predicted.texts[study]
    patient = expected.patients.get(study) or predicted.patients.get(study) or patient_of(study)
    described = {name: text for name in regions.names if (text := reference.get(name, ""))}
    told = {name: text for name in regions.names if (text := prediction.get(name, ""))}
    raw = reference.get(None, " ".join(described.values()))
    answer = prediction.get(None, " ".join(told.values()))
    if described:
        return Pair(study, patient, raw, answer, strip_prefixes(raw), strip_prefixes(answer), described, told)
    return pair_texts(study, patient, raw, answer, regions, expected.given.get(study))


def pair_texts(
    study: str, patient: str, reference: str, prediction: str, regions: RegionSet, given: tuple[str, ...] | None = None
) -> Pair:
    """A pair from texts that may have region prefixes.

    Args:
        study: its id.
        patient: whose it is.
        reference: text as written.
        prediction: text as generated.
        regions: whose spellings are understood.
        given: the region at each slot; read from the reference if ``None``.
    """
    pair = Pair(study, patient, reference, prediction, strip_prefixes(reference), strip_prefixes(prediction))
    given = given or given_regions(reference, regions)
    if not given:
        return pair
    described = {**own_report(reference, given, regions).by_region(), **other_regions(reference, regions)}
    report = own_report(prediction, given, regions)
    named = {slot.number: slot.region for slot in reversed(own_slots(prediction, regions))}  # the first one counts
    if not any(named.values()):  # without identities, a paragraph belongs to the region at its slot
        named = {paragraph.slot: paragraph.region for paragraph in report.paragraphs}
    told = {**other_regions(prediction, regions), **report.by_region()}
    return replace(
        pair,
        reference_regions={name: text for name, text in described.items() if text},
        predicted_regions={name: text for name, text in told.items() if text},
        given=given,
        named=tuple(named.get(slot, "") for slot in range(len(given))),
    )


def _read(path: Path, columns: Columns, candidates: Sequence[str], side: str, regions: RegionSet) -> _Texts:
    if path.is_dir():
        if (path / STUDIES).is_dir():
            return _from_records(path, side)
        files = sorted(path.glob(f"*{_REGION_FILE}"))
        if files:
            return _from_region_files(path, files, columns, candidates, side, regions)
        raise ConfigError(
            f"{path}: no reports in this folder (expected {STUDIES}/<id>.json as `reg2rg predict` writes, or "
            f"<region>{_REGION_FILE} files). Fix: name the folder of predictions, or a CSV or JSON-lines file"
        )
    if not path.is_file():
        raise ConfigError(f"{path}: not found (expected a file or folder of reports). Fix: check the path")
    return _from_rows(path, list(_rows(path)), columns, candidates, side, regions)


def _from_records(path: Path, side: str) -> _Texts:
    texts: dict[str, dict[str | None, str]] = {}
    given: dict[str, tuple[str, ...]] = {}
    for record in read_records(path):
        study, order = record["study"], record["regions"]
        given[study] = tuple(order)
        reference = write_report(order, [record["reference"].get(region, "") for region in order])
        texts[study] = {None: reference if side == "reference" else record["text"]}
    if not texts:
        raise ConfigError(f"{path}: no complete study in {STUDIES}/. Fix: run `reg2rg predict` to its end")
    return _Texts(str(path), texts, {}, given)


def _from_region_files(
    path: Path, files: Sequence[Path], columns: Columns, candidates: Sequence[str], side: str, regions: RegionSet
) -> _Texts:
    texts: dict[str, dict[str | None, str]] = {}
    patients: dict[str, str] = {}
    orders: list[list[str]] = []
    for file in files:
        try:
            region = regions.canonical(file.name.removesuffix(_REGION_FILE))
        except ConfigError:
            continue  # a table of something else, such as the combined reports
        part = _from_rows(file, list(_rows(file)), replace(columns, region=None), candidates, side, regions)
        patients.update(part.patients)
        orders.append(list(part.texts))
        for study, found in part.texts.items():
            texts.setdefault(study, {})[region] = found[None]
    if not texts:
        raise ConfigError(
            f"{path}: no file is named after a region (expected <region>{_REGION_FILE} with a region of the set: "
            f"{', '.join(regions.names)}). Fix: rename the files, or name one file"
        )
    return _Texts(str(path), {study: texts[study] for study in _merged(orders)}, patients)


def _merged(orders: Sequence[Sequence[str]]) -> list[str]:
    """One order that keeps those of the files, each of which leaves other studies out of the same list."""
    graph: TopologicalSorter[str] = TopologicalSorter({orders[0][0]: ()})
    for order in orders:
        for before, after in pairwise(order):
            graph.add(after, before)
        graph.add(order[-1])
    try:
        return list(graph.static_order())
    except CycleError:  # the files disagree
        return list(dict.fromkeys(study for order in orders for study in order))


def _from_rows(
    path: Path,
    rows: Sequence[tuple[int, Mapping[str, str]]],
    columns: Columns,
    candidates: Sequence[str],
    side: str,
    regions: RegionSet,
) -> _Texts:
    if not rows:
        raise ConfigError(f"{path}: no rows (expected one a study). Fix: check that the file is complete")
    header = list(rows[0][1])
    study_column = _needed(path, header, columns.study, IDS, "study id", "--id-column")
    asked = columns.reference if side == "reference" else columns.prediction
    text_column = _needed(path, header, asked, candidates, side, f"--{side}-column")
    region_column = _column(path, header, columns.region, REGIONS, "--region-column")
    patient_column = _column(path, header, columns.patient, PATIENTS, "--patient-column")
    texts: dict[str, dict[str | None, str]] = {}
    patients: dict[str, str] = {}
    twice: Counter[str] = Counter()
    for line, row in rows:
        study = _study(row[study_column], path, line)
        region = _region(row[region_column], regions, path, line) if region_column else None
        found = texts.setdefault(study, {})
        twice[study] += region in found
        found[region] = from_cell(row[text_column]).strip()
        if patient_column and row[patient_column].strip():
            patients[study] = row[patient_column].strip()
    doubled = sorted(study for study, times in twice.items() if times)
    if doubled:
        raise ConfigError(
            f"{path}: {len(doubled)} studies stand there more than once, such as {', '.join(doubled[:_SHOWN])} "
            "(expected one row a study, or one a region with a region column). Fix: remove rows, or name the --region-column"
        )
    return _Texts(str(path), texts, patients, column=text_column)


def _rows(path: Path) -> Iterable[tuple[int, Mapping[str, str]]]:
    if path.suffix.lower() not in (".jsonl", ".ndjson", ".json"):
        return ((row.line, row.values) for row in read_rows(path, needed=()))
    return _json_lines(path)


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    columns: dict[str, None] = {}
    found = []
    for line, text in read_lines(path):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ConfigError(
                f"{path}: line {line} is not JSON ({error}) (expected JSON lines: one object a line). Fix: write the "
                "file with one object a line"
            ) from None
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: line {line} is a {type(value).__name__} (expected an object: column -> text)")
        row = {str(key): "" if item is None else str(item) for key, item in value.items()}
        columns.update(dict.fromkeys(row))
        found.append((line, row))
    for line, row in found:
        yield line, {column: row.get(column, "") for column in columns}


def _needed(path: Path, header: Sequence[str], asked: str | None, known: Sequence[str], what: str, option: str) -> str:
    found = _column(path, header, asked, known, option)
    if found is None:
        raise ConfigError(
            f"{path}: no column for the {what} (expected one of {', '.join(known)}; the header has: "
            f"{', '.join(header)}). Fix: name it with {option}"
        )
    return found


def _column(path: Path, header: Sequence[str], asked: str | None, known: Sequence[str], option: str) -> str | None:
    if asked is None:
        return next((name for name in known if name in header), None)
    if asked in header:
        return asked
    raise ConfigError(
        f"{path}: no column '{asked}' ({option}).{did_you_mean(asked, list(header))} The header has: "
        f"{', '.join(header)}"
    )


def _study(cell: str, path: Path, line: int) -> str:
    try:
        return study_id(cell)
    except DataFault as fault:
        raise ConfigError(f"{path}: line {line}: {fault}") from None


def _region(cell: str, regions: RegionSet, path: Path, line: int) -> str | None:
    if cell.strip().lower() in ("", "nan"):  # RadGenome: the whole report stands in a row without region
        return None
    try:
        return regions.canonical(cell)
    except ConfigError as error:
        raise ConfigError(f"{path}: line {line}: {error}") from None
