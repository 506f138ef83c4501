"""Which entries need not be looked at: no file of the study, input or output, has changed since it was found good.

A study's row names its files and holds one digest over their stamps: size, times of modification and status change,
inode. So a run with nothing to do stats files and reads none. Whatever differs, or is not in the ledger, is looked at
as if there were no ledger.

Where a dataset says what its listing depends on (`reg2rg.datasets.base.Dataset.watched`), a ledger of a run that found
every study good is sealed with those files and folders: while they and the files of all rows are as they were, the run
before is the run again, and not even the listing is made. It is read line by line then, in memory that does not grow.
"""

from __future__ import annotations

import array
import contextlib
import functools
import hashlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from reg2rg.core.documents import DocumentError, RecordLines, write_record_lines
from reg2rg.core.types import LabelMap, RegionFiles, Study
from reg2rg.datasets.base import Dataset
from reg2rg.scans.archives import SUFFIXES, parts_of, through

FORMAT = 4
_SETTLED_NS = 2_000_000_000
"""What is watched must have been left alone for so long before the listing: clocks of file systems tick slowly."""
_LARGEST = (1 << 63) - 1
_TOGETHER = 64
_KIND = 0o170000  # of a file's mode
_UNUSABLE = (FileNotFoundError, DocumentError, KeyError, TypeError, ValueError)
"""What reading a ledger may end with where it is absent, or damaged, which its last line tells."""
_T = TypeVar("_T")
_FIX = "run the command again, which writes it anew"


@dataclass(frozen=True, slots=True)
class Row:
    """A study that was found good.

    Attributes:
        stamp: digest of its files' stamps.
        about: digest of what else its outcome depends on: which file is the mask of which region, labels, rescaling.
        paths: its files: image and masks, what was made of them, then further inputs such as the voxels of a detached
            header.
        kept: what the command wants to know of it, plain values.
        facts: what the stamp is the digest of; empty until it was compared in this run.
    """

    stamp: str
    about: str
    paths: tuple[str, ...]
    kept: Any
    facts: bytes = b""


@dataclass(frozen=True, slots=True)
class Seal:
    """What holds a whole run besides its studies' files.

    Attributes:
        listing: digest of what was listed and how; see `reg2rg.datasets.signature`.
        result: what the command wants to know of the run, plain values.
        watched: files and folders that decided the listing, or that the run wrote.
    """

    listing: str
    result: Any
    watched: Sequence[str]


@dataclass
class Ledger:
    """Rows of studies by id.

    Attributes:
        path: where they are kept.
        settings: whatever decides an outcome beside the files; rows of other settings do not count.
        rows: study id -> row.
        changed: a row was added or has gone.
    """

    path: Path
    settings: str
    rows: dict[str, Row] = field(default_factory=dict)
    changed: bool = False

    @classmethod
    def open(cls, path: Path, settings: object) -> Ledger:
        """The ledger at `path`; empty where there is none, of other settings, or a damaged one.

        Args:
            path: its file.
            settings: plain values whose ``repr`` says all.
        """
        ledger = cls(path, _told(settings))
        with contextlib.suppress(*_UNUSABLE), RecordLines(path, _FIX) as lines:
            if lines.header.get("format") == FORMAT and lines.header["settings"] == ledger.settings:
                found = {}
                every = iter(lines)
                for (_, folder, names, _), rows in zip(every, every, strict=True):
                    paths = iter(_joined(folder, names))
                    for name, stamp, about, count, kept in rows:
                        found[name] = Row(stamp, about, tuple(itertools.islice(paths, count)), kept)
                ledger.rows = found
        return ledger

    def find(self, study: Study, outputs: Iterable[Path] = ()) -> Row | None:
        """The row of a study, if its files are as they were; otherwise it has none any more."""
        row = self.rows.get(study.id)
        if row is None:
            return None
        known = (*_plain(study), *map(str, outputs))
        if row.paths[: len(known)] == known and row.about == _about(study):
            facts = _facts(row.paths)
            if facts is not None and _digest(facts) == row.stamp:
                self.rows[study.id] = replace(row, facts=facts)
                return row
        del self.rows[study.id]
        self.changed = True
        return None

    def add(self, study: Study, kept: object, outputs: Iterable[Path] = (), inputs: Iterable[str] = ()) -> None:
        """Note that a study is good now.

        Args:
            study: which.
            kept: as of `Row`.
            outputs: files that were made of it.
            inputs: every file that was read for it.
        """
        plain = _plain(study)
        further = {path for name in inputs for path in _on_disk(name)}.difference(plain)
        more = sorted(name for name in further if not any(_holds(path, name) for path in plain))
        paths = (*plain, *map(str, outputs), *more)
        facts = _facts(paths)
        if facts is not None:
            self.rows[study.id] = Row(_digest(facts), _about(study), paths, kept, facts)
            self.changed = True

    def holds_all(self, studies: Sequence[Study]) -> bool:
        """Whether every study has a row; rows of others are taken out then."""
        names = {study.id for study in studies}
        if not names <= self.rows.keys():
            return False
        self.rows = {name: row for name, row in self.rows.items() if name in names}
        return True

    def save(self, seal: Seal | None = None) -> None:
        """Write it, atomically.

        Args:
            seal: of a run that found everything good: its studies are those of the rows, and no others. Left out where
                something that is watched has gone.
        """
        header: dict[str, Any] = {"format": FORMAT, "settings": self.settings}
        watched = [] if seal is None else [_Group(some, _facts(some, deep=False)) for some in _few(seal.watched)]
        rows = list(_few(sorted(self.rows.items())))
        groups = [_Group([path for _, row in some for path in row.paths], _all_facts(some)) for some in rows]
        if seal is not None and all(group.facts is not None for group in (*watched, *groups)):
            header |= {"listing": seal.listing, "result": seal.result}
        told = [[[name, row.stamp, row.about, len(row.paths), row.kept] for name, row in some] for some in rows]
        lines = [
            *((group.line(deep=False), []) for group in watched),
            *((group.line(deep=True), some) for group, some in zip(groups, told, strict=True)),
        ]
        write_record_lines(self.path, header, itertools.chain.from_iterable(lines))
        self.changed = False


