"""Weights of Merlin's and Astra's image encoder under the names of `I3ResNet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reg2rg.extras.peers.weights import COUNTERS, batch_norm_keys, bottleneck_keys, expand
from reg2rg.models.encoders.weights_radfm import PublishedKey

I3RESNET_BLOCKS = (3, 8, 36, 3)
STEM = "conv1.weight"


def i3resnet_keys(blocks: Sequence[int] = I3RESNET_BLOCKS) -> tuple[PublishedKey, ...]:
    """Tensors of the network up to layer 4; ``colours`` counts the equal channels that it is given."""
    keys = [PublishedKey(STEM, STEM, "width colours 3 7 7"), *batch_norm_keys("bn1", "bn1", "width")]
    before = "width"
    for number, count in enumerate(blocks):
        inner = "width" if number == 0 else f"{2**number}*width"
        outer = f"{4 * 2**number}*width"
        for block in range(count):
            at = f"layer{number + 1}.{block}"
            keys += bottleneck_keys(at, at, (before, inner, outer), "bn", axes=3, shortcut=block == 0)
            before = outer
    return tuple(keys)


def fold_equal_channels(kernel: Tensor) -> Tensor:
    """A first convolution for equal channels, (O, c, d, h, w), as one for the channel that they all are.

    A convolution is linear and its padding is zero in every channel, so that over c equal channels it is the
    convolution of one of them with the sum of the kernels. The sum is made in float64 and rounded once, to float32 at
    the least.
    """
    folded = kernel.double().sum(1, keepdim=True)
    return folded.to(torch.promote_types(kernel.dtype, torch.float32))


def rename_i3resnet(weights: Mapping[str, Tensor], blocks: Sequence[int]) -> dict[str, Tensor]:
    """Published names to those of `I3ResNet`, the first convolution folded; its own weights stay as they are."""
    names = expand(i3resnet_keys(blocks))
    renamed = {names.get(name, name): tensor for name, tensor in weights.items() if not name.endswith(COUNTERS)}
    if STEM in renamed and renamed[STEM].shape[1:2] != (1,):
        renamed[STEM] = fold_equal_channels(renamed[STEM])
    return renamed
