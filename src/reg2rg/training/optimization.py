"""Optimiser, its parameter groups and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from reg2rg.core.errors import ConfigError
from reg2rg.core.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, UnitFloat


@dataclass(frozen=True)  # no slots: jsonargparse reads a default through vars()
class OptimizerConfig:
    """AdamW with a schedule by optimiser steps; the defaults are the published ones.

    Attributes:
        lr: learning rate of the language model (its adapters).
        vision_lr: learning rate of everything else that trains: encoders, projectors, tags. `lr` by default.
        weight_decay: of matrices; biases, norms and tags have none.
        betas: of AdamW.
        eps: of AdamW.
        schedule: after the warm-up: stay, or fall to `min_lr_ratio` along half a cosine.
        warmup_steps: steps over which the rate rises linearly from 0.
        min_lr_ratio: where the cosine ends, as a share of the rate.
    """

    lr: NonNegativeFloat = 5e-5
    vision_lr: NonNegativeFloat | None = None
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[UnitFloat, UnitFloat] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: NonNegativeInt = 20
    min_lr_ratio: UnitFloat = 0.0

    def __post_init__(self) -> None:
        rates = [self.lr] if self.vision_lr is None else [self.lr, self.vision_lr]
        if min(rates) < 0 or self.warmup_steps < 0 or self.weight_decay < 0:
            raise ConfigError(
                f"model.optimizer: lr {self.lr}, vision_lr {self.vision_lr}, warmup_steps {self.warmup_steps}, "
                f"weight_decay {self.weight_decay} (expected none below 0)"
            )


def rate_factor(config: OptimizerConfig, step: int, total_steps: Callable[[], float]) -> float:
    """Factor on the learning rate at optimiser step `step`, from 0.

    Args:
        config: schedule and warm-up.
        step: number of steps taken before this one.
        total_steps: gives those of the whole run; infinite where it has no end, and then a cosine stays at 1. Asked
            where the rate depends on it alone, never while warming up.
    """
    if step < config.warmup_steps:
        return step / config.warmup_steps
    if config.schedule == "constant" or step == config.warmup_steps or math.isinf(total := total_steps()):
        return 1.0
    done = min(1.0, (step - config.warmup_steps) / max(1, total - config.warmup_steps))
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done))


def build_optimizer(
    named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, total_steps: Callable[[], float]
) -> tuple[AdamW, LambdaLR]:
    """AdamW over what trains, and its schedule.

    Args:
        named: parameters with their names; those of the language model have a part ``llm`` in theirs.
        config: rates, decay, schedule.
        total_steps: gives the optimiser steps of the run; asked after the warm-up alone, see `rate_factor`.

    Raises:
        ConfigError: nothing trains.
    """
    vision_lr = config.lr if config.vision_lr is None else config.vision_lr
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            part = "llm" if "llm" in name.split(".") else "vision"
            decays = parameter.ndim > 1 and name.rpartition(".")[2] != "tags"
            groups.setdefault((part, decays), []).append(parameter)
    if not groups:
        raise ConfigError("nothing in the model trains. Fix: give llm a lora, or an encoder that is not Frozen")
    described: list[dict[str, Any]] = [
        {
            "name": f"{part}{'' if decays else '_no_decay'}",
            "params": parameters,
            "lr": config.lr if part == "llm" else vision_lr,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]
    optimizer = AdamW(described, lr=config.lr, betas=config.betas, eps=config.eps)
    return optimizer, LambdaLR(optimizer, lambda step: rate_factor(config, step, total_steps))
