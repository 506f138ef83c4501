"""Weights of a 2D Swin transformer, from Hugging Face, timm or R2GenGPT, under the names of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from reg2rg.extras.peers.weights import below

_PREFIXES = ("visual_encoder.", "swin.")
"""What stands before Hugging Face's names in R2GenGPT's checkpoints and in files of classifiers."""
_BEHIND = ("classifier.", "head.", "pooler.", "llama_proj.", "layer_norm.", "llama_model.")
"""Beginnings of names that are no part of the Swin transformer: classifiers, and what R2GenGPT has behind it."""
_BUFFERS = ("relative_position_index", "attn_mask")
"""Ends of the names of what is computed anew."""
_BLOCK, _TO = r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.", r"layers.\1.blocks.\2."
_NAMES = (
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"embeddings\.norm\.", "patch_embed.norm."),
    (_BLOCK + r"layernorm_before\.", _TO + "norm1."),
    (_BLOCK + r"attention\.self\.", _TO + "attn."),
    (_BLOCK + r"attention\.output\.dense\.", _TO + "attn.proj."),
    (_BLOCK + r"layernorm_after\.", _TO + "norm2."),
    (_BLOCK + r"intermediate\.dense\.", _TO + "mlp.fc1."),
    (_BLOCK + r"output\.dense\.", _TO + "mlp.fc2."),
    (r"layernorm\.", "norm."),
)
"""Hugging Face's names -> timm's, but for what is joined or belongs to another stage."""
_MERGING = re.compile(r"encoder\.layers\.(\d+)\.downsample\.")
_QUERY = re.compile(r"\.attn\.query\.")


def rename_swin(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of a 2D Swin transformer, Hugging Face's or timm's, to those of `SwinDepthChannels`.

    Hugging Face keeps queries, keys and values apart, and counts the merging of patches to the stage that it ends; timm
    joins them, and counts it to the stage that it begins.
    """
    found = {
        name: tensor
        for name, tensor in below(weights, _PREFIXES).items()
        if not name.startswith(_BEHIND) and not name.endswith(_BUFFERS)
    }
    if any(name.startswith("encoder.layers.") for name in found):
        found = _joined({_as_timm(name): tensor for name, tensor in found.items()})
    return {f"swin.{name}": tensor for name, tensor in found.items()}


def _as_timm(name: str) -> str:
    for pattern, ours in _NAMES:
        name = re.sub(f"^{pattern}", ours, name)
    return _MERGING.sub(lambda stage: f"layers.{int(stage[1]) + 1}.downsample.", name)


def _joined(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as one tensor, where all three are there."""
    for name in [name for name in weights if _QUERY.search(name)]:
        names = [_QUERY.sub(f".attn.{kind}.", name) for kind in ("query", "key", "value")]
        if all(part in weights for part in names):
            weights[_QUERY.sub(".attn.qkv.", name)] = torch.cat([weights.pop(part) for part in names])
    return weights
