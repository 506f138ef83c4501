"""Files that are either whole or absent: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "free some space, lift the limit, or name a folder on another disk",
    (errno.EROFS, errno.EACCES, errno.EPERM): "name a folder that you may write to, or change its permissions",
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP): "correct the path",
    (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV): "look after the disk, or name a folder on another one",
    (errno.EMFILE, errno.ENFILE): "allow more open files (ulimit -n), or use fewer workers",
}
"""Codes of a file system's errors -> what to do."""


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success flush it to disk and rename it over `path`.

    The temporary file stands in the target's own folder: a rename across file systems would be a copy, which a kill
    can tear. On any error the temporary file is removed and `path` keeps what it held. Errors of the system that name
    no file, as a full disk's, name `path`.

    Args:
        path: the target; its folder is created.
        mode: ``"wb"`` or ``"w"`` (text is UTF-8 with line feeds).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp.{os.getpid()}")
    options: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with naming(path):
            with open(temporary, mode, **options) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. NaN is refused: it is not JSON."""
    with atomic_write(path, "w") as stream:
        json.dump(value, stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Let errors of the system that name no file, as those of a full disk, name `path`."""
    try:
        yield
    except OSError as error:
        error.filename = str(path) if error.filename is None else error.filename
        raise


def disk_trouble(error: OSError) -> str | None:
    """What a file system refuses, with the path and the way out; ``None`` for errors of another kind."""
    code = error.errno
    remedy = next((fix for codes, fix in _REMEDIES.items() if code in codes), None)
    if code is None or remedy is None:
        return None
    where = f"{error.filename}: " if error.filename is not None else "writing or reading a file failed: "
    seen = f" (seen from {Path.cwd()})" if code == errno.ENOENT and not Path(str(error.filename)).is_absolute() else ""
    return f"{where}{(error.strerror or os.strerror(code)).lower()}{seen}. Fix: {remedy}"


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
