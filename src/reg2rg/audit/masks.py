"""A mask that is not where it should be: grown, shrunk, moved, mirrored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from reg2rg.audit.plan import DILATED, ERODED, MIRRORED, SHIFTED
from reg2rg.scans.boxed import RegionMask
from reg2rg.store.crop import Detail

AMOUNTS_MM: Mapping[str, float] = {DILATED: 10.0, ERODED: 5.0, SHIFTED: 30.0, MIRRORED: 0.0}
"""Intervention -> by how much, in mm; mirroring has no amount."""


def altered_detail(detail: Detail, region: str, how: str) -> Detail | None:
    """A study's detail with the mask of one region changed; ``None`` if nothing is left of it.

    Args:
        detail: native detail, its axes near those of the patient.
        region: whose mask.
        how: one of `AMOUNTS_MM`.
    """
    changed = altered_mask(detail.region(region), detail.array.shape, detail.affine, how, AMOUNTS_MM[how])
    return None if changed is None else replace(detail, masks={**detail.masks, region: changed})


def altered_mask(
    mask: RegionMask, shape: tuple[int, ...], affine: npt.NDArray[np.float64], how: str, amount_mm: float
) -> RegionMask | None:
    """A mask, changed; what leaves the scan is cut off. ``None`` if nothing is left.

    Args:
        mask: in its box.
        shape: (h, w, d) of the scan.
        affine: (4, 4) voxels -> RAS mm.
        how: ``dilated``, ``eroded``, ``shifted`` (towards the patient's left) or ``mirrored`` (left to right, at the
            middle of the scan).
        amount_mm: of growing, shrinking and moving.

    Raises:
        ValueError: no such change.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axis = int(np.abs(affine[0, :3]).argmax())  # the one that runs between left and right
    array, spans = mask.array, [list(span) for span in mask.box]
    if how in (DILATED, ERODED):
        margins = [int(np.ceil(amount_mm / step)) + 1 for step in spacing]
        array = np.pad(array, [(margin, margin) for margin in margins])
        spans = [[low - margin, high + margin] for (low, high), margin in zip(spans, margins, strict=True)]
        if how == DILATED:
            array = ndimage.distance_transform_edt(~array, sampling=spacing) <= amount_mm
        else:
            array = ndimage.distance_transform_edt(array, sampling=spacing) > amount_mm
    elif how == SHIFTED:
        steps = round(amount_mm / float(spacing[axis]))
        steps = -steps if affine[0, axis] > 0 else steps  # the first coordinate of RAS grows to the right
        spans[axis] = [place + steps for place in spans[axis]]
    elif how == MIRRORED:
        low, high = spans[axis]
        spans[axis], array = [shape[axis] - high, shape[axis] - low], np.flip(array, axis)
    else:
        raise ValueError(f"no change of a mask is called {how!r}")
    box = ((spans[0][0], spans[0][1]), (spans[1][0], spans[1][1]), (spans[2][0], spans[2][1]))
    return RegionMask(box, np.asarray(array)).within(((0, shape[0]), (0, shape[1]), (0, shape[2])))
