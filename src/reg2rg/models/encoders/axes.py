"""The order in which networks that read slices want the axes of a view."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from reg2rg.models.encoders.base import Size

Orientation = Literal["array", "image"]
"""``"array"``: slices with the view's own first and second axis. ``"image"``: slices as radiologists view them."""


def as_images(volumes: Tensor) -> Tensor:
    """(N, H, W, D) in RAS to axial images (N, D, W, H): front at the top, the patient's right on the left."""
    return volumes.permute(0, 3, 2, 1).flip(2, 3)


def depth_first(volumes: Tensor, orientation: Orientation) -> Tensor:
    """Views (N, 1, H, W, D) to slices, the first (the feet in RAS) first: (N, D, H, W), or (N, D, W, H) of images."""
    slices = volumes.squeeze(1)
    return as_images(slices) if orientation == "image" else slices.permute(0, 3, 1, 2)


def depth_first_size(size: Size, orientation: Orientation) -> Size:
    """A size H, W, D in the order of `depth_first`."""
    return (size[2], size[1], size[0]) if orientation == "image" else (size[2], size[0], size[1])


def to_square(images: Tensor, side: int | None) -> Tensor:
    """Images (N, C, rows, columns) resized to `side` x `side`; ``None`` leaves them as they are."""
    if side is None or images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def patches_of(volumes: Tensor, patch: Size) -> Tensor:
    """(N, A, B, C) to (N, T, voxels): patches in the order of the axes, the last fastest, and so the voxels of each."""
    (a, b, c), (p, q, r) = volumes.shape[1:], patch
    cells = volumes.reshape(-1, a // p, p, b // q, q, c // r, r).permute(0, 1, 3, 5, 2, 4, 6)
    return cells.flatten(4, 6).flatten(1, 3)
