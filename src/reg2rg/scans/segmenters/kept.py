"""Segmenters that make masks: what they made is kept, by the scan's content and by what made it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np

from reg2rg.core.errors import DataFault, Reg2RGError
from reg2rg.core.files import sha256, write_json
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import Mask, RegionFiles
from reg2rg.scans.base import Affine
from reg2rg.scans.read import files_of
from reg2rg.scans.segmenters.base import MadeBy, Segmentation, Segmenter

RECORD = "made_by.json"


@dataclass(frozen=True, slots=True)
class Made:
    """What a segmenter made of one scan.

    Attributes:
        masks: region -> (H, W, D) bool; a region that is not in the scan is absent or empty.
        affine: (4, 4) voxel indices of the masks -> RAS mm.
    """

    masks: Mapping[str, Mask]
    affine: Affine


class KeptSegmenter(Segmenter):
    """A segmenter whose masks are kept in a folder and made once for a scan.

    They are found again by the content of the scan's files, the segmenter's name, version and settings and the regions
    that are asked for: a scan that was copied or renamed is not segmented again, one that was changed is.

    Args:
        kept: the folder; ``None`` for ``reg2rg/masks`` in the user's cache (``XDG_CACHE_HOME``).

    Attributes:
        version: of what makes the masks; another one makes them again.
        regions: names of the regions that it can give; a region set's own spellings for them count.
    """

    version: ClassVar[str]
    regions: ClassVar[tuple[str, ...]]

    def __init__(self, kept: str | None = None) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        self.kept = Path(kept).expanduser() if kept else cache / "reg2rg" / "masks"

    @abstractmethod
    def make(self, scan: Path, regions: RegionSet) -> Made:
        """Masks of one scan.

        Raises:
            DataFault: a scan that cannot be segmented.
        """

    def settings(self) -> Mapping[str, Any]:
        """What else the masks depend on; plain values that JSON has."""
        return {}

    def segment(self, scan: Path, regions: RegionSet) -> Segmentation:
        """The masks that are kept of this scan, or new ones.

        Raises:
            DataFault: a scan that cannot be segmented, or has nothing of the regions in it (NO_REGION).
            Reg2RGError: the folder cannot be written.
        """
        facts = {
            "segmenter": type(self).__name__,
            "version": self.version,
            "settings": dict(self.settings()),
            "regions": list(regions.names),
            "scan": [sha256(file) for file in files_of(scan)],
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
        folder = self.kept / f"{type(self).__name__}-{key}"
        if not (folder / RECORD).is_file():
            made = self.make(scan, regions)
            masks = {name: mask for name, mask in made.masks.items() if mask.any()}
            if not masks:
                raise DataFault.of(
                    "NO_REGION",
                    found=f"nothing that {type(self).__name__} could find",
                    expected=f"one of {', '.join(self.regions)}",
                    fix="look at the scan, or give masks",
                    path=scan,
                )
            self._keep(folder, masks, made.affine, facts)
        files = {name: folder / f"{name}.nii.gz" for name in regions.names if (folder / f"{name}.nii.gz").is_file()}
        return Segmentation(RegionFiles(files), MadeBy(type(self).__name__, self.version, str(folder)))

    def _keep(self, folder: Path, masks: Mapping[str, Mask], affine: Affine, facts: Mapping[str, Any]) -> None:
        """Write masks and record into a folder that takes its place whole."""
        try:
            self.kept.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.kept, prefix=".new-") as name:
                new = Path(name) / "masks"
                new.mkdir()
                for region, mask in masks.items():
                    image = nib.Nifti1Image(np.asarray(mask, np.uint8), affine)
                    image.header.set_xyzt_units("mm")
                    image.set_qform(affine, 1)
                    image.set_sform(affine, 1)
                    nib.save(image, new / f"{region}.nii.gz")
                write_json(new / RECORD, facts)
                shutil.rmtree(folder, ignore_errors=True)  # without its record: half of a removal
                new.rename(folder)
        except OSError as error:
            if (folder / RECORD).is_file():  # another process was faster, with the same masks
                return
            raise Reg2RGError(
                f"masks of {type(self).__name__}: {self.kept}: {error.strerror or error}. Fix: free some space, or name "
                "another folder (kept)"
            ) from None
