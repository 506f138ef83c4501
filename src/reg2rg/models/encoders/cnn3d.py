"""A small 3D CNN that learns from a few hundred studies and is quick on a CPU."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg2rg.core.types import NonNegativeInt, PositiveInt, UnitFloat
from reg2rg.models.encoders.base import ENCODERS, Encoder, Size, check_size, split_size


@ENCODERS.register
class CNN3D(Encoder):
    """Strided 3D convolutions and intensity histograms, one token for each cell of a coarse grid.

    The stem embeds patches together with their darkest and brightest voxel; every further stage halves each axis. A
    token is made of the mean and the maximum of the later stages' features over its cell, of histograms of the patches'
    darkest, mean and brightest value there (in bins and above them), and of a learned position. Extremes keep a bright
    spot of a few voxels from being averaged away; the histograms say from the first step on how much air, fluid or
    calcium there is, which convolutions need thousands of volumes to learn. Normalisation is within a volume: nothing
    depends on the batch.

    Features lie channels-last, in which convolutions took half the time on CPUs. No gradient reaches the input through
    the histograms.

    Args:
        size: H, W, D of the input in voxels, multiples of `patch`. Intensities are taken to lie in [-1, 1].
        patch: H, W, D of the stem's patches.
        channels: features of the stem and of each further stage, multiples of 8; at least one further stage.
        grid: cells along each axis; their product is the number of tokens.
        dim: width of the tokens.
        bins: bins of each histogram over [-1, 1]; 0 leaves the histograms out.
        dropout: on the tokens, in training.
    """

    takes_float32 = True

    def __init__(
        self,
        size: Size = (256, 256, 64),
        patch: Size = (4, 4, 4),
        channels: tuple[PositiveInt, ...] = (32, 64, 128),
        grid: Size = (2, 2, 2),
        dim: PositiveInt = 192,
        bins: NonNegativeInt = 32,
        dropout: UnitFloat = 0.0,
    ) -> None:
        super().__init__()
        if len(channels) < 2 or any(width < 1 or width % 8 for width in channels):
            raise ValueError(f"CNN3D: channels are {channels}, expected at least two, each a multiple of 8")
        self.size, self.patch, self.grid, self.bins = size, patch, grid, bins
        self.patches = split_size(size, patch, "patches of")
        if any(not 1 <= g <= p for g, p in zip(grid, self.patches, strict=True)):
            raise ValueError(f"CNN3D: grid is {grid}, expected at most one cell a patch: {self.patches}")
        self.out_channels, self.num_tokens = dim, grid[0] * grid[1] * grid[2]
        self.stem = nn.Linear(patch[0] * patch[1] * patch[2], channels[0])
        self.extremes = nn.Linear(2, channels[0], bias=False)
        self.stages = nn.ModuleList(_Stage(a, b) for a, b in pairwise(channels))
        self.mix = nn.Linear(2 * sum(channels[1:]), dim)
        if bins:
            self.histogram = nn.Linear(6 * bins, dim, bias=False)
            nn.init.normal_(self.histogram.weight, std=0.2)
        self.register_buffer("cell_of_patch", _cell_of_patch(self.patches, grid), persistent=False)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.position = nn.Parameter(torch.randn(self.num_tokens, dim) * 0.02)

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); cells in the order h, w, d with d fastest."""
        check_size(volumes, self.size, self)
        patches = self._patchify(volumes)  # (N, P, voxels)
        low, high = torch.aminmax(patches, dim=-1)
        extremes = torch.stack([low, high], dim=-1)  # (N, P, 2)
        dtype = self.stem.weight.dtype
        features = F.gelu(self.stem(patches.to(dtype)) + self.extremes(extremes.to(dtype)))  # (N, P, C)
        features = features.reshape(len(features), *self.patches, -1)
        features = features.permute(0, 4, 1, 2, 3)  # (N, C, h, w, d), channels last in memory
        pooled = []
        for stage in self.stages:
            features = stage(features)
            pooled += [F.adaptive_avg_pool3d(features, self.grid), F.adaptive_max_pool3d(features, self.grid)]
        tokens = self.mix(torch.cat(pooled, dim=1).flatten(2).transpose(1, 2))  # (N, T, C)
        if self.bins:
            statistics = torch.stack([low, patches.mean(dim=-1), high], dim=-1)
            tokens = tokens + self.histogram(self._histograms(statistics).to(dtype))
        dropped: Tensor = self.dropout(self.norm(tokens) + self.position)
        return dropped

    def _patchify(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, P, voxels)."""
        (h, w, d), (p, q, r) = self.patches, self.patch
        cut = volumes.reshape(-1, h, p, w, q, d, r).permute(0, 1, 3, 5, 2, 4, 6)
        return cut.reshape(-1, h * w * d, p * q * r)

    @torch.no_grad()
    def _histograms(self, statistics: Tensor) -> Tensor:
        """Statistics of the patches (N, P, 3) to (N, T, 6 bins): how a cell's patches are spread over intensities.

        For each statistic the square roots of the shares in each bin, and the logarithms of the counts above each bin's
        lower edge, scaled to [-1, 1]. The first tells diffuse changes apart; in the second a single bright patch among
        a thousand stands out.
        """
        count, kinds = len(statistics), statistics.shape[-1]
        cells = self.get_buffer("cell_of_patch")  # (P,)
        bins = ((statistics.float() + 1) * (self.bins / 2)).long().clamp_(0, self.bins - 1)
        slots = (cells[:, None] * kinds + torch.arange(kinds, device=cells.device)) * self.bins + bins  # (N, P, 3)
        size = count, self.num_tokens * kinds * self.bins
        counts = torch.zeros(size, device=cells.device, dtype=torch.float32)  # half precision counts to 256 alone
        counts.scatter_add_(1, slots.flatten(1), counts.new_ones(1).expand(count, slots[0].numel()))
        counts = counts.reshape(count, self.num_tokens, kinds, self.bins)
        total = counts.sum(-1, keepdim=True)
        above = counts.flip(-1).cumsum(-1).flip(-1)
        spread = torch.cat([(counts / total).sqrt(), 2 * above.log1p() / total.log1p() - 1], dim=-1)
        return spread.flatten(2)


class _Stage(nn.Module):
    """Convolution that halves each axis (an axis of one voxel stays), group norm, GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.GroupNorm(out_channels // 8, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        return F.gelu(self.norm(self.conv(features)))


def _cell_of_patch(patches: Size, grid: Size) -> Tensor:
    """Index of the grid cell that each patch lies in, (P,), both in the order h, w, d with d fastest."""
    h, w, d = (torch.arange(p) * g // p for p, g in zip(patches, grid, strict=True))
    return ((h[:, None, None] * grid[1] + w[None, :, None]) * grid[2] + d[None, None, :]).flatten()
