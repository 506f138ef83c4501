"""The 3D vision transformer of M3D-CLIP: a class token, one learned position a patch, a norm at the end."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reg2rg.core.types import PositiveInt, UnitFloat
from reg2rg.extras.peers.weights import rename_m3d
from reg2rg.models.encoders.axes import Orientation, depth_first, depth_first_size, patches_of
from reg2rg.models.encoders.base import ENCODERS, Encoder, Size, check_size, split_size
from reg2rg.models.encoders.blocks import Block


@ENCODERS.register
class M3DViT(Encoder):
    """M3D-CLIP's vision transformer over slices of a view; the defaults are the published one.

    The published network takes 32 slices of 256 x 256 in [0, 1], in patches of 4 x 16 x 16, slices first. This one
    takes the package's views in [-1, 1] with slices last, and turns and scales them. The class token takes part and is
    not handed on. M3D-LaMed puts means over blocks of tokens behind it: ``TokenPool(encoder, window=(2, 2, 2))``.

    Args:
        size: H, W, D of the input in voxels.
        patch: H, W, D of a patch; each must divide `size`.
        dim: width of the tokens, a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        mlp_dim: hidden width of the blocks' perceptrons.
        dropout: on the embedded patches and inside the blocks, in training.
        orientation: ``array`` keeps the view's in-plane axes; ``image`` turns slices as radiologists view them, for
            weights that learned from pictures.
        checkpointing: recompute the blocks' activations in the backward pass, for memory.
    """

    takes_float32 = True

    def __init__(
        self,
        size: Size = (256, 256, 32),
        patch: Size = (16, 16, 4),
        dim: PositiveInt = 768,
        depth: PositiveInt = 12,
        heads: PositiveInt = 12,
        mlp_dim: PositiveInt = 3072,
        dropout: UnitFloat = 0.0,
        orientation: Orientation = "array",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"M3DViT: dim is {dim}, expected a multiple of the {heads} heads")
        self.size, self.orientation, self.checkpointing, self.dropout = size, orientation, checkpointing, dropout
        self.patch = depth_first_size(patch, orientation)
        self.grid = depth_first_size(split_size(size, patch, "patches of"), orientation)
        """Tokens along the slices and the two in-plane axes, the last fastest."""
        self.out_channels, self.num_tokens = dim, self.grid[0] * self.grid[1] * self.grid[2]

        self.patch_linear = nn.Linear(patch[0] * patch[1] * patch[2], dim)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, self.num_tokens, dim), std=0.02))
        self.blocks = nn.ModuleList(Block(dim, heads, dim // heads, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); tokens in the order of `grid`."""
        check_size(volumes, self.size, self)
        slices = depth_first((volumes + 1) / 2, self.orientation)
        tokens = self.patch_linear(patches_of(slices, self.patch).to(self.patch_linear.weight.dtype))
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens + self.positions], dim=1)
        tokens = F.dropout(tokens, self.dropout, self.training)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        embedded: Tensor = self.norm(tokens[:, 1:])
        return embedded

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Accept this class's own weights and those of ``pretrained_ViT.bin``."""
        return rename_m3d(weights, len(self.blocks)) if "cls_token" in weights else weights
