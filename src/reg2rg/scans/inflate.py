"""The bytes of an image file, whole or not at all: content sniffed, gzip inflated to its last byte, checksum verified.

Common readers stop before the gzip trailer and so return damaged volumes without a word. Here every byte is read, each
member's CRC-32 and length are checked by isal, and what is left over is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from isal import igzip_lib

from reg2rg.core.errors import DataFault
from reg2rg.scans.archives import read_member
from reg2rg.scans.base import known_kinds

GZIP_MAGIC = b"\x1f\x8b"
PEEK_BYTES = 1024
_CHUNK = 1 << 24
_IsalError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub declares an instance
_AGAIN = "download or export the file again"

# What people save by mistake under the name of a volume: first bytes -> code, what it is, remedy.
_STRANGERS = (
    (b"version https://git-lfs", "LFS_POINTER", "a git-LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"/annex/objects/", "LFS_POINTER", "a git-annex pointer, not the file itself", "run `git annex get`"),
    (b"<", "HTML_PAGE", "a web page or XML text", "open it to see the server's message, then download again"),
    (b"{", "NOT_NIFTI", "JSON text", _AGAIN),
    (b"PK\x03\x04", "NOT_NIFTI", "a zip archive", "unpack it"),
    (b"\x93NUMPY", "NOT_NIFTI", "a NumPy array", "save it as NIfTI, with its affine"),
    (b"\x28\xb5\x2f\xfd", "NOT_NIFTI", "a zstd archive", "unpack it"),
)


def read_bytes(path: Path, expected_size: Callable[[bytes], int]) -> tuple[bytes, tuple[str, ...]]:
    """Read a plain or gzipped file completely, by its content and not by its name.

    Args:
        path: the file.
        expected_size: from the first `PEEK_BYTES` inflated bytes, the number of bytes that header and voxels take.
            May raise a `DataFault`, which is raised only if the gzip stream itself is sound: damage explains it better.

    Returns:
        the inflated bytes, exactly `expected_size` many, and notes (a wrong suffix).

    Raises:
        DataFault: MISSING_FILE, UNREADABLE, EMPTY_FILE, LFS_POINTER, HTML_PAGE, NOT_NIFTI, TRUNCATED, CORRUPT,
            SIZE_MISMATCH, or what `expected_size` raises.
    """
    data = read_file(path)
    notes = []
    gzipped = data[:2] == GZIP_MAGIC
    if gzipped != (path.suffix.lower() == ".gz"):
        notes.append(f"{path.name} is {'gzipped' if gzipped else 'not gzipped'} in spite of its name")
    if not gzipped:
        _refuse_strangers(data, path)
        size = expected_size(data[:PEEK_BYTES])
        check_size(len(data), size, path)
        return data, tuple(notes)
    head = b"".join(_Members(data, path).upto(PEEK_BYTES))
    try:
        _refuse_strangers(head, path)
        size = expected_size(head)
    except DataFault:
        _Members(data, path).drain()
        raise
    return inflate(data, size, path), tuple(notes)


def first_bytes(path: Path) -> bytes:
    """The first `PEEK_BYTES` at most, inflated if they are gzipped; none of what cannot be read."""
    try:
        data = read_member(path)
        if data is None:
            with open(path, "rb") as stream:
                data = stream.read(2 * PEEK_BYTES)
        return b"".join(_Members(data, path).upto(PEEK_BYTES)) if data[:2] == GZIP_MAGIC else data[:PEEK_BYTES]
    except (OSError, ValueError, DataFault):
        return b""


def refuse(path: Path) -> NoReturn:
    """Say why a file that no reader knows is none.

    Raises:
        DataFault: what `read_bytes` raises; NOT_NIFTI for content of a kind that is not known.
    """

    def unknown(head: bytes) -> int:
        fix = "convert it, or register a reader for it (reg2rg.scans.base.READERS)"
        found = "content of no known kind"
        raise DataFault.of("NOT_NIFTI", found=found, expected=known_kinds(), fix=fix, path=path)

    read_bytes(path, unknown)
    raise AssertionError(path)  # `unknown` raises


def read_file(path: Path) -> bytes:
    """All bytes of a file, or of one in an archive (see `reg2rg.scans.archives`).

    Raises:
        DataFault: MISSING_FILE, UNREADABLE, EMPTY_FILE, or what the archive's damage is called.
    """
    try:
        member = read_member(path)
        data = path.read_bytes() if member is None else member
    except (FileNotFoundError, NotADirectoryError):
        found, fix = "no such file", "correct the path, or leave the study out"
        if path.is_symlink():
            found = f"a link to {path.readlink()}, which is not there"
            fix = "fetch the file itself (git annex get, dvc pull, hf download)"
        raise DataFault.of("MISSING_FILE", found=found, expected="a file", fix=fix, path=path) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        fix = "check the path and its permissions"
        found = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise DataFault.of("UNREADABLE", found=found, expected="a readable file", fix=fix, path=path) from None
    if not data:
        raise DataFault.of("EMPTY_FILE", found="0 bytes", expected=known_kinds(), fix=_AGAIN, path=path)
    return data


def _refuse_strangers(data: bytes, path: Path) -> None:
    head = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, code, what, fix in _STRANGERS:
        if head.startswith(magic):
            raise DataFault.of(code, found=what, expected=known_kinds(), fix=fix, path=path)
    if data[:2] == GZIP_MAGIC:
        raise DataFault.of("NOT_NIFTI", found="gzip inside gzip", expected=known_kinds(), fix="unzip once", path=path)


def check_size(found: int, expected: int, path: Path) -> None:
    """Refuse more or fewer bytes than a header declares.

    Raises:
        DataFault: TRUNCATED, SIZE_MISMATCH.
    """
    if found < expected:
        raise DataFault.of("TRUNCATED", found=f"{found} bytes", expected=f"{expected} bytes", fix=_AGAIN, path=path)
    if found > expected:
        raise DataFault.of(
            "SIZE_MISMATCH", found=f"{found} bytes", expected=f"{expected} bytes by its header", fix=_AGAIN, path=path
        )


def inflate(data: bytes, size: int, path: Path) -> bytes:
    """Inflate all members of gzip data, never to more than `size` (a small file cannot fill memory).

    Raises:
        DataFault: TRUNCATED, CORRUPT, SIZE_MISMATCH.
    """
    stream = _Members(data, path)
    parts = list(stream.upto(size))
    check_size(sum(map(len, parts)) + stream.drain(), size, path)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Members:
    """The inflated bytes of concatenated gzip members; CRC-32 and length of each are checked when it ends."""

    def __init__(self, data: bytes, path: Path) -> None:
        self._path = path
        self._pending = data
        self._inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._done = False

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, at least one unless the file has ended."""
        while not self._done:
            try:
                part: bytes = self._inflater.decompress(self._pending, size)
            except _IsalError as error:
                found = f"damaged gzip data ({str(error).rstrip('.')})"
                raise DataFault.of(
                    "CORRUPT", found=found, expected="a sound checksum", fix=_AGAIN, path=self._path
                ) from None
            self._pending = b""
            if self._inflater.eof:
                self._next_member(self._inflater.unused_data)
            elif not part and self._inflater.needs_input:
                found = "gzip data that end before their trailer"
                raise DataFault.of("TRUNCATED", found=found, expected="a whole file", fix=_AGAIN, path=self._path)
            if part:
                return part
        return b""

    def upto(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes in pieces, fewer if the file ends before."""
        while size > 0 and (part := self.read(size)):
            size -= len(part)
            yield part

    def drain(self) -> int:
        """Inflate the rest in pieces to verify it; the number of bytes thrown away."""
        total = 0
        while part := self.read(_CHUNK):
            total += len(part)
        return total

    def _next_member(self, rest: bytes) -> None:
        # Zero bytes after the last member are padding, which the gzip format allows.
        if rest[:2] == GZIP_MAGIC:
            self._pending = rest
            self._inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        elif rest.strip(b"\0"):
            found = f"{len(rest)} bytes after the end of the gzip data"
            raise DataFault.of("CORRUPT", found=found, expected="the end of the file", fix=_AGAIN, path=self._path)
        else:
            self._done = True
