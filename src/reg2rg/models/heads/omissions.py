"""Conformal control of omissions: which paragraphs somebody should look at again, at a stated rate of error.

On studies that were neither trained on nor used to choose thresholds, each paragraph with findings has a least
probability: that of the finding which the head believes least. The bound of a region is the quantile of these that a
new paragraph's lies below at a rate of `alpha` (split conformal prediction, Vovk et al., 2005). A paragraph that leaves
out a label of at least that probability is marked for review. So at most `alpha` of the paragraphs of a region that
have findings leave one out without being marked.

This holds on average over studies that are exchangeable with those of the calibration, and only for these: another
scanner, another population or another labeler voids it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from reg2rg.evaluation.shift import QUANTILES, Floats, Shift, compare, reference
from reg2rg.models.heads.exact import ExactBuffers
from reg2rg.store.attributes import DENSITY_NAMES


class OmissionControl(ExactBuffers):
    """A bound for each region, kept with the weights.

    Args:
        regions: R of the region set.

    Attributes:
        bound: (R,) least probability of what a paragraph may not leave out unmarked; above 1 where nothing was
            calibrated, 0 where there are too few paragraphs to promise anything, so that all are marked.
        used: (R,) paragraphs with findings behind each.
        alpha: (1,) the share that is allowed; 0 before calibration.
        quantiles: (R, K, Q) of what was measured of the calibration studies' regions, see `reg2rg.evaluation.shift`.
        measured: (R,) how many of them have each region.
    """

    bound: Tensor
    used: Tensor
    alpha: Tensor
    quantiles: Tensor
    measured: Tensor

    def __init__(self, regions: int) -> None:
        super().__init__()
        self.register_buffer("bound", torch.full((regions,), 2.0))
        self.register_buffer("used", torch.zeros(regions))
        self.register_buffer("alpha", torch.zeros(1))
        self.register_buffer("quantiles", torch.zeros(regions, len(DENSITY_NAMES), QUANTILES))
        self.register_buffer("measured", torch.zeros(regions, dtype=torch.long))

    @property
    def calibrated(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.alpha > 0)

    @torch.no_grad()
    def calibrate(self, probabilities: Tensor, region: Tensor, present: Tensor, alpha: float) -> None:
        """Take the bounds from calibration studies.

        Args:
            probabilities: (N, L).
            region: (N,).
            present: (N, L) bool, what their texts state.
            alpha: share of paragraphs with findings that may leave one out unmarked.
        """
        scores = least_probability(probabilities, present)
        for place in range(len(self.bound)):
            own = scores[(region == place) & present.any(1)].sort().values
            rank = math.floor(alpha * (len(own) + 1))  # the lowest `rank` of n + 1 exchangeable ones lie below
            self.bound[place] = own[rank - 1] if rank else 0.0
            self.used[place] = len(own)
        self.alpha.fill_(alpha)

    @torch.no_grad()
    def remember(self, measured: Floats) -> None:
        """Keep what was measured of the calibration studies (S, R, K), for `shift`."""
        quantiles, count = reference(measured)
        self.quantiles.copy_(torch.from_numpy(quantiles))
        self.measured.copy_(torch.from_numpy(count))

    def shift(self, measured: Floats, regions: Sequence[str]) -> Shift:
        """Whether studies (S, R, K) look like those of the calibration."""
        quantiles, count = self.quantiles.double().cpu().numpy(), self.measured.cpu().numpy()
        return compare(measured, quantiles, count, regions, DENSITY_NAMES)

    def wanting(self, probabilities: Tensor, region: Tensor, said: Tensor, possible: Tensor) -> Tensor:
        """What each paragraph leaves out and may not, unmarked, (N, L) bool.

        Args:
            probabilities: (N, L).
            region: (N,).
            said: (N, L) bool, what the written paragraphs state.
            possible: (R, L) bool, labels that a region can have.
        """
        kept = (probabilities >= self.bound[region][:, None]) & possible[region]
        return kept & ~said


def least_probability(probabilities: Tensor, present: Tensor) -> Tensor:
    """(N,) the lowest probability among the labels that are present; 2 for none."""
    return torch.where(present, probabilities, torch.full_like(probabilities, 2.0)).amin(1)
