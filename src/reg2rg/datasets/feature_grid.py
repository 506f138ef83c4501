"""Features that somebody's encoder made, in place of scans, with organ masks on their grid and texts from tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.core.text import TextGate
from reg2rg.core.types import MaskChannels, PathOrName, PathText, Study, UnitFloat
from reg2rg.datasets.base import DATASETS, SPLITS, Dataset, Listing, Notes, Skip, carve_validation
from reg2rg.datasets.columns import Key, Keys, any_rows
from reg2rg.datasets.labels import find_label_tables, read_labels
from reg2rg.datasets.names import patient_of, study_id
from reg2rg.datasets.radgenome import COLUMNS
from reg2rg.datasets.tables import Row, check_encoding, clean, is_empty
from reg2rg.scans.features import load_array

_SUFFIXES = (".npy", ".npz")
_IDS = "_ids.txt"
_RECONSTRUCTION = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True)
class _Place:
    """Features of one study."""

    id: str
    split: str
    file: Path
    row: int | None = None


@dataclass(slots=True)
class _Texts:
    """What the tables say of one study."""

    where: str
    split: str = ""
    patient: str = ""
    whole: str = ""
    regions: dict[str, str] = field(default_factory=dict)
    conflict: str = ""


@DATASETS.register
class FeatureGrid(Dataset):
    """Precomputed features, one array a study or many studies in one, and the texts that describe the scans.

    Features: ``<id>.npy`` (or .npz), in folders or not; or ``<name>.npy`` that stacks studies, with an id for each row
    in ``<name>_ids.txt`` beside it, the layout of ORCA-3DCT's compressed features. How the arrays lie is said in
    ``data.read.grid``. The split of a study is that of the folder or stacked array that holds it, else of the word
    before the first ``_`` of its id, else of the column ``split``.

    Args:
        features: folder of the features.
        reports: a table, or a folder of tables: RadGenome-ChestCT's (Volumename, Anatomy, Sentence), or one row a study
            with the columns id, patient, split, report, report:<region>.
        regions: region set, a packaged name or a YAML file.
        masks: folder of mask files ``<id>.npz``, in folders of splits or not; null for reports without regions.
        splits: name of a folder, of a stacked array or of ids -> split.
        by_scan: a study is described by the rows of another reconstruction of its scan: ``valid_1000_a_2`` by those of
            ``valid_1000_a_1``.
        labels: clinical labels, a CSV or a folder of CSVs (``VolumeName`` + one 0/1 column a label); null for none.
        val_fraction: share of train patients held out for validation if no study has the split val.
        encoding: how the tables are encoded.
        max_skip: largest share of studies that may be left out.
    """

    def __init__(
        self,
        features: PathText,
        reports: PathText,
        regions: PathOrName = "radgenome",
        masks: PathText | None = None,
        splits: dict[str, str] | None = None,
        by_scan: bool = False,
        labels: PathText | None = None,
        val_fraction: UnitFloat = 0.05,
        encoding: str = "utf-8-sig",
        max_skip: UnitFloat = 0.05,
    ) -> None:
        super().__init__(max_skip)
        check_encoding(encoding)
        carve_validation((), val_fraction)
        self.features, self.reports = Path(features), Path(reports)
        self.masks = None if masks is None else Path(masks)
        self.regions = load_region_set(regions)
        self.splits = {"train": "train", "valid": "test"} if splits is None else splits
        if unknown := [name for name in self.splits.values() if name not in SPLITS]:
            raise ConfigError(f"FeatureGrid: splits leads to {unknown[0]!r} (expected {', '.join(SPLITS)})")
        self.by_scan, self.labels = by_scan, labels
        self.val_fraction, self.encoding = val_fraction, encoding

    def scan(self) -> Listing:
        """List features and masks and read the tables.

        Raises:
            ConfigError: a folder that is not there.
        """
        for name, folder in (("features", self.features), ("masks", self.masks)):
            if folder is not None and not folder.is_dir():
                raise ConfigError(f"FeatureGrid: {name}: no folder at {folder}. Fix: correct the path")
        notes, studies = Notes(), list[Study]()
        skipped: list[Skip] = []
        faults: list[DataFault] = []
        texts = self._texts(notes, skipped, faults)
        findings = {}
        try:
            if self.labels is not None:
                found = read_labels(find_label_tables(Path(self.labels), ""), self.encoding)
                findings = {self._name(study): values for study, values in found.items()}
        except DataFault as fault:
            faults.append(fault)
        masks = self._masks()
        seen: dict[str, Path] = {}
        for place in self._places(faults):
            try:
                name = self._name(self._own(place, seen))
                study = self._study(place, texts.get(name), masks, notes, bool(faults))
                studies.append(replace(study, findings=findings.get(name)))
            except DataFault as fault:
                skipped.append(Skip.of(fault, place.id))
        if not any(study.split == "val" for study in studies):
            studies = carve_validation(studies, self.val_fraction)
        return Listing(tuple(studies), tuple(skipped), notes.freeze(), tuple(faults))

    # ---- files

    def _places(self, faults: list[DataFault]) -> Iterator[_Place]:
        """Where the features of each study are, sorted by path."""
        for file in sorted(self.features.rglob("*")):
            if file.suffix.lower() not in _SUFFIXES or not file.is_file():
                continue
            ids = file.with_name(f"{file.stem}{_IDS}")
            parts = file.relative_to(self.features).parts[:-1]
            folder = next((part for part in reversed(parts) if part in self.splits), "")
            if not ids.is_file():
                yield _Place(file.stem, folder, file)
                continue
            try:
                names = ids.read_text(encoding="utf-8-sig").split()
                rows = len(load_array(file, ""))
                if rows != len(names):
                    fix = "get both files of one download"
                    found, expected = f"{rows} rows, but {ids.name} has {len(names)} ids", "an id a row"
                    raise DataFault.of("FEATURE_ROWS", found=found, expected=expected, fix=fix, path=file)
            except (DataFault, UnicodeDecodeError, TypeError) as error:
                faults.append(error if isinstance(error, DataFault) else _not_ids(ids))
                continue
            split = file.stem if file.stem in self.splits else folder
            yield from (_Place(name, split, file, row) for row, name in enumerate(names))

    def _masks(self) -> dict[str, Path]:
        if self.masks is None or not self.needs_masks:
            return {}
        return {file.stem: file for file in sorted(self.masks.rglob("*")) if file.suffix.lower() in _SUFFIXES}

    def _own(self, place: _Place, seen: dict[str, Path]) -> str:
        """The study's id."""
        study = study_id(place.id)
        if study in seen:
            raise _fault(
                "DUPLICATE_STUDY", study, place.file, f"its features are in {seen[study]} too", "one array a study",
                "delete one of them",
            )  # fmt: skip
        seen[study] = place.file
        return study

    def _name(self, study: str) -> str:
        """What a study and the rows that describe it have in common."""
        return _RECONSTRUCTION.sub("", study) if self.by_scan else study

    # ---- tables

    def _texts(self, notes: Notes, skipped: list[Skip], faults: list[DataFault]) -> dict[str, _Texts]:
        tables = sorted(self.reports.glob("*.csv")) if self.reports.is_dir() else [self.reports]
        texts: dict[str, _Texts] = {}
        gate = TextGate()
        for table in tables:
            keys = Keys(table, {}, self.regions)
            try:
                for row in any_rows(table, (), self.encoding, gate):
                    if not _by_region(row) and "id" not in row.values:
                        if self.reports.is_dir():
                            notes.add("OTHER_TABLE", table.name)
                            break
                        fix = f"columns {', '.join(COLUMNS)}, or id and report or report:<region>"
                        columns = ", ".join(row.values)
                        raise _fault("TABLE_COLUMNS", "", table, f"the columns {columns}", "texts of studies", fix)
                    self._read(row, keys, table, texts, notes, skipped)
            except DataFault as fault:
                faults.append(fault)
            for told in gate.told(table.name):
                notes.add("TEXT_CLEANED", told)
        return texts

    def _read(
        self, row: Row, keys: Keys, table: Path, texts: dict[str, _Texts], notes: Notes, skipped: list[Skip]
    ) -> None:
        where = f"{table.name} line {row.line}"
        try:
            study = study_id(row.values[COLUMNS[0] if _by_region(row) else "id"])
        except DataFault as fault:
            skipped.append(Skip(where, fault.code, str(fault)))
            return
        told = texts.setdefault(self._name(study), _Texts(where))
        if _by_region(row):
            self._add(told, row.values[COLUMNS[1]].strip(), row.values[COLUMNS[2]], where, notes)
            return
        for name, value in row.values.items():
            key = keys[name]
            if key is None or is_empty(value):
                continue
            if key.kind == "report":
                self._add(told, key.item, value, where, notes)
            elif key in (Key("split"), Key("patient")):
                setattr(told, key.kind, value.strip())

    def _add(self, told: _Texts, anatomy: str, sentence: str, where: str, notes: Notes) -> None:
        text = clean(sentence)
        if is_empty(anatomy):
            told.whole = told.whole or text
        elif anatomy not in self.regions:
            notes.add("HIERARCHY_ROW" if "/" in anatomy else "UNKNOWN_REGION", f"{where} {anatomy}")
        elif is_empty(text):
            notes.add("EMPTY_SENTENCE", f"{where} {anatomy}")
        elif (before := told.regions.setdefault(self.regions.canonical(anatomy), text)) != text:
            told.conflict = told.conflict or f"{where}: another text for {anatomy!r} than {before[:40]!r}"

    def _study(self, place: _Place, texts: _Texts | None, masks: dict[str, Path], notes: Notes, lacking: bool) -> Study:
        """The study, without its findings."""
        study = study_id(place.id)
        told = texts or _Texts("")
        if told.conflict:
            raise _fault(
                "DUPLICATE_ROWS", study, self.reports, told.conflict, "one text a region", "keep one of the rows"
            )
        split = self.splits.get(place.split) or self.splits.get(study.partition("_")[0]) or told.split or "train"
        if split not in SPLITS:
            known = " or ".join(SPLITS)
            raise _fault("BAD_SPLIT", study, told.where, f"split is {split!r}", known, "correct the cell")
        with_masks = self.masks is not None and self.needs_masks
        if not told.regions and (with_masks or not told.whole) and not lacking:
            if split != "test":
                fix = "add it, or leave the study out; by_scan: true joins other reconstructions of a scan"
                raise _fault("NO_REPORT", study, self.reports, "no text", "a row with a text of a region", fix)
            notes.add("NO_REPORT", study)
        if with_masks and study not in masks:
            raise _fault(
                "MASK_MISSING", study, self.masks, "no mask file", f"{study}.npz in a folder of splits or not",
                "get it, or leave the study out",
            )  # fmt: skip
        return Study(
            id=study,
            patient=told.patient or patient_of(study),
            split=split,
            image=place.file,
            masks=MaskChannels(masks[study]) if with_masks else None,
            reports={name: told.regions[name] for name in self.regions.names if name in told.regions},
            whole=told.whole,
            row=place.row,
        )


def _by_region(row: Row) -> bool:
    """Whether it is a row of RadGenome-ChestCT's tables."""
    return all(column in row.values for column in COLUMNS)


def _not_ids(path: Path) -> DataFault:
    fix = "get it again, with the array beside it"
    return DataFault.of("FEATURE_ROWS", found="no text of ids", expected="an id a row", fix=fix, path=path)


def _fault(code: str, study: str, path: Path | str | None, found: str, expected: str, fix: str) -> DataFault:
    return DataFault.of(code, study=study, path=path or "", found=found, expected=expected, fix=fix)
