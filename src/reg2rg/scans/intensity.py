"""Values that are no Hounsfield units, as of MR, brought to the scale that views are computed on, scan by scan.

The map is linear, and so a slope and an intercept over the file's own: the values that the policy names become -1000
and 200. What is below counts as background, as air does in a CT.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.scans.base import ReadOptions, StoredImage

SCALE = (-1000.0, 200.0)
"""What the two ends become: the window by default."""
NOT_HU = "not HU"
"""In every note on such a scan."""
_RANGES = {"percentile": (0.5, 99.5), "zscore": (-3.0, 3.0)}
_FOREGROUND = 0.05  # of the 99th percentile of all values, from which on a voxel is none of air
_BRIGHT = 0.8  # of the way from the least value to the 99th percentile
_SAMPLES = 1 << 20


def normalised(image: StoredImage, options: ReadOptions) -> tuple[StoredImage, str]:
    """The image with the slope and intercept that bring it to `SCALE`, and a note that says so.

    Args:
        image: as its file holds it.
        options: `ReadOptions.intensity` and ``intensity_range``.

    Raises:
        DataFault: CONSTANT; INVERTED, air is bright.
    """
    if options.intensity == "picture" and options.intensity_range is not None:
        return _between(image, *options.intensity_range, "picture")
    step = max(1, round((image.stored.size / _SAMPLES) ** (1 / 3)))
    values = _values(image, (slice(None, None, step),) * 3)
    finite = values[np.isfinite(values)]
    ends = options.intensity_range or _RANGES[options.intensity]
    lowest = float(finite.min()) if finite.size else 0.0
    foreground = finite[finite > lowest + _FOREGROUND * (np.percentile(finite, 99) - lowest)] if finite.size else finite
    if foreground.size < 2 or foreground.min() == foreground.max():
        found, fix = "one value everywhere, or none", "use the scan itself; this file holds none"
        raise DataFault.of("CONSTANT", found=found, expected="a scan with contrast", fix=fix, path=image.path)
    _refuse_inverted(image, finite)
    if options.intensity == "percentile":
        low, high = (float(value) for value in np.percentile(foreground, ends))
    else:
        mean, deviation = float(foreground.mean(dtype=np.float64)), float(foreground.std(dtype=np.float64))
        low, high = mean + ends[0] * deviation, mean + ends[1] * deviation
    if not high > low:
        found, fix = f"both ends of {options.intensity} {ends} at {low:g}", "widen task.views.intensity_range"
        raise DataFault.of("CONSTANT", found=found, expected="two values", fix=fix, path=image.path)
    return _between(image, low, high, f"{options.intensity} {ends[0]:g} to {ends[1]:g}")


def _between(image: StoredImage, low: float, high: float, policy: str) -> tuple[StoredImage, str]:
    """The image brought to `SCALE` from two of its values, and the note."""
    slope = (SCALE[1] - SCALE[0]) / (high - low)
    changed = replace(image, slope=image.slope * slope, inter=(image.inter - low) * slope + SCALE[0])
    return changed, f"{NOT_HU}: {low:g} and {high:g} ({policy}) are the ends of the views"


def _values(image: StoredImage, where: tuple[slice, ...]) -> npt.NDArray[Any]:
    return np.asarray(image.stored[where], np.float32) * np.float32(image.slope) + np.float32(image.inter)


def _refuse_inverted(image: StoredImage, finite: npt.NDArray[Any]) -> None:
    """The outermost voxels are air, or a body that is cut: most of them are never the brightest of a scan."""
    faces = [
        _values(image, (slice(None),) * axis + (slice(end, end + 1 or None),)) for axis in range(3) for end in (0, -1)
    ]
    around = float(np.nanmedian(np.concatenate([face.reshape(-1) for face in faces])))
    low, high = float(finite.min()), float(np.percentile(finite, 99))
    if around > low + _BRIGHT * (high - low):
        raise DataFault.of(
            "INVERTED",
            found=f"values of {around:g} around the body, of {low:g} to {high:g}",
            expected="air that is dark",
            fix="invert the values (maximum minus value) and save the scan again",
            path=image.path,
        )
