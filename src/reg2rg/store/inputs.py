"""What the files that entries are made from hold, told by their contents and read again only where they may differ.

A file with the size, modification time, time of status change and inode of one whose contents are known is taken for
that one: a mask that was rewritten with the size and the date of the old one has another time of status change, which
programs do not set. ``prepare --check-contents`` takes nothing for known.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from reg2rg.core.documents import DocumentError, read_record, write_record
from reg2rg.core.errors import DataFault
from reg2rg.core.files import sha256
from reg2rg.scans.archives import find_member

Stamp = tuple[int, int, int, int]
"""Size in bytes, modification time and time of status change in ns, inode."""
Known = dict[str, tuple[Stamp, str]]
"""Absolute path -> stamp, and SHA-256 of what the file held when it had it."""


def digest(file: Path, known: Mapping[str, tuple[Stamp, str]], seen: Known) -> str | None:
    """SHA-256 of a file's contents, ``None`` for one that cannot be read, which its reader reports.

    Args:
        file: the file.
        known: what earlier runs saw.
        seen: gets what was seen now.
    """
    name = str(file.absolute())
    try:
        inside = find_member(file)
    except DataFault:
        return None
    if inside is not None:  # its digest stands in the archive's index
        archive, member = inside
        seen[name] = archive.stamp, member.digest
        return member.digest
    try:
        status = file.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        before = known.get(name)
        found = before[1] if before is not None and before[0] == stamp else sha256(file)
    except (OSError, ValueError):  # ValueError: a null character in the name
        return None
    seen[name] = stamp, found
    return found


def load_known(root: Path) -> Known:
    """What the runs of a store saw, of all its shards; nothing where their files are absent or damaged.

    Read once by each process, and again when the files change.
    """
    files = sorted(root.glob("inputs*.json"))
    return _read_known(tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@functools.lru_cache(maxsize=1)
def _read_known(files: tuple[tuple[Path, int, int], ...]) -> Known:
    known: Known = {}
    for path, _, _ in files:
        try:
            rows = read_record(path, "run `reg2rg data prepare` again")["files"]
        except (FileNotFoundError, DocumentError):
            continue
        known |= {
            name: ((size, modified, changed, inode), found) for name, size, modified, changed, inode, found in rows
        }
    return known


def save_known(root: Path, name: str, known: Known) -> None:
    """Write what a run saw, atomically."""
    write_record(root / name, {"files": [[path, *stamp, found] for path, (stamp, found) in sorted(known.items())]})
