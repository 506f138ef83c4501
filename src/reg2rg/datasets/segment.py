"""Masks for all studies of a data set, in parallel, resumable.

A study gets a folder of its own with one file a region, which appears whole. Run it again after anything: what is there
and was made of the same scan by the same segmenter is kept. One bad study never stops the others: it is skipped,
counted and listed with its reason.
"""

from __future__ import annotations

import contextlib
import filecmp
import functools
import hashlib
import os
import pickle
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reg2rg.core.claims import Campaign, crashed
from reg2rg.core.documents import DocumentError, read_record, write_record
from reg2rg.core.errors import ConfigError, DataFault, Reg2RGError
from reg2rg.core.files import disk_trouble, hold_fence, write_json
from reg2rg.core.parallel import own_first, run_shared, run_tasks, shard_of
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import LabelMap, RegionFiles, Study
from reg2rg.datasets.base import Skip, check_skip_limit, count_codes
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.find_masks import image_stem
from reg2rg.scans.footprint import workers_that_fit
from reg2rg.scans.read import read_image
from reg2rg.scans.segmenters import KeptSegmenter, Segmentation, Segmenter
from reg2rg.scans.segmenters.kept import NEW, default_folder, remove_abandoned, write_mask

MADE_BY = "made_by.json"
"""In a study's folder: what made its masks, and why regions are absent."""
_KEPT = ".kept"


@dataclass(frozen=True, slots=True)
class SegmentSummary:
    """What a run did.

    Attributes:
        out: folder of the folders.
        studies: how many it was asked for (of its shard).
        made: studies that got new masks.
        kept: studies whose masks were there.
        skipped: studies without masks, with their reasons.
        regions: region -> number of studies that have it.
        seconds: wall time.
    """

    out: Path
    studies: int
    made: int
    kept: int
    skipped: tuple[Skip, ...]
    regions: dict[str, int]
    seconds: float

    def describe(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.made + self.kept} of {self.studies} studies have masks in {self.out}: {self.made} made, "
            f"{self.kept} kept, {len(self.skipped)} skipped; {self.seconds:.1f} s"
        ]
        lines += [f"  {region}: {count}" for region, count in self.regions.items()]
        return "\n".join([*lines, *(f"  skipped {code}: {count}" for code, count in count_codes(self.skipped).items())])


@dataclass(frozen=True, slots=True)
class _Job:
    """What a worker needs. The segmenter travels as bytes, so that a worker builds it, and its models, once."""

    study: Study
    segmenter: bytes
    regions: RegionSet
    folder: Path
    options: ReadOptions | None


@dataclass(frozen=True, slots=True)
class _Outcome:
    status: str
    regions: tuple[str, ...] = ()
    code: str = ""
    message: str = ""


def segment(
    studies: Sequence[Study],
    segmenter: Segmenter,
    regions: RegionSet,
    out: str | Path,
    folder: str = "{id}",
    workers: int = 0,
    shard: tuple[int, int] = (1, 1),
    max_skip: float = 0.05,
    options: ReadOptions | None = None,
    campaign: Campaign | None = None,
) -> SegmentSummary:
    """Make the masks of studies.

    Args:
        studies: their scans count, not their masks; see `Dataset.scans`.
        segmenter: makes the masks. One that keeps them in the user's cache keeps them in `out` instead, where a study's
            files are links to them, so that nothing is stored twice.
        regions: which are wanted.
        out: folder of the studies' folders.
        folder: name of a study's folder, with ``{id}`` for the study.
        workers: processes at most, fewer where memory does not hold so many scans; 0 works in this one, which is right
            for a network on a GPU.
        shard: (i, n): of the sorted studies, every n-th from the i-th on, counted from 1.
        max_skip: share of studies that may be skipped.
        options: how scans are read.
        campaign: as for `reg2rg.store.prepare.prepare`.

    Returns:
        what was done, by this call or by all shards of a campaign that is complete; it stands in ``segment.json`` in
        `out` too.

    Raises:
        TooManySkippedError: more than `max_skip` of the studies were skipped; the others have their masks.
        ConfigError: an argument that cannot be, or a segmenter that can give no region of the set.
        Reg2RGError: the disk is full or not writable, or the segmenter failed for a reason that is no scan's.
    """
    begun, out = time.monotonic(), Path(out)
    if folder.count("{id}") != 1 or "/" in folder:
        raise ConfigError(f"folder is {folder!r}: {{id}} must stand in it, once, and no slash")
    if isinstance(segmenter, KeptSegmenter) and segmenter.kept == default_folder():
        segmenter.kept = out / _KEPT
    remove_abandoned(out)
    ordered = sorted(studies, key=lambda study: study.id)
    mine = shard_of(ordered, shard)
    packed = pickle.dumps(segmenter)
    jobs = {
        study.id: _Job(study, packed, regions, out / folder.replace("{id}", study.id), options)
        for study in (mine if campaign is None else own_first(ordered, shard))
    }
    workers, outcomes = workers_that_fit(workers, mine), {}
    facts = [
        asdict(options) if options else None,
        hashlib.sha256(packed).hexdigest(),
        folder,
        list(regions.names),
        sorted(jobs),
    ]
    with contextlib.nullcontext() if campaign is None else campaign.claims(out, facts) as claims:
        if claims is None:
            tasks = run_tasks(_segment_one, jobs.values(), name=_name, workers=workers, title="segment")
        else:
            tasks = run_shared(
                _segment_one, jobs, claims=claims, told=_told, given_up=_given_up, workers=workers, title="segment"
            )
        with contextlib.closing(tasks):
            for job, outcome in tasks:
                if outcome.status == "fatal":
                    raise Reg2RGError(outcome.message)
                outcomes[job.study.id] = outcome
        complete = claims is None or claims.finished() >= jobs.keys()
        if claims is not None and complete:
            outcomes, shard = {name: _Outcome(**told) for name, told in claims.outcomes().items()}, (1, 1)
    summary = _summary(out, outcomes, regions, time.monotonic() - begun)
    if complete:
        _write_summary(summary, shard)
    check_skip_limit(summary.skipped, summary.studies, max_skip)
    return summary


