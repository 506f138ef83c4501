"""Slices one after another, from a format that says neither where they lie nor how large their voxels are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.scans.base import ReadOptions, StoredImage


def from_slices(path: Path, array: npt.NDArray[Any], options: ReadOptions, slope: float = 1.0) -> StoredImage:
    """A (D, H, W) array of slices as people look at them, as an image on a grid that is taken on trust.

    Args:
        path: where it came from.
        array: slices; rows run from front to back, columns from the patient's right to the left.
        options: say which slice is the first.
        slope: value = stored * slope.
    """
    down = options.first_slice == "head"
    affine = np.diag([-1.0, -1.0, -1.0 if down else 1.0, 1.0])  # LPS: columns to the left, rows to the back
    voxels = np.asfortranarray(array.transpose(2, 1, 0))
    ends = "from head to feet" if down else "from feet to head"
    note = f"the file says no place: slices are taken {ends} (data.read.first_slice), voxels as 1 mm"
    return StoredImage(path, voxels, slope, 0.0, affine, (note,), placed=False)
