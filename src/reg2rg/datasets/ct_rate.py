"""CT-RATE as it is distributed: several reconstructions a scan, reports, labels and metadata as tables.

Layout, below the root or its folder ``dataset``::

    train/train_1/train_1_a/train_1_a_1.nii.gz          patient / scan / reconstruction; values as stored (v1)
    train_fixed/train_1/train_1_a/train_1_a_1.nii.gz    the same in Hounsfield units (v2)
    radiology_text_reports/train_reports.csv            VolumeName, Findings_EN, Impressions_EN, ...
    multi_abnormality_labels/train_predicted_labels.csv VolumeName, 18 labels
    metadata/train_metadata.csv                         VolumeName, RescaleSlope, RescaleIntercept, XYSpacing, ZSpacing

The split ``valid`` is called ``validation`` in the names of some tables.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.core.text import TextGate
from reg2rg.core.types import PathInside, PathOrName, PathText, RegionFiles, Rescale, Study, UnitFloat
from reg2rg.datasets.base import DATASETS, Dataset, Listing, Notes, Skip, carve_validation, noting
from reg2rg.datasets.columns import any_rows
from reg2rg.datasets.labels import read_labels
from reg2rg.datasets.layout import first_existing, spellings
from reg2rg.datasets.names import patient_of, require_mask_template, study_id
from reg2rg.datasets.region_texts import RegionTable, RegionTexts
from reg2rg.datasets.tables import check_encoding, clean, is_empty
from reg2rg.scans.find_masks import by_region, matching

Release = Literal["v1", "v2", "auto"]
_APPLIED: Mapping[str, Literal["no", "yes", "unknown"]] = {"v1": "no", "v2": "yes", "auto": "unknown"}
_NAME = "VolumeName"
_VOLUME = re.compile(r"(?P<split>[A-Za-z]+)_\d+_[A-Za-z]+_(?P<number>\d+)")
_SHOWN = 10
_METADATA = ("RescaleSlope", "RescaleIntercept")


@dataclass(slots=True)
class _Scan:
    """One scan: its reconstructions on disk and what the tables say of any of them."""

    volumes: dict[int, Path] = field(default_factory=dict)
    texts: dict[str, tuple[str, str]] = field(default_factory=dict)


@DATASETS.register
class CTRate(Dataset):
    """CT-RATE, or any folder in its layout.

    A study is a scan. Of its reconstructions the one with the lowest number that is there is read, since they have one
    report and differ in little else. Values are brought to HU by the metadata where that is needed; what is in HU
    already is never rescaled again, whatever the options say.

    Args:
        root: folder that holds ``train``, ``valid`` (or ``train_fixed``, ...) and the tables' folders.
        regions: region set, a packaged name or a YAML file.
        train: name of the split to train on; null for none.
        test: name of the split to test on; ``valid`` also finds ``validation``. Null for none.
        release: ``v1`` holds stored values, which need slope and intercept; ``v2`` (``*_fixed``) is in HU. ``auto``
            takes ``*_fixed`` where there is one, and lets the values of each scan tell.
        reconstructions: ``first`` makes one study of a scan, ``all`` one of each reconstruction.
        sections: columns of the report that make up the whole report, in this order.
        masks: template of mask files, such as ``masks/seg_{id}/{region}.nii.gz``; null for scans without regions.
        region_texts: table of texts by region, see `reg2rg.datasets.region_texts`; null for none.
        labels: folder of the label tables; null for none.
        val_fraction: share of train patients held out for validation, chosen by a hash of the patient id.
        partial: the folder holds only a part of the volumes; the others do not count as skipped.
        encoding: how the tables are encoded.
        max_skip: largest share of studies that may be left out.
    """

    def __init__(
        self,
        root: PathText,
        regions: PathOrName = "radgenome",
        train: str | None = "train",
        test: str | None = "valid",
        release: Release = "auto",
        reconstructions: Literal["first", "all"] = "first",
        sections: Sequence[str] = ("Findings_EN",),
        masks: PathInside | None = None,
        region_texts: PathInside | None = None,
        labels: PathInside | None = "multi_abnormality_labels",
        val_fraction: UnitFloat = 0.05,
        partial: bool = False,
        encoding: str = "utf-8-sig",
        max_skip: UnitFloat = 0.05,
    ) -> None:
        super().__init__(max_skip)
        check_encoding(encoding)
        carve_validation((), val_fraction)
        if train is None and test is None:
            raise ConfigError("CTRate: train and test are both null; name at least one split.")
        for name, value, known in (
            ("release", release, ("v1", "v2", "auto")),
            ("reconstructions", reconstructions, ("first", "all")),
        ):
            if value not in known:
                raise ConfigError(f"CTRate: {name} is {value!r}: {' or '.join(known)} is expected.")
        require_mask_template(masks, "CTRate")
        self.root, self.regions = Path(root), load_region_set(regions)
        self.splits = {name: split for name, split in ((train, "train"), (test, "test")) if name is not None}
        self.release, self.reconstructions, self.sections = release, reconstructions, tuple(sections)
        self.masks, self.region_texts, self.labels = masks, region_texts, labels
        self.val_fraction, self.partial, self.encoding = val_fraction, partial, encoding

    def scan(self) -> Listing:
        """List the volumes and read the tables.

        Raises:
            ConfigError: the root, or the volumes of a split, are not there.
        """
        root = self._find_root()
        notes, skipped, faults = Notes(), list[Skip](), list[DataFault]()
        table: RegionTable | None = None
        with noting(faults):
            if self.region_texts is not None:
                table = RegionTable(root / self.region_texts, self.regions, self.encoding, notes, skipped)
        studies: list[Study] = []
        for name, split in self.splits.items():
            studies += _Split(self, root, name, split, table, notes, skipped, faults).studies()
        return Listing(
            tuple(carve_validation(studies, self.val_fraction)), tuple(skipped), notes.freeze(), tuple(faults)
        )

    def _find_root(self) -> Path:
        if not self.root.is_dir():
            raise ConfigError(f"CTRate: root {self.root} is not a folder. Fix: set it to where the data set lies.")
        for root in (self.root, self.root / "dataset"):
            if all(volumes_folder(root, name, self.release).is_dir() for name in self.splits):
                return root
        there = ", ".join(sorted(entry.name for entry in self.root.iterdir() if entry.is_dir())[:20]) or "none"
        wanted = ", ".join(volumes_folder(self.root, name, self.release).name for name in self.splits)
        raise ConfigError(
            f"CTRate: {self.root} has no folder for each of: {wanted}. Folders there: {there}. Fix: set root to the "
            "folder above them, release to the one that you have, or train or test to null to do without it."
        )


def volumes_folder(root: Path, name: str, release: Release) -> Path:
    """Folder of a split's volumes: ``<split>_fixed`` or ``<split>``, each under any spelling of the split."""
    fixed, plain = [f"{word}_fixed" for word in spellings(name)], spellings(name)
    return first_existing(root, {"v1": plain, "v2": [*fixed, *plain], "auto": [*fixed, *plain]}[release])


