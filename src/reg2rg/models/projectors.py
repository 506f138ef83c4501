"""From the width of an encoder to the width of the language model.

In a config a projector is a factory ``(in_channels, out_channels) -> Projector``: both widths come from the components.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from reg2rg.core.registry import Registry
from reg2rg.core.types import PositiveFloat


class Projector(nn.Module, ABC):
    """Tokens (N, T, C) to tokens (N, T, E).

    Args:
        in_channels: C, the encoder's width.
        out_channels: E, the language model's width.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise ValueError(
                f"{type(self).__name__}: widths {in_channels} -> {out_channels}, expected positive numbers"
            )
        self.in_channels, self.out_channels = in_channels, out_channels

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, C) to (N, T, E)."""


PROJECTORS: Registry[Projector] = Registry("projector", Projector)  # type: ignore[type-abstract]


@PROJECTORS.register
class LinearProjector(Projector):
    """One linear map with bias, as published.

    Args:
        in_channels: the encoder's width.
        out_channels: the language model's width.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.linear = nn.Linear(in_channels, out_channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, C) to (N, T, E)."""
        projected: Tensor = self.linear(tokens)
        return projected


@PROJECTORS.register
class LinearNormProjector(Projector):
    """One linear map with bias, then LayerNorm, as R2GenGPT has it.

    Args:
        in_channels: the encoder's width.
        out_channels: the language model's width.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.linear = nn.Linear(in_channels, out_channels)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, C) to (N, T, E)."""
        projected: Tensor = self.norm(self.linear(tokens))
        return projected


@PROJECTORS.register
class MLPProjector(Projector):
    """LayerNorm, linear, GELU, linear; CT-CHAT's. Without the norm M3D's, and MedVInT's with ReLU as well.

    Args:
        in_channels: the encoder's width.
        out_channels: the language model's width.
        hidden_factor: hidden width as a multiple of `out_channels`.
        rms: root mean square that every token is scaled to, such as that of the language model's own embeddings;
            ``None`` leaves tokens as they are.
        norm: begin with a LayerNorm.
        activation: between the linear maps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_factor: PositiveFloat = 1.0,
        rms: PositiveFloat | None = None,
        norm: bool = True,
        activation: Literal["gelu", "relu"] = "gelu",
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.rms = rms
        hidden = round(hidden_factor * out_channels)
        if hidden < 1:
            raise ValueError(f"MLPProjector: hidden_factor {hidden_factor} of width {out_channels} leaves no channel")
        self.layers = nn.Sequential(
            nn.LayerNorm(in_channels) if norm else nn.Identity(),
            nn.Linear(in_channels, hidden),
            nn.GELU() if activation == "gelu" else nn.ReLU(),
            nn.Linear(hidden, out_channels),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, C) to (N, T, E)."""
        projected: Tensor = self.layers(tokens)
        return projected if self.rms is None else self.rms * F.rms_norm(projected, projected.shape[-1:])
