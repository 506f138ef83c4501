"""Files of reports in: the folders that ``predict`` and the published scripts write, and any table by its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Literal

from reg2rg.core.errors import ConfigError
from reg2rg.core.labels import FINDINGS
from reg2rg.core.regions import RegionSet
from reg2rg.core.registry import did_you_mean
from reg2rg.core.text import TextGate
from reg2rg.datasets.tables import check_encoding
from reg2rg.evaluation.labelers.base import some
from reg2rg.evaluation.pairs import Side
from reg2rg.evaluation.records import DECODING, FORCED, STUDIES, from_cell, read_records, reference_paragraphs
from reg2rg.evaluation.rows import Rows, cell_text, table_rows

IDS = (
    "AccNum", "AccessionNo", "VolumeName", "Volumename", "study", "study_id", "id", "image", "image_id",
    "input_image_name", "filename",
)  # fmt: skip
REFERENCES = (
    "GT_combined_report", "GT_whole_report", "reference", "references", "ground_truth", "gt", "GT", "target",
    "report", "Findings_EN", "findings", "Sentence",
)  # fmt: skip
PREDICTIONS = (
    "Pred_combined_report", "Pred_whole_report", "prediction", "predictions", "predicted", "pred", "Pred", "generated",
    "generated_report", "hypothesis", "output", "report",
)  # fmt: skip
REGIONS = ("region", "Anatomy", "anatomy")
PATIENTS = ("patient", "patient_id", "PatientID")
_SIDES: Mapping[str, tuple[str, ...]] = {"reference": REFERENCES, "prediction": PREDICTIONS}
_REGION_FILE = "_reports.csv"
_ENDINGS = (".nii.gz", ".nii", ".mha", ".npz")
_WORDS_FOR_NOTHING = frozenset({"nan", "none", "null", "n/a", "<na>"})
_SHOWN = 10

SideName = Literal["reference", "prediction"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a table's columns, where they are not among those that are found by themselves."""

    study: str | None = None
    reference: str | None = None
    prediction: str | None = None
    region: str | None = None
    patient: str | None = None


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of one side.

    Attributes:
        source: the file or folder, for messages.
        sides: study -> its texts.
        patients: study -> patient, where the file says so.
        columns: what -> name of its column, of tables.
        notes: what was found and assumed, one sentence each.
        own: written by ``reg2rg predict``, whose prompt asks for regions.
    """

    source: str
    sides: Mapping[str, Side]
    patients: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    own: bool = False


@dataclass(frozen=True, slots=True)
class _Reader:
    """How the files of one side are read."""

    columns: Columns
    side: SideName
    regions: RegionSet
    encoding: str | None = None

    def read(self, path: Path) -> Texts:
        """Read a file or folder."""
        if path.is_dir():
            if (path / STUDIES).is_dir():
                return _from_records(path, self.side)
            files = sorted(path.glob(f"*{_REGION_FILE}"))
            if files:
                return self._from_region_files(path, files)
            raise ConfigError(
                f"{path}: no reports in this folder (expected {STUDIES}/<id>.json as `reg2rg predict` writes, or "
                f"<region>{_REGION_FILE} files). Fix: name the folder of predictions, or a CSV or JSON-lines file"
            )
        if not path.is_file():
            what = "is neither a file nor a folder" if path.exists() else "not found"
            raise ConfigError(f"{path}: {what} (expected a file or folder of reports). Fix: check the path")
        return self._from_table(path)

    def _from_table(self, path: Path, by_region: bool = True) -> Texts:
        """A table's texts, cleaned before anything is made of them; how many were is noted."""
        gate = TextGate()
        asked = (self.columns.study, getattr(self.columns, self.side))
        rows = table_rows(path, self.encoding, [name for name in asked if name], gate)
        texts = self._from_rows(path, rows, by_region)
        return replace(texts, notes=(*texts.notes, *gate.told(path.name)))

    def _from_region_files(self, path: Path, files: Sequence[Path]) -> Texts:
        texts: dict[str, dict[str, str]] = {}
        patients: dict[str, str] = {}
        orders: list[list[str]] = []
        columns: Mapping[str, str] = {}
        other: list[str] = []
        notes: list[str] = []
        for file in files:
            try:
                region = self.regions.canonical(file.name.removesuffix(_REGION_FILE))
            except ConfigError:
                other.append(file.name)  # a table of something else, such as the combined reports
                continue
            part = replace(self, columns=replace(self.columns, region=None))._from_table(file, by_region=False)
            notes += (note for note in part.notes if "were cleaned" in note)
            patients.update(part.patients)
            orders.append(list(part.sides))
            columns = part.columns
            for study, found in part.sides.items():
                texts.setdefault(study, {})[region] = found.whole.strip()
        if not texts:
            raise ConfigError(
                f"{path}: no file is named after a region (expected <region>{_REGION_FILE} with a region of the set: "
                f"{', '.join(self.regions.names)}). Fix: rename the files, or name one file"
            )
        if other:
            notes.append(f"{path.name}: not read, since no region has these names: {some(other, _SHOWN)}.")
        missing = [name for name in self.regions.names if not any(name in found for found in texts.values())]
        if missing:
            notes.append(f"{path.name} has no file of: {', '.join(missing)}.")
        sides = {study: Side(regions=texts[study]) for study in _merged(orders)}
        return Texts(str(path), sides, patients, columns, tuple(notes))

    def _from_rows(self, path: Path, rows: Rows, by_region: bool = True) -> Texts:
        if not rows:
            raise ConfigError(f"{path}: no rows (expected one a study). Fix: check that the file is complete")
        header = list(rows[0][1])
        columns, asked = self.columns, getattr(self.columns, self.side)
        study_column = _needed(path, header, columns.study, IDS, "study id", "--id-column")
        text_column = _needed(path, header, asked, _SIDES[self.side], self.side, f"--{self.side}-column")
        region_column = _column(path, header, columns.region, REGIONS, "--region-column") if by_region else None
        patient_column = _column(path, header, columns.patient, PATIENTS, "--patient-column")
        # RadGenome's own table: parts of regions ("lung/lung/right lung") and others stand between the regions.
        lenient = region_column == "Anatomy" and text_column == "Sentence"
        texts: dict[str, dict[str, str]] = {}  # a whole report stands under ""
        forced: set[str] = set()
        patients: dict[str, str] = {}
        doubled: Counter[str] = Counter()
        parts = 0
        for line, row in rows:
            study = _study(cell_text(row[study_column], path, line, study_column), path, line)
            text = from_cell(cell_text(row[text_column], path, line, text_column))
            cell = cell_text(row[region_column], path, line, region_column) if region_column else ""
            region = self._region(cell, path, line, lenient)
            if row.get(DECODING) == FORCED:
                forced.add(study)
            if patient_column and (name := cell_text(row[patient_column], path, line, patient_column).strip()):
                patients[study] = name
            if region is None:
                parts += 1
                continue
            own = texts.setdefault(study, {})
            before = own.get(region)
            doubled[study] += before is not None and not (lenient and before == text.strip())
            own[region] = text.strip() if region else text
        self._check_doubled(path, doubled)
        sides = {study: Side(own.pop("", ""), own, forced=study in forced) for study, own in texts.items()}
        notes = [*self._labels(path, header), *_odd_words(path, sides)]
        if parts:
            notes.append(f"{path.name}: {parts} rows of parts of regions or of other regions are left out.")
        used = {"id": study_column, self.side: text_column, "region": region_column, "patient": patient_column}
        return Texts(str(path), sides, patients, {what: name for what, name in used.items() if name}, tuple(notes))

    def _region(self, cell: str, path: Path, line: int, lenient: bool) -> str | None:
        """The region of a row, "" for a whole report, ``None`` for a row to leave out."""
        if cell.strip().lower() in ("", "nan"):  # RadGenome: the whole report stands in a row without region
            return ""
        try:
            return self.regions.canonical(cell)
        except ConfigError as error:
            if lenient:
                return None
            raise ConfigError(f"{path}: line {line}: {error}") from None

    def _check_doubled(self, path: Path, doubled: Mapping[str, int]) -> None:
        names = sorted(study for study, times in doubled.items() if times)
        if names:
            raise ConfigError(
                f"{path}: {len(names)} studies stand there more than once: {some(names, _SHOWN)} (expected one row a "
                "study, or one a region with a region column). Fix: remove rows, or name the --region-column"
            )

    def _labels(self, path: Path, header: Sequence[str]) -> Iterator[str]:
        prefix = {"reference": "GT_", "prediction": "Pred_"}[self.side]
        if all(prefix + label in header for label in FINDINGS):
            option = {"reference": "--reference-labels", "prediction": "--predicted-labels"}[self.side]
            yield f"{path.name} holds labels of the {self.side}s too ({prefix}...): score by them with {option}."


