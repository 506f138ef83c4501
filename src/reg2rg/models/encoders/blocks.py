"""Parts that the encoders share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(N, T, heads * K) to (N, heads, T, K)."""
    return tokens.reshape(tokens.shape[0], tokens.shape[1], heads, -1).transpose(1, 2)


def join_heads(tokens: Tensor) -> Tensor:
    """(N, heads, T, K) to (N, T, heads * K)."""
    return tokens.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention; the width of the heads is free of the width of the tokens.

    Args:
        dim: width of the tokens.
        heads: number of heads.
        head_dim: width of one head.
        dropout: on the attention weights and on the output.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, C) to (N, T, C)."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(tokens).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)  # (N, heads, T, K)
        return F.dropout(self.out(join_heads(mixed)), self.dropout, self.training)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron with exact GELU.

    Args:
        dim: width of the tokens.
        heads: number of heads.
        head_dim: width of one head.
        mlp_dim: hidden width of the perceptron.
        dropout: after each linear map and on the attention weights.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads, head_dim, dropout)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp_in = nn.Linear(dim, mlp_dim)
        self.mlp_out = nn.Linear(mlp_dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, C) to (N, T, C)."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        hidden = F.dropout(F.gelu(self.mlp_in(self.mlp_norm(tokens))), self.dropout, self.training)
        return tokens + F.dropout(self.mlp_out(hidden), self.dropout, self.training)


class KeptStatistics(nn.Module):
    """Batch normalisation by statistics that are never updated, so that a volume's tokens do not depend on the others.

    Gain and offset train.

    Args:
        channels: of the input (N, channels, ...).
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel; the shape stays."""
        return F.batch_norm(x, self.mean, self.var, self.weight, self.bias)