def _summary(out: Path, outcomes: Mapping[str, _Outcome], regions: RegionSet, seconds: float) -> SegmentSummary:
    statuses = Counter(outcome.status for outcome in outcomes.values())
    found = Counter(name for outcome in outcomes.values() for name in outcome.regions)
    return SegmentSummary(
        out,
        len(outcomes),
        statuses["made"],
        statuses["kept"],
        tuple(Skip(name, one.code, one.message) for name, one in sorted(outcomes.items()) if one.status == "skipped"),
        {name: found[name] for name in regions.names},
        seconds,
    )


def _told(outcome: _Outcome) -> dict[str, Any] | None:
    return None if outcome.status == "fatal" else asdict(outcome)


def _given_up(job: _Job, attempts: int) -> _Outcome:
    return _Outcome("skipped", (), "CRASHED", crashed(job.study.id, attempts))


def _segment_one(job: _Job) -> _Outcome:
    """Bring the masks of one study into its folder. Never lets an exception out but a keyboard interrupt."""
    study = job.study
    try:
        options = (job.options or ReadOptions()).for_study(study) if study.rescale else job.options
        found = _unpacked(job.segmenter).segment(study.image, job.regions, options)
        facts = {"made_by": asdict(found.made_by), "absent": dict(found.absent), "regions": list(job.regions.names)}
        there = _is_there(job.folder, found, facts)
        if not there:
            _fill(job.folder, found, facts)
        masks = found.masks
        named = masks.labels if isinstance(masks, LabelMap) else masks.files
        return _Outcome("kept" if there else "made", tuple(name for name in job.regions.names if name in named))
    except DataFault as fault:
        return _Outcome("skipped", (), fault.code, str(fault.for_study(study.id)))
    except Reg2RGError as error:
        return _Outcome("fatal", message=f"{study.id}: {error}")
    except OSError as error:
        return _Outcome("fatal", message=f"{study.id}: {disk_trouble(error) or error}. What was finished is kept")
    except Exception as error:
        return _Outcome("skipped", (), "UNEXPECTED", f"UNEXPECTED {study.id}: {type(error).__name__}: {error}")


@functools.lru_cache(maxsize=1)
def _unpacked(segmenter: bytes) -> Segmenter:
    built: Segmenter = pickle.loads(segmenter)  # our own bytes
    return built


def _is_there(folder: Path, found: Segmentation, facts: Mapping[str, Any]) -> bool:
    """Whether a study's folder holds these masks."""
    try:
        if read_record(folder / MADE_BY, "it is made anew") != facts:
            return False
        if isinstance(found.masks, LabelMap):
            return all((folder / f"{name}.nii.gz").is_file() for name in found.masks.labels)
        return all(filecmp.cmp(path, folder / name, shallow=False) for name, path in _named(found.masks))
    except (OSError, DocumentError):
        return False


def _named(masks: RegionFiles) -> Iterator[tuple[str, Path]]:
    """Name in a study's folder, and file, of each mask."""
    for region, parts in masks.parts().items():
        if len(parts) > 1:
            raise ConfigError(f"region {region}: {len(parts)} files (expected one a region). Fix: give their union")
        yield parts[0].name.replace(image_stem(parts[0]), region, 1), parts[0]


def _fill(folder: Path, found: Segmentation, facts: Mapping[str, Any]) -> None:
    """Put masks into a study's folder, which takes its place whole.

    Raises:
        ConfigError: there are files in its place that this did not make.
    """
    if folder.exists() and not (folder / MADE_BY).is_file() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds files that were not made here. Fix: name another folder (out, folder)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=NEW, ignore_cleanup_errors=True) as name:
        new = Path(name, "masks")
        new.mkdir()
        if isinstance(found.masks, LabelMap):
            image = read_image(found.masks.file)
            values = image.values()
            for region, labels in found.masks.labels.items():
                write_mask(new / f"{region}.nii.gz", np.isin(values, labels), image.affine)
        else:
            for target, path in _named(found.masks):
                try:
                    os.link(path, new / target)
                except OSError:  # another disk, or one without links
                    shutil.copyfile(path, new / target)
        write_record(new / MADE_BY, facts)
        hold_fence()
        with contextlib.suppress(FileNotFoundError):
            folder.rename(Path(name, "old"))
        new.rename(folder)


def _write_summary(summary: SegmentSummary, shard: tuple[int, int]) -> None:
    """What has masks and what has not, and why: the same after one run or after several."""
    name = "segment.json" if shard[1] == 1 else f"segment-{shard[0]}-of-{shard[1]}.json"
    write_json(
        summary.out / name,
        {
            "shard": list(shard),
            "studies": summary.studies,
            "ready": summary.made + summary.kept,
            "regions": summary.regions,
            "skipped": [asdict(skip) for skip in summary.skipped],
        },
    )


def _name(job: _Job) -> str:
    return job.study.id
