"""What is measured of a region as one token: size, density and place at native resolution, which views only hint at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg2rg.core.types import NonNegativeInt, PositiveFloat, PositiveInt
from reg2rg.models.encoders.base import ENCODERS, Encoder, Size, check_size
from reg2rg.store.attributes import VECTOR


@ENCODERS.register
class AttributeEncoder(Encoder):
    """Measured attributes of a region to one token.

    Takes the numbers of `reg2rg.store.attributes.vector` as a volume of `VECTOR` x 1 x 1 voxels. A heart that is a
    quarter wider than others differs by a tenth of what hearts and lungs differ by, and a network that is given plain
    numbers learns such steps last. So each number is also given as sines and cosines of several wavelengths (Gorishniy
    et al., 2022), of learned frequencies.

    Args:
        dim: width of the token.
        hidden: width of the hidden layer.
        waves: sines and cosines of each number; 0 gives the numbers alone.
        frequency: standard deviation of their frequencies at the start, in turns a unit.
    """

    takes_float32 = True

    def __init__(
        self,
        dim: PositiveInt = 64,
        hidden: PositiveInt = 128,
        waves: NonNegativeInt = 8,
        frequency: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        self.size: Size = (VECTOR, 1, 1)
        self.out_channels, self.num_tokens, self.waves = dim, 1, waves
        self.frequencies = nn.Parameter(torch.randn(VECTOR, waves) * frequency) if waves else None
        self.hidden = nn.Linear(VECTOR * (1 + 2 * waves), hidden)
        self.out = nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, `VECTOR`, 1, 1) to (N, 1, C)."""
        check_size(volumes, self.size, self)
        numbers = volumes.flatten(1)
        seen = [numbers]
        if self.frequencies is not None:
            angles = (2 * torch.pi) * (numbers[:, :, None] * self.frequencies.to(numbers.dtype)).flatten(1)
            seen += [angles.sin(), angles.cos()]
        hidden = F.gelu(self.hidden(torch.cat(seen, dim=1).to(self.hidden.weight.dtype)))
        token: Tensor = self.norm(self.out(hidden))
        return token.unsqueeze(1)
