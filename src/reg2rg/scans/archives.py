"""Files inside ``.tar.gz`` archives, also ones split in parts, read one study at a time and never unpacked.

A file in an archive has a path through it, ``train_region_mask.tar.gz/seg_train_1_a_1/lung.nii.gz``: the archive's name
stands for a folder. (The last two names count: what folders the tar puts before them differs.) Whatever reads files of
masks takes such a path.

gzip can be read from its beginning alone. One pass over an archive keeps an index beside it: where each file lies, its
SHA-256, and points from which inflating can start (`indexed_gzip`), 16 MiB apart. The index is whole or absent, holds
the size and date of the archive's parts and is made anew where they differ.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import logging
import os
import re
import sqlite3
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import indexed_gzip

from reg2rg.core.errors import DataFault
from reg2rg.core.files import atomic_write
from reg2rg.core.progress import progress

log = logging.getLogger(__name__)

SUFFIXES = (".tar.gz", ".tgz")
INDEX = ".index"
"""Behind the archive's name, the index's."""
_FORMAT = 1
_SPACING = 16 << 20  # bytes between two points, each of which takes 32 KiB
_CHUNK = 1 << 20
_END = 2 * tarfile.BLOCKSIZE  # zero bytes behind the last file
_PART = re.compile(r"[._-]?(?:part)?[._-]?([a-z]{2}|\d{1,4})")
_KNOWN_FOLDERS = 2  # a study's and the one before
_AGAIN = "download the archive, or that part of it, again"
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE points (data BLOB);
CREATE TABLE files (folder TEXT, name TEXT, offset INTEGER, size INTEGER, digest TEXT, PRIMARY KEY (folder, name))
WITHOUT ROWID;
"""

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        name: of the file, without its folders.
        offset: of its first byte in the inflated archive.
        size: bytes.
        digest: SHA-256 of its bytes, in hexadecimal.
    """

    name: str
    offset: int
    size: int
    digest: str


class Archive:
    """One ``.tar.gz``, whole or in parts.

    Args:
        path: the archive, or what the names of its parts begin with (``x.tar.gz`` of ``x.tar.gz.part-aa``).

    Raises:
        DataFault: ARCHIVE_PART, a part is missing between others; MISSING_FILE.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = parts_of(path)
        if not self.parts:
            raise DataFault.of(
                "MISSING_FILE", found="no such archive", expected="a .tar.gz or its parts", fix="the path", path=path
            )
        status = [part.stat() for part in self.parts]
        self._facts = json.dumps(
            [[part.name, one.st_size, one.st_mtime_ns] for part, one in zip(self.parts, status, strict=True)]
        )
        self.stamp: Stamp = (
            sum(one.st_size for one in status),
            max(one.st_mtime_ns for one in status),
            max(one.st_ctime_ns for one in status),
            status[0].st_ino,
        )
        self._index: sqlite3.Connection | None = None
        self._stream: Any = None

    def members(self, folder: str) -> dict[str, Member]:
        """Name -> file, of the files of a folder, in the order in which they lie in the archive.

        Raises:
            DataFault: as `index`.
        """
        query = "SELECT name, offset, size, digest FROM files WHERE folder = ? ORDER BY offset"
        return {row[0]: Member(*row) for row in self.index().execute(query, (folder,))}

    def folders(self) -> list[str]:
        """Names of all folders that hold a file, sorted.

        Raises:
            DataFault: as `index`.
        """
        return [row[0] for row in self.index().execute("SELECT DISTINCT folder FROM files ORDER BY folder")]

    def read(self, folder: str) -> dict[str, tuple[Member, bytes]]:
        """All files of a folder, name -> bytes: those of a study lie beside each other.

        Raises:
            DataFault: TRUNCATED or CORRUPT, naming the archive.
        """
        stream = self._open()
        found = {}
        for member in self.members(folder).values():
            try:
                stream.seek(member.offset)
                data = stream.read(member.size)
            except Exception as error:  # whatever zlib and the library make of damaged bytes
                raise self._damaged(f"cannot be inflated at {folder}/{member.name} ({error})") from None
            found[member.name] = member, data
        return found

    def index(self) -> sqlite3.Connection:
        """The index, made first if there is none that fits.

        Raises:
            DataFault: TRUNCATED, CORRUPT: the archive cannot be read to its end; there is no index then.
        """
        if self._index is None:
            kept = next((one for place in self._places() if (one := self._kept(place)) is not None), None)
            self._index = kept or self._make()
        return self._index

    def _places(self) -> tuple[Path, Path]:
        """Beside the archive; where that cannot be written, in the user's cache."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reg2rg" / "archives"
        name = hashlib.sha256(str(self.path.absolute()).encode()).hexdigest()[:24]
        return self.path.with_name(self.path.name + INDEX), cache / f"{name}{INDEX}"

    def _kept(self, place: Path) -> sqlite3.Connection | None:
        """The index at a place, ``None`` where it is absent, damaged, or of other bytes."""
        if not place.is_file():
            return None
        try:
            found = sqlite3.connect(
                f"{place.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            facts = dict(found.execute("SELECT name, value FROM facts"))
            if facts == self._expected_facts():
                return found
            found.close()
        except sqlite3.Error:
            pass
        log.warning("%s: is of other bytes than %s has now, or damaged; it is made anew", place, self.path)
        return None

    def _expected_facts(self) -> dict[str, str]:
        return {"format": str(_FORMAT), "parts": self._facts}

    def _make(self) -> sqlite3.Connection:
        """One pass over the archive; the index is written once the pass has ended well."""
        made = sqlite3.connect(":memory:", check_same_thread=False)
        made.executescript(_SCHEMA)
        made.executemany("INSERT INTO facts VALUES (?, ?)", self._expected_facts().items())
        try:
            stream = indexed_gzip.IndexedGzipFile(fileobj=self._raw(), spacing=_SPACING)
        except Exception as error:  # of what is no gzip
            raise self._damaged(f"cannot be opened ({error})") from None
        with progress(f"reading {self.path.name} once, for its index") as step:
            for folder, member in self._walk(stream):
                made.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (folder, *_row(member)))
                step(f"reading {self.path.name} once, for its index: {member.offset / 1e9:.1f} GB")
        points = io.BytesIO()
        stream.export_index(fileobj=points)
        made.execute("INSERT INTO points VALUES (?)", (points.getvalue(),))
        made.commit()
        data = made.serialize()
        for place in self._places():
            with contextlib.suppress(OSError):
                with atomic_write(place) as out:
                    out.write(data)
                break
        else:
            log.warning("%s: its index can be written nowhere; it is made in every process", self.path)
        return made

    def _walk(self, stream: Any) -> Iterator[tuple[str, Member]]:
        """Folder and place of each file, from the first byte to the last without a step back.

        Only so are the checksums of gzip verified.

        Raises:
            DataFault: TRUNCATED, CORRUPT.
        """
        watched, end = _Watched(stream), 0
        try:
            with tarfile.open(fileobj=cast(IO[bytes], watched), mode="r|", bufsize=_CHUNK) as tar:
                for entry in tar:
                    end = entry.offset_data
                    file = None if entry.issparse() or not entry.isreg() else tar.extractfile(entry)
                    if file is not None:  # links lead nowhere from here
                        place = PurePosixPath(entry.name)
                        yield place.parent.name, Member(place.name, end, entry.size, _digest(file, entry))
            while watched.read(_CHUNK):
                pass
        except Exception as error:  # whatever zlib, the library and tarfile make of damaged bytes
            found = f"is damaged, or ends too early, behind byte {end} of what is inflated"
            raise self._damaged(f"{found} ({type(error).__name__}: {error})") from None
        # tarfile takes an early end of the bytes for the end of the archive, and so does indexed_gzip.
        if watched.last != bytes(_END):
            raise self._damaged("ends before the archive does", "TRUNCATED")

    def _damaged(self, found: str, code: str = "CORRUPT") -> DataFault:
        names = ", ".join(part.name for part in self.parts)
        return DataFault.of(code, found=f"{names} {found}", expected="a whole .tar.gz", fix=_AGAIN, path=self.path)

    def _raw(self) -> io.BufferedReader:
        return io.BufferedReader(_Joined(self.parts), _CHUNK)

    def _open(self) -> Any:
        """The inflated archive, from any byte on."""
        if self._stream is None:
            [points] = self.index().execute("SELECT data FROM points").fetchone()
            stream = indexed_gzip.IndexedGzipFile(fileobj=self._raw(), spacing=_SPACING)
            try:
                stream.import_index(fileobj=io.BytesIO(points))
            except Exception as error:  # of a damaged index
                place = self._places()[0]
                raise self._damaged(f"cannot be read by {place.name} ({error}); delete that file") from None
            self._stream = stream
        return self._stream


class _Joined(io.RawIOBase):
    """Several files as one."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._files = [open(part, "rb", buffering=0) for part in parts]  # noqa: SIM115 (closed below)
        self._ends = list(accumulate(part.stat().st_size for part in parts))
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ends[-1]}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        number = next((number for number, end in enumerate(self._ends) if self._place < end), None)
        if number is None:
            return 0
        file = self._files[number]
        file.seek(self._place - (self._ends[number - 1] if number else 0))
        count = file.readinto(buffer) or 0
        self._place += count
        return count

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


