"""Weights of the published 3D ViT and Perceiver under the names of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """One tensor of a published file, or one a layer.

    Attributes:
        name: as published; ``{n}`` is the number of the layer.
        ours: its name in this package.
        shape: one word an axis: a number, a size's name, or either times or divided by the other (``3*inner``,
            ``dim/3``).
    """

    name: str
    ours: str
    shape: str


def pair(name: str, ours: str, weight: str, bias: str) -> tuple[PublishedKey, PublishedKey]:
    """The two tensors of a linear map, a norm or a convolution; `weight` and `bias` are their shapes."""
    return PublishedKey(f"{name}.weight", f"{ours}.weight", weight), PublishedKey(f"{name}.bias", f"{ours}.bias", bias)


_BLOCK, _LAYER = "transformer.layers.{n}", "layers.{n}"
VIT3D_KEYS: tuple[PublishedKey, ...] = (
    *pair("to_patch_embedding.1", "patch_norm", "patch", "patch"),
    *pair("to_patch_embedding.2", "patch_linear", "dim patch", "dim"),
    *pair("to_patch_embedding.3", "token_norm", "dim", "dim"),
    PublishedKey("pos_embedding.row_embed.weight", "position_h", "rows_h dim/3"),
    PublishedKey("pos_embedding.col_embed.weight", "position_w", "rows_w dim/3"),
    PublishedKey("pos_embedding.dep_embed.weight", "position_d", "rows_d dim/3"),
    *pair(f"{_BLOCK}.0.norm", "blocks.{n}.attention_norm", "dim", "dim"),
    PublishedKey(f"{_BLOCK}.0.fn.to_qkv.weight", "blocks.{n}.attention.qkv.weight", "3*inner dim"),
    *pair(f"{_BLOCK}.0.fn.to_out.0", "blocks.{n}.attention.out", "dim inner", "dim"),
    *pair(f"{_BLOCK}.1.norm", "blocks.{n}.mlp_norm", "dim", "dim"),
    *pair(f"{_BLOCK}.1.fn.net.0", "blocks.{n}.mlp_in", "mlp dim", "mlp"),
    *pair(f"{_BLOCK}.1.fn.net.3", "blocks.{n}.mlp_out", "dim mlp", "dim"),
)
"""The 3D ViT: ``patch`` counts the numbers of a patch, of all its channels."""
PERCEIVER_KEYS: tuple[PublishedKey, ...] = (
    PublishedKey("latents", "latents", "latents dim"),
    *pair(f"{_LAYER}.0.norm_media", "layers.{n}.media_norm", "dim", "dim"),
    *pair(f"{_LAYER}.0.norm_latents", "layers.{n}.latent_norm", "dim", "dim"),
    PublishedKey(f"{_LAYER}.0.to_q.weight", "layers.{n}.query.weight", "inner dim"),
    PublishedKey(f"{_LAYER}.0.to_kv.weight", "layers.{n}.key_value.weight", "2*inner dim"),
    PublishedKey(f"{_LAYER}.0.to_out.weight", "layers.{n}.out.weight", "dim inner"),
    *pair(f"{_LAYER}.1.0", "layers.{n}.mlp_norm", "dim", "dim"),
    PublishedKey(f"{_LAYER}.1.1.weight", "layers.{n}.mlp_in.weight", "mlp dim"),
    PublishedKey(f"{_LAYER}.1.3.weight", "layers.{n}.mlp_out.weight", "dim mlp"),
    *pair("norm", "norm", "dim", "dim"),
)
"""The Perceiver resampler."""
_NORM, _LINEAR = "to_patch_embedding.1.", "to_patch_embedding.2."


def is_published_vit3d(weights: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the published 3D ViT."""
    return _NORM + "weight" in weights


def is_published_perceiver(weights: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the published Perceiver."""
    return "layers.0.0.to_q.weight" in weights


def rename_vit3d(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names of the 3D ViT to those of `ViT3D`, one to one; unknown names stay and fail at the load."""
    return _renamed(weights, VIT3D_KEYS)


def rename_perceiver(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names of the Perceiver to those of `PerceiverResampler`, one to one."""
    return _renamed(weights, PERCEIVER_KEYS)


def fold_channels(weights: Mapping[str, Tensor], voxels: int) -> dict[str, Tensor]:
    """Fold the equal input channels of a published 3D ViT into its patch embedding, which then takes one channel.

    The published code repeats the one CT channel c = 3 times, flattens a patch of n voxels to c n numbers, channel
    fastest, and embeds them as W (g * z + b) + a with z = LayerNorm without affine. All c copies x of a voxel k are
    equal, so mean and (biased) variance over c n numbers equal those over n, hence z does not depend on the channel:

        sum over k, c of W[:, kc] (g[kc] z[k] + b[kc]) + a  =  A z + (W b + a),   A[:, k] = sum over c of W[:, kc] g[kc]

    So the folded norm has g = 1 and b = 0 over n numbers, and the linear map has weight A and bias W b + a. It holds
    for equal channels alone, and with dropout too, which acts behind it. The sums are made in float64 and rounded once:
    to float64 if the weights are stored so, else to float32. Half precision would not do, although the published
    checkpoint holds bfloat16: there the terms have 8 bits, their sums more, and cutting those off costs 1e-3 of the
    tokens.

    Args:
        weights: a published state dict; left unchanged.
        voxels: n, the voxels of a patch.

    Returns:
        a state dict under the published names, with the patch norm over n numbers, the four folded tensors in float32
        or float64. Weights that have one channel already are returned as they are.

    Raises:
        ValueError: the patch norm's length is no multiple of n.
    """
    gain, offset = weights[_NORM + "weight"].double(), weights[_NORM + "bias"].double()
    linear, bias = weights[_LINEAR + "weight"], weights[_LINEAR + "bias"]
    if gain.numel() == voxels:
        return dict(weights)
    if gain.numel() % voxels:
        raise ValueError(
            f"{_NORM}weight has {gain.numel()} numbers, expected a multiple of the {voxels} voxels of a patch: "
            "the encoder's `patch` is not that of the weights"
        )
    scaled = linear.double() * gain  # (C, n * c), channel fastest
    folded = scaled.reshape(len(scaled), voxels, -1).sum(-1)
    shifted = bias.double() + linear.double() @ offset
    dtype = torch.promote_types(linear.dtype, torch.float32)
    return {
        **weights,
        _NORM + "weight": torch.ones(voxels, dtype=dtype),
        _NORM + "bias": torch.zeros(voxels, dtype=dtype),
        _LINEAR + "weight": folded.to(dtype),
        _LINEAR + "bias": shifted.to(dtype),
    }


def _renamed(weights: Mapping[str, Tensor], keys: Sequence[PublishedKey]) -> dict[str, Tensor]:
    ours = {key.name: key.ours for key in keys}
    renamed = {}
    for name, tensor in weights.items():
        layer = re.search(r"(?<=layers\.)\d+", name)
        template = name if layer is None else name[: layer.start()] + "{n}" + name[layer.end() :]
        target = ours.get(template, name)
        renamed[target if layer is None else target.replace("{n}", layer[0])] = tensor
    return renamed
