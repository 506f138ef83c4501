"""The published preprocessing of one scan, in float64, on the arrays as the files have them.

Crop to voxels above -1000, average over areas, then clamp to [-1000, 200] and scale to [-1, 1]. Nothing is brought to
RAS, rounded or clipped before the averages.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]
Size = tuple[int, int, int]


def published_views(hu: Array, mask: npt.NDArray[np.bool_], size: Size) -> dict[str, Array]:
    """Global and texture view in the scaled unit, geometry view as fractions, each of `size`.

    Args:
        hu: stored values with slope and intercept, axes as in the file.
        mask: of one region.
        size: of the views.
    """
    masked = np.where(mask, hu, -1024.0)
    frame = foreground(hu)
    return {
        "global": scaled(averaged(hu[frame], size)),
        "texture": scaled(averaged(masked[foreground(masked)], size)),
        "geometry": averaged(mask[frame].astype(np.float64), size),
    }


def foreground(hu: Array) -> tuple[slice, ...]:
    """The smallest box that holds all voxels above -1000."""
    return tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(hu > -1000))


def averaged(array: Array, size: Size) -> Array:
    """Adaptive average pooling, MONAI's mode ``area``."""
    pooled = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(np.ascontiguousarray(array))[None, None], size)
    return np.asarray(pooled[0, 0].numpy(), np.float64)


def scaled(hu: Array) -> Array:
    """The window, as [-1, 1]."""
    return np.asarray((np.clip(hu, -1000, 200) + 400) / 600, np.float64)