def read_texts(
    path: Path, side: SideName, regions: RegionSet, columns: Columns = Columns(), encoding: str | None = None
) -> Texts:
    """Read one side of an evaluation.

    Args:
        path: a folder that ``reg2rg predict`` wrote; a folder of ``<region>_reports.csv`` files; a CSV (comma,
            semicolon or tab), JSON lines, a JSON list or an object id -> text, with a row a study or, with a region
            column, a row a region.
        side: which of the table's texts.
        regions: whose names and spellings are understood.
        columns: names of columns that are not found by themselves.
        encoding: of tables; ``None``: UTF-8, or UTF-16 where a byte-order mark says so.

    Raises:
        ConfigError: a column that is missing or not clear, a cell that is no text, a study that stands there twice.
        DataFault: a table that cannot be read, with the line.
    """
    if encoding is not None:
        check_encoding(encoding)
    return _Reader(columns, side, regions, encoding).read(path)


def _from_records(path: Path, side: SideName) -> Texts:
    sides, gate = {}, TextGate()
    for record in read_records(path, gate=gate):
        given = tuple(record["regions"])
        if side == "reference":
            tail = record.get("reference_others")
            sides[record["study"]] = Side.of_paragraphs(given, reference_paragraphs(record), tail)
        else:
            sides[record["study"]] = Side(record["text"], given=given, forced=record.get("decoding") == FORCED)
    if not sides:
        raise ConfigError(f"{path}: no complete study in {STUDIES}/. Fix: run `reg2rg predict` to its end")
    return Texts(str(path), sides, notes=tuple(gate.told(path.name)), own=True)


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


