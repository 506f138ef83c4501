"""What distributed strategies need to be told of this model."""

from __future__ import annotations

from dataclasses import replace

from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, Strategy
from torch import nn

from reg2rg.core.errors import ConfigError


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
    if isinstance(strategy, DDPStrategy) and in_phases:
        # DDP waits for the gradient of every parameter otherwise. One that no process used keeps none, as without DDP.
        strategy._ddp_kwargs["find_unused_parameters"] = True
    if isinstance(strategy, FSDPStrategy) and strategy.mixed_precision is None:
        # Views and the frequencies of positions are rounded where it costs least, not where they enter.
        strategy.mixed_precision = replace(
            strategy.precision_plugin.mixed_precision_config, buffer_dtype=None, cast_root_forward_inputs=False
        )
