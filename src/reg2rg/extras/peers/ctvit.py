"""CTViT, the encoder of CT2Rep, CT-CLIP and CT-CHAT: slices seen by one transformer, columns of slices by another.

After the published code, which is Phenaki's C-ViViT on scans. Letters: t slabs of slices, h and w patches in a slab.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reg2rg.core.types import NonNegativeInt, PositiveFloat, PositiveInt
from reg2rg.extras.peers.codebook import CosineCodebook
from reg2rg.extras.peers.weights import rename_ctvit
from reg2rg.models.encoders.axes import Orientation, depth_first, depth_first_size, patches_of
from reg2rg.models.encoders.base import ENCODERS, Encoder, Size, check_size, split_size
from reg2rg.models.encoders.blocks import join_heads, split_heads
from reg2rg.models.lookup import take

_SHARPNESS = 8.0
"""Factor of the cosines that attention takes for logits (published code)."""
_AIR = -1.0
"""Added out before a patch's LayerNorm, which does not see it: near zero float32 is most exact."""


@ENCODERS.register
class CTViT(Encoder):
    """Patches, a transformer within each slab, one along each column of slabs, a codebook. Defaults: CT2Rep's.

    CT-CLIP and CT-CHAT have ``patch=(20, 20, 10)``. There are no position embeddings: a convolution over neighbouring
    tokens in every block, and in slabs a bias on attention that a small network makes of the distance, say where things
    are. So weights serve any size of view that the patches divide.

    Args:
        size: H, W, D of the input in voxels.
        patch: H, W, D of a patch; each must divide `size`.
        dim: width of the tokens.
        spatial_depth: blocks within slabs.
        temporal_depth: blocks along columns.
        heads: attention heads.
        head_dim: width of one head.
        ff_mult: hidden width of the gated perceptrons is 2/3 of this multiple of `dim`.
        codes: size of the codebook whose vectors the tokens become; 0 leaves the tokens as they are.
        codebook_update: ``frozen``, or ``ema`` to let the codes follow the tokens in training, as published. Codes that
            were not trained need the latter.
        published_quirks: in the transformer along columns the published convolution takes tokens that lie column by
            column for tokens that lie slab by slab, and so mixes others than neighbours. Published weights were trained
            so; false puts it right.
        orientation: ``array`` keeps the view's in-plane axes; ``image`` turns slices as radiologists view them.
        checkpointing: recompute the blocks' activations in the backward pass, for memory.
    """

    takes_float32 = True

    def __init__(
        self,
        size: Size = (480, 480, 240),
        patch: Size = (24, 24, 12),
        dim: PositiveInt = 512,
        spatial_depth: NonNegativeInt = 4,
        temporal_depth: NonNegativeInt = 4,
        heads: PositiveInt = 8,
        head_dim: PositiveInt = 32,
        ff_mult: PositiveFloat = 4.0,
        codes: NonNegativeInt = 8192,
        codebook_update: Literal["frozen", "ema"] = "frozen",
        published_quirks: bool = True,
        orientation: Orientation = "array",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if codes < 0:
            raise ValueError(f"CTViT: codes is {codes}, expected 0 (no codebook) or more")
        self.size, self.orientation, self.checkpointing = size, orientation, checkpointing
        self.patch = depth_first_size(patch, orientation)
        self.grid = depth_first_size(split_size(size, patch, "patches of"), orientation)
        """Tokens along t, h, w, the last fastest."""
        self.out_channels, self.num_tokens = dim, self.grid[0] * self.grid[1] * self.grid[2]

        voxels, mlp_dim = patch[0] * patch[1] * patch[2], int(ff_mult * 2 / 3 * dim)
        self.patch_norm = nn.LayerNorm(voxels)
        self.patch_linear = nn.Linear(voxels, dim)
        self.token_norm = nn.LayerNorm(dim)
        self.bias = _DistanceBias(dim, heads, self.grid[1], self.grid[2])
        blocks = [
            nn.ModuleList(_Block(dim, heads, head_dim, mlp_dim, by_column) for _ in range(depth))
            for depth, by_column in ((spatial_depth, False), (temporal_depth, not published_quirks))
        ]
        self.spatial, self.temporal = blocks
        self.spatial_norm, self.temporal_norm = nn.LayerNorm(dim, bias=False), nn.LayerNorm(dim, bias=False)
        self.codebook = CosineCodebook(dim, codes, codebook_update) if codes else None

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); tokens in the order t, h, w with w fastest."""
        check_size(volumes, self.size, self)
        patches = patches_of(depth_first(volumes - _AIR, self.orientation), self.patch)
        tokens = self.token_norm(self.patch_linear(self.patch_norm(patches.to(self.patch_linear.weight.dtype))))
        t, h, w = self.grid
        shape = (len(volumes), t, h, w)
        tokens = self._through(self.spatial, tokens.reshape(-1, h * w, self.out_channels), shape, self.bias())
        tokens = self.spatial_norm(tokens).unflatten(0, (-1, t)).transpose(1, 2)  # (N, h w, t, C)
        tokens = self._through(self.temporal, tokens.flatten(0, 1), shape, None)
        tokens = self.temporal_norm(tokens).unflatten(0, (-1, h * w)).transpose(1, 2).flatten(1, 2)
        quantised: Tensor = tokens if self.codebook is None else self.codebook(tokens)
        return quantised

    def _through(
        self, blocks: nn.ModuleList, tokens: Tensor, shape: tuple[int, int, int, int], bias: Tensor | None
    ) -> Tensor:
        for block in blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, shape, bias, use_reentrant=False)
            else:
                tokens = block(tokens, shape, bias)
        return tokens

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Accept this class's own weights, and the files of CT-CLIP and CT2Rep or their vision parts.

        Raises:
            ValueError: a file in which something differs from zero that the published code keeps at zero.
        """
        if not any(name.endswith("to_patch_emb.1.weight") for name in weights):
            return weights
        renamed = rename_ctvit(weights, len(self.spatial), len(self.temporal))
        if self.codebook is None:
            renamed.pop("codebook.vectors", None)
        return renamed