class _Watched:
    """A stream whose last bytes are kept."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.last = stream, b""

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self.last = (self.last + data[-_END:])[-_END:]
        return data


def _digest(file: IO[bytes], entry: tarfile.TarInfo) -> str:
    digest, left = hashlib.sha256(), entry.size
    while left:
        data = file.read(min(left, _CHUNK))
        if not data:
            raise EOFError(f"{entry.name} lacks {left} of its {entry.size} bytes")
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


def _row(member: Member) -> tuple[str, int, int, str]:
    return member.name, member.offset, member.size, member.digest


# ---- paths through an archive


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files that an archive is made of, in order: itself, or its parts; none if it is not there.

    Raises:
        DataFault: ARCHIVE_PART, a part is missing.
    """
    if path.is_file():
        return (path,)
    if not path.name.lower().endswith(SUFFIXES) or not path.parent.is_dir():
        return ()
    beside = (entry for entry in path.parent.iterdir() if entry.name.startswith(path.name) and entry.is_file())
    found = {match[1]: part for part in beside if (match := _PART.fullmatch(part.name[len(path.name) :]))}
    numbers = sorted(_number(word) for word in found)
    if numbers:
        first = min(numbers[0], 1) if next(iter(found)).isdigit() else 0
        missing = sorted(set(range(first, numbers[-1] + 1)) - set(numbers))
        if missing:
            raise DataFault.of(
                "ARCHIVE_PART",
                found=f"{len(found)} parts ({', '.join(found[word].name for word in sorted(found))}), and none "
                f"of number {', '.join(str(number - first + 1) for number in missing)}",
                expected="all parts, without a gap",
                fix="download the missing part",
                path=path,
            )
    return tuple(found[word] for word in sorted(found, key=_number))


