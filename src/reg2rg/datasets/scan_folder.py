"""Scans in a folder, with or without their masks, and without reports: to be checked, prepared and reported on."""

from __future__ import annotations

import re
from pathlib import Path

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.core.types import LabelMap, PathInside, PathOrName, PathText, RegionFiles, Study, UnitFloat
from reg2rg.datasets.base import DATASETS, Dataset, Listing, Notes, Skip
from reg2rg.datasets.names import study_id
from reg2rg.scans.dicom.files import is_dicom
from reg2rg.scans.find_masks import find_masks, image_stem, images_in

ONE = "."
"""Of `ScanFolder.images`: the root is the scan."""


@DATASETS.register
class ScanFolder(Dataset):
    """A folder of scans, all of the split ``test``, without reports.

    Args:
        root: the folder.
        images: where scans lie below it, with ``{id}`` for the study: ``images/{id}`` (of any kind that there is a
            reader for, folders of DICOM among them) or ``{id}/ct.nii.gz``; ``.`` if the root is itself one scan.
        masks: where the masks of a study lie, likewise: a folder with one file a region, or a file of labels, whose
            name may go without its suffix; null for scans without regions.
        regions: region set, a packaged name or a YAML file.
        max_skip: largest share of studies that may be left out.
    """

    def __init__(
        self,
        root: PathText,
        images: PathInside = "images/{id}",
        masks: PathInside | None = "masks/{id}",
        regions: PathOrName = "radgenome",
        max_skip: UnitFloat = 0.05,
    ) -> None:
        super().__init__(max_skip)
        for name, template in (("images", images), ("masks", masks)):
            if template not in (None, ONE) and str(template).count("{id}") != 1:
                raise ConfigError(f"ScanFolder: {name} is {template!r}: {{id}} must stand in it, once.")
        self.root, self.images, self.masks = Path(root), images, masks
        self.regions = load_region_set(regions)

    def scan(self) -> Listing:
        """List the scans, and look for the masks of each.

        Raises:
            ConfigError: no such folder.
        """
        if not (self.root.is_dir() or (self.images == ONE and self.root.is_file())):
            raise ConfigError(f"ScanFolder: root {self.root} is not a folder. Fix: set it to where the scans lie.")
        studies, skipped, notes = [], [], Notes()
        for name, image in sorted(scans_at(self.root, self.images).items()):
            try:
                study = study_id(name)
                masks = self._masks(study) if self.masks is not None and self.needs_masks else None
                notes.add("NO_REPORT", study)
                studies.append(Study(study, study, "test", image, masks))
            except DataFault as fault:
                skipped.append(Skip.of(fault, name))
        return Listing(tuple(studies), tuple(skipped), notes.freeze())

    def _masks(self, study: str) -> RegionFiles | LabelMap:
        place = self.root / str(self.masks).replace("{id}", study)
        found = place if place.exists() else images_in(place.parent).get(place.name, place)
        try:
            return find_masks(found, self.regions)
        except ConfigError as error:
            raise DataFault.of(
                "NO_MASK",
                study=study,
                path=found,
                found=str(error).partition(" Fix: ")[0],
                expected="a folder with one file a region, or a file of labels",
                fix="segment the scan, or leave it out",
            ) from error


def dicom_folders(folder: Path) -> dict[str, Path]:
    """Name -> folder, of all folders in one that hold DICOM."""
    folders = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    return {entry.name: entry for entry in folders if not entry.name.startswith(".") and is_dicom(entry)}


def scans_at(root: Path, images: str) -> dict[str, Path]:
    """Id -> scan, of all scans that a template finds.

    Args:
        root: folder that it starts from.
        images: with ``{id}``, or ``.``, as `ScanFolder` takes it.
    """
    if images == ONE:
        return {image_stem(root): root}
    before, _, after = images.partition("{id}")
    folder, _, start = before.rpartition("/")
    if not after:
        files = {**dicom_folders(root / folder), **images_in(root / folder)}
        return {name.removeprefix(start): file for name, file in files.items() if name.startswith(start)}
    pattern = re.compile(re.escape(before) + "([^/]+)" + re.escape(after))
    found = {}
    for file in root.glob(f"{before}*{after}"):
        match = pattern.fullmatch(file.relative_to(root).as_posix())
        if match and file.is_file() and not match[1].startswith("."):
            found[match[1]] = file
    return found
