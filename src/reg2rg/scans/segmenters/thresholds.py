"""Lungs, airways, bones and body by thresholds and connected parts: no download, and no claim beyond that.

The classical way of the years before learned segmenters: the body is the largest thing that is not air (Hu et al.,
2001, "Automatic lung segmentation for accurate quantitation of volumetric X-ray CT images"), lungs are large parts of
air in it that are not as black as gas in the bowel, airways are grown from the trachea until they leak, bones are
bright parts whose rim is where the density falls to half. What it cannot measure (a heart, an esophagus) it does not
give.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from reg2rg.core.regions import RegionSet
from reg2rg.core.types import HU, Mask, PathText, Volume
from reg2rg.scans.base import Affine, ReadOptions
from reg2rg.scans.grid import bounding_box
from reg2rg.scans.read import read_scan
from reg2rg.scans.segmenters.base import SEGMENTERS
from reg2rg.scans.segmenters.kept import KeptSegmenter, Made

_WORDS = ("lung", "trachea", "bone", "body")
_STEP = 1.4  # mm: finer grids are averaged to about this, which moves a rim by less than half a millimetre
_AIR, _TISSUE = -400, -300
_TABLE = 4.0  # mm: what ties a body to its table is thinner
_MIN_LUNG = 20.0  # ml
_WHOLE_LUNGS = 500.0  # ml: less, and not cut off by the top of the scan, is gas in a bowel below white lungs
_GAS = -960  # median HU of what is gas alone; emphysema is above
_TOO_LARGE = 12  # parts of air that are looked at
_CLOSE_LUNG, _CLOSE_BONE = 5.0, 5.0  # mm: vessels within lungs, marrow within its rim
_TRACHEA_AREA, _TRACHEA_OFF = (60.0, 700.0), 40.0  # mm2; mm from the middle of the body
_TRACHEA_HU, _WALL = -880, 3.0  # median HU; mm
_STEPS = (-950, -925, -900, -875, -850, -825, -800, -775, -750, -700, -650, -600)
_LEAK, _LEAK_ML, _MAX_AIRWAY = 1.6, 8.0, 150.0  # growth of one step that is a leak; ml
_MIN_LENGTH = 40.0  # mm from top to bottom: less is gas in a bowel
_BRIGHT, _CORTEX, _MARROW, _MIN_BONE = 100, 300, 60, 0.3  # HU, HU, HU, ml
_BONE_SHARE = (0.01, 0.12)  # of the body; 0.04 to 0.07 in CTs, more where contrast, noise or metal are taken for bone
_SOFT, _BRIGHTEST = 40, 700  # HU beside a bone, and above which one is as bright as another

Spacing = tuple[float, float, float]


@SEGMENTERS.register
class Thresholds(KeptSegmenter):
    """Lungs, trachea and bronchi, bones and the body by thresholds; for trials, never for measurements.

    It gives the regions of a set that are called ``lung``, ``trachea``, ``bone`` or ``body`` in one of their spellings.
    White lungs, plugged bronchi, metal and contrast in large vessels mislead it; masks that are far off do not get by
    `reg2rg.scans.plausibility`.

    Args:
        kept: folder in which masks are kept; ``None`` for one in the user's cache.
    """

    for_measurements = False

    def __init__(self, kept: PathText | None = None) -> None:
        super().__init__(kept)

    @property
    def version(self) -> str:
        """Raised when the same scan would get other masks."""
        return "1"

    def plan(self, regions: RegionSet) -> Mapping[str, str]:
        """Region -> which of its four."""
        return {regions.canonical(word): word for word in _WORDS if word in regions}

    def make(self, scan: Path, plan: Mapping[str, str], options: ReadOptions) -> Made:
        """Masks on a grid of voxels of 1.4 mm or more in RAS.

        Raises:
            DataFault: a scan that cannot be read.
        """
        volume, affine = averaged(read_scan(scan, options).volume)
        found = segment(volume)
        return Made({name: found[word] for name, word in plan.items() if word in found}, affine)


def segment(volume: Volume) -> dict[str, Mask]:
    """Body, lung, trachea and bone, each as far as it was found and can be what it is called.

    Args:
        volume: (H, W, D) HU in RAS.

    Returns:
        name -> (H, W, D) bool.
    """
    hu, spacing = volume.array, volume.spacing
    body = _body(hu, spacing)
    if body is None:
        return {}
    found = {"body": body, "lung": _lungs(hu, body, spacing)}
    bone = _bones(hu, body, spacing)
    if _BONE_SHARE[0] <= np.count_nonzero(bone) / np.count_nonzero(body) <= _BONE_SHARE[1]:
        found["bone"] = bone
    lumen = _airway(hu, body, spacing)
    if lumen is not None:
        wall = max(_WALL, 1.01 * min(spacing))  # a voxel at least, of coarse grids
        found["trachea"] = _near(lumen, wall, spacing) & body
        found["lung"] &= ~found["trachea"]
    if np.count_nonzero(found["lung"]) * _ml(spacing) < _WHOLE_LUNGS and not found["lung"][:, :, -1].any():
        del found["lung"]
    return {name: mask for name, mask in found.items() if mask.any()}


def averaged(volume: Volume) -> tuple[Volume, Affine]:
    """The volume in blocks of about `_STEP` mm, and the affine of the blocks' centres."""
    steps = np.array([max(1, int(_STEP // size)) for size in volume.spacing])
    affine = np.array(volume.affine)
    if (steps == 1).all():
        return volume, affine
    shape = np.array(volume.array.shape) // steps
    cut = volume.array[tuple(slice(0, int(size * step)) for size, step in zip(shape, steps, strict=True))]
    total = np.zeros(shape, np.int32, order="F")
    for offset in np.ndindex(*steps.tolist()):
        total += cut[tuple(slice(first, None, int(step)) for first, step in zip(offset, steps, strict=True))]
    affine[:3, 3] += affine[:3, :3] @ ((steps - 1) / 2)
    affine[:3, :3] = affine[:3, :3] * steps
    mean = np.asarray(np.rint(total / steps.prod()), np.int16, order="F")
    return Volume(mean, affine), affine


def _ml(spacing: Spacing) -> float:
    """Millilitres of a voxel."""
    return float(np.prod(spacing)) / 1000


def _parts(mask: Mask) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Connected parts by number, and how many voxels each has; part 0 is what is outside, counted as none."""
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return labels, sizes


def _near(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """All that is no farther than a radius in mm from the mask."""
    result = np.zeros(mask.shape, bool, order="F")
    box = _box(mask, radius, spacing)
    if box is not None:
        result[box] = ndimage.distance_transform_edt(~mask[box], sampling=spacing) <= radius
    return result


def _closed(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """Gaps that a ball of a radius in mm does not fit into, closed."""
    result = np.zeros(mask.shape, bool, order="F")
    box = _box(mask, radius, spacing)
    if box is not None:
        near = _near(np.pad(mask[box], 1), radius, spacing)
        depth = ndimage.distance_transform_edt(np.pad(near, 1, mode="edge"), sampling=spacing)
        result[box] = depth[2:-2, 2:-2, 2:-2] > radius
    return result | mask


def _box(mask: Mask, margin: float, spacing: Spacing) -> tuple[slice, slice, slice] | None:
    """The box around a mask with a margin in mm, as far as the array goes."""
    box = bounding_box(mask)
    if box is None:
        return None
    far = [int(margin / size) + 1 for size in spacing]
    first, second, third = (
        slice(max(0, low - reach), min(size, high + reach))
        for (low, high), reach, size in zip(box, far, mask.shape, strict=True)
    )
    return first, second, third


def _filled(mask: Mask) -> Mask:
    """Holes of each axial slice closed."""
    result = np.zeros(mask.shape, bool, order="F")
    for k in range(mask.shape[2]):
        result[:, :, k] = ndimage.binary_fill_holes(mask[:, :, k])
    return result


def _body(hu: HU, spacing: Spacing) -> Mask | None:
    """The largest part that is not air, its holes closed; what ties it to the table is opened."""
    tissue = hu > _TISSUE
    steps = max(1, round(_TABLE / 2 / min(spacing[:2])))
    plane = ndimage.generate_binary_structure(3, 1)
    plane[:, :, ::2] = False  # within axial slices: a slice above and below may be the last
    labels, sizes = _parts(ndimage.binary_opening(tissue, plane, steps))
    if not sizes.any():
        return None
    return _filled(labels == sizes.argmax())


def _lungs(hu: HU, body: Mask, spacing: Spacing) -> Mask:
    """Large parts of air in the body whose core is not gas alone, vessels within closed."""
    ml = _ml(spacing)
    labels, sizes = _parts((hu < _AIR) & body)
    lungs = np.zeros(hu.shape, bool, order="F")
    boxes = ndimage.find_objects(labels)
    for part in np.argsort(sizes)[::-1][:_TOO_LARGE]:
        if sizes[part] * ml < _MIN_LUNG:
            break
        box = boxes[part - 1]
        own = labels[box] == part
        core = ndimage.binary_erosion(own, border_value=1)
        if np.median(hu[box][core if core.any() else own]) > _GAS:
            lungs[box] |= own
    return _closed(lungs, _CLOSE_LUNG, spacing) & body


def _airway(hu: HU, body: Mask, spacing: Spacing) -> Mask | None:
    """The lumen of trachea and bronchi, grown from a slice of the trachea by rising thresholds until it leaks."""
    seed = _trachea(hu, body, spacing)
    if seed is None:
        return None
    ml, grown = float(np.prod(spacing)) / 1000, seed
    for step in _STEPS:
        labels, _ = ndimage.label((hu < step) & body | seed)
        wider = labels == labels[seed][0]
        volume, before = np.count_nonzero(wider) * ml, np.count_nonzero(grown) * ml
        if volume > _MAX_AIRWAY or (grown is not seed and volume > _LEAK * before + _LEAK_ML):
            break
        grown = wider
    length = np.count_nonzero(grown.any(axis=(0, 1))) * spacing[2]
    return grown if length >= _MIN_LENGTH else None


def _trachea(hu: HU, body: Mask, spacing: Spacing) -> Mask | None:
    """A round black spot near the middle of the body in the highest slice that shows one."""
    for k in range(hu.shape[2] - 1, hu.shape[2] // 3, -1):
        columns = np.flatnonzero(body[:, :, k].any(axis=1))
        if not len(columns):
            continue
        middle = (columns[0] + columns[-1]) / 2
        labels, sizes = _parts((hu[:, :, k] < _TRACHEA_HU + 80) & body[:, :, k])
        for part, box in enumerate(ndimage.find_objects(labels), 1):
            spot = labels[box] == part
            if _round(spot, sizes[part], spacing) and np.median(hu[:, :, k][box][spot]) < _TRACHEA_HU:
                place = box[0].start + ndimage.center_of_mass(spot)[0]
                if abs(place - middle) * spacing[0] < _TRACHEA_OFF:
                    seed = np.zeros(hu.shape, bool, order="F")
                    seed[:, :, k] = labels == part
                    return seed
    return None


def _round(spot: Mask, voxels: int, spacing: Spacing) -> bool:
    """Whether a spot of a slice is about as wide as high, fills its box, and has the area of a trachea."""
    area, width, height = voxels * spacing[0] * spacing[1], spot.shape[0] * spacing[0], spot.shape[1] * spacing[1]
    fits = _TRACHEA_AREA[0] < area < _TRACHEA_AREA[1]
    return fits and max(width, height) <= 2.2 * min(width, height) and area >= 0.5 * width * height


def _bones(hu: HU, body: Mask, spacing: Spacing) -> Mask:
    """Bright parts with cortex in them, up to where the density falls to half, and the marrow that they enclose."""
    ml = _ml(spacing)
    labels, sizes = _parts((hu > _BRIGHT) & body)
    brightest = ndimage.maximum(hu, labels, np.arange(len(sizes)))
    bright = ((brightest > _CORTEX) & (sizes * ml > _MIN_BONE))[labels]
    local = np.minimum(ndimage.maximum_filter(hu, footprint=ndimage.generate_binary_structure(3, 1)), _BRIGHTEST)
    rim: Mask = bright & (2 * (hu - _SOFT) > local - _SOFT)
    return rim | (_filled(_closed(rim, _CLOSE_BONE, spacing)) & (hu > _MARROW) & body)