def _number(word: str) -> int:
    """Place of a part in the alphabet of ``split``: ``aa`` -> 0, ``ab`` -> 1; a number is itself."""
    if word.isdigit():
        return int(word)
    return (ord(word[0]) - ord("a")) * 26 + ord(word[1]) - ord("a")


def through(path: Path) -> tuple[Path, str] | None:
    """The archive that a path leads through, and what follows it; ``None`` for a path that leads through none."""
    if not any(f"{suffix}{os.sep}" in str(path) for suffix in SUFFIXES):
        return None
    for parent in path.parents:
        if parent.name.lower().endswith(SUFFIXES) and not parent.is_dir():
            return parent, path.relative_to(parent).as_posix()
    return None


def find_member(path: Path) -> tuple[Archive, Member] | None:
    """The file in an archive that a path names, ``None`` if it leads through none, or there is no such file.

    Raises:
        DataFault: an archive that cannot be read.
    """
    place = through(path)
    if place is None:
        return None
    archive = _archive(place[0])
    member = archive.members(path.parent.name).get(path.name)
    return None if member is None else (archive, member)


def read_member(path: Path) -> bytes | None:
    """The bytes of a file in an archive, held to its digest; ``None`` if the path names none.

    Raises:
        DataFault: TRUNCATED, CORRUPT.
    """
    found = find_member(path)
    if found is None:
        return None
    archive, _ = found
    member, data = _folder(archive, path.parent.name)[path.name]
    if hashlib.sha256(data).hexdigest() != member.digest:
        raise archive._damaged(f"has other bytes at {path.parent.name}/{path.name} than when its index was made")
    return data


def folder_files(folder: Path) -> list[Path]:
    """The files of a folder, or of a folder in an archive, sorted; none if it is neither.

    Raises:
        DataFault: an archive that cannot be read.
    """
    place = through(folder)
    if place is not None:
        return [folder / name for name in sorted(_archive(place[0]).members(folder.name))]
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError):
        return []


def _archive(path: Path) -> Archive:
    return _opened(path, os.getpid())


@functools.lru_cache(maxsize=8)
def _opened(path: Path, process: int) -> Archive:
    """Opened once a process: a forked one must not share its parent's place in the file."""
    return Archive(path)


@functools.lru_cache(maxsize=_KNOWN_FOLDERS)
def _folder(archive: Archive, folder: str) -> Mapping[str, tuple[Member, bytes]]:
    return archive.read(folder)
