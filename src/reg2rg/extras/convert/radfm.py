"""RadFM's 3D ViT and Perceiver, as the authors of Reg2RG publish them beside their own weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from reg2rg.extras.convert.formats import Format, Opened, register
from reg2rg.extras.convert.key_map import Key, keys_of
from reg2rg.extras.convert.writing import write_tensors
from reg2rg.models.encoders.base import Size
from reg2rg.models.encoders.weights_radfm import PERCEIVER_KEYS, VIT3D_KEYS, fold_channels, rename_vit3d

HEADS = 8
"""Attention heads of every published encoder: shapes hold heads times width alone."""
PATCH = (32, 32, 4)
FOLDED = "the one-channel patch embedding (equal channels folded)"
_PATCH_EMBEDDING = ("to_patch_embedding.1", "to_patch_embedding.2")
_FOLDED_KEYS = tuple(f"{name}.{kind}" for name in _PATCH_EMBEDDING for kind in ("weight", "bias"))


def vit3d_keys(name: str = "", ours: str = "", layers: str = "n", sizes: str = "", fold: bool = True) -> list[Key]:
    """Keys of a 3D ViT inside a file; see `keys_of`."""
    used = dict.fromkeys(_FOLDED_KEYS, FOLDED) if fold else {}
    return keys_of(VIT3D_KEYS, name, ours, layers, sizes, used)


def fold_patch_embedding(opened: Opened, name: str = "", ours: str = "") -> dict[str, Tensor]:
    """The patch embedding for one channel; float32 where the file has less, see `fold_channels`.

    Args:
        opened: the file.
        name: what stands before the published names.
        ours: what stands before our names.
    """
    weights = {key: opened.tensor(name + key) for key in _FOLDED_KEYS}
    voxels = math.prod(PATCH)
    if weights[_FOLDED_KEYS[0]].numel() != voxels:
        weights = fold_channels(weights, voxels)
    return {ours + key: tensor for key, tensor in rename_vit3d(weights).items()}


def vit3d_faults(opened: Opened, sizes: str = "", patch: Size = PATCH, channels: Sequence[int] = (1, 3)) -> list[str]:
    """What no shape says: patches of whole voxels, heads of whole channels."""
    numbers, inner = (opened.account.sizes[sizes + name] for name in ("patch", "inner"))
    voxels = math.prod(patch)
    faults = []
    if numbers not in [count * voxels for count in channels]:
        allowed = " or ".join(f"{count} x {voxels}" for count in channels)
        faults.append(f"a patch has {numbers} numbers (expected {allowed}: channels x voxels)")
    if inner % HEADS:
        faults.append(f"attention is {inner} wide (expected a multiple of its {HEADS} heads)")
    return faults


def vit3d_arguments(opened: Opened, layers: str = "n", sizes: str = "", patch: Size = PATCH) -> dict[str, Any]:
    """Constructor arguments of `ViT3D`, read from the tensors."""
    found = opened.account.sizes
    rows = [found[f"{sizes}rows_{axis}"] for axis in "hwd"]
    return {
        "patch": list(patch),
        "dim": found[f"{sizes}dim"],
        "depth": opened.account.layers[layers],
        "heads": HEADS,
        "head_dim": found[f"{sizes}inner"] // HEADS,
        "mlp_dim": found[f"{sizes}mlp"],
        "table_size": [count * edge for count, edge in zip(rows, patch, strict=True)],
    }


def perceiver_arguments(opened: Opened, layers: str = "n", sizes: str = "") -> dict[str, Any]:
    """Constructor arguments of `PerceiverResampler`, read from the tensors."""
    found = opened.account.sizes
    return {
        "num_latents": found[f"{sizes}latents"],
        "depth": opened.account.layers[layers],
        "heads": HEADS,
        "head_dim": found[f"{sizes}inner"] // HEADS,
        "ff_mult": found[f"{sizes}mlp"] // found[f"{sizes}dim"],
    }


def perceiver_faults(opened: Opened, sizes: str = "") -> list[str]:
    """What no shape says: heads and hidden layers of whole channels."""
    found = opened.account.sizes
    faults = []
    if found[f"{sizes}inner"] % HEADS:
        faults.append(f"the resampler attends with {found[f'{sizes}inner']} channels (expected a multiple of {HEADS})")
    if found[f"{sizes}mlp"] % found[f"{sizes}dim"]:
        mlp, dim = found[f"{sizes}mlp"], found[f"{sizes}dim"]
        faults.append(f"the resampler's hidden width is {mlp} (expected a multiple of its width {dim})")
    return faults


def _perceiver_keys() -> tuple[Key, ...]:
    """The resampler's keys, as a sub-dict or alone, and the projector beside it."""
    keys = [replace(key, also=(key.name.removeprefix("perceiver."),)) for key in keys_of(PERCEIVER_KEYS, "perceiver.")]
    why = "projector to the width of RadFM's own 13B language model"
    return (*keys, Key("fc.weight", "fc dim", why=why, optional=True), Key("fc.bias", "fc", why=why, optional=True))


def _write_vit3d(opened: Opened, tensors: Mapping[str, Tensor], folder: Path) -> Mapping[str, Any]:
    return write_component("ViT3D", vit3d_arguments(opened), tensors, folder)


def _write_perceiver(opened: Opened, tensors: Mapping[str, Tensor], folder: Path) -> Mapping[str, Any]:
    return write_component("PerceiverResampler", perceiver_arguments(opened), tensors, folder)


def write_component(
    name: str, arguments: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path
) -> Mapping[str, Any]:
    """Weights, and the component that they fit as a config names it.

    Args:
        name: of the component.
        arguments: of its constructor.
        tensors: the weights under its names.
        folder: an empty one.
    """
    write_tensors(tensors, folder)
    component = {"class_path": name, "init_args": dict(arguments)}
    (folder / "config.yaml").write_text(yaml.safe_dump(component, sort_keys=False), encoding="utf-8")
    return {"component": component}


RADFM_VIT3D = register(
    Format(
        name="radfm-vit3d",
        file="RadFM_vit3d.pth, the 3D ViT of RadFM",
        keys=tuple(vit3d_keys()),
        layers={"n": 12},
        sizes={"dim": 768, "inner": 512, "mlp": 2048, "rows_h": 16, "rows_w": 16, "rows_d": 128, "patch": 12288},
        compute=fold_patch_embedding,
        check=vit3d_faults,
        write=_write_vit3d,
    )
)
RADFM_PERCEIVER = register(
    Format(
        name="radfm-perceiver",
        file="RadFM_perceiver_fc.pth, the Perceiver resampler of RadFM",
        keys=_perceiver_keys(),
        layers={"n": 6},
        sizes={"dim": 768, "latents": 32, "inner": 512, "mlp": 3072},
        check=perceiver_faults,
        write=_write_perceiver,
    )
)