class _Block(nn.Module):
    """Convolution over neighbours, attention, gated perceptron, each added to its input.

    Args:
        by_column: tokens come column by column, (N h w, t, C), and the convolution is told so. Otherwise it takes them
            as they lie for (N, t, h, w).
    """

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_dim: int, by_column: bool) -> None:
        super().__init__()
        self.place = _Place(dim, by_column)
        self.attention = _CosineAttention(dim, heads, head_dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp_in = nn.Linear(dim, 2 * mlp_dim, bias=False)
        self.mlp_out = nn.Linear(mlp_dim, dim, bias=False)

    def forward(self, tokens: Tensor, shape: tuple[int, int, int, int], bias: Tensor | None) -> Tensor:
        tokens = self.place(tokens, shape) + tokens
        tokens = self.attention(tokens, bias) + tokens
        hidden, gate = self.mlp_in(self.mlp_norm(tokens)).chunk(2, dim=-1)
        out: Tensor = self.mlp_out(F.gelu(gate) * hidden) + tokens
        return out


class _Place(nn.Module):
    """Depthwise convolution of 3 x 3 x 3 tokens: where a token stands among its neighbours.

    In h and w the neighbours on both sides, in t the token's own slab and the two before it.
    """

    def __init__(self, dim: int, by_column: bool) -> None:
        super().__init__()
        self.by_column = by_column
        self.conv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, tokens: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        count, t, h, w = shape
        if self.by_column:
            grid = tokens.reshape(count, h, w, t, -1).permute(0, 4, 3, 1, 2)  # (N, C, t, h, w)
        else:
            grid = tokens.reshape(count, t, h, w, -1).permute(0, 4, 1, 2, 3)
        mixed = self.conv(F.pad(grid, (1, 1, 1, 1, 2, 0)))
        back = mixed.permute(0, 3, 4, 2, 1) if self.by_column else mixed.permute(0, 2, 3, 4, 1)
        placed: Tensor = back.reshape(tokens.shape)
        return placed


class _CosineAttention(nn.Module):
    """Attention by the cosine of queries and keys. Queries are made of normed tokens, keys and values of raw ones."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, bias=False)
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim, bias=False)
        self.query_scale, self.key_scale = (nn.Parameter(torch.ones(head_dim)) for _ in range(2))

    def forward(self, tokens: Tensor, bias: Tensor | None) -> Tensor:
        key, value = (split_heads(part, self.heads) for part in self.key_value(tokens).chunk(2, dim=-1))
        query = split_heads(self.query(self.norm(tokens)), self.heads)
        query = (F.normalize(query, dim=-1) * self.query_scale).to(value.dtype)
        key = (F.normalize(key, dim=-1) * self.key_scale).to(value.dtype)
        mask = None if bias is None else bias.to(value.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=_SHARPNESS)
        attended: Tensor = self.out(join_heads(mixed))
        return attended


class _DistanceBias(nn.Module):
    """Bias on attention between patches of a slab, from how far they are apart in rows and columns.

    The network sees sign(d) log(|d| + 1) of both differences. It is asked once for each pair of differences, not for
    each pair of patches.
    """

    def __init__(self, dim: int, heads: int, rows: int, columns: int) -> None:
        super().__init__()
        self.hidden_1 = nn.Linear(2, dim)
        self.hidden_2 = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, heads)
        apart = torch.cartesian_prod(torch.arange(1 - rows, rows), torch.arange(1 - columns, columns)).double()
        place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        steps = place[:, None] - place[None] + torch.tensor([rows - 1, columns - 1])
        self.register_buffer("apart", apart.sign() * apart.abs().log1p(), persistent=False)
        self.register_buffer("pair", steps[..., 0] * (2 * columns - 1) + steps[..., 1], persistent=False)

    def forward(self) -> Tensor:
        """(heads, rows * columns, rows * columns), for the patch that looks and the one that is looked at."""
        apart = self.get_buffer("apart").to(self.hidden_1.weight.dtype)
        hidden = F.leaky_relu(self.hidden_1(apart), 0.1)
        hidden = F.leaky_relu(self.hidden_2(hidden), 0.1)
        bias: Tensor = take(self.out(hidden), self.get_buffer("pair"))
        return bias.permute(2, 0, 1)
