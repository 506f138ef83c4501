"""What a second reading is held against: likelihoods of the tokens that a guide took, and how close they were."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from reg2rg.models.constrained.guide import ReportGuide
from reg2rg.models.llm.base import END, Branches


class Witness:
    """A guide that does what another does, and takes notes; see `reg2rg.models.llm.base.Guide`.

    Args:
        guide: writes the answer.
        eos: id that ends an answer.

    Attributes:
        ids: tokens taken so far.
        truncated: something was cut.
        most: tokens that it takes at most.
        nll: negative log-likelihood of each token taken, in nats, over the whole vocabulary; not of the end.
        margin: least distance of a token, or of the end, to the next likeliest that was allowed, in nats.
    """

    def __init__(self, guide: ReportGuide, eos: int) -> None:
        self._guide, self._eos = guide, eos
        self.ids, self.truncated, self.most = guide.ids, guide.truncated, guide.most
        self.nll: list[float] = []
        self.margin = math.inf

    def allows(self, token: int) -> bool:
        """As the guide."""
        return self._guide.allows(token)

    def allowed(self) -> Sequence[int] | None:
        """As the guide."""
        return self._guide.allowed()

    def look(self, token: int, logits: Tensor, branches: Callable[[], Branches]) -> None:
        """Note, then as the guide."""
        few = self._guide.allowed()
        logits = logits.double()
        own = self._eos if token == END else token
        if few is None:
            others = logits.clone()
            others[own] = -math.inf
            others[others > logits[own]] = -math.inf  # refused, whatever their likelihood
        else:
            others = logits[[one for one in few if one != own]]
        if len(others):
            self.margin = min(self.margin, float(logits[own] - others.max()))
        if token != END:
            self.nll.append(float(logits.logsumexp(0) - logits[own]))
        self._guide.look(token, logits, branches)

    def take(self, token: int) -> bool:
        """As the guide."""
        goes_on = self._guide.take(token)
        self.truncated = self._guide.truncated
        return goes_on
