"""Linear layers at decoding on a CPU: a row for each report, and matrices of megabytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW_ROWS = 64


@contextmanager
def products_in_parts(model: nn.Module, largest: int = 1 << 20) -> Iterator[None]:
    """While active, a CPU multiplies by large matrices part by part.

    Before it multiplies a few rows by a matrix of many megabytes, the CPU's library rearranges the whole matrix, which
    takes longer than the product. A part stays in the processor's cache meanwhile.

    Args:
        model: its linear layers with weights on the CPU are changed.
        largest: bytes of a part (a row at least).
    """
    changed = []
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu":
            weight = module.weight
            rows = max(1, largest // (weight.shape[1] * weight.element_size()))
            if weight.shape[0] >= 4 * rows:
                vars(module)["forward"] = _in_parts(module, rows)
                changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del vars(module)["forward"]  # the class's own again


def _in_parts(linear: nn.Linear, rows: int) -> Callable[[Tensor], Tensor]:
    weights = torch.split(linear.weight, rows)
    biases = [None] * len(weights) if linear.bias is None else torch.split(linear.bias, rows)

    def forward(inputs: Tensor) -> Tensor:
        if inputs.shape[:-1].numel() > _FEW_ROWS:
            return F.linear(inputs, linear.weight, linear.bias)
        return torch.cat([F.linear(inputs, *part) for part in zip(weights, biases, strict=True)], dim=-1)

    return forward
