"""Studies -> store, in parallel, resumable.

Run it again after anything: entries whose inputs and settings are unchanged and whose bytes are sound are kept, the
rest is built. A run that was killed and run again leaves the same bytes as one that was not. One bad study never stops
the others: it is skipped, counted and listed with its reason in ``summary.json``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from reg2rg.core.claims import Campaign, Claims, crashed
from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.core.files import write_json
from reg2rg.core.parallel import own_first, run_shared, run_tasks, shard_of, usable_cores
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.task import Views
from reg2rg.core.types import Study
from reg2rg.datasets.base import Dataset, Skip
from reg2rg.datasets.signature import signature
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.footprint import workers_that_fit
from reg2rg.store.attributes import ATTRIBUTES_FORMAT
from reg2rg.store.index import INDEX, NATIVE_FORMAT, VIEWS_FORMAT
from reg2rg.store.inputs import Known, load_known, save_known
from reg2rg.store.ledger import Ledger, seal_of, unchanged
from reg2rg.store.prepare_study import Job, Outcome, job_name, prepare_one
from reg2rg.store.running import codes_of, hold_limit, of_shard, only_run, writing
from reg2rg.store.store import Store
from reg2rg.store.views import views_key

_STALE_SECONDS = 60
_VERSIONS = (NATIVE_FORMAT, VIEWS_FORMAT, ATTRIBUTES_FORMAT)


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

    @classmethod
    def all_kept(cls, known: Sequence[Any], seconds: float) -> Self:
        """Of a run with nothing to do; `known` of the run before: number of studies, their regions, bytes."""
        studies, regions, size = known
        return cls(studies, studies, 0, 0, 0, 0, 0, (), regions, size, seconds)

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
        parts += [f"  skipped {code}: {count}" for code, count in codes_of(self.skipped).items()]
        return "\n".join(parts)


@dataclass(slots=True)
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    regions: Counter[str] = field(default_factory=Counter)
    skipped: list[Skip] = field(default_factory=list)
    size: int = 0
    seen: Known = field(default_factory=dict)

    @classmethod
    def of(cls, outcomes: Mapping[str, Mapping[str, Any]], seen: Known) -> Self:
        """What all processes of a campaign did."""
        tally = cls(seen=seen)
        for study, facts in outcomes.items():
            tally.add(study, Outcome(**facts))
        return tally

    def summary(self, before: Sequence[Skip], regions: RegionSet, seconds: float) -> PrepareSummary:
        """All that was counted."""
        counts = {name: self.counts[name] for name in ("kept", "built", "rebuilt", "repaired", "baked", "measured")}
        return PrepareSummary(
            studies=sum(counts.values()) + len(self.skipped),
            **counts,
            skipped=tuple(sorted([*before, *self.skipped], key=lambda skip: (skip.study, skip.code))),
            regions={name: self.regions[name] for name in regions.names},
            size=self.size,
            seconds=seconds,
        )

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
    campaign: Campaign | None = None,
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
        campaign: that the shards of one piece of work share. With it a shard that is through takes over what
            others have not begun, or left behind when they died; no study is worked on twice at a time, and what the
            campaign has finished is not looked at again.

    Returns:
        what was done by this call, or by all shards of a campaign that is complete.

    Raises:
        TooManySkippedError: more than `max_skip` of the studies were skipped; what could be prepared is in the store.
        ConfigError: an argument that cannot be.
        Reg2RGError: the disk is full or not writable, a worker was killed or hangs, another run holds the shard.
    """
    started = time.monotonic()
    store = store if isinstance(store, Store) else Store(store)
    workers = usable_cores() if workers is None else workers
    _check(workers, bake, native=native)
    region_set, options = load_region_set(regions), _of_views(options or ReadOptions(), bake)
    settings = (region_set.regions, options, bake, verify, native, needs_regions, _VERSIONS)
    done, listed_as = store.root / of_shard("done", shard), signature(dataset) if campaign is None else None
    if not check_contents and (known := unchanged(done, settings, listed_as)) is not None:
        return PrepareSummary.all_kept(known, time.monotonic() - started)
    studies, before = _studies(dataset)
    mine, tally = shard_of(studies, shard), _Tally()
    jobs = [
        Job(study, store.root, region_set, options, bake, verify, native, needs_regions, check_contents)
        for study in (mine if campaign is None else own_first(studies, shard))
    ]
    with only_run(store.root, shard) if campaign is None else _claims(store.root, jobs, campaign) as claims:
        ledger = Ledger.open(done, settings)
        if check_contents:
            ledger.rows.clear()
        if claims is None:
            _remove_leftovers(store, {study.id for study in mine}, bake, alone=shard[1] == 1)
            jobs = [job for job in jobs if not _is_done(job, store, ledger, tally)]
        inputs, seen_before = of_shard("inputs", shard), load_known(store.root) if jobs else {}
        with _kept_on_error(store.root / inputs, seen_before, tally, ledger):
            _bring(jobs, workers, tally, ledger, store, claims)
        complete = claims is None or claims.finished() >= {job.study.id for job in jobs}
        if claims is not None and complete:
            tally, shard = _Tally.of(claims.outcomes(), tally.seen), (1, 1)
        summary = tally.summary(before, region_set, time.monotonic() - started)
        with writing(store.root):
            if jobs:
                save_known(store.root, inputs, seen_before | tally.seen)
            if jobs or not store.has_index():
                store.write_index()
            if complete:
                _write_summary(store.root, shard, summary, region_set, options, bake)
            whole = dataset if claims is None and not summary.skipped and ledger.holds_all(mine) else None
            _save(ledger, store, shard, bake, summary, whole, listed_as)
    hold_limit(tally.skipped, summary.studies, max_skip, "summary.json in the store")
    return summary


