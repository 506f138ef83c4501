"""Which gradients are summed in an order that threads decide."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Unordered(TorchDispatchMode):
    """Counts sums by `index_put_` over places that repeat, which is how the gradient of ``table[ids]`` is made.

    With more than one thread the CPU adds them in any order, so that equal seeds give other weights; `F.embedding` and
    `index_select` keep an order. It shows by the call itself, whatever the size and the number of threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "index_put" in str(func) and len(args) > 3 and args[3]:
            places = [index for index in args[1] if index is not None and index.dtype != torch.bool]
            if places:
                rows = torch.stack([place.flatten() for place in torch.broadcast_tensors(*places)], dim=1)
                if len(rows.unique(dim=0)) < len(rows):
                    self.found.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def unordered_sums(build_loss: Any) -> list[tuple[int, ...]]:
    """Shapes of what is summed so in the backward pass of a loss that `build_loss` gives."""
    with Unordered() as mode:
        build_loss().backward()
    return mode.found
