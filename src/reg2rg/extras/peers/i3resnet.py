"""The inflated 3D ResNet-152 of Merlin and Astra: one pass over the whole scan, from which regions are pooled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reg2rg.core.types import PositiveInt
from reg2rg.extras.peers.weights_i3resnet import rename_i3resnet
from reg2rg.models.encoders.base import ENCODERS, Encoder, Reads, Size, check_size, split_size
from reg2rg.models.encoders.blocks import KeptStatistics

_CELL: Size = (32, 32, 16)
"""Voxels of a cell of layer 4 along right, front and top; a cell of layer 3 has half of each."""
Maps = Literal["layer3", "layer4", "both"]


@ENCODERS.register
class I3ResNet(Encoder):
    """Merlin's image encoder (Blankemeier et al., 2024; Astra's too): a ResNet-152 whose kernels got a third axis.

    It reads a whole scan, so it belongs inside a `MaskPool` or in ``model.global_``; tokens are the cells of its maps.
    What its weights were made for is a contract (`reads`), for a wrong orientation changes the map and hardly its mean:
    axes H, W, D that point right, front and up (RAS), and a window of -1000 to 200 HU. Views have -1 to 1 for that
    window; the network gets 0 to 1, its own order of axes (D, H, W), and one channel where the published code repeats
    it three times: `adapt_weights` folds the first convolution. Published scans are cropped to their foreground and
    have 224 x 224 x 160 voxels, which is what the global view of that `size` is.

    Args:
        size: H, W, D of the input in voxels, multiples of 32, 32 and 16.
        maps: which maps are the tokens: ``layer4``, of 32 x 32 x 16 voxels a cell; ``layer3``, of half of each (layer 4
            is then not built); ``both``, on the cells of layer 3, each with the features of the cell of layer 4 that it
            lies in behind its own. The mean of these under a mask is that of each map under the mask, side by side.
        width: channels behind the first convolution; the maps have 16 and 32 times as many.
        blocks: bottlenecks of the four layers.
        checkpointing: recompute the activations of each bottleneck in the backward pass, for memory.
    """

    takes_float32 = True
    reads = Reads(orientation="RAS", window=(-1000, 200))

    def __init__(
        self,
        size: Size = (224, 224, 160),
        maps: Maps = "both",
        width: PositiveInt = 64,
        blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 8, 36, 3),
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if maps not in ("layer3", "layer4", "both"):
            raise ValueError(f"I3ResNet: maps is {maps!r}, expected layer3, layer4 or both")
        coarse = split_size(size, _CELL, "cells of")
        self.size, self.maps, self.blocks, self.checkpointing = size, maps, tuple(blocks), checkpointing
        self.grid: Size = coarse if maps == "layer4" else (2 * coarse[0], 2 * coarse[1], 2 * coarse[2])
        self.out_channels = {"layer3": 16, "layer4": 32, "both": 48}[maps] * width
        self.num_tokens = self.grid[0] * self.grid[1] * self.grid[2]

        self.conv1 = nn.Conv3d(1, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        self.bn1 = KeptStatistics(width)
        self.layer1 = _layer(width, width, blocks[0], stride=1)
        self.layer2 = _layer(4 * width, 2 * width, blocks[1], stride=2)
        self.layer3 = _layer(8 * width, 4 * width, blocks[2], stride=2)
        self.layer4 = None if maps == "layer3" else _layer(16 * width, 8 * width, blocks[3], stride=2)

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); tokens in the order h, w, d with d fastest."""
        check_size(volumes, self.size, self)
        x = ((volumes + 1) / 2).permute(0, 1, 4, 2, 3).to(self.conv1.weight.dtype)  # (N, 1, D, H, W), 0 to 1
        x = F.max_pool3d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        fine = self._through(self.layer3, self._through(self.layer2, self._through(self.layer1, x)))
        if self.layer4 is None:
            return _as_tokens(fine)
        coarse = self._through(self.layer4, fine)
        if self.maps == "layer4":
            return _as_tokens(coarse)
        for axis in (2, 3, 4):
            coarse = coarse.repeat_interleave(2, dim=axis)
        return _as_tokens(torch.cat([fine, coarse], dim=1))

    def _through(self, layer: nn.Sequential, x: Tensor) -> Tensor:
        for block in layer:
            kept = self.checkpointing and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if kept else block(x)
        return x

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Accept this class's own weights and the published ones; what behind the wanted maps is not built is left."""
        found = rename_i3resnet(weights, self.blocks)
        unused = "layer4." if self.layer4 is None else None
        return {name: tensor for name, tensor in found.items() if unused is None or not name.startswith(unused)}


class _Bottleneck(nn.Module):
    """1, 3 and 1 voxels wide around a residual; the middle one strides."""

    def __init__(self, before: int, inner: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        outer = 4 * inner
        self.conv1, self.bn1 = nn.Conv3d(before, inner, 1, bias=False), KeptStatistics(inner)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = KeptStatistics(inner)
        self.conv3, self.bn3 = nn.Conv3d(inner, outer, 1, bias=False), KeptStatistics(outer)
        self.shortcut_conv = nn.Conv3d(before, outer, 1, stride=stride, bias=False) if shortcut else None
        self.shortcut_bn = KeptStatistics(outer) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.shortcut_conv is not None and self.shortcut_bn is not None:
            x = self.shortcut_bn(self.shortcut_conv(x))
        return F.relu(out + x)


def _layer(before: int, inner: int, count: int, stride: int) -> nn.Sequential:
    first = _Bottleneck(before, inner, stride, shortcut=True)
    return nn.Sequential(first, *(_Bottleneck(4 * inner, inner, 1, shortcut=False) for _ in range(count - 1)))


def _as_tokens(feature_map: Tensor) -> Tensor:
    """(N, C, d, h, w) to (N, h * w * d, C), d fastest."""
    return feature_map.permute(0, 3, 4, 2, 1).flatten(1, 3)
