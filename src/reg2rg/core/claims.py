"""Who works on which item, among processes on many machines that share a folder and nothing else.

An item has at most one holder: a lease, whose file its holder touches, and which others take over once that stops
(`filelock.SoftFileLease`). A holder that was frozen meanwhile and goes on does not know: so each attempt has a token, a
number and a name, written down under the lease, and what it writes is fenced by it (`reg2rg.core.files.fenced`).
What is finished stands in manifests, one a process, of which a line cut short by a kill counts as none.

Engines start jobs anew under the same id, and some twice (Slurm after a preemption, Ray after a kill): tokens tell
attempts apart where job ids do not. An item whose attempts all ended without a word is given up.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from filelock import SoftFileLease, Timeout

from reg2rg.core.documents import DocumentError, parse_json, read_record, write_record
from reg2rg.core.errors import Reg2RGError

CAMPAIGNS = ".campaigns"
"""Folder of campaigns beside what they make."""
COMPLETE = "complete.json"
"""In a campaign's folder, of those whose work ends with one more step: that it was done, when all items were."""
LEASE_SECONDS = 60.0
"""A holder that was not heard of for so long is taken for dead."""
ATTEMPTS = 5
"""An item that so many attempts did not survive is given up."""
_OF_A_JOB = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "RAY_JOB_ID")


@dataclass(frozen=True, slots=True)
class Campaign:
    """One piece of work that several processes share.

    Attributes:
        name: that all of them give it.
        lease: seconds after which a silent process is taken for dead; the same in all of them.
    """

    name: str
    lease: float = LEASE_SECONDS

    def claims(self, folder: Path, facts: Any) -> Claims:
        """Its claims, below a folder that all processes see; another campaign where `facts`, plain data, differ."""
        key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
        return Claims(folder / CAMPAIGNS / f"{self.name}-{key}", self.lease)


class ClaimLostError(Reg2RGError):
    """Another process has taken over, since this one was not heard of for too long."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on an item.

    Attributes:
        item: its name.
        record: file that says whose it is.
        token: of this attempt.
        attempt: counted from 1; those before ended without a word.
    """

    item: str
    record: Path
    token: str
    attempt: int

    def check(self) -> None:
        """Raise where it is no longer ours.

        Raises:
            ClaimLostError: another process has it now.
        """
        if _read(self.record).get("token") != self.token:
            raise ClaimLostError(f"{self.item}: another process has taken over, since this one was not heard of")


