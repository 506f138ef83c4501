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
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import ConfigError
from reg2rg.core.types import HU, PositiveInt, RegionVolume
from reg2rg.store.crop import FOREGROUND_HU, Box, Detail, RegionMask, bounding_box, box_slices, crop_to_foreground
from reg2rg.store.resize import Size, SlabSum, area_pool, area_pool_boxed

Fixed = npt.NDArray[np.int16]
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
        texture: (R, H, W, D) int16, 1/16 HU clamped to the window.
        geometry: (R, H, W, D) int16, fraction * 32767.
        global_: (H, W, D) int16, 1/16 HU clamped to the window.
    """

    regions: tuple[str, ...]
    texture: Fixed | None
    geometry: Fixed | None
    global_: Fixed | None


@dataclass(frozen=True)  # no slots: jsonargparse reads a default through vars()
class Views:
    """Settings of the views.

    Attributes:
        size: (H, W, D) of every view.
        window: HU range that is kept; it becomes [-1, 1] at the model's input.
        coupled: place and detail in one view: the texture view is the masked scan *uncropped*, in the global frame
            (the ablation of local feature decoupling). Use it with the geometry encoder off.
    """

    size: tuple[PositiveInt, PositiveInt, PositiveInt] = (256, 256, 64)
    window: tuple[int, int] = (-1000, 200)
    coupled: bool = False

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 1:
            raise ConfigError(
                f"views.size is {self.size} (expected three positive numbers). Fix: for example 256,256,64"
            )
        low, high = self.window
        if not -2048 <= low < high <= 2047:
            raise ConfigError(
                f"views.window is {self.window} (expected low < high within -2048..2047 HU, the range of 1/16 HU in "
                "int16). Fix: the published window is -1000,200"
            )

    @property
    def key(self) -> str:
        """Short digest of everything that decides the numbers; names the folder of baked views."""
        text = json.dumps({**asdict(self), "recipe": RECIPE}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def compute(
        self,
        source: RegionVolume | Detail | HasDetail,
        regions: Sequence[str] | None = None,
        want: Collection[str] = ALL_VIEWS,
    ) -> StudyViews:
        """Compute views from native detail, on the CPU, in one thread.

        Args:
            source: a scan with its masks, native detail, or an entry of the store.
            regions: names in the wanted order; all of the study by default.
            want: any of ``texture``, ``geometry``, ``global``.

        Raises:
            ConfigError: an unknown view, or a region that the study does not have.
            DataFault: a scan without foreground, or with masks that all lie outside it.
        """
        asked = wanted_views(want)
        detail = as_detail(source)
        names = detail.regions if regions is None else tuple(regions)
        masks = [detail.region(name) for name in names]
        texture = geometry = global_ = None
        if "texture" in asked:
            texture = np.empty((len(names), *self.size), dtype=np.int16)
            for part, mask in zip(texture, masks, strict=True):
                self._texture(detail.array, mask, part)
        if "geometry" in asked:
            geometry = np.zeros((len(names), *self.size), dtype=np.int16)
            for part, mask in zip(geometry, masks, strict=True):
                self._geometry(detail.array.shape, mask, part)
        if "global" in asked:
            global_ = np.empty(self.size, dtype=np.int16)
            self._pool_hu(detail.array, global_)
        return StudyViews(names, texture, geometry, global_)

    def _texture(self, array: HU, mask: RegionMask, out: Fixed) -> None:
        """Texture view of one region into `out`."""
        if self.coupled:
            masked = np.full(array.shape, OUTSIDE_HU, dtype=np.int16, order="F")
            np.copyto(masked[box_slices(mask.box)], array[box_slices(mask.box)], where=mask.array)
            self._pool_hu(masked, out)
            return
        masked = np.where(mask.array, array[box_slices(mask.box)], np.int16(OUTSIDE_HU))
        box = bounding_box(masked, above=FOREGROUND_HU)
        if box is None:  # a region of nothing but air at or below -1000 HU: background everywhere
            out[...] = self._clamped(np.float32(OUTSIDE_HU * HU_SCALE))
            return
        self._pool_hu(masked[box_slices(box)], out)

    def _pool_hu(self, array: HU, out: Fixed) -> None:
        """Area resize of HU values, clamped to the window, into `out`."""
        pooled = area_pool(_slab_sums(array, self.size[2]), _shape(array), self.size, scale=HU_SCALE)
        np.clip(pooled, self.window[0] * HU_SCALE, self.window[1] * HU_SCALE, out=pooled)
        np.rint(pooled, out=pooled)
        out[...] = pooled

    def _geometry(self, shape: tuple[int, ...], mask: RegionMask, out: Fixed) -> None:
        """Geometry view of one region into `out`, which is zero."""
        longest = -(-shape[2] // self.size[2]) + 1
        counts = np.uint8 if longest <= np.iinfo(np.uint8).max else np.uint16
        slices = mask.array.transpose(2, 1, 0).view(np.uint8)
        place, part = area_pool_boxed(
            lambda start, stop: np.add.reduce(slices[start:stop], axis=0, dtype=counts),
            mask.box,
            (shape[0], shape[1], shape[2]),
            self.size,
            scale=FRACTION_SCALE,
        )
        out[place] = np.rint(np.minimum(part, FRACTION_SCALE, out=part), out=part)

    def _clamped(self, value: np.float32) -> np.float32:
        return np.clip(value, self.window[0] * HU_SCALE, self.window[1] * HU_SCALE)


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


def texture_box(array: HU, mask: RegionMask) -> Box | None:
    """Box of the region's voxels above -1000 HU, inside the mask's box; ``None`` if it has none."""
    hit = mask.array & (array[box_slices(mask.box)] > FOREGROUND_HU)
    return bounding_box(hit)


def _slab_sums(array: HU, outputs: int) -> SlabSum:
    """Function that sums slices; in int16 where no sum can overflow, which is several times faster."""
    slices = array.transpose(2, 1, 0)
    longest = -(-slices.shape[0] // outputs) + 1
    peak = max(abs(int(array.min())), abs(int(array.max())))
    total = np.int16 if longest * peak <= np.iinfo(np.int16).max else np.int64
    return lambda start, stop: np.add.reduce(slices[start:stop], axis=0, dtype=total)


def _shape(array: HU) -> Size:
    return array.shape[0], array.shape[1], array.shape[2]
