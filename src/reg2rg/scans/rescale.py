"""Slope and intercept from a table, applied to stored values that are not in Hounsfield units yet, and never twice.

CT-RATE's first release holds values as the scanner stored them, and says in a table what makes HU of them; its second
release is in HU. Copies of both go by the same names. So it is the values that decide: what is in HU already is left
as it is, whatever is said of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.core.types import Rescale
from reg2rg.scans.base import ReadOptions, StoredImage
from reg2rg.scans.hounsfield import SAMPLES, Survey, no_ct, stored_values

_SPACING_OFF = 0.05
_RELEASES = {"no": "release: v1", "yes": "release: v2", "unknown": "release: auto"}


def rescaled(image: StoredImage, options: ReadOptions) -> StoredImage:
    """The image with the slope, intercept and spacing of ``options.rescale``, as far as they are not in it already.

    Raises:
        DataFault: NOT_HU, the values are in HU though the table is said to be needed, or the other way round.
    """
    said = options.rescale
    assert said is not None
    image = _spaced(image, said)
    if (said.slope, said.inter) == (1.0, 0.0):
        return image
    apply = said.applied == "no" if options.hu == "trust" else _is_to_apply(image, said)
    if not apply:
        return image
    note = f"slope {said.slope:g} and intercept {said.inter:g} of the table are applied"
    return replace(
        image,
        slope=image.slope * said.slope,
        inter=image.inter * said.slope + said.inter,
        notes=(*image.notes, note),
    )


def _is_to_apply(image: StoredImage, said: Rescale) -> bool:
    """Whether the values need slope and intercept, told by which of the two are those of a CT."""
    values = _sample(image)
    is_hu, becomes_hu = not no_ct(values), not no_ct(np.clip(values * said.slope + said.inter, -32768, 32767))
    if is_hu == becomes_hu:  # neither, which the gate of HU refuses in its own words; both: what is said counts
        return said.applied == "no"
    if is_hu and said.applied == "no":
        raise _contradicted(image, said, "the values are Hounsfield units already, and would be rescaled twice", "v2")
    if becomes_hu and said.applied == "yes":
        found = f"stored values, which slope {said.slope:g} and intercept {said.inter:g} make Hounsfield units"
        raise _contradicted(image, said, found, "v1")
    return becomes_hu


def _contradicted(image: StoredImage, said: Rescale, found: str, release: str) -> DataFault:
    fix = f"release: {release} if all scans are such, or release: auto, which lets the values of each scan tell"
    return DataFault.of("NOT_HU", found=found, expected=f"what {_RELEASES[said.applied]} says", fix=fix,
                        path=image.path)  # fmt: skip


def _sample(image: StoredImage) -> npt.NDArray[Any]:
    step = max(1, round((image.stored.size / SAMPLES) ** (1 / 3)))
    return stored_values(image.stored[::step, ::step, ::step], image.slope, image.inter, Survey()).astype(np.float32)


def _spaced(image: StoredImage, said: Rescale) -> StoredImage:
    """The image with the table's voxel sizes where the header's differ, if the table is needed at all."""
    if said.spacing is None:
        return image
    header = np.linalg.norm(image.affine[:3, :3], axis=0)
    wanted = np.array(said.spacing)
    if (np.abs(header - wanted) <= _SPACING_OFF * wanted).all():
        return image
    told = f"voxels of {_mm(header)} mm in the header, {_mm(wanted)} mm in the table"
    if said.applied == "yes":
        return replace(image, notes=(*image.notes, f"{told}: the header counts"))
    affine = image.affine.copy()
    affine[:3, :3] *= wanted / header
    return replace(image, affine=affine, notes=(*image.notes, f"{told}: the table counts"))


def _mm(sizes: npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes)
