"""Encoders of other published systems: M3D-CLIP, CTViT of CT-CLIP and CT2Rep, MedVInT, and CT-CHAT's pooler."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from reg2rg.extras.convert.formats import Format, Opened, register
from reg2rg.extras.convert.key_map import Key, keys_of
from reg2rg.extras.convert.radfm import write_component
from reg2rg.extras.peers.weights import (
    COUNTERS,
    CTCHAT_POOLER_KEYS,
    CTCHAT_PREFIX,
    CTVIT_KEYS,
    CTVIT_NOT_NEEDED,
    CTVIT_PREFIXES,
    CTVIT_UNUSED_ENDS,
    M3D_KEYS,
    MEDVINT_BEHIND,
    MEDVINT_VISION,
    QUERY_DECODER_KEYS,
    ZERO_OFFSETS,
    ctvit_transformer_keys,
    resnet_keys,
)

M3D_HEADS, M3D_PATCH = 12, (16, 16, 4)
QUERY_HEADS = POOL_HEADS = 8
"""Attention heads that no shape tells."""
_ZEROS = "an offset that is zero by construction (checked)"
_PROJECTOR = "projector to the width of its own language model"


# ---- M3D-CLIP


def _m3d_faults(opened: Opened) -> list[str]:
    sizes, faults = opened.account.sizes, []
    if sizes["patch"] != math.prod(M3D_PATCH):
        faults.append(f"a patch has {sizes['patch']} numbers (expected {math.prod(M3D_PATCH)}: 4 x 16 x 16 voxels)")
    if sizes["dim"] % M3D_HEADS:
        faults.append(f"it is {sizes['dim']} wide (expected a multiple of its {M3D_HEADS} heads)")
    return faults


def _write_m3d(opened: Opened, tensors: Mapping[str, Tensor], folder: Path) -> Mapping[str, Any]:
    sizes = opened.account.sizes
    arguments = {
        "size": [256, 256, 32],
        "patch": list(M3D_PATCH),
        "dim": sizes["dim"],
        "depth": opened.account.layers["n"],
        "heads": M3D_HEADS,
        "mlp_dim": sizes["mlp"],
        "orientation": "image",
    }
    return write_component("M3DViT", arguments, tensors, folder)


# ---- CTViT


def _unused_in_attention(at: str) -> Iterator[Key]:
    for end, why in CTVIT_UNUSED_ENDS.items():
        yield Key(f"{at}{end}", "heads 0 head" if end == ".null_kv" else "dim", why=why)
    yield Key(f"{at}.norm{ZERO_OFFSETS}", "dim", why=_ZEROS)


def _ctvit_keys(prefix: str, decoder: bool) -> list[Key]:
    """Keys of CTViT behind a prefix, or without it.

    Args:
        prefix: what stands before the names.
        decoder: the file has the transformers of the autoencoder's decoder.
    """
    keys = keys_of(CTVIT_KEYS)
    for part in ("spatial", "temporal"):
        keys += _unused_in_attention(f"enc_{part}_transformer.layers.{{{part}}}.1")
        keys.append(Key(f"enc_{part}_transformer.norm_out{ZERO_OFFSETS}", "dim", why=_ZEROS))
    keys += [
        Key(f"to_patch_emb_first_frame.{place}.{kind}", shape, why=CTVIT_NOT_NEEDED["to_patch_emb_first_frame."])
        for place, kinds in (("1", ("first", "first")), ("2", ("dim first", "dim")), ("3", ("dim", "dim")))
        for kind, shape in zip(("weight", "bias"), kinds, strict=True)
    ]
    keys += [
        Key(f"{name}.0.{kind}", shape, why=CTVIT_NOT_NEEDED[f"{name}."])
        for name, out in (("to_pixels_first_frame", "first"), ("to_pixels", "patch"))
        for kind, shape in (("weight", f"{out} dim"), ("bias", out))
    ]
    keys += [
        Key(f"vq._codebook.{name}", shape, why=CTVIT_NOT_NEEDED[f"vq._codebook.{name}"])
        for name, shape in (("initted", "1"), ("cluster_size", "1 codes"))
    ]
    if decoder:
        for part in ("dec_spatial", "dec_temporal"):
            name = f"{part}_transformer"
            why = CTVIT_NOT_NEEDED[f"{name}."]
            published = keys_of(ctvit_transformer_keys(name, "unused", part))
            keys += [replace(key, to="", why=why) for key in published]
            keys += [replace(key, why=why) for key in _unused_in_attention(f"{name}.layers.{{{part}}}.1")]
            keys.append(Key(f"{name}.norm_out{ZERO_OFFSETS}", "dim", why=why))
        keys += [Key(f"{start}*", "", why=CTVIT_NOT_NEEDED[start]) for start in ("discr.", "vgg.")]
    return [_behind(prefix, key) for key in keys]


def _behind(prefix: str, key: Key) -> Key:
    """The same tensor behind a prefix; its bare name is understood too."""
    return replace(key, name=prefix + key.name, also=(key.name,))


def _ctvit_faults(opened: Opened) -> list[str]:
    sizes, faults = opened.account.sizes, []
    if sizes["inner"] != sizes["heads"] * sizes["head"]:
        faults.append(
            f"attention is {sizes['inner']} wide (expected {sizes['heads']} heads x {sizes['head']} channels)"
        )
    hidden = int(4 * 2 / 3 * sizes["dim"])
    if sizes["mlp"] != hidden:
        faults.append(f"perceptrons are {sizes['mlp']} wide (expected {hidden}: 4 x 2/3 of {sizes['dim']})")
    side = math.isqrt(sizes["first"])
    if side * side != sizes["first"] or sizes["patch"] % sizes["first"]:
        faults.append(
            f"patches have {sizes['first']} and {sizes['patch']} numbers (expected a square, and a multiple of it)"
        )
    ends = [name for name, why in opened.account.dropped.items() if why == _ZEROS]
    wrong = [name for name in ends if bool(opened.source[name].any())]
    if wrong:
        faults.append(f"{wrong[0]} is not zero (expected the zeros that the published code never changes)")
    return faults


def _write_ctvit(opened: Opened, tensors: Mapping[str, Tensor], folder: Path) -> Mapping[str, Any]:
    sizes, layers = opened.account.sizes, opened.account.layers
    side = math.isqrt(sizes["first"])
    arguments = {
        "patch": [side, side, sizes["patch"] // sizes["first"]],
        "dim": sizes["dim"],
        "spatial_depth": layers["spatial"],
        "temporal_depth": layers["temporal"],
        "heads": sizes["heads"],
        "head_dim": sizes["head"],
        "codes": sizes["codes"],
    }
    return write_component("CTViT", arguments, tensors, folder)


_CTVIT_SIZES = {"dim": 512, "heads": 8, "head": 32, "inner": 256, "mlp": 1365, "codes": 8192}
_CTVIT_LAYERS = {"spatial": 4, "temporal": 4}


def _rest_of_ctclip() -> Iterator[Key]:
    yield Key("text_transformer.*", "", why="CT-CLIP's text encoder")
    for name, shape in (
        ("to_text_latent.weight", "latent text"),
        ("to_visual_latent.weight", "latent visual"),
        ("to_text_latent_extra.weight", "latent text"),
        ("to_visual_latent_extra.weight", "latent visual"),
        ("temperature", ""),
    ):
        yield Key(name, shape, why="of CT-CLIP's contrast between scans and texts", optional=True)


# ---- MedVInT


def _medvint_keys() -> list[Key]:
    vision = keys_of(resnet_keys(), MEDVINT_VISION, "encoder.")
    norms = [key.name.removesuffix(".running_var") for key in vision if key.name.endswith(".running_var")]
    return [
        *vision,
        *(Key(f"{name}{COUNTERS}", "", why="counts steps of training", optional=True) for name in norms),
        *keys_of(QUERY_DECODER_KEYS),
        *(
            Key(f"{start}{kind}", shape, why=MEDVINT_BEHIND[start], optional=True)
            for start, out in (("fc_l1.", "dim"), ("fc_l2.", "llm"))
            for kind, shape in (("weight", f"{out} dim"), ("bias", out))
        ),
        Key("llamacasual.*", "", why=MEDVINT_BEHIND["llamacasual."]),
    ]


def _medvint_faults(opened: Opened) -> list[str]:
    sizes, faults = opened.account.sizes, []
    if sizes["dim"] != 16 * sizes["width"]:
        faults.append(f"the decoder is {sizes['dim']} wide (expected {16 * sizes['width']}, as the vision model's map)")
    if sizes["dim"] % QUERY_HEADS:
        faults.append(f"the decoder is {sizes['dim']} wide (expected a multiple of its {QUERY_HEADS} heads)")
    return faults


def _write_medvint(opened: Opened, tensors: Mapping[str, Tensor], folder: Path) -> Mapping[str, Any]:
    sizes = opened.account.sizes
    vision = {"class_path": "ModifiedResNet", "init_args": {"width": sizes["width"], "blocks": [3, 4, 6]}}
    arguments = {
        "num_queries": sizes["queries"],
        "depth": opened.account.layers["n"],
        "heads": QUERY_HEADS,
        "mlp_dim": sizes["mlp"],
        "encoder": vision,
    }
    return write_component("QueryDecoder", arguments, tensors, folder)


# ---- CT-CHAT's pooler


def _pooler_keys() -> list[Key]:
    behind = {"ln": ("dim", "dim"), "proj.0": ("llm dim", "llm"), "proj.2": ("llm llm", "llm")}
    keys = keys_of(CTCHAT_POOLER_KEYS)
    keys += [
        Key(f"{name}.{kind}", shape, why=_PROJECTOR, optional=True)
        for name, shapes in behind.items()
        for kind, shape in zip(("weight", "bias"), shapes, strict=True)
    ]
    return [_behind(CTCHAT_PREFIX, key) for key in keys]


def _pooler_faults(opened: Opened) -> list[str]:
    dim = opened.account.sizes["dim"]
    return [f"it is {dim} wide (expected a multiple of its {POOL_HEADS} heads)"] if dim % POOL_HEADS else []


def _write_pooler(opened: Opened, tensors: Mapping[str, Tensor], folder: Path) -> Mapping[str, Any]:
    arguments = {"num_queries": opened.account.sizes["queries"], "heads": POOL_HEADS}
    return write_component("AttentionPool", arguments, tensors, folder)


M3D_CLIP = register(
    Format(
        name="m3d-clip",
        file="pretrained_ViT.bin, the 3D ViT of M3D-CLIP",
        keys=tuple(keys_of(M3D_KEYS)),
        layers={"n": 12},
        sizes={"dim": 768, "tokens": 2048, "patch": 1024, "mlp": 3072},
        check=_m3d_faults,
        write=_write_m3d,
    )
)
CTCLIP_CTVIT = register(
    Format(
        name="ctclip-ctvit",
        file="CT-CLIP's checkpoint, or its vision part",
        keys=(*_ctvit_keys(CTVIT_PREFIXES[0], decoder=False), *_rest_of_ctclip()),
        layers=_CTVIT_LAYERS,
        sizes={**_CTVIT_SIZES, "patch": 4000, "first": 400},
        check=_ctvit_faults,
        write=_write_ctvit,
    )
)
CT2REP_CTVIT = register(
    Format(
        name="ct2rep-ctvit",
        file="CT2Rep's checkpoint, or its vision part",
        keys=(
            *_ctvit_keys(CTVIT_PREFIXES[1], decoder=True),
            Key("encoder_decoder.*", "", why="CT2Rep's own text decoder"),
        ),
        layers={**_CTVIT_LAYERS, "dec_spatial": 4, "dec_temporal": 4},
        sizes={**_CTVIT_SIZES, "patch": 6912, "first": 576},
        check=_ctvit_faults,
        write=_write_ctvit,
    )
)
MEDVINT = register(
    Format(
        name="medvint",
        file="MedVInT-TD's checkpoint, with PMC-CLIP's ResNet and the decoder of queries",
        keys=tuple(_medvint_keys()),
        layers={"n": 12},
        sizes={"width": 64, "dim": 1024, "mlp": 1024, "queries": 32, "colours": 3},
        check=_medvint_faults,
        write=_write_medvint,
    )
)
CTCHAT_POOLER = register(
    Format(
        name="ctchat-pooler",
        file="CT-CHAT's projector, whose pooler is kept",
        keys=tuple(_pooler_keys()),
        layers={},
        sizes={"dim": 512, "queries": 256},
        check=_pooler_faults,
        write=_write_pooler,
    )
)
