"""Segmenters that make masks: what they made is kept, by the scan's content and by what made it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
from isal import igzip

from reg2rg.core.documents import DocumentError, read_record, write_record
from reg2rg.core.errors import ConfigError, DataFault, Reg2RGError
from reg2rg.core.files import atomic_write, disk_trouble, sha256
from reg2rg.core.regions import Region, RegionSet
from reg2rg.core.types import Mask, RegionFiles
from reg2rg.scans.base import Affine, ReadOptions
from reg2rg.scans.read import files_of
from reg2rg.scans.segmenters.base import MadeBy, Segmentation, Segmenter

RECORD = "made_by.json"
"""Written last into a folder of masks, with the digest of each: a folder without it, or with others, is made anew."""
_LOG = logging.getLogger(__name__)
NEW = ".new-"
"""How folders begin that are being written."""
_OF_MASKS = ("mask_grid", "implausible", "min_slices")
"""Options that change no voxel of a scan."""
_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Made:
    """What a segmenter made of one scan.

    Attributes:
        masks: region -> (H, W, D) bool; a region that is not in the scan is absent or empty.
        affine: (4, 4) voxel indices of the masks -> RAS mm.
    """

    masks: Mapping[str, Mask]
    affine: Affine


def default_folder() -> Path:
    """Where masks are kept if nothing else is said."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reg2rg" / "masks"


class KeptSegmenter(Segmenter):
    """A segmenter whose masks are kept in a folder and made once for a scan.

    They are found again by the content of the scan's files, by the segmenter's name, version and settings and by the
    regions that are asked for: a scan that was copied or renamed is not segmented again, one that was changed is.

    Args:
        kept: the folder; ``None`` for ``reg2rg/masks`` in the user's cache (``XDG_CACHE_HOME``).

    Attributes:
        for_measurements: see `MadeBy`.
    """

    for_measurements: ClassVar[bool] = True

    def __init__(self, kept: str | None = None) -> None:
        self.kept = Path(kept).expanduser() if kept else default_folder()

    @property
    @abstractmethod
    def version(self) -> str:
        """Of what makes the masks; another one makes them again."""

    @abstractmethod
    def plan(self, regions: RegionSet) -> Mapping[str, Any]:
        """What each region of a set is made of, in words or numbers of the segmenter's own that JSON has.

        Regions that it cannot give are left out.
        """

    @abstractmethod
    def make(self, scan: Path, plan: Mapping[str, Any], options: ReadOptions) -> Made:
        """Masks of one scan, which is to be read by these options.

        Raises:
            DataFault: a scan that cannot be segmented.
        """

    def settings(self) -> Mapping[str, Any]:
        """What else the masks depend on; plain values that JSON has."""
        return {}

    @property
    def name(self) -> str:
        """As it is registered."""
        return type(self).__name__

    def segment(self, scan: Path, regions: RegionSet, options: ReadOptions | None = None) -> Segmentation:
        """The masks that are kept of this scan, or new ones.

        Raises:
            DataFault: a scan that cannot be segmented, or has nothing of the regions in it (NO_REGION).
            ConfigError: the segmenter can give no region of the set.
            Reg2RGError: the folder cannot be written.
        """
        plan = self.plan(regions)
        if not plan:
            raise ConfigError(
                f"{self.name} can give none of the regions of the set '{regions.name}': {', '.join(regions.names)}. "
                "Fix: another segmenter or region set, or masks of your own"
            )
        if options is not None and not options.measures:
            raise ConfigError(
                f"{self.name} knows Hounsfield units, and the task's views are none (task.views.intensity "
                f"{options.intensity}). Fix: give masks of your own"
            )
        options = replace(options, clip=True) if options is not None else ReadOptions(min_slices=1)
        usual = asdict(ReadOptions())
        reading = {name: value for name, value in asdict(options).items() if value != usual[name]}
        facts = {
            "segmenter": self.name,
            "version": self.version,
            "settings": dict(self.settings()),
            "regions": dict(plan),
            "read": {name: value for name, value in reading.items() if name not in _OF_MASKS},
            "scan": [sha256(file) for file in files_of(scan)],
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
        folder = self.kept / f"{self.name}-{key}"
        names = _kept(folder)
        if names is None:
            made = self.make(scan, plan, options)
            masks = {name: mask for name, mask in made.masks.items() if mask.any()}
            if not masks:
                raise DataFault.of(
                    "NO_REGION",
                    found=f"nothing that {self.name} could find",
                    expected=f"one of {', '.join(plan)} in a chest CT in Hounsfield units",
                    fix="look at the scan, or give masks",
                    path=scan,
                )
            self._keep(folder, masks, made.affine, facts)
            names = frozenset(masks)
        files = {name: folder / f"{name}.nii.gz" for name in regions.names if name in names}
        made_by = MadeBy(self.name, self.version, str(folder), self.for_measurements)
        return Segmentation(RegionFiles(files), made_by, self._absent(regions, plan, files))

    def _absent(self, regions: RegionSet, plan: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
        """Why there is no mask of a region."""
        absent = [region for region in regions if region.name not in found]
        unable = f"{self.name} does not give it."
        return {
            one.name: f"{self.name} found none" if one.name in plan else f"{unable} {self.hint(one)}".rstrip(". ")
            for one in absent
        }

    def hint(self, region: Region) -> str:
        """What helps who wants a region that the segmenter does not give."""
        return ""

    def _keep(self, folder: Path, masks: Mapping[str, Mask], affine: Affine, facts: Mapping[str, Any]) -> None:
        """Write masks and record into a folder that takes its place whole."""
        try:
            self.kept.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.kept)
            with tempfile.TemporaryDirectory(dir=self.kept, prefix=NEW, ignore_cleanup_errors=True) as name:
                new = Path(name, "masks")
                digests = {region: write_mask(new / f"{region}.nii.gz", mask, affine) for region, mask in masks.items()}
                write_record(new / RECORD, {**facts, "masks": digests})
                with contextlib.suppress(OSError):  # another process was faster, with the same masks
                    if _kept(folder) is None:
                        with contextlib.suppress(FileNotFoundError):
                            folder.rename(Path(name, "old"))
                        new.rename(folder)
        except OSError as error:
            told = disk_trouble(error) or f"{self.kept}: {error.strerror or error}. Fix: make room there"
            raise Reg2RGError(f"masks of {self.name}: {told}; or name another folder (kept)") from None


def _kept(folder: Path) -> frozenset[str] | None:
    """The regions of a folder of masks whose files are as they were written; ``None`` where they are not."""
    try:
        digests = read_record(folder / RECORD, "it is made anew")["masks"]
        damaged = [name for name, digest in digests.items() if sha256(folder / f"{name}.nii.gz") != digest]
    except (OSError, KeyError, DocumentError):
        return None
    if damaged:
        _LOG.warning("%s: %s changed after they were written; they are made anew", folder, ", ".join(damaged))
        return None
    return frozenset(digests)


def write_mask(path: Path, mask: Mask, affine: Affine) -> str:
    """Write a mask as NIfTI, the same bytes for the same mask, to the disk itself; its digest."""
    image = nib.Nifti1Image(np.asarray(mask, np.uint8), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    content = igzip.compress(image.to_bytes(), mtime=0)
    with atomic_write(path) as stream:
        stream.write(content)
    return hashlib.sha256(content).hexdigest()


def remove_abandoned(root: Path) -> None:
    """Remove what processes that were killed while they wrote into a folder left behind, a day later."""
    for path in root.glob(f"{NEW}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
