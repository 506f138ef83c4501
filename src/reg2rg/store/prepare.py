"""Studies -> store, in parallel, resumable.

Run it again after anything: entries whose inputs and settings are unchanged and whose bytes are sound are kept, the
rest is built. A run that was killed and run again leaves the same bytes as one that was not. One bad study never stops
the others: it is skipped, counted and listed with its reason in ``summary.json``.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reg2rg.core.errors import ConfigError, Reg2RGError, TooManySkippedError
from reg2rg.core.files import write_json
from reg2rg.core.parallel import run_tasks, usable_cores
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.task import Views
from reg2rg.core.types import Study
from reg2rg.datasets.base import Dataset, Skip
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.footprint import workers_that_fit
from reg2rg.store.inputs import Known, load_known, save_known
from reg2rg.store.prepare_study import Job, Outcome, job_name, prepare_one
from reg2rg.store.store import Store
from reg2rg.store.views import views_key

_LOG = logging.getLogger(__name__)
_STALE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class PrepareSummary:
    """What a run did.

    Attributes:
        studies: how many it was asked for (of its shard).
        kept: entries that were already there and sound.
        built: new entries.
        rebuilt: entries whose inputs or settings had changed.
        repaired: entries whose bytes were damaged.
        baked: entries to which only views were added.
        measured: entries to which only attributes were added.
        skipped: studies that are not in the store, with their reasons.
        regions: region name -> number of prepared studies that have it.
        size: bytes of the prepared studies, native detail and baked views.
        seconds: wall time.
    """

    studies: int
    kept: int
    built: int
    rebuilt: int
    repaired: int
    baked: int
    measured: int
    skipped: tuple[Skip, ...]
    regions: dict[str, int]
    size: int
    seconds: float

    @property
    def ready(self) -> int:
        """Studies that are in the store now."""
        return self.kept + self.built + self.rebuilt + self.repaired + self.baked + self.measured

    def describe(self) -> str:
        """A few lines for people."""
        parts = [
            f"{self.ready} of {self.studies} studies are in the store ({self.size / 1e6:,.1f} MB): {self.built} built, "
            f"{self.kept} kept, {self.rebuilt} rebuilt (other inputs or settings), {self.repaired} repaired (damaged), "
            f"{self.baked} given views, {self.measured} given attributes, {len(self.skipped)} skipped; "
            f"{self.seconds:.1f} s"
        ]
        parts += [f"  skipped {code}: {count}" for code, count in _codes(self.skipped).items()]
        return "\n".join(parts)


@dataclass(slots=True)
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    regions: Counter[str] = field(default_factory=Counter)
    skipped: list[Skip] = field(default_factory=list)
    size: int = 0
    seen: Known = field(default_factory=dict)

    def add(self, study: str, outcome: Outcome) -> None:
        self.seen |= outcome.seen
        if outcome.status == "fatal":
            raise Reg2RGError(outcome.message)
        if outcome.status == "skipped":
            self.skipped.append(Skip(study, outcome.code, outcome.message))
            return
        self.counts[outcome.status] += 1
        self.regions.update(outcome.regions)
        self.size += outcome.size


def prepare(
    dataset: Dataset | Sequence[Study],
    store: Store | str | Path,
    regions: RegionSet | str = "radgenome",
    options: ReadOptions | None = None,
    bake: Views | None = None,
    workers: int | None = None,
    shard: tuple[int, int] = (1, 1),
    max_skip: float = 0.05,
    verify: bool = True,
    native: bool = True,
    needs_regions: bool = True,
    check_contents: bool = False,
) -> PrepareSummary:
    """Bring studies into the store.

    Args:
        dataset: a dataset, or studies.
        store: where to.
        regions: region set, its name or file.
        options: how files are read.
        bake: settings of views to store beside native detail, so that a sample costs milliseconds.
        workers: processes at most; 0 works in this one; as many as there are cores by default. Fewer where memory
            does not hold so many scans.
        shard: (i, n): of the sorted studies, every n-th from the i-th on, counted from 1; for job arrays.
        max_skip: share of studies that may be skipped.
        verify: check every byte of entries that are already there, not their headers alone.
        native: keep native detail. Without it the store is a quarter as large, but views of other settings, overlays
            and pages need the studies prepared again.
        needs_regions: skip studies without any region; otherwise they are kept as scans alone.
        check_contents: read every input file to see whether it is what it was, also where size, times and inode are.

    Returns:
        what was done.

    Raises:
        TooManySkippedError: more than `max_skip` of the studies were skipped; what could be prepared is in the store.
        ConfigError: an argument that cannot be.
        Reg2RGError: the disk is full or not writable, a worker was killed or hangs, another run holds the shard.
    """
    started = time.monotonic()
    store = store if isinstance(store, Store) else Store(store)
    studies, before = _studies(dataset)
    mine = _shard(studies, shard)
    workers = usable_cores() if workers is None else workers
    if workers < 0:
        raise ConfigError(f"workers is {workers} (expected 0 or more)")
    if bake is None and not native:
        raise ConfigError("native is false and there are no views to bake, so nothing would be kept. Fix: give bake")
    region_set = load_region_set(regions)
    options = _of_views(options or ReadOptions(), bake)
    workers = workers_that_fit(workers, mine)
    tally = _Tally()
    with _only_run(store.root, shard):
        seen_before = load_known(store.root)
        jobs = [
            Job(study, store.root, region_set, options, bake, verify, native, needs_regions, check_contents)
            for study in mine
        ]
        _remove_leftovers(store, [study.id for study in mine], bake, alone=shard[1] == 1)
        tasks = run_tasks(prepare_one, jobs, name=job_name, workers=workers, title="prepare")
        inputs = _of_shard("inputs", shard)
        try:
            with contextlib.closing(tasks):
                for job, outcome in tasks:
                    tally.add(job.study.id, outcome)
        except BaseException:  # what was seen need not be read again
            with contextlib.suppress(OSError):
                save_known(store.root, inputs, seen_before | tally.seen)
            raise
        skipped = tuple(sorted([*before, *tally.skipped], key=lambda skip: (skip.study, skip.code)))
        counts = tally.counts
        summary = PrepareSummary(
            studies=len(mine),
            kept=counts["kept"],
            built=counts["built"],
            rebuilt=counts["rebuilt"],
            repaired=counts["repaired"],
            baked=counts["baked"],
            measured=counts["measured"],
            skipped=skipped,
            regions={name: tally.regions[name] for name in region_set.names},
            size=tally.size,
            seconds=time.monotonic() - started,
        )
        with _writing(store.root):
            save_known(store.root, inputs, seen_before | tally.seen)
            store.write_index()
            _write_summary(store.root, shard, summary, region_set, options, bake)
    _hold_limit(tally.skipped, len(mine), max_skip)
    return summary


def _of_views(options: ReadOptions, bake: Views | None) -> ReadOptions:
    if bake is not None and options.grid is not None:
        raise ConfigError("prepare: features are kept as they are, there are no views to bake. Fix: leave --bake out")
    return options if bake is None else options.for_views(bake)


def _studies(dataset: Dataset | Sequence[Study]) -> tuple[list[Study], tuple[Skip, ...]]:
    if isinstance(dataset, Dataset):
        return list(dataset.studies()), tuple(dataset.skipped)
    studies = sorted(dataset, key=lambda study: study.id)
    twice = [name for name, count in Counter(study.id for study in studies).items() if count > 1]
    if twice:
        raise ConfigError(f"study id {twice[0]!r} occurs more than once (expected unique ids)")
    return studies, ()


def _shard(studies: Sequence[Study], shard: tuple[int, int]) -> list[Study]:
    index, count = shard
    if not 1 <= index <= count:
        raise ConfigError(f"shard is {index}/{count} (expected i/n with 1 <= i <= n, for example 1/8)")
    return list(studies[index - 1 :: count])


@contextlib.contextmanager
def _only_run(root: Path, shard: tuple[int, int]) -> Iterator[None]:
    """Hold a lock that the system lets go of when this process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        stream = open(root / f".lock-{shard[0]}-of-{shard[1]}", "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise ConfigError(f"store {root}: {error.strerror}. Fix: name a folder that can be written") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Reg2RGError(
                f"another run is preparing shard {shard[0]}/{shard[1]} of the store {root}. Fix: wait for it or stop it"
            ) from None
        except OSError as error:  # some network file systems have no locks; writes are atomic without one, too
            _LOG.warning("store %s: no lock can be taken (%s); do not run two preparations of one shard", root, error)
        yield


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Reg2RGError(
            f"cannot write to the store {root}: {error.strerror or error}. What was finished is kept and sound. Fix: "
            "free space or allow writing there, then run again"
        ) from None


