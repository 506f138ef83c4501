"""The pooler of CT-CHAT's projector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg2rg.core.types import PathText, PositiveInt
from reg2rg.extras.peers.weights import rename_ctchat_pooler
from reg2rg.models.encoders.base import ENCODERS, Encoder
from reg2rg.models.encoders.blocks import join_heads, split_heads
from reg2rg.models.encoders.weights import load_checked, read_weights


@ENCODERS.register
class AttentionPool(Encoder):
    """Learned queries that look once at the tokens of `encoder`: the pooler of CT-CHAT's projector.

    Unlike a `PerceiverResampler` it has one layer, no residual, no perceptron, and keys of the tokens alone. What comes
    behind it in CT-CHAT, LayerNorm, linear, GELU, linear, is an `MLPProjector`.

    Args:
        encoder: gives the tokens; its width is kept.
        num_queries: tokens that come out.
        heads: attention heads; must divide the width.
        weights: file of weights for the pooler alone (ours, or CT-CHAT's projector), or null.
    """

    takes_float32 = True
    hands_on = True

    def __init__(
        self, encoder: Encoder, num_queries: PositiveInt = 256, heads: PositiveInt = 8, weights: PathText | None = None
    ) -> None:
        super().__init__()
        dim = encoder.out_channels
        if num_queries < 1 or dim % heads:
            raise ValueError(
                f"AttentionPool: {num_queries} queries and {heads} heads on a width of {dim}, expected at least one "
                "query, and heads that divide the width"
            )
        self.out_channels, self.num_tokens = dim, num_queries
        self.pooler = _Pooler(dim, num_queries, heads)
        if weights is not None:
            load_checked(self.pooler, rename_ctchat_pooler(read_weights(weights)), weights)
        self.encoder = encoder

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, num_queries, C)."""
        pooled: Tensor = self.pooler(self.encoder(volumes))
        return pooled


class _Pooler(nn.Module):
    """Tokens (N, T, C) to (N, queries, C)."""

    def __init__(self, dim: int, queries: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Parameter(torch.randn(queries, dim))
        self.token_norm = nn.LayerNorm(dim)
        self.query_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.query(self.query_norm(self.queries)).expand(len(tokens), -1, -1)
        key, value = self.key_value(self.token_norm(tokens)).chunk(2, dim=-1)
        query, key, value = (split_heads(part, self.heads) for part in (query, key, value))
        pooled: Tensor = self.out(join_heads(F.scaled_dot_product_attention(query, key, value)))
        return pooled
