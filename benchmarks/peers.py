"""Sizes of Reg2RG and its peers at full size, from the packaged configs: tokens, parameters, operations a study.

Nothing is trained or timed, and no memory is needed: modules are made on the meta device and their operations counted.

    python benchmarks/peers.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import reg2rg.extras.peers  # noqa: F401 (registers the components that configs name)
from reg2rg.config.overlay import fold
from reg2rg.config.saving import build
from reg2rg.models.encoders import Encoder
from reg2rg.models.projectors import Projector

PEERS = {
    "Reg2RG": "reg2rg.yaml",
    "RadFM": "peers/radfm.yaml",
    "M3D": "peers/m3d.yaml",
    "CT2Rep": "peers/ct2rep.yaml",
    "R2GenGPT": "peers/r2gengpt.yaml",
    "MedVInT": "peers/medvint.yaml",
    "CT-CHAT": "peers/ctchat.yaml",
}
REGIONS = 10
"""Regions of a study: as many as the set has."""
WIDTH = 4096
"""Of Llama-2-7B, which the projectors lead to."""


@dataclass
class Sizes:
    """What is counted of one system.

    Attributes:
        tokens: visual tokens of a study, without tags.
        parameters: of encoders and projectors.
        trained: those of them that train.
        flops: operations of encoders and projectors on one study, forward; a multiplication and an addition are two.
    """

    tokens: int
    parameters: int
    trained: int
    flops: int


def model_section(*configs: str) -> tuple[dict[str, Any], list[int]]:
    """The model section of folded configs without weights to read, and the size of the views."""
    values: Any = OmegaConf.to_container(OmegaConf.create(fold(configs).values), resolve=True)
    return _without_weights(values["model"]), values["task"]["views"]["size"]


def _without_weights(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: None if key == "weights" else _without_weights(item) for key, item in value.items()}


class Vision(nn.Module):
    """The encoders and projectors of a config.

    Args:
        texture: as in a config.
        geometry: as in a config.
        global_: as in a config.
        projector: class and arguments of the projectors.
    """

    def __init__(
        self,
        texture: Encoder | None,
        geometry: Encoder | None,
        global_: Encoder | None,
        projector: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                name: e
                for name, e in (("texture", texture), ("geometry", geometry), ("global", global_))
                if e is not None
            }
        )
        self.projectors = nn.ModuleDict(
            {name: _projector(projector, encoder.out_channels) for name, encoder in self.encoders.items()}
        )

    def forward(self, name: str, volumes: torch.Tensor) -> torch.Tensor:
        return self.projectors[name](self.encoders[name](volumes))


def _projector(component: Mapping[str, Any], width: int) -> Projector:
    from reg2rg.models.projectors import PROJECTORS

    arguments = component.get("init_args") or {}
    return PROJECTORS.get(component["class_path"].rpartition(".")[2])(width, WIDTH, **arguments)


def measure(*configs: str) -> Sizes:
    """Sizes of the system that these configs describe."""
    model, size = model_section(*configs)
    shared = model["global_"] == "texture"
    parts = {name: None if shared and name == "global_" else model[name] for name in ("texture", "geometry", "global_")}
    projector = model["projector"]
    with torch.device("meta"):
        vision = build(Vision, {**parts, "projector": projector}).eval()
        trained = sum(p.numel() for p in vision.parameters() if p.requires_grad)
        vision.requires_grad_(False)  # the counter stumbles over parameters that train in a pass without gradients
        counts = {"texture": REGIONS + int(shared), "geometry": REGIONS, "global": 1}
        tokens = 0
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            for name, encoder in vision.encoders.items():
                tokens += counts[name] * encoder.num_tokens
                vision(name, torch.zeros(counts[name], 1, *size))
    return Sizes(tokens, sum(p.numel() for p in vision.parameters()), trained, counter.get_total_flops())


def table() -> list[str]:
    """The rows of the table in docs/how-to/peers.md."""
    rows = []
    for name, config in PEERS.items():
        found = measure("reg2rg.yaml", *([config] if config != "reg2rg.yaml" else []))
        figures = (found.tokens, f"{found.parameters / 1e6:.1f} M", f"{found.trained / 1e6:.1f} M")
        rows.append(f"| {name} | {' | '.join(map(str, figures))} | {found.flops / 1e12:.2f} T |")
    return rows


if __name__ == "__main__":
    print("\n".join(table()))
