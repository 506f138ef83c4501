"""Attention of one new token a row to all before it, on a CPU: products that read keys and values in long runs.

Each step of decoding reads the whole cache once, so it is bound by memory. PyTorch's fused attention is made for many
queries; with one it reads at half the speed of memory. Two plain products reach it when the memory of keys and values
runs along positions (`ReservedLayer`, ``turned``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_NAME = "reg2rg_rows"


def reads_rows(model: Any, inputs: Tensor) -> bool:
    """Whether `row_attention` is for this model and device.

    A family must call what is registered under the name of its attention. One that compares the name itself (Falcon)
    takes another branch for a name that it does not know, and adds a mask of truth values to its logits.
    """
    on_cpu = inputs.device.type == "cpu" and inputs.dtype == torch.float32
    calls_registered = getattr(model, "_supports_attention_backend", False)
    return on_cpu and calls_registered and getattr(model.config, "_attn_implementation", None) == "sdpa"


@contextmanager
def row_attention(model: Any) -> Iterator[None]:
    """While active, layers of a model that would call PyTorch's fused attention call `attend_rows`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, attend_rows)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = "sdpa"


def attend_rows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention function; anything but one query a row without extras goes to PyTorch's.

    Args:
        module: the calling layer.
        query: (B, heads, 1, K).
        key: (B, groups, L, K).
        value: (B, groups, L, K).
        attention_mask: (B, 1, 1, L), bool or added, or ``None``.
        dropout: of the weights; 0 here.
        scaling: of the logits; K to the power of -1/2 by default.
        **options: what other attention functions take.

    Returns:
        (B, 1, heads, K), and no weights.
    """
    batch, heads, new, width = query.shape
    shared_mask = attention_mask is None or attention_mask.shape[1] == 1
    if new != 1 or dropout or not shared_mask or any(options.get(name) is not None for name in EXTRAS):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return found
    packed = query.reshape(batch, key.shape[1], -1, width) * (width**-0.5 if scaling is None else scaling)
    logits = torch.matmul(packed, key.transpose(-1, -2))  # (B, groups, heads of a group, L)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attention_mask, float("-inf"))
    elif attention_mask is not None:
        logits = logits + attention_mask
    return torch.matmul(logits.softmax(-1), value).reshape(batch, 1, heads, -1), None


EXTRAS = ("position_bias", "softcap", "s_aux")
"""Arguments of attention functions that change what attention is; `attend_rows` leaves them to PyTorch's."""
