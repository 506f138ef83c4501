"""Weights in half precision, trained without losing small steps to rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_WEIGHTS = "float32_weights"


class Float32Steps:
    """Lets an optimiser of weights in bfloat16 or float16 step float32 copies of them, as DeepSpeed does.

    Alone it would lose what is smaller than half a rounding: a step of 5e-5 leaves a bfloat16 weight above 0.02 where
    it is. And AdamW's squares of float16 gradients are zero, so that it divides by zero. The copies and AdamW's state
    are float32, belong to what trains alone, and are saved with the optimiser's state.

    Args:
        optimizer: of the weights; it keeps them as its parameters outside of its step.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._weights: list[list[Tensor]] = []
        self._loaded: dict[int, dict[str, Any]] = {}
        optimizer.register_step_post_hook(self._end)
        optimizer.register_load_state_dict_pre_hook(self._keep)
        optimizer.register_load_state_dict_post_hook(self._restore)

    def begin(self) -> None:
        """Put the copies in the place of the weights, until the step is taken; call it when gradients are there."""
        state = self._optimizer.state
        for group in self._optimizer.param_groups:
            self._weights.append(group["params"])
            group["params"] = [self._copied(weight, state.pop(weight, {})) for weight in group["params"]]

    def _copied(self, weight: Tensor, state: dict[str, Any]) -> Tensor:
        copied: Tensor = state.get(_WEIGHTS, weight.detach().float())
        if weight.grad is not None:
            copied.grad = weight.grad.float()
        if state:
            self._optimizer.state[copied] = state
        return copied

    @torch.no_grad()
    def _end(self, *_: Any) -> None:
        state = self._optimizer.state
        for group, weights in zip(self._optimizer.param_groups, self._weights, strict=True):
            for weight, copied in zip(weights, group["params"], strict=True):
                copied.grad = None
                if copied in state:
                    weight.copy_(copied)
                    state[weight] = state.pop(copied) | {_WEIGHTS: copied}
            group["params"] = weights
        self._weights = []

    def _keep(self, _: Optimizer, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["state"]

    def _restore(self, optimizer: Optimizer) -> None:
        """Torch has rounded what it loaded to the dtype of the weights."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for place, saved in self._loaded.items():
            weight = weights[place]
            for name, value in saved.items():
                if isinstance(value, Tensor):
                    optimizer.state[weight][name] = value.to(optimizer.state[weight][name].device, copy=True)
        self._loaded = {}
