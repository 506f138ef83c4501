"""Views computed from native detail with PyTorch, on a GPU or any other device.

The same numbers as `Views.compute`, for machines whose GPU is idle while few CPU cores feed it, and for augmentation at
native detail: what travels to the device is the crop in int16 and the boxed masks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from reg2rg.core.types import HU, Mask, RegionVolume
from reg2rg.store.crop import Box, Detail, box_slices
from reg2rg.store.views import (
    ALL_VIEWS,
    FRACTION_SCALE,
    HU_SCALE,
    OUTSIDE_HU,
    HasDetail,
    Views,
    as_detail,
    texture_box,
    wanted_views,
)


def views_on_device(
    settings: Views,
    source: RegionVolume | Detail | HasDetail,
    regions: Sequence[str] | None = None,
    want: Collection[str] = ALL_VIEWS,
    device: str | torch.device = "cpu",
) -> dict[str, torch.Tensor]:
    """Compute views on a device.

    Args:
        settings: size, window, coupling.
        source: a scan with its masks, native detail, or an entry of the store.
        regions: names in the wanted order; all of the study by default.
        want: any of ``texture``, ``geometry``, ``global``.
        device: where to compute and to leave the result.

    Returns:
        int16 fixed point as in `StudyViews`: ``texture`` and ``geometry`` (R, H, W, D), ``global`` (H, W, D).
    """
    asked = wanted_views(want)
    detail = as_detail(source)
    names = detail.regions if regions is None else tuple(regions)
    scan = _to_device(detail.array, device)
    shape = (detail.array.shape[0], detail.array.shape[1], detail.array.shape[2])
    texture, geometry = [], []
    for name in names:
        boxed = detail.region(name)
        mask = _to_device(boxed.array, device)
        if "texture" in asked:
            tight = None if settings.coupled else texture_box(detail.array, boxed)
            texture.append(_texture(settings, scan, mask, boxed.box, tight))
        if "geometry" in asked:
            whole = torch.zeros(shape, dtype=torch.float32, device=device)
            whole[box_slices(boxed.box)] = mask.float()
            geometry.append(_fixed(_resize(whole, settings.size), FRACTION_SCALE))
    result: dict[str, torch.Tensor] = {}
    if "texture" in asked:
        result["texture"] = torch.stack(texture)
    if "geometry" in asked:
        result["geometry"] = torch.stack(geometry)
    if "global" in asked:
        result["global"] = _fixed_hu(settings, _resize(scan, settings.size))
    return result


def _texture(settings: Views, scan: torch.Tensor, mask: torch.Tensor, box: Box, tight: Box | None) -> torch.Tensor:
    outside = scan.new_tensor(OUTSIDE_HU)
    if settings.coupled:
        masked = torch.full_like(scan, OUTSIDE_HU)
        masked[box_slices(box)] = torch.where(mask, scan[box_slices(box)], outside)
    elif tight is None:
        masked = outside.expand(1, 1, 1)
    else:
        masked = torch.where(mask, scan[box_slices(box)], outside)[box_slices(tight)]
    return _fixed_hu(settings, _resize(masked, settings.size))


def _resize(volume: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    return F.adaptive_avg_pool3d(volume.float()[None, None], size)[0, 0]


def _fixed_hu(settings: Views, volume: torch.Tensor) -> torch.Tensor:
    return _fixed(volume.clamp(*settings.window), HU_SCALE)


def _fixed(volume: torch.Tensor, scale: int) -> torch.Tensor:
    return volume.mul(scale).round_().to(torch.int16)


def _to_device(array: HU | Mask, device: str | torch.device) -> torch.Tensor:
    """First axis contiguous in memory on both sides: transposed, moved, transposed back."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0))).to(device).permute(2, 1, 0)
