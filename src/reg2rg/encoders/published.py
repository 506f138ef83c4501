"""Weights of the published 3D ViT and Perceiver under the names of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_VIT3D = (
    (r"to_patch_embedding\.1\.", "patch_norm."),
    (r"to_patch_embedding\.2\.", "patch_linear."),
    (r"to_patch_embedding\.3\.", "token_norm."),
    (r"pos_embedding\.row_embed\.weight", "position_h"),
    (r"pos_embedding\.col_embed\.weight", "position_w"),
    (r"pos_embedding\.dep_embed\.weight", "position_d"),
    (r"transformer\.layers\.(\d+)\.0\.norm\.", r"blocks.\1.attention_norm."),
    (r"transformer\.layers\.(\d+)\.0\.fn\.to_qkv\.", r"blocks.\1.attention.qkv."),
    (r"transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.", r"blocks.\1.attention.out."),
    (r"transformer\.layers\.(\d+)\.1\.norm\.", r"blocks.\1.mlp_norm."),
    (r"transformer\.layers\.(\d+)\.1\.fn\.net\.0\.", r"blocks.\1.mlp_in."),
    (r"transformer\.layers\.(\d+)\.1\.fn\.net\.3\.", r"blocks.\1.mlp_out."),
)
_PERCEIVER = (
    (r"layers\.(\d+)\.0\.norm_media\.", r"layers.\1.media_norm."),
    (r"layers\.(\d+)\.0\.norm_latents\.", r"layers.\1.latent_norm."),
    (r"layers\.(\d+)\.0\.to_q\.", r"layers.\1.query."),
    (r"layers\.(\d+)\.0\.to_kv\.", r"layers.\1.key_value."),
    (r"layers\.(\d+)\.0\.to_out\.", r"layers.\1.out."),
    (r"layers\.(\d+)\.1\.0\.", r"layers.\1.mlp_norm."),
    (r"layers\.(\d+)\.1\.1\.", r"layers.\1.mlp_in."),
    (r"layers\.(\d+)\.1\.3\.", r"layers.\1.mlp_out."),
    (r"norm\.(weight|bias)$", r"norm.\1"),
    (r"latents$", "latents"),
)
_NORM, _LINEAR = "to_patch_embedding.1.", "to_patch_embedding.2."


def is_published_vit3d(weights: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the published 3D ViT."""
    return _NORM + "weight" in weights


def is_published_perceiver(weights: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the published Perceiver."""
    return "layers.0.0.to_q.weight" in weights


def rename_vit3d(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names of the 3D ViT to those of `ViT3D`, one to one; unknown names stay and fail at the load."""
    return {_renamed(name, _VIT3D): tensor for name, tensor in weights.items()}


def rename_perceiver(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names of the Perceiver to those of `PerceiverResampler`, one to one."""
    return {_renamed(name, _PERCEIVER): tensor for name, tensor in weights.items()}


def fold_channels(weights: Mapping[str, Tensor], voxels: int) -> dict[str, Tensor]:
    """Fold the equal input channels of a published 3D ViT into its patch embedding, which then takes one channel.

    The published code repeats the one CT channel c = 3 times, flattens a patch of n voxels to c n numbers, channel
    fastest, and embeds them as W (g * z + b) + a with z = LayerNorm without affine. All c copies x of a voxel k are
    equal, so mean and (biased) variance over c n numbers equal those over n, hence z does not depend on the channel:

        sum over k, c of W[:, kc] (g[kc] z[k] + b[kc]) + a  =  A z + (W b + a),   A[:, k] = sum over c of W[:, kc] g[kc]

    So the folded norm has g = 1 and b = 0 over n numbers, and the linear map has weight A and bias W b + a. The sums
    are made in float64 and rounded once to the stored dtype.

    Args:
        weights: a published state dict; left unchanged.
        voxels: n, the voxels of a patch.

    Returns:
        a state dict under the published names, with the patch norm over n numbers. Weights that have one channel
        already are returned as they are.

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
    return {
        **weights,
        _NORM + "weight": torch.ones(voxels, dtype=linear.dtype),
        _NORM + "bias": torch.zeros(voxels, dtype=linear.dtype),
        _LINEAR + "weight": folded.to(linear.dtype),
        _LINEAR + "bias": shifted.to(bias.dtype),
    }


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, ours in rules:
        new, hits = re.subn(f"^{pattern}", ours, name)
        if hits:
            return new
    return name
