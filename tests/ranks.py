"""Several processes of one run, forked: what each returns, in the order of their ranks."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

SECONDS = 120


def on_ranks(ranks: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run `work` on processes that Lightning takes for those of one launcher, each with a process group of its own.

    Raises:
        AssertionError: one of them failed; with its traceback.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=_rank, args=(rank, ranks, port, results, work, arguments), daemon=True)
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    try:
        found = {}
        while len(found) < ranks:
            rank, value, failure = results.get(timeout=SECONDS)
            assert failure is None, f"rank {rank} of {ranks}:\n{failure}"
            found[rank] = value
        for process in processes:
            process.join(SECONDS)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    return [found[rank] for rank in range(ranks)]


def _rank(rank: int, ranks: int, port: int, results: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)  # a forked process must not meet the thread pool of its parent
    os.environ |= {
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        results.put((rank, work(*arguments), None))
    except BaseException:
        results.put((rank, None, traceback.format_exc()))


class Losses(L.Callback):
    """The training loss of every batch."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.found.append(float(trainer.callback_metrics["train/loss"]))


class Save(L.Callback):
    """Saves after a step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def without_dropout(toy: Any, **arguments: Any) -> Any:
    """The toy model with adapters, the same numbers whoever computes them."""
    module = toy.module(dropout=0.0, lora=True, **arguments)
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.0
    return module


def fit_on_ranks(
    toy: Any,
    ranks: int,
    strategy: Callable[[], Any] | str,
    *,
    batch_size: int,
    steps: int = 8,
    accumulate: int = 1,
    batches: int | float = 1,
    precision: str = "32-true",
    clip: float | None = 1.0,
    eps: float = 1e-8,
    callbacks: Callable[[], list[L.Callback]] = list,
    save: tuple[Path, int] | None = None,
    resume: Path | None = None,
    plugins: Any = None,
    module: Callable[[Any], Any] = without_dropout,
) -> list[dict[str, Any]]:
    """Train the toy model; for each rank its losses, last step, skipped steps, and weights where they are whole."""

    def work() -> dict[str, Any]:
        model = module(toy)
        model.optimizer_config = replace(model.optimizer_config, eps=eps)
        losses = Losses()
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        run = L.Trainer(
            accelerator="cpu",
            devices=ranks,
            strategy=strategy if isinstance(strategy, str) else strategy(),
            precision=precision,  # type: ignore[arg-type]
            max_steps=steps,
            accumulate_grad_batches=accumulate,
            limit_train_batches=batches,
            limit_val_batches=0,
            gradient_clip_val=clip,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            callbacks=[*callbacks(), losses, *([] if save is None else [Save(*save)])],
            plugins=None if plugins is None else [plugins()],
            default_root_dir=toy.root,
            **quiet,
        )
        run.fit(model, datamodule=toy.data(model, batch_size=batch_size), ckpt_path=resume)
        state = {
            name: value.detach().numpy().copy()
            for name, value in model.state_dict().items()
            if type(value) is torch.Tensor and value.dtype == torch.float32
        }
        return {"losses": losses.found, "step": run.global_step, "skipped": model.guard.skipped, "state": state}

    return on_ranks(ranks, work)
