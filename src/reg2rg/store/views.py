"""What the encoders see of a study: the texture, geometry and global views.

- global: the scan cropped to its foreground, resized;
- texture of a region: outside its mask -1024 HU, cropped to voxels above -1000 HU, resized: full detail, no place;
- geometry of a region: its mask in the *global* frame, resized to soft fractions: place and size, no detail.

Resizing is by area, which reproduces the published preprocessing. Views travel as int16 fixed point, 1/16 HU clamped to
the window and fractions of 32767: a quarter of the bytes of what the published code hands on, exact to 6e-5 of the
scaled unit. `reg2rg.data.scaling` turns them into model input on the device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.task import Views
from reg2rg.core.types import HU, RegionVolume
from reg2rg.scans.boxed import RegionMask
from reg2rg.scans.grid import bounding_box, box_slices
from reg2rg.scans.hounsfield import BEYOND, CLIPPED, HU_MAX, HU_MIN
from reg2rg.store.crop import FOREGROUND_HU, Detail, crop_to_foreground
from reg2rg.store.frame import conform
from reg2rg.store.resize import Size, SlabSum, area_pool, area_pool_boxed

Fixed = npt.NDArray[np.int16]
Values = npt.NDArray[np.float16] | npt.NDArray[np.float32]
ViewName = Literal["texture", "geometry", "global"]

ALL_VIEWS: frozenset[ViewName] = frozenset({"texture", "geometry", "global"})
OUTSIDE_HU = -1024
"""Value of voxels outside the region in a texture view (published code)."""
HU_SCALE = 16
"""Fixed-point steps in one HU."""
FRACTION_SCALE = 32767
"""Fixed-point value of a geometry voxel that lies wholly inside the region."""
RECIPE = 1
"""Raised when the same settings would give other numbers, so that baked views are rebuilt."""
_LATER: dict[str, Any] = {"clip": "first", "intensity": "hu", "intensity_range": None, "features": "", "channels": 1}
"""Settings that came later, with the value that changes nothing."""
STORE_FRAME: dict[str, Any] = {"orientation": "RAS", "spacing": None}
"""The frame that the store's detail comes in. These settings count only where they ask for another."""


class HasDetail(Protocol):
    """Anything that carries native detail, such as an entry of the store."""

    @property
    def detail(self) -> Detail:
        """The native detail."""


@dataclass(frozen=True, slots=True)
class StudyViews:
    """The views of one study; what was not asked for is ``None``.

    Attributes:
        regions: names, in the order of the first axis of `texture` and `geometry`.
        texture: (R, H, W, D) int16, 1/16 HU clamped to the window; or (R, T, C), its tokens (`reg2rg.store.encoded`).
        geometry: (R, H, W, D) int16, fraction * 32767; or (R, T, C).
        global_: (H, W, D) int16, 1/16 HU clamped to the window; of features (H, W, D, C) as they were made; or (T, C).
    """

    regions: tuple[str, ...]
    texture: Fixed | Values | None
    geometry: Fixed | Values | None
    global_: Fixed | Values | None


def views_key(settings: Views) -> str:
    """Short digest of everything that decides the numbers; names the folder of baked views."""
    implied = STORE_FRAME | _LATER
    facts = {name: value for name, value in asdict(settings).items() if name not in implied or value != implied[name]}
    return hashlib.sha256(json.dumps({**facts, "recipe": RECIPE}, sort_keys=True).encode()).hexdigest()[:16]


def compute_views(
    settings: Views,
    source: RegionVolume | Detail | HasDetail,
    regions: Sequence[str] | None = None,
    want: Collection[str] = ALL_VIEWS,
) -> StudyViews:
    """Compute views from native detail, on the CPU, in one thread.

    Args:
        settings: of the views.
        source: a scan with its masks, native detail, or an entry of the store.
        regions: names in the wanted order; all of the study by default.
        want: any of ``texture``, ``geometry``, ``global``.

    Raises:
        ConfigError: an unknown view, or a region that the study does not have.
        DataFault: a scan without foreground or without any region, or a region too small for the wanted voxel size.
    """
    asked = wanted_views(want)
    detail = framed_detail(settings, source, regions)
    names = detail.regions if regions is None else tuple(regions)
    masks = [detail.region(name) for name in names]
    texture = geometry = global_ = None
    if "texture" in asked:
        texture = np.empty((len(names), *settings.size), dtype=np.int16)
        for part, mask in zip(texture, masks, strict=True):
            _texture(settings, detail.array, mask, part)
    if "geometry" in asked:
        geometry = np.zeros((len(names), *settings.size), dtype=np.int16)
        for part, mask in zip(geometry, masks, strict=True):
            _geometry(settings.size, detail.array.shape, mask, part)
    if "global" in asked:
        global_ = np.empty(settings.size, dtype=np.int16)
        _pool_hu(settings, detail.array, global_)
    return StudyViews(names, texture, geometry, global_)


