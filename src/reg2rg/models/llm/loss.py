"""Cross-entropy that keeps one copy of the logits instead of four."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _TokenNLL(torch.autograd.Function):
    """The logits' own memory becomes the probabilities, then the gradient: one (K, V) array from head to backward."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        work, at = logits.detach(), labels.unsqueeze(1)  # shares the version counter: reuse elsewhere would be an error
        work.sub_(work.amax(1, keepdim=True))
        chosen = work.gather(1, at)
        total = work.exp_().sum(1, keepdim=True)
        if ctx.needs_input_grad[0]:
            ctx.gradient = work.div_(total).scatter_add_(1, at, torch.full_like(chosen, -1.0))
        return (total.log() - chosen).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        gradient = ctx.__dict__.pop("gradient", None)
        if gradient is None:
            raise RuntimeError("the answer's loss can be differentiated once: its gradient is computed in place")
        scaled: Tensor = gradient.mul_(upstream[0].unsqueeze(1))
        return scaled, None


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label. The logits are overwritten: nothing else may use them.

    Args:
        logits: (K, V) of any floating dtype.
        labels: (K,) token ids.

    Returns:
        (K,) float32; float64 if the logits are.
    """
    nll: Tensor = _TokenNLL.apply(logits if logits.dtype == torch.float64 else logits.float(), labels)
    return nll
