"""Checkpoint files that are whole or absent, hold what trains, and are checked when they are read."""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from reg2rg.config.model_folder import is_model_folder
from reg2rg.encoders.wrappers import Frozen
from reg2rg.errors import ConfigError, Reg2RGError
from reg2rg.files import atomic_write, sha256

log = logging.getLogger(__name__)

EXIT_TERMINATED = 128 + 15
SIDECAR = ".sha256"
_HEADROOM = 1.1


class CheckpointError(Reg2RGError):
    """A checkpoint that cannot be written or must not be read."""


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
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.tmp.*"):  # of a run that was killed while writing
            leftover.unlink(missing_ok=True)
        require_space(path, int(_HEADROOM * tensor_bytes(checkpoint)))
        try:
            with atomic_write(path) as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                digest = sha256(stream.name)
                _write_digests(path, [digest, *_digests(path)])
            _write_digests(path, [digest])
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            raise CheckpointError(
                f"{path}: writing the checkpoint failed: {error}. The last good one was kept. Fix: free some space, "
                "then go on with --ckpt_path last"
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


class SaveOnTerm(L.Callback):
    """Saves ``last.ckpt`` when the process is told to end (SIGTERM), in training and in validation; exit code 143.

    Lightning ends a run between two batches then; it does not save by itself. An interrupt from the keyboard may hit
    in the middle of a step and saves nothing: the last regular checkpoint stands.

    Args:
        dirpath: folder of the checkpoint; by default that of the run's `ModelCheckpoint`.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = dirpath

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Do not wait for the end of a long validation.

        Several processes do wait: they get the signal at different batches, and must stop at the same one.
        """
        alone = trainer.world_size == 1 and trainer.state.fn == "fit" and not trainer.sanity_checking
        if alone and trainer.received_sigterm:
            raise SIGTERMException

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save, if the run was told to end, and let the process end as one that was."""
        if not isinstance(exception, SIGTERMException):
            return
        exception.code = EXIT_TERMINATED  # Lightning would leave it at 0, as if all were done
        if trainer.state.fn != "fit" or trainer.global_step == 0:
            return
        keeper = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)
        folder = self.dirpath or (keeper.dirpath if keeper is not None else None)
        if folder is None:
            return
        path = Path(folder) / f"{ModelCheckpoint.CHECKPOINT_NAME_LAST}.ckpt"
        if keeper is not None and folder == keeper.dirpath:
            keeper.last_model_path = str(path)
        trainer.save_checkpoint(path)
        log.warning("Told to end: saved %s at step %d; go on with --ckpt_path last", path, trainer.global_step)


def read_checkpoint(
    path: str | Path, map_location: Callable[..., Any] | torch.device | str | None = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint file after checking its digest.

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
        raise ConfigError(
            f"{path}: a folder (expected one file). Checkpoints that DeepSpeed or FSDP write in shards are read by the "
            "strategy that wrote them alone. Fix: train with strategies/ddp.yaml or fsdp.yaml, which write one file"
        )
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        raise ConfigError(
            f"{path}: no such checkpoint. The folder has {', '.join(beside) or 'none'}. Fix: name one that is there"
        )
    verify(path)
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({reason}). Only tensors and plain values are accepted. "
            "Fix: use another checkpoint; the one before it if this one is damaged"
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path}: holds {type(checkpoint).__name__} (expected a checkpoint of reg2rg)")
    return checkpoint


def verify(path: str | Path) -> None:
    """Hold a file against the digest beside it; a file without one passes with a notice.

    Raises:
        CheckpointError: they differ.
    """
    path = Path(path).resolve()
    expected = _digests(path)
    if not expected:
        log.info("%s has no %s beside it: not verified", path, SIDECAR)
        return
    found = sha256(path)
    if found not in expected:
        raise CheckpointError(
            f"{path}: SHA-256 is {found[:16]}..., written was {expected[0][:16]}...: the file was damaged after it was "
            "written. Fix: copy it again from its source, or go on from an earlier checkpoint"
        )


def require_space(path: Path, needed: int) -> None:
    """Refuse to begin a file that cannot be finished.

    Raises:
        CheckpointError: with the bytes needed and free.
    """
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise CheckpointError(
            f"{path}: the checkpoint needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free on its disk. "
            "The last good checkpoint was kept. Fix: free some space, then go on with --ckpt_path last"
        )


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in a nested value, each storage counted once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(value)}
    return sum(storages.values())


def kept_names(module: nn.Module) -> set[str]:
    """Names of a module's state that a checkpoint must hold.

    Everything but what is read from its own file when the model is built: frozen weights of a language model
    (``llm``), and of encoders inside `Frozen` that were given a file.
    """
    restored = {name for name, part in module.named_modules() if isinstance(part, Frozen) and part.restored}
    restored |= {name for name, _ in module.named_modules() if name.rpartition(".")[2] == "llm"}
    trains = {name for name, p in module.named_parameters(remove_duplicate=False) if p.requires_grad}

    def comes_back(name: str) -> bool:
        return name not in trains and any(name.startswith(f"{prefix}.") for prefix in restored)

    return {name for name in module.state_dict() if not comes_back(name)}


_FIX = "use the config that the checkpoint was trained with (it is inside the checkpoint: Reg2RG.from_checkpoint)"


def check_names(given: Iterable[str], kept: set[str], known: set[str], where: str, fix: str = _FIX) -> None:
    """Hold the names in a checkpoint against the model's.

    Raises:
        ConfigError: something is missing or unknown; lists the first of each.
    """
    missing, unknown = sorted(kept - set(given)), sorted(set(given) - known)
    if not missing and not unknown:
        return
    parts = [
        f"{len(names)} {what} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        for what, names in (("missing", missing), ("unknown to the model", unknown))
        if names
    ]
    raise ConfigError(f"{where}: does not fit the model: {'; '.join(parts)}. Fix: {fix}")


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
