"""What a listener keeps on disk: studies as they come, the queue, and what was refused. Every step survives a kill.

```
studies/<key>/ct/<instance>-<content>.dcm   slices; keys and names are hashes of UIDs and of bytes
studies/<key>/other/                        what is no CT, such as our own results that come back: starts nothing
studies/<key>/state.json                    what became of them, see `State`
queue/<time>-<key>.json                     complete studies, oldest first
quarantine/                                 what was refused, beside a text that says why
incoming/, work/                            files and studies that are being written and read
```
A slice is in `studies`, and its folder on disk, before its sender is told so. The content of a study is the list of its
file names, so that what came twice is the same study and a slice that came late makes another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from reg2rg.core.documents import parse_json
from reg2rg.core.errors import ConfigError
from reg2rg.core.files import atomic_write, sha256, sync_folder, write_json

Status = Literal["", "made", "done", "failed"]


@dataclass(slots=True)
class State:
    """What became of a study.

    Attributes:
        fingerprint: of the content that this is about.
        status: ``"made"``, the results are there; ``"done"``, and sent where they are to go; ``"failed"``.
        reason: why it failed.
        result: name of the folder of results.
        sent: SOPInstanceUID -> ``"sending"`` before, ``"sent"`` after it was answered with success.
        tries: how often sending failed.
        next_try: not before then, seconds since the epoch.
        crashes: how often the worker died with this content.
        finished: when it was done or failed, seconds since the epoch.
    """

    fingerprint: str = ""
    status: Status = ""
    reason: str = ""
    result: str = ""
    sent: dict[str, str] = field(default_factory=dict)
    tries: int = 0
    next_try: float = 0.0
    crashes: int = 0
    finished: float = 0.0


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A complete study that waits.

    Attributes:
        path: its file in the queue.
        key: the study's.
    """

    path: Path
    key: str


def key_of(uid: str) -> str:
    """The name of a study in the spool: a hash of its UID."""
    return hashlib.sha256(uid.encode()).hexdigest()[:20]


