"""2D models of timm on volumes. The library is imported when an encoder is built, not before."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg2rg.core.errors import ConfigError
from reg2rg.core.types import PositiveInt, UnitFloat
from reg2rg.models.encoders.axes import as_images, to_square
from reg2rg.models.encoders.base import ENCODERS, Encoder, Size, check_size


@ENCODERS.register
class TimmSlices(Encoder):
    """Any timm model on the axial slices, one token for each group of neighbouring slices.

    A slice is one image: its pooled features are averaged over its group. Slices are turned as radiologists view them
    (front at the top, the patient's right on the left) if the volume is in RAS. Models with batch normalisation see
    the other rows of a batch in training: prefer models with layer or group norm, or put them inside `Frozen`.

    Args:
        model_name: a name that ``timm.list_models()`` knows.
        size: H, W, D of the input in voxels.
        groups: tokens; must divide D.
        pretrained: load timm's weights (from the hub or its cache).
        image_size: side to which slices are resized, for models of a fixed input size; null leaves them as they are.
        dropout: before the pooled features, if the model has it, in training.
    """

    def __init__(
        self,
        model_name: str,
        size: Size = (256, 256, 64),
        groups: PositiveInt = 8,
        pretrained: bool = False,
        image_size: PositiveInt | None = None,
        dropout: UnitFloat = 0.0,
    ) -> None:
        super().__init__()
        if groups < 1 or size[2] % groups:
            raise ValueError(f"TimmSlices: groups is {groups}, expected a divisor of the {size[2]} slices")
        self.size, self.groups, self.image_size = size, groups, image_size
        self.model = _create(model_name, channels=1, pretrained=pretrained, dropout=dropout)
        self.num_tokens = groups
        mean, std = _input_statistics(self.model)
        self.mean, self.std = mean, std
        self.out_channels = _probe(self, (1, 1, *size))[-1]

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, groups, C); groups from the first slice (the feet in RAS) up."""
        check_size(volumes, self.size, self)
        count, slices = volumes.shape[0], volumes.shape[-1]
        images = as_images(volumes.squeeze(1)).reshape(count * slices, 1, self.size[1], self.size[0])
        features: Tensor = self.model(to_square((images - self.mean) / self.std, self.image_size))  # (N * D, C)
        return features.reshape(count, self.groups, slices // self.groups, -1).mean(2)


@ENCODERS.register
class TimmDepthChannels(Encoder):
    """Any timm model with the slices as the channels of one image: how 2D systems are given volumes (paper section 4).

    Args:
        model_name: a name that ``timm.list_models()`` knows.
        size: H, W, D of the input in voxels; D becomes the number of channels.
        grid: cells, down and across, to which the model's feature map is averaged.
        pretrained: load timm's weights; those of the first layer are repeated over the channels.
        image_size: side to which images are resized, for models of a fixed input size; null leaves them as they are.
        dropout: inside the model, if it has any, in training.
    """

    def __init__(
        self,
        model_name: str,
        size: Size = (256, 256, 64),
        grid: tuple[PositiveInt, PositiveInt] = (7, 7),
        pretrained: bool = False,
        image_size: PositiveInt | None = None,
        dropout: UnitFloat = 0.0,
    ) -> None:
        super().__init__()
        self.size, self.grid, self.image_size = size, grid, image_size
        self.model = _create(model_name, channels=size[2], pretrained=pretrained, dropout=dropout)
        mean, std = _input_statistics(self.model)
        self.mean, self.std = mean, std
        if hasattr(self.model, "reset_classifier"):
            self.model.reset_classifier(0, "")
        self.num_tokens = grid[0] * grid[1]
        self.out_channels = _probe(self, (1, 1, *size))[-1]
        _freeze_unused(self, (1, 1, *size))

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); cells row by row from the front left of the picture."""
        check_size(volumes, self.size, self)
        images = as_images(volumes.squeeze(1))  # (N, D, W, H)
        features = self.model.forward_features(to_square((images - self.mean) / self.std, self.image_size))
        feature_map = self._as_map(features)  # (N, C, rows, columns)
        return F.adaptive_avg_pool2d(feature_map, self.grid).flatten(2).transpose(1, 2)

    def _as_map(self, features: Tensor) -> Tensor:
        """A model's features, as tokens (N, T, C), (N, h, w, C) or (N, C, h, w), to (N, C, h, w)."""
        if features.ndim == 3:
            tokens = features[:, getattr(self.model, "num_prefix_tokens", 0) :]
            side = round(tokens.shape[1] ** 0.5)
            if side * side != tokens.shape[1]:
                raise ValueError(f"TimmDepthChannels: {tokens.shape[1]} tokens are no square: set image_size")
            return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
        channels_last = str(getattr(self.model, "output_fmt", "NCHW")).endswith("NHWC")
        return features.permute(0, 3, 1, 2) if channels_last else features


def _create(name: str, channels: int, pretrained: bool, dropout: float) -> Any:
    """The timm model without a classifier.

    Raises:
        ConfigError: an unknown name, weights that cannot be had, or that lack some; each with the way out.
    """
    import timm

    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise ConfigError(
            f"timm has no model {name!r}.{f' Some that it has: {close}.' if close else ''} See timm.list_models()."
        )
    try:
        with _missing_keys() as missing:
            model = timm.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=0, drop_rate=dropout)
    except Exception as error:
        if not pretrained:
            raise
        raise ConfigError(
            f"timm weights of {name!r} cannot be loaded ({type(error).__name__}: {error}). Fix: connect to the hub, "
            "fill its cache on a machine that is connected and copy it here, or set pretrained: false"
        ) from None
    if missing:
        raise ConfigError(
            f"timm weights of {name!r} lack {'; '.join(missing)}, which would be random. Fix: another model, or "
            "pretrained: false"
        )
    return model


@contextlib.contextmanager
def _missing_keys() -> Iterator[list[str]]:
    """The keys that timm does not find in a file: where it drops the classifier, its log alone tells of them."""
    missing: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        missing.extend(re.findall(r"^Missing keys \((.*)\)", record.getMessage()))
        return record.levelno >= level

    logger = logging.getLogger("timm.models._builder")
    level, own = logger.getEffectiveLevel(), logger.level
    logger.addFilter(keep)
    logger.setLevel(min(level, logging.INFO))
    try:
        yield missing
    finally:
        logger.setLevel(own)
        logger.removeFilter(keep)


def _input_statistics(model: nn.Module) -> tuple[float, float]:
    """Mean and deviation of the model's input for volumes in [-1, 1]; timm states them for [0, 1] and R, G, B."""
    settings: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    means, stds = settings.get("mean") or (0.5,), settings.get("std") or (0.5,)
    return 2 * sum(means) / len(means) - 1, 2 * sum(stds) / len(stds)


def _freeze_unused(encoder: Encoder, shape: tuple[int, ...]) -> None:
    """Parameters behind the map, such as the norm of a head, get no gradient: several processes would wait for it."""
    training = encoder.training
    encoder.eval()
    parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        found = torch.autograd.grad(encoder(torch.zeros(shape)).sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.requires_grad_(gradient is not None)
    encoder.train(training)


def _probe(encoder: Encoder, shape: tuple[int, ...]) -> torch.Size:
    """Shape of the tokens of one empty volume; models do not all say how wide their features are."""
    training = encoder.training
    encoder.eval()
    with torch.no_grad():
        found: Tensor = encoder(torch.zeros(shape))
    encoder.train(training)
    return found.shape
