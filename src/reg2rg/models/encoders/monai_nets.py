"""Encoders of MONAI. The library is imported when one is built, not before."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from reg2rg.core.types import PositiveInt, UnitFloat
from reg2rg.models.encoders.base import ENCODERS, Encoder, Size, check_size, split_size


@ENCODERS.register
class MonaiViT(Encoder):
    """MONAI's 3D vision transformer, without a class token; the last layer's normed tokens.

    Args:
        size: H, W, D of the input in voxels.
        patch: H, W, D of a patch; each must divide `size`.
        dim: width of the tokens, a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        mlp_dim: hidden width of the blocks' perceptrons.
        dropout: everywhere that MONAI has it, in training.
        projection: how patches are embedded: by a convolution, or a linear map of the flattened patch.
    """

    def __init__(
        self,
        size: Size = (256, 256, 64),
        patch: Size = (16, 16, 4),
        dim: PositiveInt = 768,
        depth: PositiveInt = 12,
        heads: PositiveInt = 12,
        mlp_dim: PositiveInt = 3072,
        dropout: UnitFloat = 0.0,
        projection: Literal["conv", "perceptron"] = "conv",
    ) -> None:
        super().__init__()
        from monai.networks.nets.vit import ViT

        grid = split_size(size, patch, "patches of")
        self.size, self.out_channels, self.num_tokens = size, dim, grid[0] * grid[1] * grid[2]
        self.vit = ViT(
            in_channels=1,
            img_size=size,
            patch_size=patch,
            hidden_size=dim,
            mlp_dim=mlp_dim,
            num_layers=depth,
            num_heads=heads,
            proj_type=projection,
            dropout_rate=dropout,
        )
        for block in self.vit.blocks:
            block.attn.use_flash_attention = True  # scaled_dot_product_attention; ViT has no argument for it
            # MONAI builds cross-attention that self-attention blocks never call: parameters without a gradient.
            del block.cross_attn, block.norm_cross_attn

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); tokens in the order h, w, d with d fastest."""
        check_size(volumes, self.size, self)
        tokens: Tensor = self.vit(volumes)[0]
        return tokens


@ENCODERS.register
class MonaiSwinUNETR(Encoder):
    """The Swin transformer inside MONAI's SwinUNETR: the coarsest level of its pyramid, 1/32 of each axis.

    Args:
        size: H, W, D of the input in voxels, multiples of 32.
        feature_size: features of the first level, a multiple of 12; the tokens are 16 times as wide.
        depths: blocks of each level.
        heads: attention heads of each level.
        window: side of the attention windows in tokens.
        dropout: on embeddings, attention and perceptrons, in training.
        checkpointing: recompute activations in the backward pass, for memory.
    """

    def __init__(
        self,
        size: Size = (256, 256, 64),
        feature_size: PositiveInt = 48,
        depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 2, 2),
        heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 6, 12, 24),
        window: PositiveInt = 7,
        dropout: UnitFloat = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        from monai.networks.nets.swin_unetr import SwinTransformer

        if feature_size % 12:
            raise ValueError(f"MonaiSwinUNETR: feature_size is {feature_size}, expected a multiple of 12")
        grid = split_size(size, (32, 32, 32), "cells of")
        self.size, self.out_channels, self.num_tokens = size, 16 * feature_size, grid[0] * grid[1] * grid[2]
        self.swin = SwinTransformer(
            in_chans=1,
            embed_dim=feature_size,
            window_size=(window, window, window),
            patch_size=(2, 2, 2),
            depths=depths,
            num_heads=heads,
            drop_rate=dropout,
            attn_drop_rate=dropout,
            use_checkpoint=checkpointing,
            spatial_dims=3,
            use_flash_attention=True,
        )

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); tokens in the order h, w, d with d fastest."""
        check_size(volumes, self.size, self)
        coarsest: Tensor = self.swin(volumes)[-1]  # (N, C, h, w, d)
        return coarsest.flatten(2).transpose(1, 2)
