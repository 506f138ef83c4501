"""One study -> store: is its entry still good, and if not, build it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from reg2rg.core.errors import DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.task import Views
from reg2rg.core.types import LabelMap, Study
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.features import read_features, row_digest
from reg2rg.scans.read import files_of, no_region, read_study
from reg2rg.store.crop import Detail, crop_to_foreground
from reg2rg.store.index import NATIVE_FORMAT
from reg2rg.store.inputs import Known, digest, load_known
from reg2rg.store.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to prepare one study; the arguments of `prepare`."""

    study: Study
    root: Path
    regions: RegionSet
    options: ReadOptions
    bake: Views | None
    verify: bool
    native: bool = True
    needs_regions: bool = True
    check_contents: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one study; plain data, so that it always travels back from a worker.

    `seen` is what was seen of its input files.
    """

    status: str
    code: str = ""
    message: str = ""
    regions: tuple[str, ...] = ()
    size: int = 0
    seen: Known = field(default_factory=dict)


def input_files(study: Study) -> dict[str, list[tuple[Path, ...]]]:
    """What a study is read from: ``image`` and one name a mask -> the images of it, each the files it is made of."""
    masks = study.masks
    named: Mapping[str, tuple[Path, ...]] = {}
    if masks is not None:
        named = {"labels": (masks.file,)} if isinstance(masks, LabelMap) else masks.parts()
    return {
        "image": [files_of(study.image)],
        **{f"mask {name}": [files_of(path) for path in paths] for name, paths in sorted(named.items())},
    }


def all_files(study: Study) -> list[str]:
    """Every file that a study is read from."""
    return [str(file) for images in input_files(study).values() for files in images for file in files]


def entry_key(study: Study, regions: RegionSet, options: ReadOptions, contents: Callable[[Path], str | None]) -> str:
    """Digest of all that decides an entry: contents of its input files, settings, version of native detail.

    Args:
        study: what is read.
        regions: the region set.
        options: how it is read.
        contents: digest of a file's contents; see `reg2rg.store.inputs.digest`.
    """
    masks = study.masks
    row = study.row
    if row is not None:  # of an array of many gigabytes: what this study has of it
        whole, contents = contents, lambda file: row_digest(file, row) if file == study.image else whole(file)
    facts = {
        "format": NATIVE_FORMAT,
        "inputs": {
            name: [[contents(file) for file in files] for files in images]
            for name, images in input_files(study).items()
        },
        "labels": {k: list(v) for k, v in sorted(masks.labels.items())} if isinstance(masks, LabelMap) else None,
        "regions": list(regions.names),
        "expected": [asdict(region.expected) for region in regions],
        "options": options.for_study(study).as_facts(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


_DONE = {
    "absent": "built",
    "stale": "rebuilt",
    "corrupt": "repaired",
    "unbaked": "baked",
    "unmeasured": "measured",
    "good": "kept",
}


def prepare_one(job: Job) -> Outcome:
    """Bring one study into the store. Never lets an exception out but a keyboard interrupt."""
    study, store = job.study, Store(job.root)
    seen: Known = {}
    try:
        known = {} if job.check_contents else load_known(job.root)
        key = entry_key(study, job.regions, job.options, lambda file: digest(file, known, seen))
        state = store.state(study.id, key, job.bake, full=job.verify, native=job.native)
        measured = not job.options.measures or store.measured(study.id, key)
        if state == "unbaked" and job.bake is not None:
            store.bake(study.id, key, store.read(study.id).detail, job.bake)
        elif state != "good" and job.options.grid is not None:
            volume = _read(job, store, read_features)
            store.write_features(study.id, key, volume, job.options.grid)
        elif state != "good":
            detail = _read(job, store, _read_scan)
            store.write(study.id, key, detail, job.bake, native=job.native)
            if job.options.measures:
                store.measure(study.id, key, detail, job.regions)
                measured = True
        if not measured and job.native:  # without native detail the scan would have to be read for it
            store.measure(study.id, key, store.read(study.id).detail, job.regions)
            state = "unmeasured" if state == "good" else state
        regions, size = store.describe(study.id, job.bake)
        if job.needs_regions and not regions:  # kept from a run that needed none
            store.remove(study.id)
            raise no_region(study, job.regions)
        return Outcome(_DONE[state], regions=regions, size=size, seen=seen)
    except DataFault as fault:
        return Outcome("skipped", fault.code, str(fault.for_study(study.id)), seen=seen)
    except MemoryError:
        return _fatal(job, "not enough memory", "run again with fewer workers")
    except OSError as error:
        found = f"cannot write to the store {job.root}: {error.strerror or error}"
        return _fatal(job, found, "free space or allow writing there, then run again")
    except Exception as error:
        return Outcome("skipped", "UNEXPECTED", f"UNEXPECTED {study.id}: {type(error).__name__}: {error}")


def _read_scan(study: Study, regions: RegionSet, options: ReadOptions, needs_regions: bool) -> Detail:
    return crop_to_foreground(read_study(study, regions, options, needs_regions), needs_regions)


def _read(job: Job, store: Store, read: Callable[[Study, RegionSet, ReadOptions, bool], T]) -> T:
    """Read the inputs; a file that the system cannot read is a fault of this study alone."""
    try:
        return read(job.study, job.regions, job.options, job.needs_regions)
    except DataFault:
        store.remove(job.study.id)  # what is there was made from other inputs, or is damaged
        raise
    except OSError as error:
        raise DataFault.of(
            "UNREADABLE",
            found=error.strerror or str(error),
            expected="a file that can be read",
            fix="check that it is there and that you may read it",
            path=error.filename or job.study.image,
            study=job.study.id,
        ) from None


def _fatal(job: Job, found: str, fix: str) -> Outcome:
    """A trouble that every other study would meet too: it stops the run."""
    message = f"{job.study.id}: {found}. What was finished is kept and sound. Fix: {fix}"
    return Outcome("fatal", message=message)


def job_name(job: Job) -> str:
    """The study, for messages."""
    return job.study.id
