"""The 3D vision transformer of RadFM and Reg2RG (paper section 3; published code ``vit_3d.py``), on one channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reg2rg.core.types import PositiveInt, UnitFloat
from reg2rg.models.encoders.base import ENCODERS, Encoder, Size, check_size, split_size
from reg2rg.models.encoders.blocks import Block
from reg2rg.models.encoders.weights_radfm import fold_channels, is_published_vit3d, rename_vit3d
from reg2rg.models.lookup import take

_VOXELS_AT_ONCE = 1 << 23
"""Of volumes whose patches are laid out at a time in training."""


@ENCODERS.register
class ViT3D(Encoder):
    """3D vision transformer over patches; the defaults are the published texture encoder.

    The published mask encoder is the same class with ``patch=(32, 32, 16), table_size=(256, 256, 64), dim=255, depth=3,
    mlp_dim=512, shift=0``, inside a `TokenMean`.

    The published model feeds three equal channels. This one takes a single channel and gives the same tokens: see
    `reg2rg.models.encoders.weights_radfm.fold_channels`, which `adapt_weights` applies to published weights.

    Args:
        size: H, W, D of the input in voxels.
        patch: H, W, D of a patch; each must divide `size`.
        dim: width of the tokens, a multiple of three (one position table an axis).
        depth: number of blocks.
        heads: attention heads.
        head_dim: width of one head.
        mlp_dim: hidden width of the blocks' perceptrons.
        dropout: inside the blocks, in training.
        embedding_dropout: on the embedded patches, in training.
        table_size: the size in voxels that the position tables are made for; at least `size`. A smaller input takes
            every n-th row of them, as the published code does.
        shift: added to the input. The LayerNorm over a patch does not see it, but it moves the commonest value to
            zero, where float32 is most exact: 1 for views in [-1, 1] with air at -1, 0 for masks.
        checkpointing: recompute the blocks' activations in the backward pass, for memory.
    """

    takes_float32 = True

    def __init__(
        self,
        size: Size = (256, 256, 64),
        patch: Size = (32, 32, 4),
        dim: PositiveInt = 768,
        depth: PositiveInt = 12,
        heads: PositiveInt = 8,
        head_dim: PositiveInt = 64,
        mlp_dim: PositiveInt = 2048,
        dropout: UnitFloat = 0.1,
        embedding_dropout: UnitFloat = 0.1,
        table_size: Size = (512, 512, 512),
        shift: float = 1.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if dim % 3:
            raise ValueError(f"ViT3D: dim is {dim}, expected a multiple of 3 (one position table an axis)")
        self.size, self.patch, self.shift, self.checkpointing = size, patch, shift, checkpointing
        self.embedding_dropout = embedding_dropout
        self.grid = split_size(size, patch, "patches of")
        self.out_channels, self.num_tokens = dim, self.grid[0] * self.grid[1] * self.grid[2]

        voxels = patch[0] * patch[1] * patch[2]
        self.patch_norm = nn.LayerNorm(voxels)
        self.patch_linear = nn.Linear(voxels, dim)
        self.token_norm = nn.LayerNorm(dim)
        rows = split_size(table_size, patch, "patches of")
        self.position_h, self.position_w, self.position_d = (nn.Parameter(torch.rand(n, dim // 3)) for n in rows)
        for name, cells, table in zip("hwd", self.grid, rows, strict=True):
            self.register_buffer(f"rows_{name}", _table_rows(cells, table), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, heads, head_dim, mlp_dim, dropout) for _ in range(depth))

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); tokens in the order h, w, d with d fastest."""
        check_size(volumes, self.size, self)
        tokens = self.token_norm(self._embed(volumes)) + self.positions()
        tokens = F.dropout(tokens, self.embedding_dropout, self.training)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        embedded: Tensor = tokens
        return embedded

    def _embed(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C): the norm over a patch and the linear map behind it."""
        norm, linear = self.patch_norm, self.patch_linear
        if volumes.requires_grad or not torch.is_grad_enabled():
            embedded: Tensor = linear(norm(self._patches(volumes)))
            return embedded
        # Volumes are data here and need no gradient. With the norm's gain and bias folded into the linear map nothing
        # between the two needs one either, which is a third of the map's cost. Patches are laid out anew in the
        # backward pass, a few volumes at a time: kept, they would be the largest thing that a step on tokens holds.
        weight, bias = linear.weight * norm.weight, linear.bias + linear.weight @ norm.bias

        def embed(few: Tensor) -> Tensor:
            return F.linear(F.layer_norm(self._patches(few), norm.normalized_shape, eps=norm.eps), weight, bias)

        few = max(1, _VOXELS_AT_ONCE // volumes[:1].numel())
        return torch.cat(
            [
                checkpoint(embed, part, use_reentrant=False, preserve_rng_state=False)
                for part in torch.split(volumes, few)
            ]
        )

    def positions(self) -> Tensor:
        """Position embedding of every cell of the grid, (T, C): the tables of the three axes side by side."""
        axes = [
            take(table, rows)
            for table, rows in (
                (self.position_h, self.get_buffer("rows_h")),
                (self.position_w, self.get_buffer("rows_w")),
                (self.position_d, self.get_buffer("rows_d")),
            )
        ]
        h, w, d = self.grid
        along_h = axes[0][:, None, None].expand(h, w, d, -1)
        along_w = axes[1][None, :, None].expand(h, w, d, -1)
        along_d = axes[2][None, None, :].expand(h, w, d, -1)
        return torch.cat([along_h, along_w, along_d], dim=-1).flatten(0, 2)

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Accept this class's own weights and the published ones (three channels or one)."""
        if not is_published_vit3d(weights):
            return weights
        return rename_vit3d(fold_channels(weights, voxels=self.patch_linear.in_features))

    def _patches(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, voxels), shifted, in the weights' dtype."""
        shifted = volumes + self.shift if self.shift else volumes
        return self._patchify(shifted).to(self.patch_linear.weight.dtype)

    def _patchify(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, voxels): cells in the order h, w, d, and so the voxels of a patch."""
        (h, w, d), (p, q, r) = self.grid, self.patch
        cells = volumes.reshape(-1, h, p, w, q, d, r).permute(0, 1, 3, 5, 2, 4, 6)
        return cells.reshape(-1, self.num_tokens, p * q * r)


def _table_rows(cells: int, table: int) -> Tensor:
    """Rows of a position table that `cells` cells take: (a + 1) * floor(table / cells) - 1 (published code).

    Raises:
        ValueError: the table has fewer rows than the grid has cells.
    """
    if table < cells:
        raise ValueError(f"ViT3D: {cells} cells along an axis but position tables of {table} rows: raise table_size")
    return (torch.arange(cells) + 1) * (table // cells) - 1
