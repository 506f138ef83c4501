"""MedVInT's encoder: PMC-CLIP's ResNet cut before its last stage, and learned queries that read its map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg2rg.core.types import PositiveInt, UnitFloat
from reg2rg.extras.peers.weights import MEDVINT_VISION, rename_query_decoder, rename_resnet, widen_channels
from reg2rg.models.encoders.axes import as_images, to_square
from reg2rg.models.encoders.base import ENCODERS, Encoder, Size, check_size
from reg2rg.models.encoders.blocks import KeptStatistics

_STRIDE = 16
_CLIP_MEAN, _CLIP_STD = 2 * (0.4815 + 0.4578 + 0.4082) / 3 - 1, 2 * (0.2686 + 0.2613 + 0.2758) / 3
"""CLIP's mean and deviation, averaged over the colours, for pictures in [-1, 1]."""
Norm = Literal["batch", "group"]


@ENCODERS.register
class ModifiedResNet(Encoder):
    """CLIP's ResNet-50 without its last stage, on the slices as channels of one picture; defaults: PMC-CLIP's.

    It has three convolutions at the start, and pools before it strides. Slices are turned as radiologists view them.

    Args:
        size: H, W, D of the input in voxels; D becomes the number of channels.
        image_size: side to which pictures are resized, a multiple of 16; the map has 1/16 of it.
        width: channels behind the first convolutions; the tokens are 16 times as wide.
        blocks: bottlenecks of the three stages.
        norm: ``batch`` normalises by the statistics in the weights, never by those of the batch, in which other volumes
            stand; ``group`` by groups of channels of the volume itself, for training from nothing.
    """

    def __init__(
        self,
        size: Size = (256, 256, 64),
        image_size: PositiveInt = 512,
        width: PositiveInt = 64,
        blocks: tuple[PositiveInt, PositiveInt, PositiveInt] = (3, 4, 6),
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if image_size % _STRIDE or image_size < _STRIDE:
            raise ValueError(f"ModifiedResNet: image_size is {image_size}, expected a multiple of {_STRIDE}")
        if width % 2 or min(blocks) < 1:
            raise ValueError(
                f"ModifiedResNet: width {width}, blocks {tuple(blocks)}: expected an even width, and blocks"
            )
        self.size, self.image_size, self.blocks = size, image_size, tuple(blocks)
        self.out_channels, self.num_tokens = 16 * width, (image_size // _STRIDE) ** 2

        half = width // 2
        self.conv1 = nn.Conv2d(size[2], half, 3, stride=2, padding=1, bias=False)
        self.norm1 = _norm(norm, half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.norm2 = _norm(norm, half)
        self.conv3 = nn.Conv2d(half, width, 3, padding=1, bias=False)
        self.norm3 = _norm(norm, width)
        self.stages = nn.ModuleList()
        before = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            first = _Bottleneck(before, inner, 2 if stage else 1, norm, shortcut=True)
            before = 4 * inner
            rest = (_Bottleneck(before, inner, 1, norm, shortcut=False) for _ in range(count - 1))
            self.stages.append(nn.Sequential(first, *rest))

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); cells row by row from the front left of the picture."""
        check_size(volumes, self.size, self)
        images = to_square(as_images(volumes.squeeze(1)), self.image_size)
        x = (images - _CLIP_MEAN) / _CLIP_STD
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2), (self.conv3, self.norm3)):
            x = F.relu(norm(conv(x)))
        x = F.avg_pool2d(x, 2)
        for stage in self.stages:
            x = stage(x)
        return x.flatten(2).transpose(1, 2)

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Accept this class's own weights and MedVInT's; a first convolution for three colours is widened."""
        published = any(name.endswith("10.0.conv1.weight") for name in weights)
        found = rename_resnet(weights, self.blocks) if published else dict(weights)
        first = found.get("conv1.weight")
        if first is not None and first.shape[1] == 3 != self.conv1.in_channels:
            found["conv1.weight"] = widen_channels(first, self.conv1.in_channels)
        return found


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 around a residual; strides by pooling."""

    def __init__(self, before: int, inner: int, stride: int, norm: Norm, shortcut: bool) -> None:
        super().__init__()
        outer, self.stride = 4 * inner, stride
        self.conv1, self.norm1 = nn.Conv2d(before, inner, 1, bias=False), _norm(norm, inner)
        self.conv2, self.norm2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False), _norm(norm, inner)
        self.conv3, self.norm3 = nn.Conv2d(inner, outer, 1, bias=False), _norm(norm, outer)
        self.shortcut_conv = nn.Conv2d(before, outer, 1, bias=False) if shortcut else None
        self.shortcut_norm = _norm(norm, outer) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        out = F.relu(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(F.avg_pool2d(out, self.stride)))
        if self.shortcut_conv is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut_conv(F.avg_pool2d(x, self.stride)))
        return F.relu(out + x)


def _norm(kind: Norm, channels: int) -> nn.Module:
    return KeptStatistics(channels) if kind == "batch" else nn.GroupNorm(max(1, channels // 16), channels)


@ENCODERS.register
class QueryDecoder(Encoder):
    """Learned queries that read the tokens of `encoder` through a transformer decoder; defaults: MedVInT's.

    Pre-norm layers of self-attention, cross-attention and perceptron with ReLU, no positions. The queries themselves,
    not zeros, enter the first layer.

    Args:
        encoder: gives the tokens; its width is kept.
        num_queries: tokens that come out.
        depth: layers.
        heads: attention heads; must divide the width.
        mlp_dim: hidden width of the perceptrons.
        dropout: on attention, in the perceptrons and before every residual, in training.
    """

    takes_float32 = True
    hands_on = True

    def __init__(
        self,
        encoder: Encoder,
        num_queries: PositiveInt = 32,
        depth: PositiveInt = 12,
        heads: PositiveInt = 8,
        mlp_dim: PositiveInt = 1024,
        dropout: UnitFloat = 0.1,
    ) -> None:
        super().__init__()
        dim = encoder.out_channels
        if num_queries < 1 or dim % heads:
            raise ValueError(
                f"QueryDecoder: {num_queries} queries and {heads} heads on a width of {dim}, expected at least one "
                "query, and heads that divide the width"
            )
        self.out_channels, self.num_tokens = dim, num_queries
        self.queries = nn.Parameter(torch.randn(num_queries, dim))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(dim, heads, mlp_dim, dropout, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.encoder = encoder

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, num_queries, C)."""
        tokens = self.encoder(volumes)
        queries = self.queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            queries = layer(queries, tokens)
        read: Tensor = self.norm(queries)
        return read

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Accept this class's own weights and MedVInT's file, which holds the vision model as well."""
        published = "query_embed.weight" in weights
        found = rename_query_decoder(weights, len(self.layers)) if published else dict(weights)
        start = MEDVINT_VISION if published else "encoder."
        inside = {name.removeprefix(start): tensor for name, tensor in found.items() if name.startswith(start)}
        return {
            **{name: tensor for name, tensor in found.items() if not name.startswith(start)},
            **{f"encoder.{name}": tensor for name, tensor in self.encoder.adapt_weights(inside).items()},
        }
