"""Vector quantisation by a codebook of directions, as in CTViT."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PIECE = 2048
"""Tokens that are compared with all codes at a time, for memory."""


def _without_autocast(device: str) -> contextlib.AbstractContextManager[object]:
    available = torch.amp.is_autocast_available(device)  # not on the meta device
    return torch.autocast(device, enabled=False) if available else contextlib.nullcontext()


class CosineCodebook(nn.Module):
    """Every token becomes the code that points most nearly its way. Gradients pass as if nothing had happened.

    Args:
        dim: width of tokens and codes.
        codes: number of codes.
        update: ``frozen`` keeps the codes; ``ema`` moves each, in training, towards the mean direction of its tokens.
        decay: share of a code that stays in one step of ``ema``.
    """

    vectors: Tensor

    def __init__(self, dim: int, codes: int, update: Literal["frozen", "ema"] = "frozen", decay: float = 0.8) -> None:
        super().__init__()
        self.update, self.decay = update, decay
        self.register_buffer("vectors", F.normalize(torch.randn(1, codes, dim), dim=-1))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, C) to (N, T, C)."""
        with _without_autocast(tokens.device.type):
            exact = torch.promote_types(tokens.dtype, torch.float32)  # near codes are told apart in no less
            flat = tokens.detach().flatten(0, 1).to(exact)
            directions = F.normalize(self.vectors[0].to(exact), dim=-1)
            pieces = (flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE))
            index = torch.cat([(piece @ directions.T).argmax(-1) for piece in pieces])
            codes = self.vectors[0][index].view_as(tokens).to(tokens.dtype)
            if self.training and self.update == "ema":
                self._move(flat, index, directions)
        return tokens + (codes - tokens).detach() if self.training else codes

    @torch.no_grad()
    def _move(self, flat: Tensor, index: Tensor, directions: Tensor) -> None:
        """One step towards the mean directions, over the tokens of all processes."""
        sums = torch.zeros_like(directions).index_add_(0, index, F.normalize(flat, dim=-1))
        counts = torch.bincount(index, minlength=len(directions)).to(sums.dtype)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
            torch.distributed.all_reduce(counts)
        means = torch.where(counts[:, None] > 0, F.normalize(sums, dim=-1), directions)
        self.vectors[0].lerp_(means.to(self.vectors.dtype), 1 - self.decay)