def seal_of(dataset: object, listing: str | None, result: object, written: Iterable[Path]) -> Seal | None:
    """The seal of a run that found everything good; ``None`` where nothing tells what its listing depends on.

    Args:
        dataset: what was listed.
        listing: as of `Seal`, before it was listed.
        result: as of `Seal`.
        written: what the run wrote, beside files of studies.
    """
    watched = dataset.watched() if isinstance(dataset, Dataset) and listing is not None else None
    if watched is None or listing is None or not isinstance(dataset, Dataset):
        return None
    names = list(map(str, watched))
    return Seal(listing, result, [*names, *map(str, written)]) if _is_settled(names, dataset.began) else None


def unchanged(path: Path, settings: object, listing: str | None) -> Any | None:
    """What a run wants to know of the one before it, where nothing at all has changed since; ``None`` otherwise.

    Args:
        path: the ledger that the run before has sealed.
        settings: as for `Ledger.open`.
        listing: as of `Seal`; ``None`` if nothing tells.
    """
    if listing is None:
        return None
    with contextlib.suppress(*_UNUSABLE), RecordLines(path, _FIX) as lines:
        header = lines.header
        if (header.get("format"), header.get("settings"), header.get("listing")) != (FORMAT, _told(settings), listing):
            return None
        for number, line in enumerate(lines.lines()):
            if number % 2 == 0:  # the other one is about the studies one by one
                stamp, folder, names, deep = lines.value(line)
                if stamp_of(names, folder, deep=deep) != stamp:
                    return None
        return header["result"]
    return None


def _is_settled(paths: Iterable[str], before: int) -> bool:
    """Whether files and folders had been left alone for a while when something began that depends on them.

    Only then does their stamp tell of every change since.

    Args:
        paths: which.
        before: when it began, ns since 1970.
    """
    loose = _loose_devices()
    try:
        for path in paths:
            status = os.stat(path)  # noqa: PTH116
            if max(status.st_mtime_ns, status.st_ctime_ns) > before - _SETTLED_NS or status.st_dev in loose:
                return False
    except OSError:
        return False
    return True


def _loose_devices() -> set[int]:
    """Devices whose file systems may not keep the times of folders: those in user space, such as of object stores."""
    found = set()
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.partition(" - ")[2].startswith(("fuse ", "fuse.")):
                major, minor = line.split(maxsplit=3)[2].split(":")
                found.add(os.makedev(int(major), int(minor)))
    return found


def _told(settings: object) -> str:
    return hashlib.sha256(repr((FORMAT, settings)).encode("utf-8", "surrogatepass")).hexdigest()


def _plain(study: Study) -> tuple[str, ...]:
    named = [str(study.image), *_mask_files(study)]
    if any(f"{suffix}{os.sep}" in name for name in named for suffix in SUFFIXES):
        return tuple(dict.fromkeys(path for name in named for path in _on_disk(name)))
    return tuple(named)


def _mask_files(study: Study) -> list[str]:
    masks = study.masks
    if masks is None:
        return []
    if isinstance(masks, LabelMap):
        return [str(masks.file)]
    return [str(path) for paths in masks.parts().values() for path in paths]


