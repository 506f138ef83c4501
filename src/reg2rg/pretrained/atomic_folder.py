"""A model's folder takes its place: whole, or not at all, and never over what is somebody's own."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.core.model_folder import (
    CARD,
    CONFIG,
    CONTRACT,
    LANGUAGE_MODEL,
    LLM,
    REGION_FILE,
    SUMS,
    WEIGHTS,
    is_model_folder,
)

_KNOWN = frozenset({CONFIG, WEIGHTS, CONTRACT, REGION_FILE, LANGUAGE_MODEL, LLM, SUMS, CARD, "conversion.json"})
_ALONGSIDE = ("LICEN", "NOTICE", "USE_POLICY", ".git")  # what people and the hub add
_HEADROOM = 1.05
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def check_target(folder: Path, needed: int) -> None:
    """Refuse a place that cannot be written, or that holds what is not ours to replace, before anything is written.

    Args:
        folder: where a folder is to stand.
        needed: bytes that it takes.

    Raises:
        ConfigError: a file or somebody's folder stands there, its parent cannot be written, or too little space.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file of that name is there (expected a folder to write). Fix: name another")
    if folder.is_dir() and any(folder.iterdir()):
        held = sorted(entry.name for entry in folder.iterdir())
        others = [name for name in held if name not in _KNOWN and not name.startswith(_ALONGSIDE)]
        if not is_model_folder(folder) or others or ".git" in held:
            raise ConfigError(
                f"{folder}: holds {', '.join((others or held)[:6])} (expected a new or empty folder, or a model's "
                "to replace). Nothing was written. Fix: name another folder"
            )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"{folder}: {folder.parent} cannot be written ({error.strerror}). Fix: name another"
        ) from error
    free = shutil.disk_usage(folder.parent).free
    if free < needed * _HEADROOM:
        raise ConfigError(
            f"{folder}: {needed / 2**20:.0f} MiB will be written, {free / 2**20:.0f} MiB are free on its disk. "
            "Fix: free some space, or name a folder on another disk"
        )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` at the end; on any error `folder` is what it was."""
    place = folder.resolve()
    prefix = f".{place.name}.tmp."
    for leftover in sorted(place.parent.glob(f"{prefix}*")):  # of a run that was killed while writing
        if (leftover / "old").is_dir() and not place.exists():
            (leftover / "old").rename(place)
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=prefix) as name:
            new, old = Path(name) / "new", Path(name) / "old"
            new.mkdir()
            yield new
            if place.exists():
                place.rename(old)
            try:
                new.rename(place)
            except OSError:
                if old.exists():
                    old.rename(place)
                raise
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        kept = "what stood there still stands" if place.exists() else "nothing was left there"
        raise Reg2RGError(f"{folder}: writing failed ({error.strerror}); {kept}. Fix: free some space") from error