def _odd_words(path: Path, sides: Mapping[str, Side]) -> Iterator[str]:
    texts = [text for side in sides.values() for text in (side.whole, *side.regions.values())]
    odd = Counter(text.strip() for text in texts if text.strip().lower() in _WORDS_FOR_NOTHING)
    if odd:
        listed = ", ".join(f"'{word}' {times} times" for word, times in odd.most_common())
        yield (
            f"{path.name} has texts that look like missing values ({listed}). They are scored as the words that stand "
            "there; an empty cell is an empty report."
        )


def _needed(path: Path, header: Sequence[str], asked: str | None, known: Sequence[str], what: str, option: str) -> str:
    found = _column(path, header, asked, known, option)
    if found is not None:
        return found
    fix = f"name it with {option}"
    if what == "reference":
        fix += ", or the file of the references with --references"
    if what == "prediction" and (other := next((name for name in REFERENCES if name in header), None)):
        fix = f"this looks like a file of references ('{other}'): give it with --references, and the predictions first"
        fix += f"; or {option}"
    raise ConfigError(
        f"{path}: no column for the {what} (expected one of {', '.join(known)}; the header has: "
        f"{', '.join(header)}). Fix: {fix}"
    )


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
    """The id without the ending of a volume's file, so that tables agree that name files and ids."""
    name = cell.strip()
    ending = next((one for one in _ENDINGS if name.lower().endswith(one)), "")
    name = name.removesuffix(name[len(name) - len(ending) :]) if ending else name
    if name:
        return name
    raise ConfigError(f"{path}: line {line} has no study id (expected one in every row). Fix: complete the table")