def _on_disk(name: str) -> tuple[str, ...]:
    """A file; of one in an archive, the archive's files."""
    place = through(Path(name))
    return (name,) if place is None else tuple(map(str, parts_of(place[0])))


def _about(study: Study) -> str:
    masks = study.masks
    shape: object = None
    if isinstance(masks, LabelMap):
        shape = tuple(masks.labels.items())
    elif masks is not None:
        files = masks.files if isinstance(masks, RegionFiles) else masks.parts()
        shape = tuple((name, len(found) if isinstance(found, tuple) else 1) for name, found in files.items())
    packed = tuple(name for name in _mask_files(study) if any(f"{suffix}{os.sep}" in name for suffix in SUFFIXES))
    return _digest_of(type(masks).__name__, shape, study.row, study.rescale, packed)


@functools.lru_cache(maxsize=4096)  # many studies, few kinds of them
def _digest_of(*facts: object) -> str:
    return hashlib.blake2b(repr(facts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class _Group:
    """Files that are compared at once, which is quicker than one study after another.

    Attributes:
        paths: the files.
        facts: of them; ``None`` where one is not there or was not looked at.
    """

    paths: Sequence[str]
    facts: bytes | None

    def line(self, *, deep: bool) -> list[object]:
        """As it is written: their stamp, the folder that all lie in, their names from there, and whether to look in."""
        folder = os.path.commonprefix([*self.paths]).rpartition("/")[0]  # noqa: RUF071 (paths are kept to the letter)
        names = [path[len(folder) + 1 :] for path in self.paths] if folder else [*self.paths]
        if any(name.startswith("/") for name in names):  # behind two slashes; it would count as a whole path
            folder, names = "", [*self.paths]
        return [None if self.facts is None else _digest(self.facts), folder, names, deep]


def _few(things: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(things)
    while some := list(itertools.islice(rest, _TOGETHER)):
        yield some


def _all_facts(rows: Iterable[tuple[str, Row]]) -> bytes | None:
    facts = [row.facts for _, row in rows]
    return b"".join(facts) if all(facts) else None


def _joined(folder: str, names: Iterable[str]) -> list[str]:
    return [f"{folder}/{name}" for name in names] if folder else [*names]


def stamp_of(names: Sequence[str], folder: str = "", *, deep: bool = True) -> str | None:
    """Digest of the stamps of files; ``None`` where one is not there.

    Args:
        names: the files. What is a folder stands for all in it too, so that one that is added is noticed.
        folder: that they lie in; not "" is quicker than whole paths.
        deep: look into folders. Without it a folder is one entry, which changes when something is added or taken away.
    """
    facts = _facts(names, folder, deep=deep)
    return None if facts is None else _digest(facts)


def stamp_of_folder(folder: Path) -> str:
    """Digest of the names and stamps of all files of a folder; those that are being written are left out.

    In the order in which the folder lists them: that is one order where nothing changes, and takes no memory.

    Args:
        folder: one that is not there is an empty one.
    """
    found = hashlib.blake2b(digest_size=16)
    with contextlib.suppress(FileNotFoundError), _opened(str(folder)) as opened, os.scandir(opened) as entries:
        for some in _few(entry for entry in entries if entry.name[0] != "."):
            found.update("/".join([entry.name for entry in some]).encode("utf-8", "surrogatepass") + b"/")
            found.update(array.array("q", [number for entry in some for number in _numbers(entry.stat())]).tobytes())
    return found.hexdigest()


def _facts(names: Sequence[str], folder: str = "", *, deep: bool = True) -> bytes | None:
    """What `stamp_of` is the digest of; of several files that of each, one behind the other."""
    found: list[int] = []
    data = b""
    try:
        with _opened(folder) as opened:
            for name in names:
                status = os.stat(name, dir_fd=opened)
                found += _numbers(status)
                if deep and status.st_mode & _KIND == stat.S_IFDIR:
                    with os.scandir(f"{folder}/{name}" if folder else name) as entries:
                        inside = sorted(entry.path for entry in entries)
                    told = repr([*inside, *(stamp_of([entry]) or "" for entry in inside)])
                    data += array.array("q", found).tobytes() + told.encode("utf-8", "surrogatepass")
                    found = []
    except OSError:
        return None
    return data + array.array("q", found).tobytes()


def _numbers(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _LARGEST


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int | None]:
    """A folder, in which files are found quicker than by their whole paths; ``None`` for ``""``, whole paths."""
    opened = os.open(folder, os.O_RDONLY) if folder else None
    try:
        yield opened
    finally:
        if opened is not None:
            os.close(opened)


def _digest(facts: bytes) -> str:
    return hashlib.blake2b(facts, digest_size=16).hexdigest()


def _holds(folder: str, name: str) -> bool:
    return name.startswith(folder + os.sep)
