"""What lies right beside a region and in no mask at all.

Views of a region show what is under its mask, and attributes measure that. Segmentations leave out what they do not
know: a hernia beside the esophagus is stomach to them, an enlarged node at the hilum is nothing, though the report
tells both with the region that they lie at. So the voxels within `REACH` of a region along each axis that no mask
claims are measured too: how much gas is among them, and how dense they are. The room around the patient is such a place
too, beside skin and breasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reg2rg.core.types import Mask
from reg2rg.scans.boxed import RegionMask
from reg2rg.scans.hounsfield import HU_MAX, HU_MIN
from reg2rg.store.crop import Detail

REACH = 20.0
"""mm along each axis of the scan."""
STEP = 7.5
"""mm, at most, between the voxels that are looked at, but for scans whose own voxels are larger."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is measured of the voxels beside a region that lie in no mask.

    Attributes:
        volume_ml: their volume.
        air_ml: that of those below -500 HU.
        mean_hu, sd_hu: of them all, within [-1024, 3071] HU.
    """

    volume_ml: float
    air_ml: float
    mean_hu: float
    sd_hu: float


def surroundings(detail: Detail, air_below: int) -> dict[str, Surroundings]:
    """Measure what lies beside each region; nothing of a region that has no such voxel.

    Args:
        detail: native detail, of which a lattice of about `STEP` mm is looked at.
        air_below: HU that gas lies below.
    """
    steps = [max(1, int(STEP // size)) for size in detail.spacing]
    lattice = np.ascontiguousarray(detail.array[tuple(slice(None, None, step) for step in steps)].T)  # first axis last
    reach = [round(REACH / (step * size)) for step, size in zip(steps, detail.spacing, strict=True)][::-1]
    ml = abs(float(np.linalg.det(detail.affine[:3, :3]))) * math.prod(steps) / 1000
    regions = {name: _on_lattice(mask, steps) for name, mask in detail.masks.items()}
    free = np.ones(lattice.shape, bool)
    for starts, mask in regions.values():
        free[_place(starts, mask.shape)] &= ~mask
    found = {}
    for name, (starts, mask) in regions.items():
        low = [max(0, start - far) for start, far in zip(starts, reach, strict=True)]
        grown = tuple(
            slice(a, start + size + far) for a, start, size, far in zip(low, starts, mask.shape, reach, strict=True)
        )
        near = np.zeros(lattice[grown].shape, bool)
        near[_place([start - a for start, a in zip(starts, low, strict=True)], mask.shape)] = mask
        values = lattice[grown][_grown(near, reach) & free[grown]].clip(HU_MIN, HU_MAX)
        if values.size:
            air = int(np.count_nonzero(values < air_below))
            mean, sd = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
            found[name] = Surroundings(values.size * ml, air * ml, mean, sd)
    return found


def _grown(mask: Mask, reach: Sequence[int]) -> Mask:
    """All voxels no further than `reach` from one of the mask along each axis, in place; twice as far a step."""
    for axis, far in enumerate(reach):
        moved = np.moveaxis(mask, axis, 0)
        done = 0
        while done < min(far, len(moved) - 1):
            step = min(done + 1, far - done)
            before, after = moved[:-step].copy(), moved[step:].copy()
            moved[step:] |= before
            moved[:-step] |= after
            done += step
    return mask


def _on_lattice(mask: RegionMask, steps: Sequence[int]) -> tuple[list[int], Mask]:
    """Where the lattice begins in a mask, and the mask's voxels on it; first axis last."""
    starts = [-(-start // step) for (start, _), step in zip(mask.box, steps, strict=True)]
    cut = tuple(
        slice(place * step - start, None, step) for place, (start, _), step in zip(starts, mask.box, steps, strict=True)
    )
    return starts[::-1], np.ascontiguousarray(mask.array[cut].T)


def _place(starts: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))