class Spool:
    """The folder of a listener."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("studies", "queue", "quarantine", "incoming", "work"):
            (root / name).mkdir(parents=True, exist_ok=True)
        root.chmod(0o700)
        self._lock = threading.Lock()
        self._known: dict[Path, dict[str, tuple[str, int]]] = {}

    def folder(self, key: str, *names: str) -> Path:
        """A study's folder, or one below it."""
        return self.root.joinpath("studies", key, *names)

    def keep(self, file: Path, key: str, instance: str, ct: bool) -> tuple[bool, int]:
        """Move a received file into its study, durably: when this returns, no kill loses it.

        Args:
            file: the file, on the disk of the spool.
            key: the study.
            instance: SOPInstanceUID. A later file with the same UID and other bytes replaces the one before.
            ct: whether it is a slice of a CT.

        Returns:
            whether the study has other content now, and its bytes.
        """
        folder = self.folder(key, "ct" if ct else "other")
        digest, size = sha256(file), file.stat().st_size
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
        with self._lock:
            known = self._index(folder)
            before = known.get(key_of(instance))
            name = f"{key_of(instance)}-{digest[:16]}.dcm"
            if before is not None and before[0] == name:
                file.unlink()
                return False, _bytes(known)
            file.rename(folder / name)
            if before is not None:
                (folder / before[0]).unlink(missing_ok=True)
            known[key_of(instance)] = (name, size)
        sync_folder(folder)
        return True, _bytes(known)

    def _index(self, folder: Path) -> dict[str, tuple[str, int]]:
        """Instance -> name and size of its file, listed once a folder."""
        if folder not in self._known:
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
            sync_folder(folder.parent.parent)
            files = [file for file in folder.iterdir() if file.suffix == ".dcm"]
            self._known[folder] = {file.name[:20]: (file.name, file.stat().st_size) for file in files}
        return self._known[folder]

    def size(self, key: str) -> int:
        """Bytes of a study's slices."""
        with self._lock:
            return _bytes(self._index(self.folder(key, "ct")))

    def forget(self, key: str) -> None:
        """Drop what is known of a study's files from memory; the disk has it."""
        with self._lock:
            for name in ("ct", "other"):
                self._known.pop(self.folder(key, name), None)

    def slices(self, key: str) -> list[Path]:
        """The files of a study's CT."""
        folder = self.folder(key, "ct")
        return sorted(folder.glob("*.dcm")) if folder.is_dir() else []

    def fingerprint(self, key: str) -> str:
        """What the study consists of, ``""`` without a slice."""
        names = "\n".join(file.name for file in self.slices(key))
        return hashlib.sha256(names.encode()).hexdigest() if names else ""

    def state(self, key: str) -> State:
        """What became of a study; of one that is new, nothing."""
        path = self.folder(key, "state.json")
        try:
            values = parse_json(path.read_text(encoding="utf-8"), str(path))
            return State(**values)
        except (FileNotFoundError, ConfigError, TypeError):
            return State()

    def save(self, key: str, state: State) -> None:
        """Write it down, durably."""
        write_json(self.folder(key, "state.json"), asdict(state))

    def studies(self) -> list[str]:
        """The keys of all studies."""
        return sorted(folder.name for folder in (self.root / "studies").iterdir())

    def enqueue(self, key: str, again: bool = False) -> bool:
        """Put a complete study at the end of the queue, unless its content was reported on.

        Args:
            key: the study.
            again: try what failed once more.
        """
        self.forget(key)
        found, state = self.fingerprint(key), self.state(key)
        known = state.fingerprint == found and state.status and not (state.status == "failed" and again)
        if not found or known:
            return False
        if state.fingerprint == found:
            self.save(key, State(sent=state.sent))
        write_json(self.root / "queue" / f"{time.time_ns():020d}-{key}.json", {"study": key})
        return True

    def entries(self) -> list[Entry]:
        """The studies that wait, the oldest first."""
        files = (self.root / "queue").glob("*.json")
        return sorted(Entry(file, file.stem.partition("-")[2]) for file in files if not file.name.startswith("."))

    def drop(self, entry: Entry) -> None:
        """Take a study that is done out of the queue."""
        entry.path.unlink(missing_ok=True)
        sync_folder(entry.path.parent)

    def frozen(self, key: str) -> tuple[Path, str]:
        """The slices as they are now in a folder of their own, by hard links, and their fingerprint."""
        folder = self.root / "work" / key
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in self.slices(key):
            with contextlib.suppress(FileNotFoundError):  # replaced in this moment by a later one
                os.link(file, folder / file.name)
        names = "\n".join(sorted(file.name for file in folder.iterdir()))
        return folder, hashlib.sha256(names.encode()).hexdigest() if names else ""

    def refuse_file(self, file: Path, why: str) -> Path:
        """Keep a file that is none of a study, beside a text that says why."""
        kept = self.root / "quarantine" / f"{time.time_ns():020d}.dcm"
        file.rename(kept)
        with atomic_write(kept.with_suffix(".txt"), "w") as stream:
            stream.write(why + "\n")
        return kept

    def refuse_study(self, key: str, why: str) -> Path:
        """Keep the slices of a study that cannot be reported on, beside a text that says why."""
        folder = self.root / "quarantine" / key
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "ct").mkdir(parents=True)
        for file in self.slices(key):
            os.link(file, folder / "ct" / file.name)
        with atomic_write(folder / "reason.txt", "w") as stream:
            stream.write(why + "\n")
        return folder

    def accept_study(self, key: str) -> None:
        """A study that was refused before is none of those any more."""
        shutil.rmtree(self.root / "quarantine" / key, ignore_errors=True)

    def clean(self, before: float) -> int:
        """Remove the slices of studies that were done before a time; what became of them is kept."""
        removed = 0
        for key in self.studies():
            state = self.state(key)
            if state.status not in ("done", "failed") or state.finished >= before:
                continue
            gone = self.root / "work" / f"{key}.old"
            with self._lock:  # no slice comes between the look and the move
                if not self.slices(key) or state.fingerprint != self.fingerprint(key):
                    continue
                gone.mkdir(exist_ok=True)
                for name in ("ct", "other"):
                    self._known.pop(self.folder(key, name), None)
                    if self.folder(key, name).is_dir():
                        self.folder(key, name).rename(gone / name)
            shutil.rmtree(gone)
            removed += 1
        return removed

    def free(self) -> int:
        """Bytes that are free on the spool's disk."""
        return shutil.disk_usage(self.root).free


def _bytes(known: dict[str, tuple[str, int]]) -> int:
    return sum(size for _, size in known.values())


@contextlib.contextmanager
def only_one(path: Path, wait: bool) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends.

    Raises:
        ConfigError: another process holds it, and `wait` is off.
    """
    import fcntl

    with open(path, "w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ConfigError(
                f"{path.parent}: another listener uses this spool. Fix: end it, or name another"
            ) from None
        yield


def running(path: Path) -> dict[str, Any] | None:
    """What a worker says it is doing, ``None`` if nothing."""
    try:
        values = parse_json(path.read_text(encoding="utf-8"), str(path))
        return dict(values) if isinstance(values, dict) else None
    except (FileNotFoundError, ConfigError):
        return None
