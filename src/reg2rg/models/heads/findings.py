"""Findings of each region from its visual tokens: detect first, then write."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from reg2rg.core.types import PositiveInt, UnitFloat
from reg2rg.evaluation.labelers import Labeler, RuleLabeler
from reg2rg.models.heads.base import HEADS, Head, HeadInputs


@HEADS.register
class FindingsHead(Head):
    """Clinical findings of each region from its own tokens, and if asked, from those of the whole image.

    All tokens of a region in their order, with a learned vector of the region, through one hidden layer; a linear map
    beside it. Targets are what a labeler reads in the training texts: no other label is used.

    Args:
        inputs: what it is built for.
        labeler: reads the targets; the keyword rules by default.
        image: look at the tokens of the whole image too: what lies in no region's mask can be seen there alone.
        hidden: width of the hidden layer.
        dropout: on the tokens and on the hidden layer, in training.
        rarest: share of a region's training texts that must state a label for the region to be able to have it.
    """

    odds: Tensor

    def __init__(
        self,
        inputs: HeadInputs,
        labeler: Labeler | None = None,
        image: bool = True,
        hidden: PositiveInt = 256,
        dropout: UnitFloat = 0.1,
        rarest: UnitFloat = 0.005,
    ) -> None:
        self.labeler = RuleLabeler() if labeler is None else labeler
        super().__init__(inputs, self.labeler.labels)
        self.rarest = rarest
        self.looks_at_image = (image and inputs.image > 0) or not inputs.tokens
        size = inputs.width * (inputs.tokens + inputs.image * self.looks_at_image)
        self.region = nn.Embedding(len(inputs.regions), hidden)
        self.hidden = nn.Linear(size, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, len(self.labels))
        self.beside = nn.Linear(size, len(self.labels), bias=False)
        nn.init.zeros_(self.beside.weight)
        # Log odds of each label in each region, as the training texts have them; what is seen moves them.
        self.register_buffer("odds", torch.zeros(len(inputs.regions), len(self.labels)))

    def forward(self, tokens: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """(N, T, E), (N, Tg, E) and (N,) to (N, L)."""
        seen = torch.cat([tokens, image], dim=1) if self.looks_at_image else tokens
        flat = self.dropout(seen.flatten(1)).to(self.hidden.weight.dtype)
        hidden = self.dropout(F.gelu(self.hidden(flat) + self.region(region)))
        logits: Tensor = self.out(hidden) + self.beside(flat) + self.odds[region]
        return logits

    def targets(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """What the labeler reads in each text, (N, L)."""
        return self.labeler.label(texts)

    @torch.no_grad()
    def learn(self, stated: NDArray[np.int64], texts: NDArray[np.int64]) -> None:
        """Take which labels a region can have, and how often it has them, from the training texts."""
        super().learn(stated, texts)
        enough = np.maximum(1, np.ceil(self.rarest * texts))[:, None]
        self.possible.copy_(torch.from_numpy(stated >= enough))
        odds = np.log((stated + 0.5) / (texts[:, None] - stated + 0.5))
        self.odds.copy_(torch.from_numpy(odds.clip(-math.log(1e4), math.log(1e4))))
