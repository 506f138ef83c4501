"""Which DICOM files there are: in a folder and below it, in a zip of one, behind a DICOMDIR, or a single file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self, cast

from reg2rg.core.errors import DataFault
from reg2rg.scans.dicom.library import damage, pydicom

_MAGIC = b"DICM"
_PREAMBLE = 128
_DIRECTORY = b"1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR, in its first bytes
_PEEK = 1024
_ZIP = b"PK\x03\x04"
# First tags of data sets that were written without the preamble: group length, character set, image type, SOP class.
_BARE = tuple(b"\x08\x00" + element + b"\x00" for element in (b"\x00", b"\x05", b"\x08", b"\x16"))
_MOST_BYTES = 1 << 31  # of one file in a zip


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of one DICOM file are.

    Attributes:
        path: the file, or the zip that holds it.
        member: its name in the zip, ``""`` for a file.
    """

    path: Path
    member: str = ""


class Opener:
    """Opens sources, in a ``with`` block; a zip stays open from one of its files to the next."""

    def __init__(self) -> None:
        self._archive: zipfile.ZipFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._archive is not None:
            self._archive.close()

    def open(self, source: Source) -> BinaryIO:
        """The bytes of a file, from the first on."""
        if not source.member:
            return open(source.path, "rb")
        if self._archive is None or self._archive.filename != str(source.path):
            self.__exit__()
            self._archive = zipfile.ZipFile(source.path)
        return cast(BinaryIO, self._archive.open(source.member))


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, a folder holds one, or a zip does. Never raises."""
    try:
        if path.is_dir():
            return any(_sniff(_head(file)) for file in _walk(path))
        head = _head(path)
        return _sniff(head) or (head.startswith(_ZIP) and next(_members(path), None) is not None)
    except Exception:  # zipfile and the codecs behind it raise whatever comes of damaged bytes
        return False


def find(path: Path) -> tuple[Source, ...]:
    """All DICOM files at `path`, in the order of their names; a DICOMDIR itself is none of them.

    Raises:
        DataFault: MISSING_FILE, UNREADABLE, CORRUPT, NOT_DICOM (none there).
    """
    try:
        found = tuple(_find(path))
    except FileNotFoundError as error:
        fix = "correct the path, or leave the study out"
        raise DataFault.of("MISSING_FILE", found="no such file", expected="DICOM", fix=fix, path=path) from error
    except (OSError, ValueError) as error:
        found_text = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        fix = "check the path and its permissions"
        raise DataFault.of("UNREADABLE", found=found_text, expected="DICOM", fix=fix, path=path) from error
    except (DataFault, MemoryError):
        raise
    except Exception as error:  # as above
        fix = "download the zip again, or unpack it"
        text = f"a zip that cannot be read ({type(error).__name__}: {error})"
        raise DataFault.of("CORRUPT", found=text, expected="a sound zip", fix=fix, path=path) from error
    if not found:
        fix = "give the folder of the series, a zip of it, its DICOMDIR, or one Enhanced file"
        raise DataFault.of("NOT_DICOM", found="no DICOM file", expected="a DICOM series", fix=fix, path=path)
    return found


def paths(path: Path) -> tuple[Path, ...]:
    """The files on disk that `find` gives, the DICOMDIR or zip itself first; `path` alone if it cannot be read."""
    try:
        found = dict.fromkeys(source.path for source in _find(path))
    except Exception:
        return (path,)
    return tuple(found) if path.is_dir() and found else tuple(dict.fromkeys((path, *found)))


def _find(path: Path) -> Iterator[Source]:
    if path.is_dir():
        for file in _walk(path):
            head = _head(file)
            if _sniff(head) and _DIRECTORY not in head:
                yield Source(file)
        return
    head = _head(path)
    if head.startswith(_ZIP):
        yield from (Source(path, name) for name in _members(path))
    elif _sniff(head) and _DIRECTORY in head:
        yield from _of_directory(path)
    elif _sniff(head):
        yield Source(path)


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def _members(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            if info.is_dir() or info.file_size > _MOST_BYTES or "__MACOSX" in info.filename:
                continue
            with archive.open(info) as stream:
                head = stream.read(_PEEK)
            if _sniff(head) and _DIRECTORY not in head:
                yield info.filename


def _of_directory(path: Path) -> Iterator[Source]:
    """The files that a DICOMDIR names, as they are spelt on disk."""
    with damage(path, "a DICOMDIR"):
        records = pydicom().dcmread(path).DirectoryRecordSequence
        named = [record.ReferencedFileID for record in records if "ReferencedFileID" in record]
    absent = 0
    for parts in named:
        names = [parts] if isinstance(parts, str) else list(parts)
        file = next((file for file in _spellings(path.parent, names) if file.is_file()), None)
        absent += file is None
        if file is not None and file.resolve().is_relative_to(path.parent.resolve()):
            yield Source(file)
    if absent:
        fix = "copy the whole medium, or give the folder of one series"
        found = f"a DICOMDIR that names {len(named)} files, {absent} of which are not there"
        raise DataFault.of("MISSING_FILE", found=found, expected="all of them", fix=fix, path=path)


def _spellings(folder: Path, names: list[str]) -> Iterator[Path]:
    for change in (str, str.lower, str.upper):
        yield folder.joinpath(*map(change, names))


def _head(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(_PEEK)


def _sniff(head: bytes) -> bool:
    return head[_PREAMBLE : _PREAMBLE + 4] == _MAGIC or head.startswith(_BARE)
