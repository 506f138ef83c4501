"""Region recognition, and loss by region: accumulators that reduce over processes.

A slot is recognised if the paragraph at this slot names the region that stands there. A slot without a valid paragraph
is not. The published code compares names in the same way, study by study (paper table of region recognition).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from reg2rg.core.report import Report
from reg2rg.evaluation.metrics.scores import recognised, recognition


class _Sums(Metric):  # type: ignore[misc]  # torchmetrics is not typed here
    """A metric whose sums keep their dtype when the model is cast; torchmetrics forgets it for ``Module.to(dtype)``."""

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        return super()._apply(lambda state: fn(state).to(state.dtype), exclude_state)


class RegionRecognition(_Sums):
    """Region recognition over studies.

    Args:
        regions: names of the regions that may be given.
    """

    full_state_update = False
    study_share: Tensor
    studies: Tensor
    right: Tensor
    given: Tensor

    def __init__(self, regions: Sequence[str]) -> None:
        super().__init__()
        self.regions = tuple(regions)
        self.add_state("study_share", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("studies", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("right", torch.zeros(len(self.regions), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("given", torch.zeros(len(self.regions), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, given: Sequence[str], report: Report) -> None:
        """Count one study. One without regions has nothing to recognise and does not count.

        Args:
            given: its regions in slot order.
            report: what was generated, parsed.
        """
        if not given:
            return
        self.study_share += recognition(given, report)
        self.studies += 1
        for region, hit in zip(given, recognised(given, report), strict=True):
            place = self.regions.index(region)
            self.right[place] += int(hit)
            self.given[place] += 1

    def compute(self) -> dict[str, Tensor]:
        """The figures.

        Returns:
            ``study``: mean over studies of the share of recognised slots (published protocol); ``region``: mean over
            the regions that were given of their share, so that rare regions count alike; and each region's share under
            its name. Empty if no study was counted.
        """
        if not int(self.studies):
            return {}
        seen = self.given > 0
        share = self.right.float() / self.given.clamp(min=1)
        figures = {
            "study": self.study_share / self.studies,
            "region": share[seen].mean() if bool(seen.any()) else share.sum(),
        }
        return figures | {name: share[i] for i, name in enumerate(self.regions) if bool(seen[i])}


class RegionLoss(_Sums):
    """Mean loss of the label tokens, over all and by region.

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
