"""Loss by region: an accumulator that reduces over processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric


class RegionLoss(Metric):  # type: ignore[misc]  # torchmetrics is not typed here
    """Mean loss of the label tokens, over all and by region.

    Its sums keep their dtype when the model is cast; torchmetrics forgets that for ``Module.to(dtype)``.

    Args:
        regions: names of the regions that may be given.
        over_processes: `compute` sums over all processes, which must all call it then.
    """

    full_state_update = False
    total: Tensor
    tokens: Tensor

    def __init__(self, regions: Sequence[str], over_processes: bool = True) -> None:
        super().__init__(sync_on_compute=over_processes)
        self.regions = tuple(regions)
        # One more place than regions: tokens that belong to none (EOS).
        self.add_state("total", torch.zeros(len(self.regions) + 1), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros(len(self.regions) + 1), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        return super()._apply(lambda state: fn(state).to(state.dtype), exclude_state)

    def update(self, nll: Tensor, label_region: Tensor, names: Sequence[str]) -> None:
        """Count the label tokens of one batch.

        Args:
            nll: (K,) negative log-likelihood of each.
            label_region: (K,) index of its region among the batch's N packed ones, -1 for none.
            names: the N regions' names.
        """
        places = [self.regions.index(name) for name in names] + [len(self.regions)]
        place = torch.tensor(places, device=nll.device)[label_region]  # -1 is the last: none
        nll = nll.detach().to(self.total)
        self.total.index_add_(0, place.to(self.total.device), nll)
        self.tokens.index_add_(0, place.to(self.total.device), torch.ones_like(nll))

    def compute(self) -> dict[str, Tensor]:
        """``all``: mean over all label tokens; and each region's mean under its name, where it had tokens."""
        figures = {"all": self.total.sum() / self.tokens.sum().clamp(min=1)}
        means = self.total / self.tokens.clamp(min=1)
        return figures | {name: means[i] for i, name in enumerate(self.regions) if self.tokens[i] > 0}


def sum_losses(nll: Tensor, trainer: L.Trainer) -> tuple[Tensor, Tensor]:
    """Sum of the losses of label tokens (K,), and how many there are, over all processes."""
    sums = torch.stack([nll.detach().sum(), nll.new_tensor(float(nll.numel()))])
    if trainer.world_size > 1:
        sums = trainer.strategy.reduce(sums, reduce_op="sum")
    return sums[0], sums[1]
