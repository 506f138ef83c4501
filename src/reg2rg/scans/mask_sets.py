"""Masks without an affine: where a study's set of them lies is read off the scan's voxels.

Programs that segment an array and save it without an affine (SAT among them) leave two possibilities: the array lies on
the grid of the scan's file, or on that grid brought to RAS. In the right place a region is of one tissue, in a mirrored
one it is a mixture: the spread of the HU under the masks tells the two apart, whatever the regions are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from reg2rg.core.errors import DataFault
from reg2rg.core.types import HU, Mask
from reg2rg.scans.base import MaskGrid, Scan, Shape, StoredImage
from reg2rg.scans.grid import Orientation

_WINDOW = (-1000, 400)  # HU: metal and padding must not decide
_NOISE = 60.0  # HU: a spread below says nothing
_MIN_VOXELS = 20
# Sum over regions of the log of the ratio of spreads. Over 40 phantoms it was 4.1 to 8.4 for whole sets in the wrong
# and the right place; an esophagus alone reached 0.5 the wrong way.
_MARGIN = 0.6


def grid_without_affine(masks: Iterable[tuple[StoredImage, Mask]], scan: Scan) -> tuple[MaskGrid, str]:
    """On which of the scan's grids masks without an affine lie, and a note that says so.

    Args:
        masks: files with the voxels of one region in them, (I, J, K) bool as stored; a file may come several times.
        scan: where they are to lie.

    Raises:
        DataFault: IDENTITY_AFFINE, neither place fits better than the other, or no shape fits; names the options.
    """
    orientation = Orientation.of(scan.stored.affine)
    same = orientation.axes == (0, 1, 2) and not any(orientation.flipped)
    places: dict[MaskGrid, Shape] = {"scan": scan.stored.shape, "ras": scan.volume.array.shape}
    path: Path | str = ""
    better = 0.0
    for image, mask in masks:
        path = path or image.path
        places = {name: shape for name, shape in places.items() if shape == mask.shape}
        if len(places) == 2 and not same:
            better += _spread(scan.volume.array, orientation.to_ras(mask)) - _spread(scan.volume.array, mask)
    if places and same:
        return "scan", "masks without an affine: taken as lying on the scan's grid, which is in RAS"
    if len(places) == 1:
        [grid] = places
        return grid, f"masks without an affine: taken as lying on {_NAMES[grid]}, whose shape alone they have"
    if places and abs(better) > _MARGIN:
        grid = "ras" if better > 0 else "scan"
        return grid, f"masks without an affine: taken as lying on {_NAMES[grid]}, where they fit its voxels"
    if places:
        found = "which fit the scan as stored and in RAS alike"
        fix = "set mask_grid=scan or mask_grid=ras, whichever lays the masks on their organs (look at an overlay)"
    else:
        found = f"whose shapes are not the scan's {scan.stored.shape}"
        fix = "write the masks again with their true affine"
    raise DataFault.of(
        "IDENTITY_AFFINE",
        found=f"masks without an affine, {found}",
        expected="the affine of the scan",
        fix=fix,
        path=path,
    )


_NAMES = {"scan": "the stored grid of the scan (mask_grid=scan)", "ras": "the scan's grid in RAS (mask_grid=ras)"}


def _spread(hu: HU, mask: Mask) -> float:
    """Log of the standard deviation of the HU under a mask; 0 where there is too little of it."""
    values = np.clip(hu[mask], *_WINDOW)
    return float(np.log(np.hypot(values.std(dtype=np.float64), _NOISE))) if values.size >= _MIN_VOXELS else 0.0
