"""Onto a grid with an even step and axes at right angles: what uneven series and a tilted gantry need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.scans.base import Affine

Voxels = npt.NDArray[np.int16]

AIR_HU = -1024
_MOST_DRIFT = 0.05  # slices by which the ends of a row may differ along the step


def even(array: Voxels, places: npt.NDArray[np.float64], step: float) -> Voxels:
    """Linear interpolation between uneven slices.

    Args:
        array: (I, J, K) HU.
        places: (K,) mm of each slice, rising from 0.
        step: mm between the slices of the result.

    Returns:
        (I, J, M) HU, first axis fastest, from the first slice to the last that a whole step reaches.
    """
    targets = np.arange(int(places[-1] / step + 1e-6) + 1) * step
    lower = np.clip(np.searchsorted(places, targets, "right") - 1, 0, len(places) - 2)
    share = (targets - places[lower]) / (places[lower + 1] - places[lower])
    result = np.empty((*array.shape[:2], len(targets)), np.int16, order="F")
    for place, (below, weight) in enumerate(zip(lower, share, strict=True)):
        result[:, :, place] = _between(array[:, :, below], array[:, :, below + 1], float(weight))
    return result


def upright(array: Voxels, affine: Affine, path: Path) -> tuple[Voxels, Affine]:
    """A volume whose slices lean against their step, on a grid at right angles along that step.

    Voxels are moved along the step alone, each row by what it leans: the shear that the tilt made, taken back exactly.
    Between two slices values are interpolated linearly; above and below the scan there is air.

    Args:
        array: (I, J, K) HU, first axis fastest.
        affine: (4, 4) its own, sheared.
        path: for the message.

    Raises:
        DataFault: GANTRY_TILT, turned about another axis than the rows.
    """
    step = float(np.linalg.norm(affine[:3, 2]))
    along = affine[:3, 2] / step
    across, down = affine[:3, 0] @ along / step, affine[:3, 1] @ along / step  # slices a voxel
    if abs(across) * array.shape[0] > _MOST_DRIFT:
        raise DataFault.of(
            "GANTRY_TILT",
            found="slices that lean along their rows",
            expected="a gantry tilted about the patient's left-right axis",
            fix="use a reconstruction at right angles to the table",
            path=path,
        )
    leans = np.arange(array.shape[1]) * down
    first = int(np.floor(leans.min()))
    count = int(np.ceil(leans.max())) - first + array.shape[2]
    result = np.full((*array.shape[:2], count), AIR_HU, np.int16, order="F")
    for j, lean in enumerate(leans):
        _line(array[:, j], result[:, j], float(lean) - first)
    grid = affine.copy()
    grid[:3, 0] -= (affine[:3, 0] @ along) * along
    grid[:3, 1] -= (affine[:3, 1] @ along) * along
    grid[:3, 3] += first * affine[:3, 2]
    return result, grid


def _line(source: Voxels, target: Voxels, shift: float) -> None:
    """Write `source` (I, K) into `target` (I, M), moved by `shift` slices towards the end."""
    start = int(np.ceil(shift - 1e-6))
    weight = start - shift
    if weight < 1e-6:
        target[:, start : start + source.shape[1]] = source
    else:
        target[:, start : start + source.shape[1] - 1] = _between(source[:, :-1], source[:, 1:], weight)


def _between(first: Voxels, second: Voxels, weight: float) -> Voxels:
    mixed = first.astype(np.float32) * np.float32(1 - weight) + second.astype(np.float32) * np.float32(weight)
    return np.rint(mixed).astype(np.int16)