class _Split:
    """Volumes and tables of one split, put together."""

    def __init__(
        self,
        data: CTRate,
        root: Path,
        name: str,
        split: str,
        table: RegionTable | None,
        notes: Notes,
        skipped: list[Skip],
        faults: list[DataFault],
    ) -> None:
        self.data, self.root, self.name, self.split, self.table = data, root, name, split, table
        self.notes, self.skipped = notes, skipped
        self.volumes = volumes_folder(root, name, data.release)
        self.reports = first_existing(
            root / "radiology_text_reports", [f"{word}_reports.csv" for word in spellings(name)]
        )
        self.metadata = first_existing(root / "metadata", [f"{word}_metadata.csv" for word in spellings(name)])
        self.scans: dict[str, _Scan] = {}
        self.rescale: dict[str, Rescale | DataFault] = {}
        self.labels: Mapping[str, Mapping[str, bool]] = {}
        self.strangers: list[str] = []
        self._has_reports = False
        self._list()
        with noting(faults):
            self._read_reports()
            self._has_reports = True
        with noting(faults):
            if self.metadata.is_file() or data.release == "v1":
                self._read_metadata()
        with noting(faults):
            self.labels = self._read_labels()
        with noting(faults):
            self._refuse_strangers()

    # ---- what is there

    def _list(self) -> None:
        for file in sorted(path for path in self.volumes.glob("*/*/*.nii.gz") if not path.name.startswith(".")):
            try:
                volume = study_id(file.name)
                match = _VOLUME.fullmatch(volume)
                if match is None:
                    raise self._fault("BAD_ID", volume, file, "no volume of CT-RATE by its name",
                                      "<split>_<patient>_<scan>_<reconstruction>.nii.gz", "rename it")  # fmt: skip
                if match["split"] not in spellings(self.name):
                    self.strangers.append(file.name)
                    continue
                self.scans.setdefault(scan_of(volume), _Scan()).volumes[int(match["number"])] = file
            except DataFault as fault:
                self.skipped.append(Skip.of(fault, file.name))

    def _refuse_strangers(self) -> None:
        """Volumes and reports of another split are a leak, which no share of skipped studies allows."""
        if not self.strangers:
            return
        few = f"{', '.join(self.strangers[:_SHOWN])}{', ...' if len(self.strangers) > _SHOWN else ''}"
        raise self._fault(
            "PATIENT_LEAK",
            "",
            self.volumes,
            f"{len(self.strangers)} volumes or reports in the split {self.name} have names of another one: {few}",
            "every patient in one split",
            "move them to their own split",
        )

    def _read_reports(self) -> None:
        gate = TextGate()
        for row in any_rows(self.reports, (_NAME, *self.data.sections), self.data.encoding, gate):
            try:
                volume = study_id(row.values[_NAME])
            except DataFault as fault:
                self.skipped.append(Skip(f"{self.reports.name} line {row.line}", fault.code, str(fault)))
                continue
            match = _VOLUME.fullmatch(volume)
            if match is not None and match["split"] not in spellings(self.name):
                self.strangers.append(f"{self.reports.name} line {row.line}")
                continue
            cells = (clean(row.values[column]) for column in self.data.sections)
            text = " ".join(cell for cell in cells if not is_empty(cell))
            where = f"{self.reports.name} line {row.line}"
            self.scans.setdefault(scan_of(volume), _Scan()).texts.setdefault(volume, (text, where))
        for told in gate.told(self.reports.name):
            self.notes.add("TEXT_CLEANED", told)

    def _read_metadata(self) -> None:
        for row in any_rows(self.metadata, (_NAME, *_METADATA), self.data.encoding, TextGate()):
            volume = row.values[_NAME].strip().removesuffix(".nii.gz")
            try:
                self.rescale[volume] = self._of_metadata(row.values)
            except ValueError as error:
                where = Path(f"{self.metadata} line {row.line}")
                self.rescale[volume] = self._fault("METADATA", volume, where, str(error),
                                                   "numbers, and [x, y] as XYSpacing", "correct the row")  # fmt: skip

    def _of_metadata(self, values: Mapping[str, str]) -> Rescale:
        slope, inter = (_number(name, values[name]) for name in _METADATA)
        if slope == 0:
            raise ValueError("RescaleSlope is 0")
        return Rescale(slope, inter, spacing_of(values), _APPLIED[self.data.release])

    def _read_labels(self) -> Mapping[str, Mapping[str, bool]]:
        if self.data.labels is None:
            return {}
        folder = self.root / self.data.labels
        names = [f"{word}_{kind}.csv" for word in spellings(self.name) for kind in ("predicted_labels", "labels")]
        table = first_existing(folder, names)
        if not folder.exists():  # it is there by default, not because somebody asked for it
            return {}
        return read_labels([table], self.data.encoding)

    # ---- studies

    def studies(self) -> list[Study]:
        """The usable ones; the others are among the skipped, each with its reason."""
        found: list[Study] = []
        for name, scan in sorted(self.scans.items()):
            volumes = sorted(scan.volumes.items())
            if not volumes:
                self._not_there(name, scan)
                continue
            if self.data.reconstructions == "first":
                if len(volumes) > 1:
                    self.notes.add("RECONSTRUCTIONS", f"{name}: {len(volumes)}, {volumes[0][1].name} is read")
                volumes = volumes[:1]
            for _, file in volumes:
                volume = study_id(file.name)
                try:
                    found.append(self._study(volume, file, scan))
                except DataFault as fault:
                    self.skipped.append(Skip.of(fault, volume))
        return found

    def _not_there(self, name: str, scan: _Scan) -> None:
        if self.data.partial:
            self.notes.add("NOT_IN_PART", name)
            return
        volume, (_, where) = next(iter(scan.texts.items()))
        self.skipped.append(Skip.of(self._fault(
            "VOLUME_MISSING", volume, self.volumes, f"no volume of scan {name}, but {where} describes it",
            f"<patient>/{name}/{volume}.nii.gz", "download it, or set partial: true")))  # fmt: skip

    def _study(self, volume: str, file: Path, scan: _Scan) -> Study:
        data = self.data
        texts = self.table.of(volume) if self.table is not None else RegionTexts()
        whole = self._whole(volume, scan)
        if not (whole or texts.regions):
            if self.split == "train" and self._has_reports:
                raise self._fault("NO_REPORT", volume, self.reports, "no report of the scan",
                                  f"text in {' or '.join(data.sections)}", "add it, or leave the scan out")  # fmt: skip
            self.notes.add("NO_REPORT", volume)
        masks = self._masks(volume)
        for region in texts.regions:
            if masks is not None and region not in masks.files:
                self.notes.add("TEXT_WITHOUT_MASK", f"{volume} {region}")
        findings = self.labels.get(volume) or self.labels.get(f"{scan_of(volume)}_1")
        if self.labels and findings is None:
            self.notes.add("NO_LABELS", volume)
        reports = {name: texts.regions[name] for name in data.regions.names if name in texts.regions}
        return Study(volume, patient_of(volume), self.split, file, masks, reports, whole, findings, texts.other,
                     self._rescale(volume))  # fmt: skip

    def _whole(self, volume: str, scan: _Scan) -> str:
        """The scan's report: its reconstructions have one, in a row each.

        Raises:
            DataFault: REPORTS_DIFFER.
        """
        texts = {text: where for text, where in scan.texts.values() if text}
        if len(texts) > 1:
            raise self._fault("REPORTS_DIFFER", volume, self.reports,
                              f"reconstructions of one scan have different reports ({', '.join(texts.values())})",
                              "one report a scan", "correct the rows")  # fmt: skip
        return next(iter(texts), "")

    def _rescale(self, volume: str) -> Rescale | None:
        found = self.rescale.get(volume)
        if isinstance(found, DataFault):
            if self.data.release == "v2":
                self.notes.add("METADATA", str(found))
                return None
            raise found
        if found is None and self.data.release == "v1":
            raise self._fault("METADATA", volume, self.metadata, "no row of the volume",
                              "its slope and intercept", "take the table of the same release")  # fmt: skip
        if found is None and self.rescale:
            self.notes.add("NO_METADATA", volume)
        return found

    def _masks(self, volume: str) -> RegionFiles | None:
        template = self.data.masks
        if template is None or not self.data.needs_masks:
            return None
        pattern = self.root / template.replace("{id}", volume)
        masks, _ = by_region(matching(pattern), self.data.regions)
        if masks.files:
            return masks
        raise self._fault("NO_MASK", volume, pattern, "no region mask", "a file a region",
                          "segment the scan, or leave it out")  # fmt: skip

    def _fault(self, code: str, volume: str, path: Path, found: str, expected: str, fix: str) -> DataFault:
        return DataFault.of(code, study=volume, path=path, found=found, expected=expected, fix=fix)


