"""A callback that writes down how far a run is and what it costs, for the process that watches it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L

from reg2rg.ablation.state import PROGRESS, read_progress
from reg2rg.core.files import write_json
from reg2rg.training.monitor import peak_memory_gib

_EVERY_S = 2.0


class RunRecorder(L.Callback):
    """Keeps ``progress.json``: steps done of how many, parameters, visual tokens, seconds, peak memory.

    Seconds add up over resumes, steps that were done twice included.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._record: dict[str, Any] = {}
        self._stage, self._before, self._begun, self._written = "", 0.0, 0.0, 0.0
        self._done, self._total = 0, 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what trains."""
        self._begin("fit", pl_module)
        parameters = list(pl_module.parameters())
        counts = getattr(pl_module, "token_counts", None)
        self._record |= {
            "parameters": sum(p.numel() for p in parameters),
            "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
            "tokens": None if counts is None else [counts.texture, counts.geometry, counts.global_],
            "device": _device_name(pl_module.device),
            "processes": trainer.world_size,
        }

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the steps; asked for earlier, their number would cost a resumed run its place in the epoch."""
        self._total = float(trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how far it is, every few seconds."""
        self._done = trainer.global_step
        self._tick(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last word on training."""
        self._write(trainer, pl_module)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._begin("predict", pl_module)
        self._done, self._total = 0, float(sum(trainer.num_predict_batches))

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Say how far it is, every few seconds."""
        self._done += 1
        self._tick(trainer, pl_module)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last word on prediction."""
        self._write(trainer, pl_module)

    def _begin(self, stage: str, pl_module: L.LightningModule) -> None:
        self._record = read_progress(self.folder)
        self._stage, self._begun, self._written = stage, time.monotonic(), 0.0
        self._before = float(self._record.get(f"{stage}_seconds", 0.0))

    def _tick(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if time.monotonic() - self._written >= _EVERY_S:
            self._write(trainer, pl_module)

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._written = time.monotonic()
        peak = max(float(self._record.get("peak_memory_gib", 0.0)), peak_memory_gib(pl_module.device))
        self._record |= {
            "stage": self._stage,
            "done": self._done,
            "total": self._total if self._total != float("inf") else None,
            f"{self._stage}_seconds": self._before + self._written - self._begun,
            "peak_memory_gib": peak,
        }
        if trainer.is_global_zero:
            write_json(self.folder / PROGRESS, self._record)


def _device_name(device: Any) -> str:
    if device.type == "cuda":
        import torch

        return str(torch.cuda.get_device_name(device))
    return str(device.type)
