"""Studies of a store -> tokens of frozen encoders beside them: once, resumable, in shards; what ``data encode`` does.

Run it again after anything: tokens of unchanged studies are kept, those of changed or damaged ones are made anew. A
study that cannot be encoded is skipped and listed with its reason.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from reg2rg.core.claims import Campaign, Claims, crashed
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.files import write_json
from reg2rg.core.parallel import own_first, run_shared, run_tasks, shard_of, usable_cores
from reg2rg.core.task import Views
from reg2rg.core.types import Study
from reg2rg.data.scaling import fraction, to_input
from reg2rg.datasets.base import Skip
from reg2rg.models.encoders.base import Encoder
from reg2rg.models.encoders.settled import facts_of
from reg2rg.store.encoded import FOLDER, Bits, EncodedView, Encoding
from reg2rg.store.ledger import Ledger
from reg2rg.store.running import codes_of, hold_limit, of_shard, only_run, writing
from reg2rg.store.store import Store
from reg2rg.store.views import StudyViews, ViewName

_MOST_READERS = 8
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a study.

    Attributes:
        status: ``kept``; ``encoded``; ``renewed``, its tokens were of another entry; ``repaired``, they were damaged;
            or ``skipped``.
        size: bytes of its tokens.
        code: reason code of one that was skipped.
        message: the whole reason.
    """

    status: str
    size: int = 0
    code: str = ""
    message: str = ""


@dataclass(slots=True)
class EncodeSummary:
    """What a run did.

    Attributes:
        counts: status -> number of studies.
        size: bytes of the tokens of all studies that have them.
        skipped: studies without, with their reasons.
        folders: where tokens lie.
        seconds: wall time.
    """

    folders: tuple[Path, ...]
    counts: Counter[str] = field(default_factory=Counter)
    size: int = 0
    skipped: list[Skip] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def studies(self) -> int:
        """How many it was asked for."""
        return sum(self.counts.values()) + len(self.skipped)

    def add(self, study: str, outcome: Outcome) -> None:
        """Count one."""
        if outcome.status == "skipped":
            self.skipped.append(Skip(study, outcome.code, outcome.message))
        else:
            self.counts[outcome.status] += 1
            self.size += outcome.size

    def of(self, outcomes: Mapping[str, Mapping[str, Any]]) -> Self:
        """The same of what all processes of a campaign did."""
        summary = type(self)(self.folders)
        for study, facts in outcomes.items():
            summary.add(study, Outcome(**facts))
        return summary

    def describe(self) -> str:
        """A few lines for people."""
        ready = sum(self.counts.values())
        each = f", {self.size / ready / 1e6:,.2f} MB a study" if ready else ""
        lines = [
            f"{ready} of {self.studies} studies have tokens ({self.size / 1e6:,.1f} MB{each}): "
            f"{self.counts['encoded']} encoded, {self.counts['kept']} kept, {self.counts['renewed']} renewed (other "
            f"scans, masks or settings), {self.counts['repaired']} repaired (damaged), {len(self.skipped)} skipped; "
            f"{self.seconds:.1f} s"
        ]
        lines += [f"  skipped {code}: {count}" for code, count in codes_of(self.skipped).items()]
        return "\n".join([*lines, *(f"  {folder}" for folder in self.folders)])


def encode(
    store: Store | str | Path,
    studies: Sequence[str],
    parts: Mapping[ViewName, Encoder],
    views: Views,
    bits: Bits = 16,
    *,
    workers: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    shard: tuple[int, int] = (1, 1),
    max_skip: float = 0.05,
    check_contents: bool = False,
    campaign: Campaign | None = None,
) -> EncodeSummary:
    """Encode the views of studies and keep the tokens beside the store's entries.

    Args:
        store: of prepared studies.
        studies: their ids.
        parts: view -> settled encoder (`reg2rg.models.encoders.settled.settled_views`).
        views: settings of the views.
        bits: 16 or 8.
        workers: threads that read views ahead; 0 reads between two studies.
        device: where the encoders run, in float32.
        shard: (i, n): every n-th study from the i-th on, counted from 1.
        max_skip: share of studies that may be skipped.
        check_contents: check every byte of what is there, not only of files that have changed.
        campaign: that the shards of one piece of work share; see `reg2rg.store.prepare.prepare`.

    Raises:
        TooManySkippedError: more than `max_skip` of the studies were skipped; all others are encoded.
        ConfigError: an argument that cannot be.
        Reg2RGError: the disk is full or not writable, or another run holds the shard.
    """
    started = time.monotonic()
    store = store if isinstance(store, Store) else Store(store)
    if not parts:
        raise ConfigError("encode: no encoder is frozen. Fix: put what is not to be trained into Frozen")
    given = sorted(set(studies))
    targets = {view: EncodedView(store, Encoding(view, views, facts_of(part), bits)) for view, part in parts.items()}
    keys, root = sorted(one.key for one in targets.values()), store.root / FOLDER
    summary = EncodeSummary(tuple(one.folder for one in targets.values()))
    lock = only_run(store.root, shard, "encoding")
    with lock if campaign is None else campaign.claims(root, [keys, given]) as claims:
        ledger = _ledger(root, keys, shard, shard_of(given, shard))
        if check_contents:
            ledger.rows.clear()
        todo = shard_of(given, shard) if claims is None else own_first(given, shard)
        if claims is None:
            todo = [study for study in todo if not _is_done(study, store, targets, ledger, summary)]
        with writing(root), _Encoder(store, targets, parts, device, todo, workers, ledger) as encoder:
            encoder.run(summary, claims)
            complete = claims is None or claims.finished() >= set(given)
            if claims is not None and complete:
                summary, shard = summary.of(claims.outcomes()), (1, 1)
            for one in targets.values():
                if todo or not one.is_indexed:
                    one.end()
            summary.seconds = time.monotonic() - started
            if complete:
                _write_summary(root / of_shard("summary", shard), summary)
    hold_limit(summary.skipped, summary.studies, max_skip, f"summary.json in {root}")
    return summary


