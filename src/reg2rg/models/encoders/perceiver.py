"""The Perceiver resampler of RadFM and Reg2RG: many tokens of an encoder to a few learned latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reg2rg.core.types import PathText, PositiveInt
from reg2rg.models.encoders.base import ENCODERS, Encoder
from reg2rg.models.encoders.blocks import join_heads, split_heads
from reg2rg.models.encoders.weights import load_checked, read_weights
from reg2rg.models.encoders.weights_radfm import is_published_perceiver, rename_perceiver


@ENCODERS.register
class PerceiverResampler(Encoder):
    """Latents that attend to the tokens of `encoder`; the defaults are the published resampler.

    Args:
        encoder: gives the tokens; its width is kept.
        num_latents: tokens that come out.
        depth: layers of attention and perceptron.
        heads: attention heads.
        head_dim: width of one head.
        ff_mult: hidden width of the perceptrons as a multiple of the width.
        weights: file of weights for the resampler alone (.safetensors, or the published .pth), or null.
    """

    takes_float32 = True
    hands_on = True

    def __init__(
        self,
        encoder: Encoder,
        num_latents: PositiveInt = 32,
        depth: PositiveInt = 6,
        heads: PositiveInt = 8,
        head_dim: PositiveInt = 64,
        ff_mult: PositiveInt = 4,
        weights: PathText | None = None,
    ) -> None:
        super().__init__()
        dim = encoder.out_channels
        self.out_channels, self.num_tokens = dim, num_latents
        self.resampler = PerceiverLayers(dim, num_latents, depth, heads, head_dim, ff_mult)
        if weights is not None:
            found = read_weights(weights, part="perceiver")
            named = rename_perceiver(found) if is_published_perceiver(found) else found
            load_checked(self.resampler, named, weights)
        self.encoder = encoder

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, num_latents, C)."""
        latents: Tensor = self.resampler(self.encoder(volumes))
        return latents


class PerceiverLayers(nn.Module):
    """Tokens (N, T, C) to latents (N, num_latents, C)."""

    def __init__(self, dim: int, num_latents: int, depth: int, heads: int, head_dim: int, ff_mult: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, dim))
        self.layers = nn.ModuleList(_Layer(dim, heads, head_dim, ff_mult * dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend; `bias` (N, T) is added to what is made of each token before the softmax, -inf leaves it out."""
        # All layers standardise the tokens alike and differ in gain and bias only, so this half is done once.
        tokens = F.layer_norm(tokens, self.norm.normalized_shape, eps=self.norm.eps)
        latents = self.latents.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(tokens, latents, bias)
        normed: Tensor = self.norm(latents)
        return normed


class _Layer(nn.Module):
    """Cross-attention of the latents to tokens and latents, then a perceptron; both added to the latents.

    Tokens come standardised: `media_norm` only has its gain and bias left to apply.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.media_norm = nn.LayerNorm(dim)
        self.latent_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim, bias=False)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp_in = nn.Linear(dim, mlp_dim, bias=False)
        self.mlp_out = nn.Linear(mlp_dim, dim, bias=False)

    def forward(self, tokens: Tensor, latents: Tensor, bias_of_tokens: Tensor | None = None) -> Tensor:
        normed = self.latent_norm(latents)
        query = split_heads(self.query(normed), self.heads)  # (N, heads, L, K)
        # What all keys share, the softmax does not see, and what all values share comes out as it is: so the bias of
        # the tokens' norm is taken from the few latents and added back once, instead of being added to every token.
        bias = self.media_norm.bias
        own = self.key_value(normed - bias)
        # Few latents are cheaper carried to the tokens' width than many tokens to the heads' (here by half, and the
        # backward pass by two thirds: it has no gradient of projected tokens to form).
        attend = self._attend_in_tokens if query.shape[2] <= query.shape[3] else self._attend_in_heads
        mask = None if bias_of_tokens is None else F.pad(bias_of_tokens, (0, own.shape[1]))[:, None, None]
        mixed = join_heads(attend(tokens, query, own, mask)) + self.key_value.weight.chunk(2)[1] @ bias
        latents = latents + self.out(mixed)
        # Four times as wide as the latents, and made again in the backward pass for 2 % of a step on tokens.
        updated: Tensor = latents + checkpoint(self._mlp, latents, use_reentrant=False, preserve_rng_state=False)
        return updated

    def _mlp(self, latents: Tensor) -> Tensor:
        out: Tensor = self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(latents))))
        return out

    def _attend_in_heads(self, tokens: Tensor, query: Tensor, own: Tensor, mask: Tensor | None = None) -> Tensor:
        """Project every token to a key and a value, then attend: (N, heads, L, K). `mask` (N, 1, 1, T + L) is added."""
        both = torch.cat([self.key_value(tokens * self.media_norm.weight), own], dim=1)
        key, value = (split_heads(part, self.heads) for part in both.chunk(2, dim=-1))
        return F.scaled_dot_product_attention(query, key, value, None if mask is None else mask.to(query.dtype))

    def _attend_in_tokens(self, tokens: Tensor, query: Tensor, own: Tensor, mask: Tensor | None = None) -> Tensor:
        """The same with the projections moved over: q (W t) = (q W) t, and the sum of a (W t) = W (the sum of a t)."""
        gained = self.key_value.weight * self.media_norm.weight
        to_key, to_value = gained.reshape(2, self.heads, -1, gained.shape[1])  # (heads, K, C) each
        key, value = (split_heads(part, self.heads) for part in own.chunk(2, dim=-1))
        query = query * query.shape[-1] ** -0.5
        wide = torch.einsum("nhlk,hkc->nhlc", query, to_key)
        at_tokens = torch.matmul(wide.flatten(1, 2), tokens.transpose(1, 2)).reshape(*wide.shape[:3], -1)
        at_latents = torch.matmul(query, key.transpose(-1, -2))
        scores = torch.cat([at_tokens, at_latents], dim=-1)  # (N, heads, L, T + L)
        weights = (scores if mask is None else scores + mask.to(scores.dtype)).softmax(dim=-1)
        of_tokens, of_latents = weights[..., : tokens.shape[1]], weights[..., tokens.shape[1] :]
        mean = torch.matmul(of_tokens.flatten(1, 2), tokens).reshape(wide.shape)  # (N, heads, L, C)
        return torch.einsum("nhlc,hkc->nhlk", mean, to_value) + torch.matmul(of_latents, value)