def framed_detail(
    settings: Views, source: RegionVolume | Detail | HasDetail, regions: Sequence[str] | None = None
) -> Detail:
    """Native detail in the orientation and voxel size that the views are asked in.

    Raises:
        DataFault: a wanted region that has no voxel left at that size; CLIPPED.
    """
    if settings.features:
        raise ConfigError(f"the views are features {settings.features!r}: they are read, not computed from a scan")
    if all(getattr(settings, name) == value for name, value in STORE_FRAME.items()):
        detail = as_detail(source)
        return replace(detail, array=_in_range(settings, detail.array, detail.notes))
    given = source if isinstance(source, RegionVolume) else as_detail(source).to_region_volume()
    array = _in_range(settings, given.volume.array, given.notes)
    given = replace(given, volume=replace(given.volume, array=array))
    names = tuple(given.masks) if regions is None else tuple(regions)
    conformed = conform(given, settings.orientation, settings.spacing)
    detail = crop_to_foreground(conformed, needs_regions=bool(names))
    if lost := [name for name in names if name in given.masks and name not in detail.masks]:
        raise DataFault.of(
            "NO_REGION",
            found=f"{', '.join(lost)} lost every voxel at {settings.spacing} mm",
            expected="regions of at least one voxel at the spacing of the model's input contract",
            fix="leave the region out, or use a model without a stated spacing",
        )
    return detail


def _in_range(settings: Views, array: HU, notes: Sequence[str]) -> HU:
    """The voxels that are averaged; the notes of a scan tell whether any was, or would have to be, clipped.

    Raises:
        DataFault: CLIPPED, values are wanted that reading cut off.
    """
    if settings.clip == "first":
        return np.clip(array, HU_MIN, HU_MAX) if any(BEYOND in note for note in notes) else array
    if cut := [note for note in notes if CLIPPED in note]:
        raise DataFault.of(
            "CLIPPED",
            found=cut[0],
            expected="the values of the file, which task.views.clip: last averages",
            fix="run reg2rg data prepare again with the same configs (it reads with clip: false)",
        )
    return array


def _texture(settings: Views, array: HU, mask: RegionMask, out: Fixed) -> None:
    """Texture view of one region into `out`."""
    if settings.coupled:
        masked = np.full(array.shape, OUTSIDE_HU, dtype=np.int16, order="F")
        np.copyto(masked[box_slices(mask.box)], array[box_slices(mask.box)], where=mask.array)
        _pool_hu(settings, masked, out)
        return
    masked = np.where(mask.array, array[box_slices(mask.box)], np.int16(OUTSIDE_HU))
    box = bounding_box(masked, above=FOREGROUND_HU)
    if box is None:  # a region of nothing but air at or below -1000 HU: background everywhere
        out[...] = np.clip(OUTSIDE_HU, *settings.window) * HU_SCALE
        return
    _pool_hu(settings, masked[box_slices(box)], out)


def _pool_hu(settings: Views, array: HU, out: Fixed) -> None:
    """Area resize of HU values, clamped to the window, into `out`."""
    pooled = area_pool(_slab_sums(array, settings.size[2]), _shape(array), settings.size, scale=HU_SCALE)
    np.clip(pooled, settings.window[0] * HU_SCALE, settings.window[1] * HU_SCALE, out=pooled)
    np.rint(pooled, out=pooled)
    out[...] = pooled


def _geometry(size: Size, shape: tuple[int, ...], mask: RegionMask, out: Fixed) -> None:
    """Geometry view of one region into `out`, which is zero."""
    longest = -(-shape[2] // size[2]) + 1
    counts = np.uint8 if longest <= np.iinfo(np.uint8).max else np.uint16
    slices = mask.array.transpose(2, 1, 0).view(np.uint8)
    place, part = area_pool_boxed(
        lambda start, stop: np.add.reduce(slices[start:stop], axis=0, dtype=counts),
        mask.box,
        (shape[0], shape[1], shape[2]),
        size,
        scale=FRACTION_SCALE,
    )
    out[place] = np.rint(np.minimum(part, FRACTION_SCALE, out=part), out=part)


def as_detail(source: RegionVolume | Detail | HasDetail) -> Detail:
    """Native detail of any source of views."""
    if isinstance(source, RegionVolume):
        return crop_to_foreground(source)
    return source if isinstance(source, Detail) else source.detail


def wanted_views(want: Collection[str]) -> frozenset[str]:
    """The asked views by their plain names; ``global_`` means ``global``.

    Raises:
        ConfigError: an unknown name.
    """
    asked = frozenset(name.rstrip("_") for name in want)
    if unknown := asked - ALL_VIEWS:
        raise ConfigError(f"unknown views {sorted(unknown)} (expected any of {sorted(ALL_VIEWS)})")
    return asked


def _slab_sums(array: HU, outputs: int) -> SlabSum:
    """Function that sums slices; in int16 where no sum can overflow, which is several times faster."""
    slices = array.transpose(2, 1, 0)
    longest = -(-slices.shape[0] // outputs) + 1
    peak = max(abs(int(array.min())), abs(int(array.max())))
    total = np.int16 if longest * peak <= np.iinfo(np.int16).max else np.int64
    return lambda start, stop: np.add.reduce(slices[start:stop], axis=0, dtype=total)


def _shape(array: HU) -> Size:
    return array.shape[0], array.shape[1], array.shape[2]
