"""All faults of one study, found in a worker process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from reg2rg.check.overlays import write_overlay
from reg2rg.core.errors import DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import RegionFiles, RegionVolume, Study
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.dicom.region_file import region_file
from reg2rg.scans.features import AXES, BELOW, UNKNOWN, read_features, region_weights
from reg2rg.scans.read import read_image, read_study, read_volume
from reg2rg.store.crop import Detail, crop_to_foreground


@dataclass(frozen=True, slots=True)
class StudyJob:
    """One study to look at, as `read_study` takes it. `overlay` is the picture to write, None for none."""

    study: Study
    regions: RegionSet
    options: ReadOptions
    needs_regions: bool = True
    overlay: Path | None = None


@dataclass(frozen=True, slots=True)
class StudyCheck:
    """What was found in one study.

    Attributes:
        faults: (code, message) of every fault; empty if the study can be used.
        present: regions whose mask has a voxel.
        empty: regions that have a mask file, or labels, but no voxel.
        digest: hash of shape and voxels in RAS, ``""`` if the volume cannot be read.
        shape: voxels along each axis, in RAS.
        spacing: mm along each axis, in RAS.
        notes: what was repaired or is worth knowing.
        named: (code, message) of what is worth knowing and has a code of its own.
    """

    faults: tuple[tuple[str, str], ...] = ()
    present: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    digest: str = ""
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    named: tuple[tuple[str, str], ...] = ()

    def kept(self) -> list[Any]:
        """What was found in a study without a fault, as plain values."""
        return [
            list(self.present),
            list(self.empty),
            self.digest,
            list(self.shape),
            list(self.spacing),
            list(self.notes),
            [list(one) for one in self.named],
        ]

    @classmethod
    def of(cls, kept: Any) -> Self:
        """What `kept` gave."""
        present, empty, digest, shape, spacing, notes, named = kept
        found = tuple((code, message) for code, message in named)
        return cls((), tuple(present), tuple(empty), digest, tuple(shape), tuple(spacing), tuple(notes), found)


def check_study(job: StudyJob) -> StudyCheck:
    """Read the study as `prepare` would; if that fails, each of its files by itself, to name every fault.

    Never raises: an exception that cannot be pickled would leave the parent waiting.
    """
    if job.options.grid is not None:
        return _check_features(job)
    try:
        found = read_study(job.study, job.regions, job.options, job.needs_regions)
        kept = crop_to_foreground(found, job.needs_regions)
    except Exception as error:
        return StudyCheck(faults=tuple(dict.fromkeys([_named(error, job.study.id), *_faults_of_files(job)])))
    if job.overlay is not None:
        write_overlay(job.overlay, found, job.regions.names, f"{job.study.id}  ({job.study.split})")
    return _summary(job.study, job.regions, found, kept)


def _check_features(job: StudyJob) -> StudyCheck:
    try:
        found = read_features(job.study, job.regions, job.options, job.needs_regions)
    except Exception as error:
        return StudyCheck(faults=(_named(error, job.study.id), *_faults_of_masks(job, error)))
    digest = hashlib.blake2b(repr(found.features.shape).encode(), digest_size=16)
    digest.update(found.features.data)
    codes = {BELOW: "BELOW_ONE_CELL", **dict.fromkeys(AXES, "AXES_SUSPECT")}
    return StudyCheck(
        present=tuple(found.weights),
        empty=tuple(note.partition(":")[0] for note in found.notes if note.endswith(UNKNOWN)),
        digest=digest.hexdigest(),
        shape=found.features.shape,
        named=tuple((code, note) for note in found.notes for words, code in codes.items() if words in note),
    )


def _faults_of_masks(job: StudyJob, told: Exception) -> Iterator[tuple[str, str]]:
    """Faults of the masks, where those of the features were found first."""
    if job.study.masks is None or not (isinstance(told, DataFault) and told.path == str(job.study.image)):
        return
    try:
        region_weights(job.study, job.regions, job.options)
    except Exception as error:
        yield _named(error, job.study.id)


def _summary(study: Study, regions: RegionSet, found: RegionVolume, kept: Detail) -> StudyCheck:
    promised = study.masks.files if isinstance(study.masks, RegionFiles) else getattr(study.masks, "labels", ())
    return StudyCheck(
        present=tuple(kept.masks),
        empty=tuple(name for name in regions.names if name in promised and name not in kept.masks),
        digest=voxel_digest(found),
        shape=found.volume.array.shape,
        spacing=tuple(round(size, 4) for size in found.volume.spacing),
        notes=tuple(kept.notes),
    )


def voxel_digest(found: RegionVolume) -> str:
    """Hash of shape and voxels: equal for copies of one scan under two names, whatever their headers or packing."""
    array = found.volume.array
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array.T).data)  # no copy: the first axis is fastest in memory
    return digest.hexdigest()


def _faults_of_files(job: StudyJob) -> Iterator[tuple[str, str]]:
    """Faults of the volume and of every mask file, each read without the others."""
    volume_fault = None
    try:
        read_volume(job.study.image, job.options)
    except Exception as error:
        volume_fault = _named(error, job.study.id)
        yield volume_fault
    if not isinstance(job.study.masks, RegionFiles):
        return
    options = replace(job.options, implausible="ignore")  # a matter of the whole set
    for region, path in ((name, path) for name, paths in job.study.masks.parts().items() for path in paths):
        try:
            if volume_fault is None:
                alone = replace(job.study, masks=RegionFiles({region: path}))
                read_study(alone, job.regions, options, needs_regions=False)  # an empty one is no fault
            elif region_file(path) is None:
                read_image(path)
        except Exception as error:
            code, message = _named(error, job.study.id)
            if code != "IDENTITY_AFFINE":  # where masks without an affine lie is said of the whole set
                yield code, message


def _named(error: Exception, study: str) -> tuple[str, str]:
    if isinstance(error, DataFault):
        fault = error.for_study(study)
        return fault.code, str(fault)
    return "UNREADABLE", f"UNREADABLE {study}: {type(error).__name__}: {error}. Fix: look at the files of this study"
