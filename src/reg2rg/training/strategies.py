"""What distributed strategies need to be told of this model."""

from __future__ import annotations

from dataclasses import replace

from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy


def prepare_strategy(strategy: Strategy, in_phases: bool) -> None:
    """Set what DDP and FSDP must know of the model, which their configs cannot say of every model.

    Args:
        strategy: the trainer's, not set up yet.
        in_phases: some steps leave parameters out of the loss.
    """
    if isinstance(strategy, DDPStrategy) and in_phases:
        # DDP waits for the gradient of every parameter otherwise. One that no process used keeps none, as without DDP.
        strategy._ddp_kwargs["find_unused_parameters"] = True
    if isinstance(strategy, FSDPStrategy) and strategy.mixed_precision is None:
        # Views and the frequencies of positions are rounded where it costs least, not where they enter.
        strategy.mixed_precision = replace(
            strategy.precision_plugin.mixed_precision_config, buffer_dtype=None, cast_root_forward_inputs=False
        )