class Claims:
    """Claims on the items of one campaign; a context manager, which gives back what it holds.

    Args:
        folder: of the campaign, seen by all who take part.
        seconds: after which a silent holder is taken for dead; the same for all who take part.
        attempts: after which an item is given up.
    """

    def __init__(self, folder: Path, seconds: float = LEASE_SECONDS, attempts: int = ATTEMPTS) -> None:
        self.folder, self.seconds, self.attempts = folder, seconds, attempts
        self._leases: dict[str, SoftFileLease] = {}  # kept while contested: silence is timed by who waits
        self._held: dict[str, Claim] = {}
        self._finished: set[str] = set()
        self._read_to: dict[str, int] = {}  # manifest -> bytes that were looked at
        self._manifest: IO[str] | None = None

    def __enter__(self) -> Self:
        for name in ("leases", "attempts", "manifests"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        failed = kind is not None and issubclass(kind, Exception)
        for claim in list(self._held.values()):
            self.forget(claim) if failed else self.give_back(claim)
        if self._manifest is not None:
            self._manifest.close()

    def take(self, items: Iterable[str], suspects: bool = False) -> Iterator[Claim]:
        """Claim items as they are asked for, those left out that are finished or that another one holds.

        Args:
            items: their names.
            suspects: take those that an attempt did not survive, which are left out otherwise.
        """
        for item in items:
            if item in self._finished or item in self._held or self._record(item).exists() is not suspects:
                continue
            if (claim := self._take(item)) is not None:
                yield claim

    def _record(self, item: str) -> Path:
        return self.folder / "attempts" / f"{item}.json"

    def _take(self, item: str) -> Claim | None:
        path = self.folder / "leases" / f"{item}.lease"
        lease = self._leases.setdefault(
            item, SoftFileLease(path, lease_duration=self.seconds, thread_local=False, is_singleton=False)
        )
        try:
            lease.acquire(blocking=False)
        except Timeout:
            return None
        if item in self.finished():  # looked at under the lease: nobody finishes it from here on
            lease.release()
            del self._leases[item]
            return None
        record = self._record(item)
        attempt = int(_read(record).get("attempt", 0)) + 1
        token = secrets.token_hex(8)
        write_record(record, {"attempt": attempt, "token": token, "since": time.time(), **_who()})
        claim = self._held[item] = Claim(item, record, token, attempt)
        return claim

    def finish(self, claim: Claim, outcome: Mapping[str, Any]) -> None:
        """Write down that an item is done, and give up the claim.

        Args:
            claim: on it.
            outcome: what is to be known of it, plain data.

        Raises:
            ClaimLostError: another process has it now, and will say how it went.
        """
        claim.check()
        if self._manifest is None:
            name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
            self._manifest = open(self.folder / "manifests" / name, "a", encoding="utf-8")  # noqa: SIM115 (see __exit__)
        self._manifest.write(json.dumps({"item": claim.item, **outcome}, ensure_ascii=False) + "\n")
        self._manifest.flush()
        os.fsync(self._manifest.fileno())
        self._finished.add(claim.item)
        self.give_back(claim)

    def settle(self, claim: Claim, outcome: Mapping[str, Any] | None) -> bool:
        """Write down how work under a claim went, if it is still ours.

        Args:
            claim: on the item.
            outcome: as for `finish`; ``None`` if the item is not done: the claim is given back.

        Returns:
            whether it counts: not where another process has taken over before it was written down.
        """
        try:
            self.give_back(claim) if outcome is None else self.finish(claim, outcome)
        except ClaimLostError:
            self.forget(claim)
            return False
        return True

    def held(self, item: str) -> Claim | None:
        """Our claim on an item, ``None`` where there is none."""
        return self._held.get(item)

    def forget(self, claim: Claim) -> None:
        """Let go of a claim; the attempt counts as one that did not survive, if nobody has taken over."""
        self._held.pop(claim.item, None)
        with contextlib.suppress(OSError, RuntimeError):
            self._leases.pop(claim.item).release()

    def give_back(self, claim: Claim) -> None:
        """Let go of a claim as if it had never been."""
        with contextlib.suppress(ClaimLostError):
            claim.check()
            claim.record.unlink(missing_ok=True)
        self.forget(claim)

    def finished(self) -> set[str]:
        """Items that are done, by whichever process."""
        self._finished.update(item for item, _ in self._lines(self._read_to))
        return self._finished

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """Item -> what was written of it when it was done."""
        return dict(self._lines({}))

    def _lines(self, read_to: dict[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The whole lines of all manifests behind what was read of them; `read_to` is moved on."""
        with os.scandir(self.folder / "manifests") as entries:
            paths = sorted(entry.path for entry in entries if entry.name.endswith(".jsonl"))
        for path in paths:
            with open(path, "rb") as stream:
                stream.seek(read_to.get(path, 0))
                for line in stream:
                    if not line.endswith(b"\n"):  # being written, or cut short by a kill
                        break
                    read_to[path] = read_to.get(path, 0) + len(line)
                    entry = parse_json(line.decode(), path, "remove the campaign's folder and run again")
                    yield entry.pop("item"), entry

    def alive(self, items: Iterable[str]) -> bool:
        """Whether all these items are held, and their holders were heard of within `seconds`.

        Ages are told by the clock of the file system, for machines' clocks differ.
        """
        probe = self.folder / f".now-{os.getpid()}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        for item in items:
            try:
                if now - (self.folder / "leases" / f"{item}.lease").stat().st_mtime >= self.seconds:
                    return False
            except FileNotFoundError:
                return False
        return True


def rounds(claims: Claims, items: Iterable[str]) -> Iterator[tuple[Iterator[Claim], bool]]:
    """Claims on what is left, in rounds, until each item is finished or in work elsewhere.

    Items of a process that died are waited for and taken over. Those that an attempt did not survive come alone, so
    that what kills a process takes no others with it.

    Args:
        claims: of the campaign.
        items: names in the order in which to try them.

    Yields:
        claims, taken as they are asked for, all of which are settled before the next round; and whether it is one
        alone.
    """
    left = dict.fromkeys(items)
    while True:
        for name in claims.finished() & left.keys():
            del left[name]
        taken = claims.take(list(left))
        if (first := next(taken, None)) is not None:
            yield itertools.chain([first], taken), False
        elif (first := next(claims.take(list(left), suspects=True), None)) is not None:
            yield iter([first]), True
        elif claims.alive(left):
            return
        else:
            time.sleep(min(1.0, claims.seconds / 10))


def crashed(item: str, attempts: int) -> str:
    """What is said of an item that is given up."""
    return (
        f"CRASHED {item}: {attempts} processes that worked on it ended without a word, most often for want of memory. "
        "Fix: look at its files and at the machine's memory, then run again"
    )


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, DocumentError):
        return read_record(path, "it is written anew")
    return {}


def _who() -> dict[str, Any]:
    """For people who ask what a claim hangs on."""
    job = {name: os.environ[name] for name in _OF_A_JOB if name in os.environ}
    return {"host": socket.gethostname(), "pid": os.getpid(), "job": job}
