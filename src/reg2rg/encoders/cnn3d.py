"""A small 3D CNN that learns from a few hundred studies and is quick on a CPU."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg2rg.encoders.base import ENCODERS, Encoder, Size, check_size, split_size


@ENCODERS.register
class CNN3D(Encoder):
    """Strided 3D convolutions, then one token for each cell of a coarse grid.

    The stem embeds patches together with their brightest and darkest voxel; every further stage halves each axis. A
    token is made of the mean and the maximum of every stage's features over its cell, so that a bright spot of a few
    voxels reaches it undiluted, plus a learned position. Normalisation is by group, within a volume: nothing depends on
    what else is in the batch. Features lie channels-last, in which convolutions took half the time on CPUs.

    Args:
        size: H, W, D of the input in voxels, multiples of `patch`.
        patch: H, W, D of the stem's patches.
        channels: features of the stem and of each further stage, multiples of 8.
        grid: cells along each axis; their product is the number of tokens.
        dim: width of the tokens.
        dropout: on the tokens, in training.
    """

    def __init__(
        self,
        size: Size = (256, 256, 64),
        patch: Size = (4, 4, 4),
        channels: tuple[int, ...] = (32, 64, 128),
        grid: Size = (2, 2, 2),
        dim: int = 192,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not channels or any(width % 8 for width in channels):
            raise ValueError(f"CNN3D: channels are {channels}, expected at least one, each a multiple of 8")
        self.size, self.patch, self.grid = size, patch, grid
        self.cells = split_size(size, patch, "patches of")
        self.out_channels, self.num_tokens = dim, grid[0] * grid[1] * grid[2]
        self.stem = nn.Linear(patch[0] * patch[1] * patch[2], channels[0])
        self.extremes = nn.Linear(2, channels[0], bias=False)
        self.stages = nn.ModuleList(_Stage(a, b) for a, b in pairwise(channels))
        self.mix = nn.Linear(2 * sum(channels), dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.position = nn.Parameter(torch.randn(self.num_tokens, dim) * 0.02)

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); cells in the order h, w, d with d fastest."""
        check_size(volumes, self.size, self)
        patches = self._patches(volumes).to(self.stem.weight.dtype)  # (N, h, w, d, voxels)
        extremes = torch.stack(torch.aminmax(patches, dim=-1), dim=-1)  # (N, h, w, d, 2)
        features = F.gelu(self.stem(patches) + self.extremes(extremes))  # (N, h, w, d, C)
        features = features.permute(0, 4, 1, 2, 3)  # (N, C, h, w, d), channels last in memory
        pooled = [self._pool(features)]
        for stage in self.stages:
            features = stage(features)
            pooled.append(self._pool(features))
        tokens = self.norm(self.mix(torch.cat(pooled, dim=1).flatten(2).transpose(1, 2)))  # (N, T, C)
        dropped: Tensor = self.dropout(tokens + self.position)
        return dropped

    def _patches(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, h, w, d, voxels)."""
        (h, w, d), (p, q, r) = self.cells, self.patch
        return volumes.reshape(-1, h, p, w, q, d, r).permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, h, w, d, p * q * r)

    def _pool(self, features: Tensor) -> Tensor:
        """(N, C, h, w, d) to (N, 2 C, *grid): mean and maximum over each cell."""
        mean = F.adaptive_avg_pool3d(features, self.grid)
        return torch.cat([mean, F.adaptive_max_pool3d(features, self.grid)], dim=1)


class _Stage(nn.Module):
    """Convolution that halves each axis (an axis of one voxel stays), group norm, GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.GroupNorm(out_channels // 8, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        return F.gelu(self.norm(self.conv(features)))
