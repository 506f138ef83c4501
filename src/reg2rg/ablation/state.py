"""What is known of a run's folder: ``run.json`` says what was done with which settings, and is written whole."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from reg2rg import __version__
from reg2rg.ablation.sweep import Scoring
from reg2rg.core import documents
from reg2rg.core.documents import DocumentError

RUN, LOG, PROGRESS = "run.json", "log.txt", "progress.json"
STAGES = ("fit", "predict", "evaluate")
State = Literal["done", "to go on", "to do", "changed", "failed"]
_PACKAGES = ("torch", "lightning", "transformers", "peft", "numpy")


@dataclass(frozen=True, slots=True)
class Keys:
    """What each stage of a run depends on.

    Attributes:
        fit: settings and data.
        predict: the same, split and checkpoint.
        evaluate: the same, protocol and labeler.
    """

    fit: str
    predict: str
    evaluate: str

    @classmethod
    def of(cls, digest: str, data: str, scoring: Scoring) -> Keys:
        """Keys of a run.

        Args:
            digest: of its config.
            data: of the data that the config names.
            scoring: of the sweep.
        """
        fit = _hash(digest, data)
        predict = _hash(fit, scoring.split, scoring.checkpoint)
        return cls(fit, predict, _hash(predict, scoring.protocol, scoring.labeler))


def read_run(folder: Path) -> dict[str, Any]:
    """``run.json`` of a folder; empty if there is none.

    Raises:
        DocumentError: it is not as it was written, so that nothing is known of what the folder holds.
    """
    try:
        return documents.read_record(folder / RUN, f"move {folder} away: the run is made anew")
    except FileNotFoundError:
        return {}


def read_progress(folder: Path) -> dict[str, Any]:
    """What `reg2rg.ablation.recorder` wrote last; empty if there is nothing."""
    return read_json(folder / PROGRESS)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a file; empty if there is none that can be read."""
    with contextlib.suppress(OSError, DocumentError):
        found = documents.read_json(path)
        if isinstance(found, dict):
            return found
    return {}


def is_done(record: Mapping[str, Any], stage: str, keys: Keys) -> bool:
    """Whether a stage was finished with these settings."""
    return bool(record.get("stages", {}).get(stage, {}).get("key") == getattr(keys, stage))


def state_of(folder: Path, keys: Keys, code: str = "") -> State:
    """How far a run is.

    Args:
        folder: of the run.
        keys: of what it should be.
        code: the run must have been made by this code; "" if that does not matter.
    """
    record = read_run(folder)
    if not record:
        return "to do"
    if record.get("key") != keys.fit or not made_by(record, code):
        return "changed"
    if all(is_done(record, stage, keys) for stage in STAGES):
        return "done"
    return "failed" if record.get("failure") else "to go on"


def made_by(record: Mapping[str, Any], code: str) -> bool:
    """Whether what is finished of a run was made by this code; "" asks for none in particular."""
    return not code or all(stage.get("code") == code for stage in record.get("stages", {}).values())


def describe_machine(threads: int | None) -> dict[str, Any]:
    """Where and by what a run was made."""
    return {
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "packages": {"reg2rg": __version__} | dict(_versions()),
        "code": code_digest(),
        "git": _git_revision(),
    }


@functools.cache
def code_digest() -> str:
    """Hash of this package's sources."""
    root = Path(str(files("reg2rg")))
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def _git_revision() -> str | None:
    folder = Path(str(files("reg2rg")))
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return answer.stdout.strip() or None
    return None


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield package, version(package)


def now() -> str:
    """The time, as ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_run(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``run.json``, whole."""
    documents.write_record(folder / RUN, record)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[int | None]:
    """Hold a lock file; yields its descriptor, or ``None`` if another process holds it.

    The lock belongs to the open file: it goes with the last process that holds the descriptor, however that ends.
    Where the system has no such locks (Windows), there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError:
            yield None
            return
        yield descriptor
    finally:
        os.close(descriptor)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
