"""Regions out of one grid of tokens: features that were made before, or by an encoder of the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg2rg.core.errors import ConfigError
from reg2rg.core.types import PositiveInt
from reg2rg.models.encoders.base import ENCODERS, Encoder, Size
from reg2rg.models.encoders.blocks import split_heads
from reg2rg.models.encoders.perceiver import PerceiverLayers
from reg2rg.models.encoders.pooling import grid_of
from reg2rg.models.lookup import take


@ENCODERS.register
class GridCells(Encoder):
    """The cells of a grid of features as tokens, as somebody else's encoder made them. It has no weights.

    Args:
        size: cells along each axis, ``${task.views.size}``.
        channels: numbers a cell, ``${task.views.channels}``.
    """

    takes_float32 = True

    def __init__(self, size: Size = (24, 24, 24), channels: PositiveInt = 768) -> None:
        super().__init__()
        self.grid, self.out_channels, self.num_tokens = size, channels, size[0] * size[1] * size[2]

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, C, H, W, D) to (N, H * W * D, C), the last axis fastest."""
        if tuple(volumes.shape[1:]) != (self.out_channels, *self.grid):
            raise ValueError(
                f"GridCells got features of shape {tuple(volumes.shape)}, expected (N, {self.out_channels}, "
                f"{self.grid[0]}, {self.grid[1]}, {self.grid[2]}). Give it size: ${{task.views.size}} and channels: "
                "${task.views.channels}"
            )
        return volumes.flatten(2).transpose(1, 2)


