"""Encoders around another one: its input resized, its many tokens made few."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from reg2rg.models.encoders.base import ENCODERS, Encoder, Size, split_size
from reg2rg.models.encoders.wrappers import Frozen, Pretrained


@ENCODERS.register
class Resize(Encoder):
    """`encoder` on views of another size than those it is given, such as the size its weights were trained at.

    Axes that shrink are averaged by area, as in the preprocessing; axes that grow are interpolated linearly.

    Args:
        encoder: gives the tokens; takes views of the size `to`.
        to: H, W, D that views are brought to.
    """

    takes_float32 = True

    def __init__(self, encoder: Encoder, to: Size) -> None:
        super().__init__()
        if min(to) < 1:
            raise ValueError(f"Resize: to is {tuple(to)}, expected three positive numbers")
        self.encoder, self.to_size = encoder, (to[0], to[1], to[2])
        self.out_channels, self.num_tokens = encoder.out_channels, encoder.num_tokens

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C)."""
        h, w, d = volumes.shape[2:]
        least = (min(h, self.to_size[0]), min(w, self.to_size[1]), min(d, self.to_size[2]))
        if least != (h, w, d):
            volumes = F.adaptive_avg_pool3d(volumes, least)
        if least != self.to_size:
            volumes = F.interpolate(volumes, size=self.to_size, mode="trilinear")
        tokens: Tensor = self.encoder(volumes)
        return tokens

    def settled(self) -> bool:
        """Whether its encoder is; it has no weights of its own."""
        return self.encoder.settled()


@ENCODERS.register
class TokenPool(Encoder):
    """Means over blocks of neighbouring tokens of `encoder`, such as M3D's spatial pooling (2 x 2 x 2).

    Args:
        encoder: gives the tokens.
        window: tokens of a block along the three axes, in the order of the tokens, the fastest last.
        grid: how many tokens there are along these axes; found out where the encoder has a ``grid`` of three.
    """

    takes_float32 = True
    hands_on = True

    def __init__(self, encoder: Encoder, window: Size, grid: Size | None = None) -> None:
        super().__init__()
        cells = grid or grid_of(encoder)
        if cells is None or cells[0] * cells[1] * cells[2] != encoder.num_tokens:
            raise ValueError(
                f"TokenPool: grid is {None if cells is None else tuple(cells)}, expected three numbers whose product "
                f"is the {encoder.num_tokens} tokens of {type(encoder).__name__}"
            )
        self.cells, self.window = cells, window
        self.grid = split_size(cells, window, "blocks of")
        self.encoder = encoder
        self.out_channels, self.num_tokens = encoder.out_channels, self.grid[0] * self.grid[1] * self.grid[2]

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); blocks in the order of the tokens."""
        tokens: Tensor = self.encoder(volumes)
        cells = tokens.transpose(1, 2).reshape(len(tokens), self.out_channels, *self.cells)
        blocks = F.adaptive_avg_pool3d(cells, self.grid)  # avg_pool3d knows no bfloat16 on a CPU
        return blocks.flatten(2).transpose(1, 2)

    def settled(self) -> bool:
        """Whether its encoder is; it has no weights of its own."""
        return self.encoder.settled()


def grid_of(encoder: Encoder) -> Size | None:
    """The encoder's own grid of tokens, also where it is inside wrappers that keep its tokens."""
    while isinstance(encoder, Frozen | Pretrained | Resize):
        encoder = encoder.encoder
    grid = getattr(encoder, "grid", None)
    return (grid[0], grid[1], grid[2]) if isinstance(grid, tuple | list) and len(grid) == 3 else None
