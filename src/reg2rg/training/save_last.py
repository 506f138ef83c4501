"""Keeps ``last.ckpt`` fresh: by time, at the run's end, and when the run is told to end."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from reg2rg.core.types import NonNegativeFloat, PathText
from reg2rg.models.state import kept_names
from reg2rg.training.checkpoints import HEADROOM, checkpoint_size, require_space, step_of, tensor_bytes
from reg2rg.training.strategies import spreads_gradients

log = logging.getLogger(__name__)

_IN_VALIDATION = "reg2rg_in_validation"
_TOLD = b"\ntold to end: one more batch, then the run saves itself; Ctrl-C once more ends it at once\n"
_SAVE, _NOTHING = 1, 0  # what a process wishes; beyond these, the number of the signal that it got


class SaveLast(L.Callback):
    """Writes ``last.ckpt`` every few minutes, after the last step, and when told to end by Ctrl-C (SIGINT) or SIGTERM.

    Told to end, a run finishes its batch, in training as in validation and on all its processes, saves, and leaves with
    exit code 130 or 143. A second Ctrl-C ends it at once; what is lost then is said. A validation that was stopped is
    done anew, whole, when the run goes on. Space for all checkpoints is asked for before the first step.

    Args:
        every_minutes: so much work is lost at most when the process is killed; it is a file's time to be written more.
        dirpath: folder of the checkpoint; by default that of the run's `ModelCheckpoint`.
    """

    def __init__(self, every_minutes: NonNegativeFloat = 15.0, dirpath: PathText | None = None) -> None:
        self.every_minutes, self.dirpath = every_minutes, dirpath
        self._told, self._saved_at, self._saved_batch = _NOTHING, time.monotonic(), -1
        self._validates = self._one_step_more = False
        self._common_batches = 0

    # ---- before training

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a disk on which the run's checkpoints have no room.

        Raises:
            CheckpointError: with the bytes needed and free.
        """
        path = self._path(trainer)
        if stage != "fit" or path is None or trainer.node_rank != 0:
            return
        size, files = (
            checkpoint_bytes(pl_module),
            1 + sum(max(k.save_top_k, k.save_top_k != 0) for k in _keepers(trainer)),
        )
        standing = sorted((checkpoint_size(found) for found in path.parent.glob("*.ckpt")), reverse=True)[:files]
        needed = (files + 1) * size - sum(min(size, found) for found in standing)  # one is written beside the others
        require_space(path, needed, f"the run's checkpoints ({files} files and one being written) need")

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A run that was stopped in the validation after its last step would be over before that validation."""
        if (
            trainer.state.fn == "fit"
            and checkpoint.get(_IN_VALIDATION)
            and trainer.max_steps == checkpoint["global_step"]
        ):
            self._one_step_more = True
            trainer.fit_loop.epoch_loop.max_steps += 1

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to signals from here on. Lightning puts back the handlers that were there, however the run ends."""
        self._listen()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to signals from here on."""
        self._listen()
        self._saved_at, self._saved_batch = time.monotonic(), trainer.fit_loop.total_batch_idx
        total: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
        if total.started != total.processed:  # as `on_save_checkpoint` wrote it; Lightning has read it by now
            total.reset()

    # ---- while it runs

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time or the end, or let Lightning end the run: it does so in order when told by SIGTERM."""
        if spreads_gradients(trainer.strategy) and trainer.fit_loop._should_accumulate():
            return  # what is spread over processes is whole after a step
        wish = self._agreed(trainer)
        if wish > _SAVE:
            self._told = wish
            trainer._signal_connector.received_sigterm = True
        elif wish == _SAVE or _is_done(trainer):
            loop = trainer.fit_loop
            # A run that goes on from here would leave the validation out; it saves itself when that begins.
            if loop._data_fetcher is None or not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
                self._save(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the batches at which all processes can agree on what to do."""
        if trainer.state.fn == "fit":
            self._validates = not trainer.sanity_checking
            batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
            self._common_batches = _reduced(trainer, int(min(batches[0], 2**31)), "min")

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Do not wait for the end of a long validation."""
        if trainer.state.fn != "fit" or dataloader_idx > 0 or batch_idx >= self._common_batches:
            return
        wish = self._agreed(trainer)
        if wish > _SAVE:
            self._told = wish
            raise SIGTERMException
        if wish == _SAVE and not trainer.sanity_checking:
            self._save(trainer)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on a checkpoint holds this validation."""
        self._validates = False
        if self._one_step_more and not trainer.sanity_checking:
            self._one_step_more = False
            trainer.fit_loop.epoch_loop.max_steps -= 1

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """In a validation: let it begin anew when the run goes on. Lightning would leave it out, or see half of it."""
        self._saved_at, self._saved_batch = time.monotonic(), trainer.fit_loop.total_batch_idx
        if self._validates:
            checkpoint[_IN_VALIDATION] = True
            started = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = {
                "total": started, "current": dict.fromkeys(started, 0), "is_last_batch": False
            }  # fmt: skip

    # ---- the end

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save, if the run was told to end, and let the process end as one that was."""
        if trainer.state.fn != "fit":
            return
        if isinstance(exception, KeyboardInterrupt):
            self._say_what_is_lost(trainer)
        if not isinstance(exception, SIGTERMException):
            return
        # Lightning kills the others when one of its processes ends with another code than 0.
        exception.code = 128 + (self._told or signal.SIGTERM) if trainer.is_global_zero else 0
        path = self._path(trainer)
        if not self._trained(trainer):
            _say(trainer, "Told to end before the first batch was done: there is nothing to save")
        elif path is None:
            fix = "Fix: a ModelCheckpoint, or SaveLast(dirpath=...)"
            _say(trainer, f"Told to end: all {trainer.global_step} steps are lost, for no folder is named. {fix}")
        else:
            try:
                self._save(trainer)
            except KeyboardInterrupt:
                self._say_what_is_lost(trainer)
                raise
            _say(trainer, f"Told to end: saved {path} at step {trainer.global_step}; go on with --ckpt_path last")

    def _say_what_is_lost(self, trainer: L.Trainer) -> None:
        path, step = self._path(trainer), trainer.global_step
        if not self._trained(trainer):
            _say(trainer, "Interrupted before the first batch was done: nothing is lost")
        elif path is None or not path.exists():
            _say(trainer, f"Interrupted at step {step}: all of it is lost, for no checkpoint was written yet")
        else:
            kept = step_of(path)
            lost = f"the steps after {kept} are lost" if kept < step else "no step is lost"
            _say(trainer, f"Interrupted at step {step}: {lost}; {path} has step {kept}. Go on with --ckpt_path last")

    # ---- parts

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._told and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._told = self._told or number
        os.write(2, _TOLD)

    def _agreed(self, trainer: L.Trainer) -> int:
        """What all processes do: what one of them was told, or finds that it is time for."""
        is_time = time.monotonic() - self._saved_at >= 60 * self.every_minutes
        return _reduced(
            trainer, self._told or int(is_time and trainer.fit_loop.total_batch_idx > self._saved_batch), "max"
        )

    @staticmethod
    def _trained(trainer: L.Trainer) -> bool:
        return trainer.fit_loop.total_batch_idx >= 0 and not trainer.sanity_checking

    def _path(self, trainer: L.Trainer) -> Path | None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return None
        keeper = next(_keepers(trainer), None)
        folder = self.dirpath or (keeper and (keeper.dirpath or trainer.default_root_dir))
        return Path(folder) / f"{ModelCheckpoint.CHECKPOINT_NAME_LAST}.ckpt" if folder else None

    def _save(self, trainer: L.Trainer) -> None:
        path = self._path(trainer)
        if path is None:
            return
        for keeper in _keepers(trainer):
            if keeper.dirpath is not None and Path(keeper.dirpath) == path.parent:
                keeper.last_model_path = str(path)
        trainer.save_checkpoint(path)


def checkpoint_bytes(module: L.LightningModule) -> int:
    """Size of a checkpoint of `module` in the middle of a run: what is kept of it, and AdamW's two moments."""
    kept = kept_names(module)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = tensor_bytes({name: value for name, value in module.state_dict().items() if name in kept})
    return int(HEADROOM * (weights + 2 * tensor_bytes(trained)))


def _keepers(trainer: L.Trainer) -> Any:
    return (callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint))


def _is_done(trainer: L.Trainer) -> bool:
    """Whether the batch that was trained on is the run's last. `ModelCheckpoint` saves after a validation alone."""
    in_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.global_step == trainer.max_steps or (trainer.is_last_batch and in_last_epoch)


def _reduced(trainer: L.Trainer, number: int, operation: str) -> int:
    if trainer.world_size == 1:
        return number
    tensor = torch.tensor(number, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(tensor, reduce_op=operation))


def _say(trainer: L.Trainer, text: str) -> None:
    if trainer.is_global_zero:
        log.warning("%s", text)