def _remove_leftovers(store: Store, studies: Sequence[str], bake: Views | None, *, alone: bool) -> None:
    """Remove temporary files that a killed run of this shard left behind."""
    mine = frozenset(studies)
    folders = [store.root / "native", *([] if bake is None else [store.root / "views" / views_key(bake)])]
    for folder in (*folders, store.root / "attributes"):
        for path in folder.glob(".*.tmp.*"):
            if path.name[1:].partition(".tmp.")[0].rpartition(".")[0] in mine:
                path.unlink(missing_ok=True)
    now = time.time()
    for path in store.root.glob(".*.json.tmp.*"):  # those of other shards may be in use, for a moment
        with contextlib.suppress(FileNotFoundError):
            if alone or now - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _write_summary(
    root: Path, shard: tuple[int, int], summary: PrepareSummary, regions: RegionSet, options: ReadOptions, bake: Any
) -> None:
    """What is in the store and what is not, and why: the same after one run or after several."""
    write_json(
        root / _of_shard("summary", shard),
        {
            "shard": list(shard),
            "studies": summary.studies,
            "ready": summary.ready,
            "bytes": summary.size,
            "regions": summary.regions,
            "settings": {
                "regions": list(regions.names),
                "options": options.as_facts(),
                "views": None if bake is None else asdict(bake),
            },
            "skipped_by_code": _codes(summary.skipped),
            "skipped": [asdict(skip) for skip in summary.skipped],
        },
    )


def _of_shard(name: str, shard: tuple[int, int]) -> str:
    return f"{name}.json" if shard[1] == 1 else f"{name}-{shard[0]}-of-{shard[1]}.json"


def _codes(skipped: Sequence[Skip]) -> dict[str, int]:
    return dict(sorted(Counter(skip.code for skip in skipped).items()))


def _hold_limit(skipped: Sequence[Skip], studies: int, max_skip: float) -> None:
    if studies and len(skipped) / studies > max_skip:
        codes = ", ".join(f"{code} {count}" for code, count in _codes(skipped).items())
        first = min(skipped, key=lambda skip: skip.study)
        raise TooManySkippedError(
            f"{len(skipped)} of {studies} studies were skipped ({codes}), more than max_skip {max_skip:g} allows; "
            f"first: {first.message}. Fix: see summary.json in the store, mend the data or raise max_skip"
        )
