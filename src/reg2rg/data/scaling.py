"""Fixed-point views -> the numbers the encoders see, on whatever device the views are."""

from __future__ import annotations

import torch

from reg2rg.store.views import FRACTION_SCALE, HU_SCALE


def to_input(
    view: torch.Tensor, window: tuple[int, int] = (-1000, 200), dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Texture or global views as model input.

    Args:
        view: int16, 1/16 HU, any shape.
        window: HU range that becomes [-1, 1]; with (-1000, 200) this is the published (hu + 400) / 600.
        dtype: result type; the arithmetic is float32.

    Returns:
        [-1, 1], same shape and device.
    """
    low, high = window
    middle, half = (low + high) / 2, (high - low) / 2
    scaled = view.to(torch.float32).mul_(1 / (HU_SCALE * half)).sub_(middle / half)
    return scaled.clamp_(-1, 1).to(dtype)


def fraction(view: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Geometry views as model input: the share of each voxel that lies in the region, in [0, 1], same shape."""
    return view.to(torch.float32).mul_(1 / FRACTION_SCALE).to(dtype)
