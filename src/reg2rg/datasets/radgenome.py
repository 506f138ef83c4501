"""RadGenome-ChestCT: CT-RATE scans with one mask file and one sentence or more a region (facts of its layout below).

Layout, below the root or its folder ``dataset``::

    <split>_preprocessed/train_1000/train_1000a/train_1000_a_1.nii.gz
    <split>_region_mask/seg_train_1000_a_1/<region>.nii.gz     or <split>_region_mask.tar.gz, as it is distributed,
                                                               whole or in parts (.tar.gz.part-aa, ...)
    radgenome_files/<split>_region_report.csv           Volumename, Anatomy, Sentence

The published test split is called ``valid`` in folder names and ``validation`` in table names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.text import TextGate
from reg2rg.core.types import PathInside, PathOrName, PathText, RegionFiles, Study, UnitFloat
from reg2rg.datasets.base import DATASETS, Dataset, Listing, Notes, Skip, carve_validation
from reg2rg.datasets.columns import any_rows
from reg2rg.datasets.labels import find_label_tables, read_labels
from reg2rg.datasets.layout import SplitLayout, find_root
from reg2rg.datasets.names import patient_of, study_id
from reg2rg.datasets.tables import Row, check_encoding, clean, is_empty
from reg2rg.scans.archives import folder_files
from reg2rg.scans.find_masks import by_region, images_in

COLUMNS = ("Volumename", "Anatomy", "Sentence")


@dataclass(slots=True)
class _Texts:
    """What the table says of one volume."""

    line: int
    regions: dict[str, tuple[str, int]] = field(default_factory=dict)
    whole: str = ""
    conflict: str = ""


@DATASETS.register
class RadGenome(Dataset):
    """RadGenome-ChestCT, or any folder in its layout.

    A study is a volume with at least one region mask. In the training split a study without any region text is
    skipped, as the published code does; in the test split it stays, and its regions have no text. Rows whose
    ``Anatomy`` is empty hold the whole report. Rows whose ``Anatomy`` is a path (``lung/lung/right lung``) describe
    parts, not the region, and are counted only, unless the region set names that path as an alias.

    Args:
        root: folder that holds ``<split>_preprocessed``, ``<split>_region_mask`` and ``radgenome_files``.
        regions: region set, a packaged name or a YAML file.
        train: name of the split to train on, as folders and tables spell it; null for none.
        test: name of the split to test on; ``valid`` also finds ``validation``. Null for none.
        val_fraction: share of train patients held out for validation, chosen by a hash of the patient id.
        encoding: how the tables are encoded.
        labels: clinical labels, a CSV or a folder of CSVs (``VolumeName`` + one 0/1 column a label), relative to the
            root; null for none.
        duplicates: two different texts for one region of one volume: ``skip`` the study, or use the ``last`` row as
            the published code does.
        partial: the folder holds only a part of the volumes that the tables list; the others do not count as skipped.
        max_skip: largest share of studies that may be left out.
    """

    def __init__(
        self,
        root: PathText,
        regions: PathOrName = "radgenome",
        train: str | None = "train",
        test: str | None = "valid",
        val_fraction: UnitFloat = 0.05,
        encoding: str = "utf-8-sig",
        labels: PathInside | None = None,
        duplicates: Literal["skip", "last"] = "skip",
        partial: bool = False,
        max_skip: UnitFloat = 0.05,
    ) -> None:
        super().__init__(max_skip)
        check_encoding(encoding)
        carve_validation((), val_fraction)
        if duplicates not in ("skip", "last"):
            raise ConfigError(f"duplicates is {duplicates!r}: 'skip' or 'last' is expected.")
        if train is None and test is None:
            raise ConfigError("RadGenome: train and test are both null; name at least one split.")
        self.root = Path(root)
        self.regions = load_region_set(regions)
        self.splits = {name: split for name, split in ((train, "train"), (test, "test")) if name is not None}
        self.val_fraction, self.encoding, self.labels = val_fraction, encoding, labels
        self.duplicates, self.partial = duplicates, partial

    def watched(self) -> Sequence[Path] | None:
        """Folders down to those of single studies, and the tables."""
        try:
            root = find_root(self.root, list(self.splits))
            layouts = [SplitLayout.find(root, name) for name in self.splits]
            found = [self.root, root, *(path for layout in layouts for path in layout.watched())]
            if self.labels is not None:
                found += [root / self.labels, *find_label_tables(root, self.labels)]
        except (OSError, ConfigError, DataFault):
            return None
        return list(dict.fromkeys(found))

    def scan(self) -> Listing:
        """List volumes and masks and read the tables.

        Raises:
            ConfigError: the root, or the volumes of a split, are not there.
        """
        root = find_root(self.root, list(self.splits))
        notes = Notes()
        studies: list[Study] = []
        skipped: list[Skip] = []
        faults: list[DataFault] = []
        findings = self._findings(root, faults)
        for name, split in self.splits.items():
            scan = _SplitScan(root, name, split, self.regions, self.duplicates, self.partial, notes)
            scan.needs_masks = self.needs_masks
            scan.open_masks(faults)
            scan.collect(scan.read_texts(self.encoding, faults), findings)
            studies += scan.studies
            skipped += scan.skipped
        studies = carve_validation(studies, self.val_fraction)
        return Listing(tuple(studies), tuple(skipped), notes.freeze(), tuple(faults))

    def _findings(self, root: Path, faults: list[DataFault]) -> Mapping[str, Mapping[str, bool]]:
        if self.labels is None:
            return {}
        try:
            return read_labels(find_label_tables(root, self.labels), self.encoding)
        except DataFault as fault:
            faults.append(fault)
            return {}


class _SplitScan:
    """Volumes, masks and texts of one split, put together."""

    def __init__(
        self,
        root: Path,
        name: str,
        split: str,
        regions: RegionSet,
        duplicates: str,
        partial: bool,
        notes: Notes,
    ) -> None:
        self.root, self.name, self.split = root, name, split
        self.regions, self.duplicates, self.partial, self.notes = regions, duplicates, partial, notes
        self.layout = SplitLayout.find(root, name)
        self.table = self.layout.table
        self.needs_masks = True
        self.studies: list[Study] = []
        self.skipped: list[Skip] = []
        self._has_table = self._has_masks = True

    def open_masks(self, faults: list[DataFault]) -> None:
        """Read an archive of masks once, for its index; of one that is damaged the volumes are listed without masks."""
        try:
            folder_files(self.layout.masks / "any")
        except DataFault as fault:
            faults.append(fault)
            self.needs_masks, self._has_masks = False, False

    def read_texts(self, encoding: str, faults: list[DataFault]) -> dict[str, _Texts]:
        """Study id -> its texts, from the split's table. Rows with an unusable id are skipped and listed."""
        texts: dict[str, _Texts] = {}
        gate = TextGate()
        try:
            for row in any_rows(self.table, COLUMNS, encoding, gate):
                self._read(row, texts)
            for told in gate.told(self.table.name):
                self.notes.add("TEXT_CLEANED", told)
        except DataFault as fault:
            faults.append(fault)
            self._has_table = False  # volumes and masks are still listed, but nobody misses texts or files
        return texts

    def _read(self, row: Row, texts: dict[str, _Texts]) -> None:
        name, anatomy, sentence = (row.values[column] for column in COLUMNS)
        try:
            study = study_id(name)
        except DataFault as fault:
            self.skipped.append(Skip(f"{self.table.name} line {row.line}", fault.code, str(fault)))
            return
        self._add(texts.setdefault(study, _Texts(row.line)), study, anatomy.strip(), sentence, row.line)

    def _add(self, texts: _Texts, study: str, anatomy: str, sentence: str, line: int) -> None:
        where = f"{self.table.name} line {line}: {study}"
        text = clean(sentence)
        if is_empty(anatomy):
            texts.whole = texts.whole or text
            return
        region = self.regions.find(anatomy)
        if region is None:
            code = "HIERARCHY_ROW" if "/" in anatomy else "UNKNOWN_REGION"
            self.notes.add(code, f"{where} {anatomy}")
        elif is_empty(text):
            self.notes.add("EMPTY_SENTENCE", f"{where} {region}")
        elif region not in texts.regions:
            texts.regions[region] = (text, line)
        elif texts.regions[region][0] == text:
            self.notes.add("EQUAL_ROWS", f"{where} {region}")
        elif self.duplicates == "last":
            self.notes.add("REPLACED_ROW", f"{where} {region}")
            texts.regions[region] = (text, line)
        elif not texts.conflict:
            texts.conflict = f"lines {texts.regions[region][1]} and {line} differ for {region!r}"

    def collect(self, texts: Mapping[str, _Texts], findings: Mapping[str, Mapping[str, bool]]) -> None:
        """Fill `studies` and `skipped` from the volumes found on disk and the texts."""
        seen: set[str] = set()
        for image in self.layout.scans():
            study = ""
            try:
                study = study_id(image.name)
                if study in seen:
                    raise _fault(
                        "DUPLICATE_STUDY",
                        study,
                        image,
                        "a second volume of this name",
                        "one file a study",
                        "delete or rename one of them",
                    )
                seen.add(study)
                self.studies.append(self._study(study, image, texts.get(study), findings))
            except DataFault as fault:
                self.skipped.append(Skip.of(fault, study or image.name))
        for study in sorted(set(texts) - seen) if self._has_table else ():
            if self.partial:
                self.notes.add("NOT_IN_PART", study)
                continue
            missing = _fault(
                "VOLUME_MISSING",
                study,
                self.layout.volumes,
                f"no volume, but {self.table.name} line {texts[study].line} describes it",
                f"<patient>/<scan>/{study}.nii.gz",
                "download it, or set partial: true",
            )
            self.skipped.append(Skip.of(missing))

    def _study(
        self, study: str, image: Path, texts: _Texts | None, findings: Mapping[str, Mapping[str, bool]]
    ) -> Study:
        texts = texts or _Texts(0)
        if texts.conflict:
            raise _fault(
                "DUPLICATE_ROWS",
                study,
                self.table,
                texts.conflict,
                "one text a region",
                "keep one of the rows, or set duplicates: last",
            )
        reports = {region: texts.regions[region][0] for region in self.regions.names if region in texts.regions}
        if not reports and self._has_table:
            if self.split == "train":
                raise _fault(
                    "NO_REPORT",
                    study,
                    self.table,
                    "no region text",
                    "at least one row with a region",
                    "add its rows, or leave the volume out",
                )
            self.notes.add("NO_REPORT", study)
        masks = self._masks(study)
        for region in reports if self._has_masks else ():
            if region not in masks.files:
                self.notes.add("TEXT_WITHOUT_MASK", f"{study} {region}")
        labels = findings.get(study)
        if findings and labels is None:
            self.notes.add("NO_LABELS", study)
        return Study(study, patient_of(study), self.split, image, masks, reports, texts.whole, labels)

    def _masks(self, study: str) -> RegionFiles:
        folder = self.layout.masks / f"seg_{study}"
        there = images_in(folder) if self._has_masks else {}
        found, unknown = by_region(there, self.regions)
        for name in unknown:
            self.notes.add("UNKNOWN_MASK", f"{study} {there[name].name}")
        if not found.files and self.needs_masks:
            raise _fault(
                "NO_MASK",
                study,
                folder,
                "no region mask" if there else "no mask folder",
                f"<region>.nii.gz, for example {self.regions.names[0]}.nii.gz",
                "segment the scan, or leave it out",
            )
        return found


def _fault(code: str, study: str, path: Path, found: str, expected: str, fix: str) -> DataFault:
    return DataFault.of(code, study=study, path=path, found=found, expected=expected, fix=fix)