@ENCODERS.register
class MaskPool(Encoder):
    """A region's tokens, pooled under its mask out of the tokens that `encoder` gives of the whole image in one pass.

    As ``model.texture`` it is given the image and the masks (`of_regions`); as any other encoder it pools all of what
    it is given. A cell counts by the share of it that lies in the region; cells without any do not.

    Args:
        encoder: gives the tokens; it has a ``grid`` of three, as `GridCells`, or an encoder of CTs.
        pool: ``"mean"``, the weighted mean, with no weights of its own; ``"attention"``, learned queries whose softmax
            over the cells is weighted; ``"perceiver"``, layers of the published resampler, weighted the same way.
        tokens: of a region; a mean is one.
        heads: of attention.
        depth: layers of ``"perceiver"``.
    """

    takes_float32 = True
    hands_on = True

    def __init__(
        self,
        encoder: Encoder,
        pool: Literal["mean", "attention", "perceiver"] = "mean",
        tokens: PositiveInt = 1,
        heads: PositiveInt = 8,
        depth: PositiveInt = 2,
    ) -> None:
        super().__init__()
        grid, dim = grid_of(encoder), encoder.out_channels
        if grid is None or grid[0] * grid[1] * grid[2] != encoder.num_tokens:
            raise ValueError(
                f"MaskPool: {type(encoder).__name__} has no grid of its tokens, under which masks could lie"
            )
        if pool not in ("mean", "attention", "perceiver"):
            raise ValueError(f"MaskPool: pool is {pool!r}, expected mean, attention or perceiver")
        if pool == "mean" and tokens != 1:
            raise ValueError(f"MaskPool: tokens is {tokens}, but a mean is one token")
        self.encoder, self.pool, self.grid = encoder, pool, grid
        self.out_channels, self.num_tokens = dim, tokens
        if pool == "attention":
            self.attention = _Attention(dim, tokens, heads)
        elif pool == "perceiver":
            self.layers = PerceiverLayers(dim, tokens, depth, heads, max(8, dim // heads), 4)

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, C, H, W, D) to (N, T, C): all cells count alike."""
        return self.everywhere(self.encoder(volumes))

    def of_regions(
        self, images: Tensor, masks: Tensor, regions: Sequence[Sequence[str]], studies: Sequence[str] = ()
    ) -> Tensor:
        """Tokens of the regions of some studies, of one pass over each image.

        Args:
            images: (B, C, H, W, D), what `encoder` takes.
            masks: (N, 1, H, W, D) shares of cells or voxels, the regions of all studies in turn; each has some.
            regions: names of each study's regions; there are N in all.
            studies: ids, for the message.

        Returns:
            (N, T, C).

        Raises:
            ConfigError: regions whose masks have no weight in any cell; names them.
        """
        return self.under(self.encoder(images), masks, regions, studies)

    def everywhere(self, tokens: Tensor) -> Tensor:
        """Tokens of the encoder, (B, cells, C), pooled over all cells alike: (B, T, C)."""
        return self.under(tokens, tokens.new_ones((len(tokens), 1, *self.grid)), [("image",)] * len(tokens))

    def under(
        self, tokens: Tensor, masks: Tensor, regions: Sequence[Sequence[str]], studies: Sequence[str] = ()
    ) -> Tensor:
        """As `of_regions`, of tokens (B, cells, C) that the encoder has given."""
        shares = masks.to(torch.float32)
        if tuple(shares.shape[2:]) != self.grid:
            shares = F.adaptive_avg_pool3d(shares, self.grid)
        shares = shares.flatten(1)  # (N, cells)
        _require_weight(shares, regions, studies)
        counts = [len(names) for names in regions]
        if self.pool == "mean":
            share = torch.split(shares / shares.sum(1, keepdim=True), counts)
            pooled = torch.cat([own @ cells.float() for own, cells in zip(share, tokens, strict=True)])
            return pooled[:, None].to(tokens.dtype)
        most = int((shares > 0).sum(1).amax())
        weights, cells = shares.topk(most, dim=1)  # those with a share, and zeros where a region has fewer
        cells = cells.sort(dim=1).values
        weights = shares.gather(1, cells)
        studies_of = torch.repeat_interleave(
            torch.arange(len(tokens), device=tokens.device), torch.tensor(counts, device=tokens.device)
        )
        inside = take(tokens.flatten(0, 1), studies_of[:, None] * tokens.shape[1] + cells)  # (N, K, C)
        bias = weights.log()
        attended: Tensor = self.attention(inside, bias) if self.pool == "attention" else self.layers(inside, bias)
        return attended


def _require_weight(shares: Tensor, regions: Sequence[Sequence[str]], studies: Sequence[str]) -> None:
    """Refuse regions (rows of `shares`) without any weight: a mean over nothing would be no region's."""
    empty = (shares <= 0).all(1)
    if not bool(empty.any()):
        return
    names = [
        f"{name} of study {studies[row]}" if studies else f"{name} of study {row} of the batch"
        for row, own in enumerate(regions)
        for name in own
    ]
    lost = ", ".join(name for name, none in zip(names, empty.tolist(), strict=True) if none)
    raise ConfigError(
        f"MaskPool: no cell of the image has any share of {lost} (expected a region with some weight on the grid). "
        "Fix: leave the region out of the study, or views of more voxels (task.views.size)"
    )


class _Attention(nn.Module):
    """Learned queries over cells: (N, K, C) and (N, K) to (N, T, C)."""

    def __init__(self, dim: int, tokens: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"MaskPool: {heads} heads do not divide the {dim} channels of the tokens")
        self.heads = heads
        self.queries = nn.Parameter(torch.randn(tokens, dim) * dim**-0.5)
        self.norm = nn.LayerNorm(dim)
        self.key = nn.Linear(dim, dim, bias=False)

    def forward(self, cells: Tensor, bias: Tensor) -> Tensor:
        normed = self.norm(cells.to(self.queries.dtype))
        key, value = split_heads(self.key(normed), self.heads), split_heads(normed, self.heads)
        query = split_heads(self.queries.to(key.dtype).expand(len(cells), -1, -1), self.heads)
        value = value.to(key.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, bias[:, None, None].to(key.dtype))
        return mixed.transpose(1, 2).flatten(2)


def require_pooled(texture: Encoder | None, features: str) -> None:
    """Refuse a texture encoder that asks features for the detail of one region.

    Args:
        texture: of the model.
        features: what made the features that take the place of a scan, ``""`` for a scan.

    Raises:
        ConfigError: names the way out.
    """
    if features and texture is not None and not isinstance(texture, MaskPool):
        raise ConfigError(
            f"model.texture is {type(texture).__name__}, but the task's views are features, {features}, without the "
            "detail of one region. Fix: model.texture: MaskPool of GridCells"
        )
