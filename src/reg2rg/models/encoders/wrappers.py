"""Encoders made of another encoder."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from reg2rg.core.types import NonNegativeInt, PathText
from reg2rg.models.encoders.base import ENCODERS, Encoder
from reg2rg.models.encoders.weights import load_checked, read_weights

_TOKENS_ON_CPU = 1024


@ENCODERS.register
class TokenMean(Encoder):
    """The mean over the tokens of `encoder`: one token, as the published mask encoder gives.

    Args:
        encoder: gives the tokens.
    """

    takes_float32 = True
    hands_on = True

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_channels, self.num_tokens = encoder.out_channels, 1

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, 1, C)."""
        tokens: Tensor = self.encoder(volumes)
        return tokens.mean(dim=1, keepdim=True)

    def settled(self) -> bool:
        """Whether its encoder is; it has no weights of its own."""
        return self.encoder.settled()


@ENCODERS.register
class Pretrained(Encoder):
    """`encoder` with weights from a file, trained further. `Frozen` is for those that are not.

    Args:
        encoder: what to load the weights into.
        weights: file of its weights (.safetensors, or a published .pth), or null to keep those it has.
    """

    takes_float32 = True
    hands_on = True

    def __init__(self, encoder: Encoder, weights: PathText | None = None) -> None:
        super().__init__()
        if weights is not None:
            load_checked(encoder, encoder.adapt_weights(read_weights(weights)), weights)
        self.encoder = encoder
        self.out_channels, self.num_tokens = encoder.out_channels, encoder.num_tokens

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C)."""
        tokens: Tensor = self.encoder(volumes)
        return tokens


@ENCODERS.register
class Frozen(Encoder):
    """`encoder` without training: no gradient, no activations kept, and no dropout however the model is trained.

    Args:
        encoder: what to freeze.
        weights: file of its weights (.safetensors, or a published .pth), or null to keep those it has.
        dropout: let the encoder's dropout act in training, as the published code does (it forgets eval mode).
        chunk: volumes that pass at a time, for memory; 0 passes all at once. By default all on a GPU, and on a CPU as
            many as make 1,024 tokens: more are no faster there and need more memory.
    """

    takes_float32 = True

    def __init__(
        self,
        encoder: Encoder,
        weights: PathText | None = None,
        dropout: bool = False,
        chunk: NonNegativeInt | None = None,
    ) -> None:
        super().__init__()
        if chunk is not None and chunk < 0:
            raise ValueError(f"Frozen: chunk is {chunk}, expected 0 (all at once) or more")
        if weights is not None:
            load_checked(encoder, encoder.adapt_weights(read_weights(weights)), weights)
        self.restored = weights is not None
        """Its weights come back from their file when the model is built, so a checkpoint leaves them out."""
        self.encoder = encoder.requires_grad_(False)
        self.dropout, self.chunk = dropout, chunk
        self.out_channels, self.num_tokens = encoder.out_channels, encoder.num_tokens
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the encoder inside stays in eval mode unless `dropout` was asked for."""
        super().train(mode)
        self.encoder.train(mode and self.dropout)
        return self

    def settled(self) -> bool:
        """Unless its dropout acts in training, or a parameter was set to train after all."""
        return not self.dropout and not any(parameter.requires_grad for parameter in self.parameters())

    @torch.no_grad()
    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C), without gradient."""
        chunk = self.chunk
        if chunk is None and volumes.device.type == "cpu":
            chunk = max(1, _TOKENS_ON_CPU // self.num_tokens)
        if not chunk or len(volumes) <= chunk:
            tokens: Tensor = self.encoder(volumes)
            return tokens
        return torch.cat([self.encoder(volumes[i : i + chunk]) for i in range(0, len(volumes), chunk)])
