"""Checkpoint files that are whole or absent, hold what trains, and are checked when they are read."""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from reg2rg.core.errors import CheckpointError, ConfigError
from reg2rg.core.files import atomic_write, sha256
from reg2rg.core.model_folder import is_model_folder
from reg2rg.training.shards import is_sharded, read_rest, read_shards

log = logging.getLogger(__name__)

SIDECAR = ".sha256"
HEADROOM = 1.1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its target, flushes it to disk and renames it; checks its SHA-256 when reading.

    Lightning's own writer stages the file in the temporary folder: where that is another file system the last step is a
    copy, and a kill leaves half a file. Here the old checkpoint stands until the new one does.

    The digest is in ``NAME.ckpt.sha256``. While a checkpoint is replaced this file lists the digests of the new and of
    the old one, so that a kill at any moment leaves a pair that agrees.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            CheckpointError: too little space, or the disk refuses; what stood at `path` still stands.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}*.tmp.*"):  # of a run that was killed while writing
            leftover.unlink(missing_ok=True)
        require_space(path, int(HEADROOM * tensor_bytes(checkpoint)), "the checkpoint needs")
        try:
            with atomic_write(path) as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                digest = sha256(stream.name)
                _write_digests(path, [digest, *_digests(path)])
            _write_digests(path, [digest])
        except (OSError, RuntimeError) as error:
            # torch closes its zip file when a write has failed, which fails with a RuntimeError of its own
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError) or cause.errno not in _NO_ROOM:
                raise
            raise CheckpointError(
                f"{path}: writing the checkpoint failed: {cause}. {_standing(path)}Fix: free some space, or lift the "
                "limit on it, then go on with --ckpt_path last"
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | torch.device | str | None = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read a checkpoint. Only tensors and plain values are unpickled, whatever `weights_only` says."""
        return read_checkpoint(path, map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint and its digest."""
        path = Path(path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        _sidecar(path).unlink(missing_ok=True)


def read_checkpoint(
    path: str | Path, map_location: Callable[..., Any] | torch.device | str | None = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint file after checking its digest, or the folder of one in shards (`read_shards`).

    Raises:
        ConfigError: no such file.
        CheckpointError: its bytes are not those that were written, or it is no checkpoint of plain values.
    """
    path = Path(path)
    if path.is_dir():
        if is_model_folder(path):
            raise ConfigError(
                f"{path}: a model's folder, no checkpoint. Fix: Reg2RG.from_pretrained, or its path as it is"
            )
        if is_sharded(path):
            return read_shards(path)
        raise ConfigError(f"{path}: a folder without shards of a checkpoint (expected a checkpoint). Fix: name one")
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        raise ConfigError(
            f"{path}: no such checkpoint. The folder has {', '.join(beside) or 'none'}. Fix: name one that is there"
        )
    verify(path)
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".rstrip(": ")
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({reason}). Only tensors and plain values are accepted. "
            "Fix: use another checkpoint; the one before it if this one is damaged"
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path}: holds {type(checkpoint).__name__} (expected a checkpoint of reg2rg)")
    return checkpoint


def checkpoint_size(path: Path) -> int:
    """Bytes of a checkpoint, whether a file or a folder of shards."""
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts if part.is_file())


def step_of(path: Path) -> int:
    """The optimiser step that a checkpoint of this run holds, without its weights."""
    rest = read_rest(path) if path.is_dir() else torch.load(path, mmap=True, weights_only=True)
    return int(rest["global_step"])


def verify(path: str | Path) -> None:
    """Hold a file against the digest beside it, or else against the checksums that its format has inside.

    Raises:
        CheckpointError: they differ.
    """
    path = Path(path)
    expected = _digests(path) or _digests(path.resolve())  # a link's digest lies beside the link, or beside its target
    if not expected:
        _verify_parts(path)
        return
    found = sha256(path)
    if found not in expected:
        raise CheckpointError(
            f"{path}: SHA-256 is {found[:16]}..., written was {expected[0][:16]}...: the file was damaged after it was "
            "written. Fix: copy it again from its source, or go on from an earlier checkpoint"
        )


def _verify_parts(path: Path) -> None:
    """Hold each part of a checkpoint, which is a zip file, against its CRC-32."""
    if not zipfile.is_zipfile(path):
        log.warning("%s has no %s beside it and no checksums inside: it is read unverified", path, SIDECAR)
        return
    try:
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
    except Exception as error:  # of a damaged directory: BadZipFile, UnicodeDecodeError, NotImplementedError and others
        damaged = str(error)
    if damaged is not None:
        raise CheckpointError(
            f"{path}: damaged after it was written: a part does not match its CRC-32 ({damaged}). Fix: copy it again "
            "from its source, or go on from an earlier checkpoint"
        )
    log.warning("%s has no %s beside it: verified by the CRC-32 of its parts alone", path, SIDECAR)


def require_space(path: Path, needed: int, what: str) -> None:
    """Refuse to begin what cannot be finished.

    Args:
        path: of a file; its folder need not exist yet.
        needed: bytes.
        what: needs them, as the message says it.

    Raises:
        CheckpointError: with the bytes needed and free.
    """
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(
            f"{path}: {what} {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free on its disk. "
            f"{_standing(path)}Fix: free some space, or name a folder on another disk (--trainer.default_root_dir)"
        )


def _standing(path: Path) -> str:
    return f"The checkpoint that stands there is kept ({path.name}). " if path.is_file() else ""


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in a nested value, each storage counted once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(value)}
    return sum(storages.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + SIDECAR)


def _digests(path: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return [line.split()[0] for line in _sidecar(path).read_text().splitlines() if line.strip()]
    return []


def _write_digests(path: Path, digests: list[str]) -> None:
    with atomic_write(_sidecar(path), "w") as stream:
        stream.writelines(f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests))
