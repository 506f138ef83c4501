"""Which entries need not be looked at: no file of the study, input or output, has changed since it was found good.

A study's row is one digest over what it is made of and the stamp of each of its files: size, times of modification and
status change, inode. So a run with nothing to do stats files and reads none. Whatever differs, or is not in the ledger,
is looked at as if there were no ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reg2rg.core.documents import DocumentError, read_record, write_record
from reg2rg.core.types import LabelMap, Study

FORMAT = 2
_FIX = "run the command again, which writes it anew"


@dataclass(frozen=True, slots=True)
class Row:
    """A study that was found good.

    Attributes:
        stamp: digest of its files.
        more: inputs beside the image and mask files themselves, such as the voxels of a detached header.
        kept: what the command wants to know of it, plain values.
    """

    stamp: str
    more: tuple[str, ...]
    kept: Any


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
        asked = hashlib.sha256(repr((FORMAT, settings)).encode("utf-8", "surrogatepass")).hexdigest()
        ledger = cls(path, asked)
        with contextlib.suppress(FileNotFoundError, DocumentError, KeyError, TypeError, ValueError):
            found = read_record(path, _FIX)
            if found["settings"] == asked:
                ledger.rows = {
                    name: Row(stamp, tuple(more), kept) for name, (stamp, more, kept) in found["rows"].items()
                }
        return ledger

    def find(self, study: Study, outputs: Iterable[Path] = ()) -> Row | None:
        """The row of a study, if its files are as they were; otherwise it has none any more."""
        row = self.rows.get(study.id)
        if row is None:
            return None
        if stamp_of(study, outputs, row.more) == row.stamp:
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
        plain = {str(path) for path in _plain(study)}
        more = tuple(sorted(name for name in set(inputs) - plain if not any(_holds(path, name) for path in plain)))
        stamp = stamp_of(study, outputs, more)
        if stamp is not None:
            self.rows[study.id] = Row(stamp, more, kept)
            self.changed = True

    def save(self, extra: Mapping[str, object] | None = None) -> None:
        """Write it, atomically."""
        rows = {name: [row.stamp, list(row.more), row.kept] for name, row in sorted(self.rows.items())}
        write_record(self.path, {"settings": self.settings, "rows": rows, **(extra or {})})


def stamp_of(study: Study, outputs: Iterable[Path], more: Iterable[str]) -> str | None:
    """Digest of the stamps of all files of a study; ``None`` where one is not there."""
    masks = study.masks
    labels = sorted(masks.labels.items()) if isinstance(masks, LabelMap) else None
    facts: list[object] = [labels, study.row]
    try:
        for path in (*_plain(study), *outputs, *more):
            facts += _stamps(str(path))
    except OSError:
        return None
    return hashlib.blake2b(repr(facts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _plain(study: Study) -> Iterator[Path]:
    yield study.image
    masks = study.masks
    if isinstance(masks, LabelMap):
        yield masks.file
    elif masks is not None:
        for paths in masks.parts().values():
            yield from paths


def _stamps(path: str) -> Iterator[tuple[object, ...]]:
    """Of a file; of a folder, of it and of all in it, so that one that is added is noticed."""
    status = os.stat(path)  # noqa: PTH116 (of text: half the time, for as many files as there are)
    yield path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as entries:
            inside = sorted(entry.path for entry in entries)
        for entry in inside:
            yield from _stamps(entry)


def _holds(folder: str, name: str) -> bool:
    return name.startswith(folder + os.sep)
