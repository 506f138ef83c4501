"""Stored voxels -> int16 HU in RAS, with a gate that refuses what cannot be Hounsfield units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.core.types import HU, Grid, Volume
from reg2rg.scans.base import MIN_DIM, ReadOptions, Scan, Shape, StoredImage
from reg2rg.scans.grid import Orientation
from reg2rg.scans.intensity import normalised
from reg2rg.scans.padding import AIR_HU, Padding

HU_MIN, HU_MAX = -1024, 3071
CT_RANGE = f"[{HU_MIN}, {HU_MAX}] HU"
CLIPPED, BEYOND = f"to {CT_RANGE} (", f"beyond {CT_RANGE} are kept ("
"""What notes say of a scan some of whose voxels were clipped to the range of a CT, or are still outside of it."""
_INT16 = (-32768, 32767)
_MAX_NON_FINITE = 1e-3  # share of voxels that is repaired
_SLAB_VOXELS = 1 << 20  # what fits the processor's cache
_EXACT = 1 << 30  # intercepts below are added in integers, without overflow
# The gate, on shares of voxels. Air is what lies outside the patient and in the lungs; soft tissue is what every body
# has. Dense counts values above all soft tissue and enhanced blood, among voxels that are not air: raw stored values
# have their soft tissue there.
_AIR_BELOW, _TISSUE, _DENSE_ABOVE = -500, (-150, 150), 500
_MIN_AIR, _MIN_TISSUE, _MAX_DENSE = 0.01, 0.05, 0.25
SAMPLES = 1 << 20
_INTERCEPTS = (1024, 8192)  # what scanners subtract; 8192: Siemens with its extended scale
# Spine, scapulae and most of the ribs lie behind the middle of the body. Over real and synthetic scans the mean place
# of bone was 0.03 to 0.17 of the frame behind the body's; as far in front of it, the header is likely to be wrong.
_BODY_ABOVE, _BONE_ABOVE, _MIN_BONE, _MAX_FORWARD = -200, 300, 1e-3, 0.03


def to_hounsfield(image: StoredImage, options: ReadOptions) -> Scan:
    """A stored CT as int16 HU, clipped to [-1024, 3071] unless the options say otherwise, in RAS.

    Where the options say that the values are none, they are brought to the same scale (`reg2rg.scans.intensity`).

    Oblique affines are brought to the closest RAS order of axes and stay oblique; nothing is interpolated.

    Raises:
        DataFault: FEW_SLICES, NON_FINITE, CONSTANT, UINT16_WRAP, NOT_HU, INVERTED.
    """
    orientation = Orientation.of(image.affine)
    stored = image.stored
    shape: Shape = (stored.shape[0], stored.shape[1], stored.shape[2])
    if min(shape) < MIN_DIM:
        raise DataFault.of(
            "FEW_SLICES",
            found=f"shape {list(shape)}",
            expected=f"{MIN_DIM} voxels an axis or more",
            fix="use the whole volume, not some slices of it",
            path=image.path,
        )
    slices = shape[orientation.axes[2]]
    if slices < options.min_slices:
        raise DataFault.of(
            "FEW_SLICES",
            found=f"{slices} axial slices",
            expected=f"at least {options.min_slices}",
            fix="use a whole chest CT, or lower min_slices",
            path=image.path,
        )
    of_hu = options.intensity == "hu"
    image, said = (image, "") if of_hu else normalised(image, options)
    array = np.empty(orientation.to_ras(stored).shape, np.int16, order="F")
    survey = _convert(image, orientation.from_ras(array), (HU_MIN, HU_MAX) if options.clip or not of_hu else _INT16)
    survey.refuse(image, options.hu == "check" and of_hu)
    repaired = [*survey.notes(options.clip), *_padded(image, orientation, array, options)] if of_hu else [said]
    notes = [*image.notes, *repaired]
    if options.hu == "check" and of_hu:
        step = max(1, round((array.size / SAMPLES) ** (1 / 3)))
        sample = array[::step, ::step, ::step]
        _gate(sample, image, survey)
        notes += _suspect_orientation(sample)
    volume = Volume(array, orientation.affine(image.affine, shape))
    if np.array_equal(image.affine, np.eye(4)):
        notes.append("identity affine: orientation and spacing are taken on trust")
    return Scan(volume, Grid(shape, image.affine), tuple(notes), image.placed)


def _padded(image: StoredImage, orientation: Orientation, array: HU, options: ReadOptions) -> list[str]:
    """A note on a constant frame that is no air, which is set to air in `array` where the options say so."""
    fill = options.padding == "air"
    if not fill and options.hu == "trust":  # the background of values that are no Hounsfield units may be anything
        return []
    padding = Padding.of(image, orientation)
    if padding is None:
        return []
    if fill:
        array[padding.inside] = AIR_HU
    return [padding.note(as_air=fill or (options.clip and padding.hu < HU_MIN))]


@dataclass(slots=True)
class Survey:
    """What the conversion saw."""

    voxels: int = 0
    low: float = np.inf
    high: float = -np.inf
    below: int = 0
    above: int = 0
    non_finite: int = 0

    def refuse(self, image: StoredImage, check: bool) -> None:
        """Raise for values that no CT has."""
        path, values = image.path, f"values {self.low:g} to {self.high:g}"
        if self.non_finite > _MAX_NON_FINITE * self.voxels:
            found = f"{self.non_finite} of {self.voxels} voxels NaN or infinite"
            fix = "export the scan again as integers"
            raise DataFault.of("NON_FINITE", found=found, expected="under 0.1 %", fix=fix, path=path)
        if self.low >= self.high:
            fix = "use the scan itself; this file holds none"
            raise DataFault.of("CONSTANT", found=values, expected="a CT with contrast", fix=fix, path=path)
        if check and self.low >= 0 and self.high > np.iinfo(np.int16).max:
            fix = "convert again with a signed type: negative HU were stored as unsigned"
            raise DataFault.of("UINT16_WRAP", found=values, expected="HU from about -1000", fix=fix, path=path)

    def notes(self, clipped: bool) -> list[str]:
        """One line for each kind of repair."""
        notes = []
        if self.non_finite:
            notes.append(f"{self.non_finite} NaN or infinite voxels set to {HU_MIN} HU")
        if self.below or self.above:
            count = f"{self.below + self.above} voxels"
            found = f"{self.below} below, {self.above} above; values {self.low:g} to {self.high:g})"
            notes.append(f"clipped {count} {CLIPPED}{found}" if clipped else f"{count} {BEYOND}{found}")
        return notes


def _convert(image: StoredImage, target: HU, limits: tuple[int, int]) -> Survey:
    """Write the HU of `image`, clipped to the limits, into `target`, slab by slab."""
    stored, survey = image.stored, Survey(voxels=image.stored.size)
    step = max(1, _SLAB_VOXELS // (stored.shape[0] * stored.shape[1]))
    for start in range(0, stored.shape[2], step):
        slab = (slice(None), slice(None), slice(start, start + step))
        values = stored_values(stored[slab], image.slope, image.inter, survey)
        low, high = values.min(), values.max()
        survey.low, survey.high = min(survey.low, float(low)), max(survey.high, float(high))
        if low < HU_MIN or high > HU_MAX:
            survey.below += int(np.count_nonzero(values < HU_MIN))
            survey.above += int(np.count_nonzero(values > HU_MAX))
            values = np.clip(values, *limits)
        np.copyto(target[slab], values, casting="unsafe")
    return survey


def stored_values(stored: npt.NDArray[Any], slope: float, inter: float, survey: Survey) -> npt.NDArray[Any]:
    """HU of one slab: the stored integers where no arithmetic is needed, else wide integers or rounded float32."""
    kind, size = stored.dtype.kind, stored.dtype.itemsize
    if slope == 1 and inter == 0 and kind in "iu":
        return stored
    if slope == 1 and inter == round(inter) and abs(inter) < _EXACT and kind in "iu" and (kind, size) != ("u", 8):
        return stored.astype(np.int64 if size >= 4 else np.int32) + int(inter)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is counted as not finite
        values = stored.astype(np.float32)
        if slope != 1:
            values *= np.float32(slope)
        if inter != 0:
            values += np.float32(inter)
    finite = np.isfinite(values)
    if not finite.all():
        survey.non_finite += int(finite.size - np.count_nonzero(finite))
        values[~finite] = HU_MIN
    rounded: npt.NDArray[Any] = np.rint(values, out=values)
    return rounded


def _gate(sample: HU, image: StoredImage, survey: Survey) -> None:
    """Refuse values that are not Hounsfield units: raw, rescaled twice, normalised, from a picture, with an offset."""
    found = no_ct(sample)
    if not found:
        return
    fix = "apply the rescale slope and intercept exactly once, or set hu=trust if the values are right"
    if survey.low >= 0:
        fix += "; of a scan that was made of pictures: task.views.intensity: picture, with its intensity_range"
    if offset := _rescaled_twice(image):
        found += f"; with about {offset} added they are those of a CT: rescaled twice"
        fix = "leave the second rescale out; CT-RATE's second release is in HU already"
    raise DataFault.of(
        "NOT_HU",
        found=f"values {survey.low:g} to {survey.high:g}, {found}",
        expected="Hounsfield units, air near -1000 and soft tissue near 0",
        fix=fix,
        path=image.path,
    )


def no_ct(sample: npt.NDArray[Any]) -> str:
    """What no CT has, ``""`` if the values can be Hounsfield units."""
    air = int(np.count_nonzero(sample < _AIR_BELOW))
    tissue = int(np.count_nonzero((sample >= _TISSUE[0]) & (sample <= _TISSUE[1])))
    dense = int(np.count_nonzero(sample > _DENSE_ABOVE))
    solid = max(1, sample.size - air)
    if air < _MIN_AIR * sample.size:
        return f"{air / sample.size:.1%} of voxels below {_AIR_BELOW}"
    if tissue < _MIN_TISSUE * sample.size:
        return f"{tissue / sample.size:.1%} of voxels in {_TISSUE[0]} to {_TISSUE[1]}"
    if dense > _MAX_DENSE * solid:
        return f"{dense / solid:.0%} of the voxels that are not air above {_DENSE_ABOVE}"
    return ""


def _rescaled_twice(image: StoredImage) -> int:
    """The intercept that was added once too often, of those that scanners use; 0 if none explains the values."""
    step = max(1, round((image.stored.size / SAMPLES) ** (1 / 3)))
    values = stored_values(image.stored[::step, ::step, ::step], image.slope, image.inter, Survey())
    lifted = (offset for offset in _INTERCEPTS if values.min() < -offset and not no_ct(values + offset))
    return next(lifted, 0)


def _suspect_orientation(sample: HU) -> list[str]:
    """A note if bone lies in front of the body's middle, as in files whose header swaps front and back."""
    places = np.linspace(0, 1, sample.shape[1])
    body = np.count_nonzero(sample > _BODY_ABOVE, axis=(0, 2))
    bone = np.count_nonzero(sample > _BONE_ABOVE, axis=(0, 2))
    if bone.sum() < _MIN_BONE * body.sum() or not bone.any():
        return []
    forward = float(np.average(places, weights=bone) - np.average(places, weights=body))
    if forward <= _MAX_FORWARD:
        return []
    return ["bone lies in front of soft tissue: the header may swap front and back (look at an overlay)"]