def scan_of(volume: str) -> str:
    """The scan of a reconstruction: ``train_1_a_2`` -> ``train_1_a``; any other name is its own."""
    return volume.rpartition("_")[0] if _VOLUME.fullmatch(volume) else volume


def spacing_of(values: Mapping[str, str]) -> tuple[float, float, float] | None:
    """Voxel sizes along (x, y, z), the order of a NIfTI's axes; ``None`` where the table has none.

    ``XYSpacing`` is the text of a list as DICOM has it: the distance of rows, along y, then of columns, along x.

    Raises:
        ValueError: a text that is no such list, or a number that is no length.
    """
    plane, depth = values.get("XYSpacing", ""), values.get("ZSpacing", "")
    if is_empty(plane) or is_empty(depth):
        return None
    try:
        sizes = json.loads(plane)
    except ValueError:
        raise ValueError(f"XYSpacing is {plane[:40]!r}") from None
    if not isinstance(sizes, list) or len(sizes) != 2 or not all(isinstance(size, int | float) for size in sizes):
        raise ValueError(f"XYSpacing is {plane[:40]!r}")
    found = float(sizes[1]), float(sizes[0]), _number("ZSpacing", depth)
    if not all(0 < size < 100 for size in found):
        raise ValueError(f"spacing is {found}")
    return found


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text[:40]!r}")
    return value
