"""CTRG-Chest-548K: 1,804 volumes with one report each, in the four layouts that are about.

::

    annotation.json                 {"train": [{"id": 7, "finding": "..."}], "val": [...], "test": [...]}
    <id>.nii.gz                     Dia-LLaMA: NIfTI that was made of pictures
    CTRG_{train,val,test}.csv       the same texts as CSV: id, image_path, impression, finding
    <image_path[0]>                 MvKeTR: .npz in HU / 1000; its JSON says findings
    <id>/0001.png                   folders of slice images
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.core.text import TextGate
from reg2rg.core.types import PathInside, PathOrName, PathText, RegionFiles, Study, UnitFloat
from reg2rg.datasets.base import DATASETS, SPLITS, Dataset, Listing, Notes, Skip, carve_validation, noting
from reg2rg.datasets.columns import any_rows
from reg2rg.datasets.ctrg_tables import Item, read_chexbert, read_items
from reg2rg.datasets.names import inside, require_mask_template
from reg2rg.datasets.region_texts import RegionTable, RegionTexts
from reg2rg.datasets.tables import check_encoding
from reg2rg.scans.find_masks import by_region, images_in, matching
from reg2rg.scans.pictures import Pictures

REG2RG, ANNOTATION = "reg2rg", "annotation"
STUDIES = 1804
_SHOWN = 10


@functools.cache
def reg2rg_test() -> frozenset[str]:
    """The 361 ids that Reg2RG was tested on; all others are its training set."""
    text = resources.files("reg2rg.datasets").joinpath("ctrg_reg2rg_test.txt").read_text("ascii")
    return frozenset(text.split())


@DATASETS.register
class CTRG(Dataset):
    """CTRG-Chest-548K, or any folder in one of its layouts.

    A study has texts of regions with a mask, texts of regions without one, and a text of no region (`task.tail` asks
    the model for the last two). They come from the table `region_texts`; without it a study has its whole report alone.
    The published volumes were made of pictures and are not in HU: they are refused until ``task.views.intensity`` says
    so.

    Args:
        root: folder that holds texts and volumes.
        regions: region set, a packaged name or a YAML file.
        texts: the reports: a JSON file by split, a CSV, or a folder of ``*_train.csv``, ``*_val.csv``, ``*_test.csv``.
        images: folder of the volumes below the root: ``<id>`` with the suffix of any reader, or a folder of slice
            images. A path in the table that exists counts more.
        masks: template of mask files, for example ``masks/{id}/{region}.nii.gz``; null for scans without regions.
        region_texts: table of texts by region, see `reg2rg.datasets.region_texts`; null for none.
        train: which split's studies to train on: ``reg2rg`` (all but its 361 test ids; validation is carved from
            them), ``annotation`` (as the tables say), or a table below the root with the columns ``id`` and ``split``;
            null for none.
        test: which split's studies to test on, likewise. The two splits overlap, so they are not to be mixed.
        val_fraction: share of the training studies held out for validation where the split has none.
        labels: CheXbert labels, a CSV with ``id`` and a column a label, relative to the root; null for none.
        partial: the folder holds only a part of the volumes; the others do not count as skipped.
        encoding: how the tables are encoded.
        max_skip: largest share of studies that may be left out.
    """

    def __init__(
        self,
        root: PathText,
        regions: PathOrName = "radgenome",
        texts: PathInside = "annotation.json",
        images: PathInside = ".",
        masks: PathInside | None = "masks/{id}/{region}.nii.gz",
        region_texts: PathInside | None = None,
        train: PathInside | None = REG2RG,
        test: PathInside | None = REG2RG,
        val_fraction: UnitFloat = 0.05,
        labels: PathInside | None = None,
        partial: bool = False,
        encoding: str = "utf-8-sig",
        max_skip: UnitFloat = 0.05,
    ) -> None:
        super().__init__(max_skip)
        check_encoding(encoding)
        carve_validation((), val_fraction)
        if train is None and test is None:
            raise ConfigError("CTRG: train and test are both null; name at least one split.")
        require_mask_template(masks, "CTRG")
        self.root, self.regions = Path(root), load_region_set(regions)
        self.texts, self.images, self.masks, self.region_texts = texts, images, masks, region_texts
        self.train, self.test, self.val_fraction = train, test, val_fraction
        self.labels, self.partial, self.encoding = labels, partial, encoding
        self._refuse_mixing()

    def _refuse_mixing(self) -> None:
        if self.train is not None and self.test is not None and self.train != self.test:
            raise ConfigError(
                f"CTRG: train is {self.train} and test is {self.test}. The test set of one split stands in the "
                "training set of the other (of reg2rg's 361 test ids, 77 are in annotation's test set), so the model "
                "would be tested on what it has seen. Fix: the same split for both"
            )

    def scan(self) -> Listing:
        """Read the tables and look for the files.

        Raises:
            ConfigError: the root is no folder.
        """
        if not self.root.is_dir():
            raise ConfigError(f"CTRG: root {self.root} is not a folder. Fix: set it to where the data set lies.")
        notes, skipped, faults = Notes(), list[Skip](), list[DataFault]()
        items: list[Item] = []
        labels: Mapping[str, Mapping[str, bool]] = {}
        table: RegionTable | None = None
        with noting(faults):
            items = read_items(self.root / self.texts, self.encoding, skipped)
        with noting(faults):
            labels = read_chexbert(self.root / self.labels, self.encoding) if self.labels is not None else {}
        with noting(faults):
            if self.region_texts is not None:
                table = RegionTable(self.root / self.region_texts, self.regions, self.encoding, notes, skipped)
        splits: Mapping[str, str] = {}
        with noting(faults):
            splits = self._splits(items, skipped)
            self._refuse_published(table, splits)
        reader = _Reader(self, table, labels, notes)
        studies = []
        for item in items:
            if item.study in splits:
                try:
                    found = reader.study(item, splits[item.study])
                    studies += [] if found is None else [found]
                except DataFault as fault:
                    skipped.append(Skip.of(fault, item.study))
        if not any(study.split == "val" for study in studies):
            studies = carve_validation(studies, self.val_fraction)
        return Listing(tuple(studies), tuple(skipped), notes.freeze(), tuple(faults))

    def _splits(self, items: Sequence[Item], skipped: list[Skip]) -> dict[str, str]:
        """Study -> split, of those that are wanted."""
        name = self.train if self.train is not None else self.test
        if name == ANNOTATION:
            found = {item.study: item.split for item in items}
        elif name == REG2RG:
            found = {}
            for item in items:
                if (
                    item.study.isascii()
                    and item.study.isdigit()
                    and item.study == str(int(item.study))
                    and int(item.study) < STUDIES
                ):
                    found[item.study] = "test" if item.study in reg2rg_test() else "train"
                else:
                    skipped.append(Skip.of(_no_id(item), item.study))
        else:
            found = _own_split(self.root / str(name), self.encoding)
        wanted = {"train": self.train, "val": self.train, "test": self.test}
        return {study: split for study, split in found.items() if wanted[split] is not None}

    def _refuse_published(self, table: RegionTable | None, splits: Mapping[str, str]) -> None:
        """The published texts by region are those of reg2rg's test set: no other split may train on them."""
        if table is None or not table.published:
            return
        leaked = sorted(
            study for study in table.texts if splits.get(study) in ("train", "val") and study in reg2rg_test()
        )
        if leaked:
            raise DataFault.of(
                "SPLIT_MIXED",
                path=table.path,
                found=f"texts of reg2rg's test set, of which split {self.train} trains on {len(leaked)} studies "
                f"({', '.join(leaked[:_SHOWN])}{', ...' if len(leaked) > _SHOWN else ''})",
                expected="texts of the split that is trained on",
                fix="train: reg2rg and test: reg2rg, or texts of your own",
            )