class _Encoder:
    """Encodes one study after another, while threads read the views of the next ones.

    Args:
        store: gives the views.
        targets: view -> where its tokens go.
        parts: view -> its encoder.
        device: where these run.
        order: studies to encode.
        workers: threads that read.
        ledger: knows what is good, and notes it.
    """

    def __init__(
        self,
        store: Store,
        targets: Mapping[ViewName, EncodedView],
        parts: Mapping[ViewName, Encoder],
        device: str,
        order: Sequence[str],
        workers: int | None,
        ledger: Ledger,
    ) -> None:
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        readers = _readers(workers, device)
        self.store, self.targets, self.device, self.ledger = store, targets, torch.device(device), ledger
        self.parts = {view: part.eval().to(self.device) for view, part in parts.items()} if order else {}
        self._order, self._place = list(order), {study: place for place, study in enumerate(order)}
        self._readers = ThreadPoolExecutor(readers) if readers else None
        self._ahead, self._reading = readers + 1, dict[str, Future[_Read]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._readers is not None:
            self._readers.shutdown(wait=True, cancel_futures=True)

    def run(self, summary: EncodeSummary, claims: Claims | None) -> None:
        """Encode all, shared with other processes where there are claims; count and note what became of each.

        Args:
            summary: counts.
            claims: who works on what.
        """
        for target in self.targets.values() if self._order else ():
            _remove_leftovers(target)
            target.begin()
        if claims is None:
            tasks = run_tasks(self.one, self._order, name=str, workers=0, title="encode")
        else:
            named = {study: study for study in self._order}
            tasks = run_shared(
                self.one, named, claims=claims, told=asdict, given_up=_given_up, workers=0, title="encode"
            )
        with _saved(self.ledger), contextlib.closing(tasks):
            for study, outcome in tasks:
                summary.add(study, outcome)
                if outcome.status != "skipped":
                    self.ledger.add(_as_study(study, self.store), outcome.size, _outputs(study, self.targets))

    def one(self, study: str) -> Outcome:
        """Encode a study, unless all is there."""
        try:
            read = self._read(study) if self._readers is None else self._taken(study)
            size = sum(path.stat().st_size for view, path in read.paths.items() if view not in read.states)
            for view in read.states:
                array = _array(read.views, view)
                tokens = self._tokens(view, array)
                size += self.targets[view].write(study, read.key, read.regions, tokens)
        except DataFault as fault:
            return Outcome("skipped", code=fault.code, message=str(fault.for_study(study)))
        worst = set(read.states.values())
        renewed = "renewed" if "stale" in worst else "encoded"
        return Outcome(("repaired" if "damaged" in worst else renewed) if worst else "kept", size)

    @torch.no_grad()
    def _tokens(self, view: ViewName, array: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        """(N, H, W, D) fixed point to (N, T, C), as the model would have them in float32."""
        part, window = self.parts[view], self.targets[view].encoding.views.window
        if not len(array):
            return np.empty((0, *self.targets[view].shape), np.float32)
        fixed = torch.from_numpy(array).to(self.device)
        volumes = (fraction(fixed) if view == "geometry" else to_input(fixed, window)).unsqueeze(1)
        tokens: npt.NDArray[np.float32] = part(volumes).float().cpu().numpy()
        return tokens

    def _taken(self, study: str) -> _Read:
        """What was read ahead, and the next ones set going."""
        assert self._readers is not None
        place = self._place[study]
        for following in self._order[place : place + self._ahead]:
            if following not in self._reading:
                self._reading[following] = self._readers.submit(self._read, following)
        for older in [name for name in self._reading if self._place[name] < place]:  # others have done them
            self._reading.pop(older).cancel()
        return self._reading.pop(study).result()

    def _read(self, study: str) -> _Read:
        """The views of what is not there, or not sound; nothing is opened of what has not changed since it was good."""
        regions, key = self.store.regions(study), self.store.index()[study].key
        known = self.ledger.find(_as_study(study, self.store), _outputs(study, self.targets)) is not None
        told = {} if known else self.targets
        states = {view: one.state(study, key, regions, full=True) for view, one in told.items()}
        missing: dict[ViewName, str] = {view: state for view, state in states.items() if state != "good"}
        views = self.store.views(study, self._settings, regions, missing) if missing else None
        return _Read(key, regions, missing, views, {view: one.path(study) for view, one in self.targets.items()})

    @property
    def _settings(self) -> Views:
        return next(iter(self.targets.values())).encoding.views


@dataclass(frozen=True, slots=True)
class _Read:
    """What is known of a study before it is encoded; `states` holds the views that are to be."""

    key: str
    regions: tuple[str, ...]
    states: dict[ViewName, str]
    views: StudyViews | None
    paths: dict[ViewName, Path]


def _array(views: StudyViews | None, view: ViewName) -> npt.NDArray[np.int16]:
    """(N, H, W, D), one volume for the whole image."""
    assert views is not None
    array = {"texture": views.texture, "geometry": views.geometry, "global": views.global_}[view]
    assert array is not None
    assert array.dtype == np.int16
    return array[None] if view == "global" else array  # type: ignore[return-value]


def _readers(workers: int | None, device: str) -> int:
    """A GPU waits for views unless many threads read; a processor encodes on the same cores."""
    if workers is None:
        return min(_MOST_READERS, max(1, usable_cores() - 1)) if device == "cuda" else 1
    if workers < 0:
        raise ConfigError(f"workers is {workers} (expected 0 or more)")
    return workers


def _as_study(study: str, store: Store) -> Study:
    """For the ledger: tokens are made of the study's entry."""
    return Study(study, study, "train", store.native_path(study))


def _outputs(study: str, targets: Mapping[ViewName, EncodedView]) -> list[Path]:
    return [one.path(study) for one in targets.values()]


def _ledger(root: Path, keys: Sequence[str], shard: tuple[int, int], studies: Collection[str]) -> Ledger:
    """What is known of a part's studies, also from runs that had cut the work otherwise."""
    name, mine = f"done-{'-'.join(key[:8] for key in keys)}", set(studies)
    ledger = Ledger.open(root / of_shard(name, shard), tuple(keys))
    for path in sorted(root.glob(f"{name}*.json"), key=lambda path: path.stat().st_mtime):  # the newest counts
        other = Ledger.open(path, tuple(keys)).rows
        ledger.rows |= {study: other[study] for study in other.keys() & mine}
    return ledger


def _is_done(
    study: str, store: Store, targets: Mapping[ViewName, EncodedView], ledger: Ledger, summary: EncodeSummary
) -> bool:
    """Whether no file of a study has changed since its tokens were found good; it is counted then."""
    row = ledger.find(_as_study(study, store), _outputs(study, targets))
    if row is not None:
        summary.add(study, Outcome("kept", int(row.kept)))
    return row is not None


def _given_up(study: str, attempts: int) -> Outcome:
    return Outcome("skipped", code="CRASHED", message=crashed(study, attempts))


@contextlib.contextmanager
def _saved(ledger: Ledger) -> Iterator[None]:
    """Whatever ends the work, what was found good need not be looked at again."""
    try:
        yield
    finally:
        if ledger.changed:
            ledger.save()


def _remove_leftovers(one: EncodedView) -> None:
    """Remove temporary files of runs that were killed, when they are old enough to be nobody's."""
    now = time.time()
    for path in one.folder.glob(".*.tmp.*") if one.folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if now - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _write_summary(path: Path, summary: EncodeSummary) -> None:
    """What has tokens and what has not, and why: the same after one run or after several."""
    skipped = sorted(summary.skipped, key=lambda skip: (skip.study, skip.code))
    write_json(
        path,
        {
            "studies": summary.studies,
            "ready": sum(summary.counts.values()),
            "bytes": summary.size,
            "folders": [folder.name for folder in summary.folders],
            "skipped_by_code": codes_of(skipped),
            "skipped": [asdict(skip) for skip in skipped],
        },
    )
