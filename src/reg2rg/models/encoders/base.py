"""What every encoder is: one packed batch of volumes in, tokens out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from reg2rg.core.registry import Registry
from reg2rg.core.types import PositiveInt

Size = tuple[PositiveInt, PositiveInt, PositiveInt]


@dataclass(frozen=True, slots=True)
class Reads:
    """What an encoder's weights were made for, where other views would be read as if they were these.

    Attributes:
        orientation: patient directions that H, W and D point to, such as ``RAS``.
        window: HU at -1 and 1 of a view.
    """

    orientation: str
    window: tuple[int, int]


class Encoder(nn.Module, ABC):
    """Volumes to tokens.

    ``forward`` takes (N, 1, H, W, D) float and returns (N, T, C). N is packed: one row for each region (or scan) that
    exists, of all studies of the batch. A volume's tokens must not depend on the other rows.

    Attributes:
        out_channels: C, known after construction.
        num_tokens: T, known after construction.
        takes_float32: `forward` takes float32 volumes whatever dtype the weights have, and rounds where it costs least:
            a CT in bfloat16 has steps of some HU. By default volumes come in the dtype of the weights.
        hands_on: `forward` gives its volumes as they are to ``self.encoder`` and looks at them in no other way.
        reads: the only views of a CT that it may be given; others are refused where a model is built
            (`reg2rg.models.encoders.views_fit`). ``None``, the default, takes any.
    """

    out_channels: int
    num_tokens: int
    takes_float32: ClassVar[bool] = False
    hands_on: ClassVar[bool] = False
    reads: ClassVar[Reads | None] = None

    def __call__(self, volumes: Tensor) -> Tensor:
        """`forward`, on volumes of the dtype that it takes; a settled encoder also takes its own tokens, made before.

        Args:
            volumes: as `forward` takes them; or (N, T, C), what `forward` gave for them (`settled`).
        """
        if volumes.ndim == 3 and self.settled():
            weight = next((p for p in self.parameters() if p.is_floating_point()), volumes)
            return volumes.to(weight.dtype)
        if not self.takes_float32:
            weight = next((p for p in self.parameters() if p.is_floating_point()), volumes)
            volumes = volumes.to(weight.dtype)
        tokens: Tensor = super().__call__(volumes)
        return tokens

    @abstractmethod
    def forward(self, volumes: Tensor) -> Tensor:
        """Encode `volumes`.

        Args:
            volumes: (N, 1, H, W, D) float, of the weights' dtype unless `takes_float32`. Texture and global views in
                [-1, 1], geometry views in [0, 1].

        Returns:
            (N, T, C) with T = `num_tokens` and C = `out_channels`.
        """

    def settled(self) -> bool:
        """Whether a volume's tokens are the same at every step of a run: nothing in it trains or is drawn.

        So they can be made once (``reg2rg data encode``). By default not.
        """
        return False

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Translate the weights of a file to this encoder's names and shapes; by default they are taken as they are.

        Args:
            weights: names and tensors as read from a file.

        Returns:
            names and tensors for ``load_state_dict``.
        """
        return weights


ENCODERS: Registry[Encoder] = Registry("encoder", Encoder)  # type: ignore[type-abstract]


def check_size(volumes: Tensor, size: Size, owner: nn.Module) -> None:
    """Refuse a batch whose shape is not (N, 1, *size).

    Raises:
        ValueError: with both shapes and the argument to change.
    """
    if tuple(volumes.shape[1:]) != (1, *size):
        raise ValueError(
            f"{type(owner).__name__} got volumes of shape {tuple(volumes.shape)}, expected (N, 1, "
            f"{size[0]}, {size[1]}, {size[2]}). Give the encoder's `size` and the size of the views the same value."
        )


def split_size(size: Size, by: Size, what: str) -> Size:
    """Divide each axis of `size` by `by`.

    Raises:
        ValueError: an axis does not divide; names `what`, both sizes, and the rule.
    """
    if any(s <= 0 or b <= 0 or s % b for s, b in zip(size, by, strict=True)):
        raise ValueError(f"size {tuple(size)} does not divide into {what} {tuple(by)}: each axis must be a multiple")
    return size[0] // by[0], size[1] // by[1], size[2] // by[2]
