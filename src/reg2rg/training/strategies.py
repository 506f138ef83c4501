"""What distributed strategies need to be told of this model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, Strategy
from torch import Tensor, nn
from torch.optim import Optimizer

from reg2rg.core.errors import ConfigError
from reg2rg.models.state import kept_names
from reg2rg.training.fully_shard import FullyShard
from reg2rg.training.shards import is_sharded, load_plain, new_shards

log = logging.getLogger(__name__)


class ZeRO(DeepSpeedStrategy):
    """DeepSpeed's ZeRO that takes the steps of one process, with the arguments of Lightning's `DeepSpeedStrategy`.

    With Lightning's own the loss of an accumulation is divided twice by its batches, so that gradients are clipped too
    late, and the batches that are left over at the end of an epoch shift all later steps against its counter.
    """

    @property
    def handles_gradient_accumulation(self) -> bool:
        """No: Lightning says when to step."""
        return False

    @property
    def skipped(self) -> bool:
        """Whether the last step was left out, for its gradient was not finite."""
        return bool(getattr(self.optimizers[0], "overflow", False))

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Gradients are spread after every batch; DeepSpeed refuses to wait."""
        yield

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        """Lightning has divided the loss by the batches of a step already."""
        assert self.lightning_module is not None
        last = not self.lightning_module.trainer.fit_loop._should_accumulate()
        self.deepspeed_engine.set_gradient_accumulation_boundary(last)
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write a folder that takes its place when it is whole; the processes share the disk."""
        with new_shards(Path(self.broadcast(filepath)), self.is_global_zero, self.barrier) as new:
            super().save_checkpoint(checkpoint, new, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read tensors and plain values alone."""
        self.deepspeed_engine.checkpoint_engine.load = load_plain
        if not is_sharded(Path(checkpoint_path)):
            raise ConfigError(
                f"{checkpoint_path}: no folder of DeepSpeed (expected one: its optimiser goes on from its own alone). "
                "Fix: go on with the strategy that wrote it"
            )
        return super().load_checkpoint(checkpoint_path, weights_only)


def spreads_gradients(strategy: Strategy) -> bool:
    """Whether no process has whole gradients, which a checkpoint between two steps would keep."""
    return isinstance(strategy, ZeRO | FullyShard)


def agree(trainer: Trainer, good: bool) -> bool:
    """Whether all processes find their share of the gradients good, where each has one of its own."""
    if trainer.world_size == 1 or not spreads_gradients(trainer.strategy):
        return good
    verdict = torch.tensor(int(good), device=trainer.strategy.root_device)
    return bool(trainer.strategy.reduce(verdict, reduce_op="min"))


def keeps_gradients(trainer: Trainer | None) -> bool:
    """Whether a checkpoint that is written now, between two steps, is to hold the gradients gathered so far."""
    if trainer is None or trainer.accumulate_grad_batches == 1 or trainer.state.fn != "fit":
        return False
    if not trainer.fit_loop._should_accumulate():
        return False
    if spread := spreads_gradients(trainer.strategy):
        log.warning("Saved between two steps: gradients that are spread over processes are not kept with it")
    return not spread


def refuse_averages(trainer: Trainer) -> None:
    """Refuse callbacks that put an average of past weights into the model.

    Its head is calibrated on weights that were validated; an average comes without, or with flags and counts that were
    averaged too. A checkpoint of `WeightAveraging` has every frozen weight, and none of ours goes on from it.

    Raises:
        ConfigError: names the callback.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
            raise ConfigError(
                f"trainer.callbacks: {type(callback).__name__} averages weights (expected none that does: temperature "
                "and thresholds of the head belong to the weights that were validated, and would be averaged or left "
                "behind). Fix: take it out; a schedule that ends low (model.optimizer.schedule: cosine) does much the "
                "same"
            )


def prepare_strategy(strategy: Strategy, model: nn.Module, in_phases: bool) -> None:
    """Set what strategies must know of the model, which their configs cannot say of every model.

    Args:
        strategy: the trainer's, not set up yet.
        model: what it trains.
        in_phases: some steps leave parameters out of the loss.

    Raises:
        ConfigError: the strategy cannot spread this model.
    """
    scalars = [name for name, parameter in model.named_parameters() if parameter.ndim == 0]
    if scalars and isinstance(strategy, DeepSpeedStrategy):
        raise ConfigError(
            f"trainer.strategy: {type(strategy).__name__} cannot send parameters without a dimension: "
            f"{', '.join(scalars)} (expected shape (1,) or more). Fix: give them one, or strategies/ddp.yaml"
        )
    if isinstance(strategy, DeepSpeedStrategy):
        if not isinstance(strategy, ZeRO):
            raise ConfigError(
                f"trainer.strategy: {type(strategy).__name__} divides the loss of an accumulation twice (expected "
                "reg2rg's ZeRO, with the same arguments). Fix: strategies/deepspeed_zero2.yaml, or class_path: ZeRO"
            )
        if in_phases:
            raise ConfigError(
                f"trainer.strategy: {type(strategy).__name__} steps weights that have no part in a step too, those of "
                "the language model while an auxiliary loss trains alone. Fix: strategies/ddp.yaml or fsdp2.yaml, or "
                "no such steps (of WordAlignment: steps: 0)"
            )
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        strategy.exclude_frozen_parameters = frozen.isdisjoint(kept_names(model))  # they come from their own files
    if isinstance(strategy, DDPStrategy) and in_phases:
        # DDP waits for the gradient of every parameter otherwise. One that no process used keeps none, as without DDP.
        strategy._ddp_kwargs["find_unused_parameters"] = True
    if isinstance(strategy, FSDPStrategy):
        raise ConfigError(
            f"trainer.strategy: {type(strategy).__name__} takes neither weights of two dtypes nor a limit on the norm "
            "of gradients (expected reg2rg's FullyShard, FSDP2). Fix: strategies/fsdp2.yaml, or class_path: FullyShard"
        )
