"""Files that are either whole or absent: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from reg2rg.core.errors import Reg2RGError

_REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "free some space, lift the limit, or name a folder on another disk",
    (errno.EROFS, errno.EACCES, errno.EPERM): "name a folder that you may write to, or change its permissions",
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP): "correct the path",
    (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV): "look after the disk, or name a folder on another one",
    (errno.EMFILE, errno.ENFILE): "allow more open files (ulimit -n), or use fewer workers",
}
"""Codes of a file system's errors -> what to do."""


_fence: Callable[[], None] | None = None


@contextlib.contextmanager
def fenced(check: Callable[[], None]) -> Iterator[None]:
    """While it lasts, files of this process take their places only where `check` lets them: see `reg2rg.core.claims`.

    Args:
        check: raises where this process may not write any more.
    """
    global _fence
    before, _fence = _fence, check
    try:
        yield
    finally:
        _fence = before


def hold_fence() -> None:
    """Ask whether this process may still write; for what takes its place by another way than `atomic_write`."""
    if _fence is not None:
        _fence()


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
            hold_fence()
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. NaN is refused: it is not JSON."""
    with atomic_write(path, "w") as stream:
        stream.write(json_text(value))


def json_text(value: Any) -> str:
    """`value` as indented JSON. NaN is refused: it is not JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


Content = str | bytes | None


class OutputsFailedError(Reg2RGError):
    """Some files could not be made or written; all others are there."""


class Outputs:
    """Files of one result, each made and written on its own: one that fails takes no other with it.

    Attributes:
        written: the files that are there, in order.
        failed: one sentence for each that is not, with its path and what to do.
    """

    def __init__(self) -> None:
        self.written: list[Path] = []
        self.failed: list[str] = []

    def write(self, path: str | Path, content: Content | Callable[[], Content]) -> None:
        """Write a file whole or not at all.

        Args:
            path: the file; its folder is created.
            content: what it holds, or a function that makes it; text is written as UTF-8. For ``None`` a file that is
                there is removed: one of an earlier run beside new ones would be read as theirs.
        """
        path = Path(path)
        try:
            made = content() if callable(content) else content
            if made is None:
                path.unlink(missing_ok=True)
                return
            with atomic_write(path) as stream:
                stream.write(made.encode("utf-8", "replace") if isinstance(made, str) else made)
        except Exception as error:  # whatever one drawing or disk does, the other files are worth having
            self.fail(path, error)
        else:
            self.written.append(path)

    def fail(self, path: Path, error: Exception) -> None:
        """Note that a file could not be written."""
        reason, fix = f"{type(error).__name__}: {error}", "run again with --debug for the traceback"
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            fix = _remedy(error) or "name another folder, or mend this one"
        self.failed.append(f"{path}: {reason}. Fix: {fix}")

    def check(self) -> None:
        """Tell what is missing.

        Raises:
            OutputsFailedError: some files could not be written; they are listed.
        """
        if self.failed:
            count = f"{len(self.failed)} of {len(self.failed) + len(self.written)} files"
            raise OutputsFailedError(
                "\n  ".join([f"{count} could not be written, the others are there:", *self.failed])
            )


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Let errors of the system that name no file, as those of a full disk, name `path`."""
    try:
        yield
    except OSError as error:
        error.filename = str(path) if error.filename is None else error.filename
        raise


def _remedy(error: OSError) -> str | None:
    return next((fix for codes, fix in _REMEDIES.items() if error.errno in codes), None)


def disk_trouble(error: OSError) -> str | None:
    """What a file system refuses, with the path and the way out; ``None`` for errors of another kind."""
    code, remedy = error.errno, _remedy(error)
    if code is None or remedy is None:
        return None
    where = f"{error.filename}: " if error.filename is not None else "writing or reading a file failed: "
    seen = f" (seen from {Path.cwd()})" if code == errno.ENOENT and not Path(str(error.filename)).is_absolute() else ""
    return f"{where}{(error.strerror or os.strerror(code)).lower()}{seen}. Fix: {remedy}"


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
