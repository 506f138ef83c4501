"""Files of exactly the published forms, every key there, at reduced width: from lists of their keys, or from rules."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from parity.forms import ModelForm, PerceiverForm, ViTForm, random_weights

Shapes = dict[str, tuple[int, ...]]

DEPTHS = {"llm": 32, "vision": 12, "mask": 3, "perceiver": 6}
TEXTURE = ViTForm((256, 256, 64), (32, 32, 4), (512, 512, 512), 3, dim=12, depth=12, heads=8, head_dim=2, mlp=20)
MASKS = ViTForm((256, 256, 64), (32, 32, 16), (256, 256, 64), 1, dim=9, depth=3, heads=8, head_dim=2, mlp=16)
RESAMPLER = PerceiverForm(dim=12, latents=32, depth=6, heads=8, head_dim=2, mult=2)
WIDTH, MLP, RANK, HEAD = 32, 48, 8, 8
_REDUCED = {768: 12, 256: 4, 255: 9, 85: 3, 512: 16, 1536: 48, 1024: 32, 2048: 20, 3072: 24, 4096: WIDTH, 11008: MLP}
_REDUCED |= {64: HEAD // 2, 5120: 7}


def listed(name: str, **changes: int) -> Shapes:
    """Keys and reduced shapes of a published file, from the list of its keys; skips the test where that is absent.

    Args:
        name: of the list.
        changes: other sizes to replace, ``s32000=400``.
    """
    root = Path(os.environ.get("REG2RG_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    path = root / "facts" / "state_dict_keys" / f"keys_{name}.json"
    if not path.is_file():
        pytest.skip(f"no list of published keys at {path} (set REG2RG_SHARED to the folder that holds facts)")
    sizes = {**_REDUCED, **{int(key[1:]): value for key, value in changes.items()}}
    return {
        key: tuple(sizes.get(n, n) for n in shape) for key, (shape, _) in flat(json.loads(path.read_text())).items()
    }


def full(name: str) -> dict[str, Tensor]:
    """The tensors of a published file at full shape, without memory."""
    untouched = {f"s{size}": size for size in (*_REDUCED, 32000)}
    return {key: torch.empty(shape, device="meta") for key, shape in listed(name, **untouched).items()}


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, names joined by dots."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def nested(weights: Mapping[str, Tensor], *parts: str) -> dict[str, Any]:
    """`weights` with the parts as dicts of their own, as ``RadFM_perceiver_fc.pth`` is."""
    return {p: {k.removeprefix(f"{p}."): v for k, v in weights.items() if k.startswith(f"{p}.")} for p in parts}


def llm_shapes(vocab: int, depth: int = DEPTHS["llm"], rank: int = RANK) -> Shapes:
    """The language model inside the published checkpoint."""
    start = "lang_model.base_model.model."
    found: Shapes = {
        f"{start}model.embed_tokens.weight": (vocab, WIDTH),
        f"{start}model.norm.weight": (WIDTH,),
        f"{start}lm_head.weight": (vocab, WIDTH),
    }
    for n in range(depth):
        layer = f"{start}model.layers.{n}"
        for part in "qv":
            found[f"{layer}.self_attn.{part}_proj.base_layer.weight"] = (WIDTH, WIDTH)
            found[f"{layer}.self_attn.{part}_proj.lora_A.default.weight"] = (rank, WIDTH)
            found[f"{layer}.self_attn.{part}_proj.lora_B.default.weight"] = (WIDTH, rank)
        for part in "ko":
            found[f"{layer}.self_attn.{part}_proj.weight"] = (WIDTH, WIDTH)
        found[f"{layer}.self_attn.rotary_emb.inv_freq"] = (HEAD // 2,)
        found[f"{layer}.mlp.gate_proj.weight"] = found[f"{layer}.mlp.up_proj.weight"] = (MLP, WIDTH)
        found[f"{layer}.mlp.down_proj.weight"] = (WIDTH, MLP)
        found[f"{layer}.input_layernorm.weight"] = found[f"{layer}.post_attention_layernorm.weight"] = (WIDTH,)
    return found


def reg2rg_shapes(vocab: int, rank: int = RANK) -> Shapes:
    """The published checkpoint."""
    form = ModelForm(TEXTURE, MASKS, RESAMPLER, WIDTH)
    return {**llm_shapes(vocab, rank=rank), "embedding_layer.weight": (vocab, WIDTH), **form.shapes()}


def perceiver_shapes() -> Shapes:
    """``RadFM_perceiver_fc.pth``, flat."""
    return {**RESAMPLER.shapes("perceiver."), "fc.weight": (7, RESAMPLER.dim), "fc.bias": (7,)}


def fill(shapes: Shapes, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights of these shapes."""
    return random_weights(shapes, seed, dtype)