@contextlib.contextmanager
def _kept_on_error(inputs: Path, before: Known, tally: _Tally, ledger: Ledger) -> Iterator[None]:
    """Whatever ends the work, what was seen need not be read again."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            save_known(inputs.parent, inputs.name, before | tally.seen)
            ledger.save()
        raise


def _check(workers: int, bake: Views | None, *, native: bool) -> None:
    if workers < 0:
        raise ConfigError(f"workers is {workers} (expected 0 or more)")
    if bake is None and not native:
        raise ConfigError("native is false and there are no views to bake, so nothing would be kept. Fix: give bake")


def _bring(
    jobs: Sequence[Job], workers: int, tally: _Tally, ledger: Ledger, store: Store, claims: Claims | None
) -> None:
    """Do the work, shared with other processes where there are claims; count and note what became of it."""
    workers = workers_that_fit(workers, [job.study for job in jobs])
    if claims is None:
        tasks = run_tasks(prepare_one, jobs, name=job_name, workers=workers, title="prepare")
    else:
        named = {job.study.id: job for job in jobs}
        tasks = run_shared(
            prepare_one, named, claims=claims, told=_told, given_up=_given_up, workers=workers, title="prepare"
        )
    with contextlib.closing(tasks):
        for job, outcome in tasks:
            tally.add(job.study.id, outcome)
            if outcome.status != "skipped":
                ledger.add(job.study, [list(outcome.regions), outcome.size], _outputs(job, store), outcome.seen)


def _is_done(job: Job, store: Store, ledger: Ledger, tally: _Tally) -> bool:
    """Whether nothing of a study has changed since its entry was found good; it is counted then."""
    row = ledger.find(job.study, _outputs(job, store))
    if row is None:
        return False
    regions, size = row.kept
    tally.add(job.study.id, Outcome("kept", regions=tuple(regions), size=size))
    return True


def _outputs(job: Job, store: Store) -> list[Path]:
    """The files of an entry."""
    study = job.study.id
    measured = [store.attributes_path(study)] if job.native and job.options.measures else []
    views = [] if job.bake is None else [store.views_path(study, job.bake)]
    return [store.native_path(study), *measured, *views]


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


def _claims(root: Path, jobs: Sequence[Job], campaign: Campaign) -> Claims:
    """Who works on what in a campaign; it is another one where anything but the shards differs."""
    settings = {key: value for job in jobs[:1] for key, value in asdict(job).items() if key != "study"}
    return campaign.claims(root, [settings, sorted(job.study.id for job in jobs)])


def _told(outcome: Outcome) -> dict[str, Any] | None:
    """What other processes of a campaign need to know of an outcome."""
    return None if outcome.status == "fatal" else asdict(replace(outcome, seen={}))


def _given_up(job: Job, attempts: int) -> Outcome:
    return Outcome("skipped", "CRASHED", crashed(job.study.id, attempts))


def _remove_leftovers(store: Store, mine: Collection[str], bake: Views | None, *, alone: bool) -> None:
    """Remove temporary files that a killed run of this shard left behind."""
    for folder in _folders(store, bake):
        with os.scandir(folder) as entries:
            left = [entry.name for entry in entries if entry.name.startswith(".") and ".tmp." in entry.name]
        for name in left:
            if name[1:].partition(".tmp.")[0].rpartition(".")[0] in mine:
                (folder / name).unlink(missing_ok=True)
    now = time.time()
    for path in store.root.glob(".*.json.tmp.*"):  # those of other shards may be in use, for a moment
        with contextlib.suppress(FileNotFoundError):
            if alone or now - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _save(
    ledger: Ledger,
    store: Store,
    shard: tuple[int, int],
    bake: Views | None,
    summary: PrepareSummary,
    dataset: object,
    listed_as: str | None,
) -> None:
    """Write the ledger; with the `dataset` of a run that skipped nothing, so that the next one may end at once."""
    written = [store.root / of_shard("summary", shard), store.root / INDEX, *_folders(store, bake)]
    seal = seal_of(dataset, listed_as, [summary.studies, summary.regions, summary.size], written)
    if ledger.changed or seal is not None:
        ledger.save(seal)


def _folders(store: Store, bake: Views | None) -> list[Path]:
    """The folders of entries that are there."""
    views = [] if bake is None else [store.root / "views" / views_key(bake)]
    return [folder for folder in (store.root / "native", *views, store.root / "attributes") if folder.is_dir()]


def _write_summary(
    root: Path, shard: tuple[int, int], summary: PrepareSummary, regions: RegionSet, options: ReadOptions, bake: Any
) -> None:
    """What is in the store and what is not, and why: the same after one run or after several."""
    write_json(
        root / of_shard("summary", shard),
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
            "skipped_by_code": codes_of(summary.skipped),
            "skipped": [asdict(skip) for skip in summary.skipped],
        },
    )