class _Reader:
    """Makes studies of the rows of the tables."""

    def __init__(
        self, data: CTRG, table: RegionTable | None, labels: Mapping[str, Mapping[str, bool]], notes: Notes
    ) -> None:
        self.data, self.table, self.labels, self.notes = data, table, labels, notes
        self.root = data.root.resolve()
        self.there = {**_folders(data.root / data.images), **images_in(data.root / data.images)}

    def study(self, item: Item, split: str) -> Study | None:
        """The study, ``None`` for one that was not downloaded, where that is no fault.

        Raises:
            DataFault: with the reason code for which it is skipped.
        """
        data = self.data
        texts = self.table.of(item.study) if self.table is not None else RegionTexts()
        image = self._image(item)
        if image is None and data.partial:
            self.notes.add("NOT_IN_PART", item.study)
            return None
        if image is None:
            raise self._missing(item)
        masks = self._masks(item.study)
        if not texts.regions and not texts.other and not item.text:
            if split != "test":
                raise DataFault.of("NO_REPORT", study=item.study, path=item.where, found="an empty finding",
                                   expected="a text", fix="leave the study out")  # fmt: skip
            self.notes.add("NO_REPORT", item.study)
        for region in texts.regions:
            if masks is not None and region not in masks.files:
                self.notes.add("TEXT_WITHOUT_MASK", f"{item.study} {region}")
        found = self.labels.get(item.study)
        if self.labels and found is None:
            self.notes.add("NO_LABELS", item.study)
        names = [name for name in data.regions.names if name in texts.regions]
        reports = {name: texts.regions[name] for name in names}
        whole = item.text or " ".join([*reports.values(), texts.other]).strip()
        return Study(item.study, item.study, split, image, masks, reports, whole, found, texts.other)

    def _image(self, item: Item) -> Path | None:
        """The volume: where the table says, or by the id in the folder of volumes."""
        if item.image:
            folder = self.data.root / self.data.images
            for start in (folder.resolve(), self.root):
                path = inside(self.root, item.image, item.study, start)
                if path.is_file() or Pictures().matches(path):
                    return path
            name = PurePosixPath(item.image.replace("\\", "/")).name
            if (beside := folder / name).is_file():
                return beside
        return self.there.get(item.study)

    def _missing(self, item: Item) -> DataFault:
        padded = sorted(
            name for name in self.there if name.lstrip("0") == item.study.lstrip("0") and name != item.study
        )
        folder = self.data.root / self.data.images
        found = f"no volume, but {item.where} lists it"
        if padded:
            found += f"; there is {self.there[padded[0]].name}, which is another id"
        return DataFault.of(
            "VOLUME_MISSING",
            study=item.study,
            path=folder,
            found=found,
            expected=item.image or f"{item.study}.nii.gz, {item.study}.npz or a folder {item.study} of slices",
            fix="give both the same id" if padded else "download it, correct images, or set partial: true",
        )

    def _masks(self, study: str) -> RegionFiles | None:
        template = self.data.masks
        if template is None or not self.data.needs_masks:
            return None
        pattern = self.data.root / template.replace("{id}", study)
        found, _ = by_region(matching(pattern), self.data.regions)
        if found.files:
            return found
        raise DataFault.of(
            "NO_MASK",
            study=study,
            path=pattern,
            found="no region mask",
            expected="a file a region",
            fix="segment the scan, leave it out, or set masks: null for reports without regions",
        )


def _folders(folder: Path) -> dict[str, Path]:
    """Name -> folder of slice images."""
    if not folder.is_dir():
        return {}
    reader = Pictures()
    return {entry.name: entry for entry in sorted(folder.iterdir()) if entry.is_dir() and reader.matches(entry)}


def _no_id(item: Item) -> DataFault:
    return DataFault.of(
        "BAD_ID",
        study=item.study,
        path=item.where,
        found=f"the id is {item.study!r}",
        expected=f"a whole number from 0 to {STUDIES - 1} without leading zeros, as the split reg2rg counts",
        fix="correct the id, or use the split annotation or a table of your own",
    )


def _own_split(table: Path, encoding: str) -> dict[str, str]:
    """Study -> split, from a table with the columns ``id`` and ``split``."""
    found: dict[str, str] = {}
    for row in any_rows(table, ("id", "split"), encoding, TextGate()):
        study, split = row.values["id"].strip(), row.values["split"].strip().lower()
        where = f"{table} line {row.line}"
        if split not in SPLITS:
            raise DataFault.of("BAD_SPLIT", study=study, path=where, found=f"split is {split!r}",
                               expected=" or ".join(SPLITS), fix="correct the cell")  # fmt: skip
        if found.setdefault(study, split) != split:
            raise DataFault.of("PATIENT_LEAK", study=study, path=where, found=f"in {found[study]} and in {split}",
                               expected="every study in one split", fix="keep one of the rows")  # fmt: skip
    return found
