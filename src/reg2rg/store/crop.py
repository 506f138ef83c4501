"""Native detail of one study: the CT cropped to its foreground, and each region's mask cropped to its box.

Everything the model ever sees of a scan can be computed from it at any size, without loss: region voxels that count
lie inside the foreground, and outside a region's box its mask is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.types import HU, Mask, RegionVolume, Volume
from reg2rg.scans.boxed import BoxedMasks, RegionMask
from reg2rg.scans.grid import bounding_box, box_slices

FOREGROUND_HU = -1000
"""Voxels above this value are foreground (published code: CropForeground with ``value > -1000``)."""


@dataclass(frozen=True, slots=True)
class Detail:
    """Native detail of one study.

    Attributes:
        array: (h, w, d) int16 HU, the scan cropped to its foreground; as in files, the first axis is fastest in memory.
        affine: (4, 4) float64, voxel indices of the *crop* -> RAS millimetres.
        origin: index of the crop's first voxel in the scan.
        shape: shape of the whole scan in voxels.
        masks: region name -> mask, in the order of the region set.
        notes: what was repaired or is worth knowing, one line each.
    """

    array: HU
    affine: npt.NDArray[np.float64]
    origin: tuple[int, int, int]
    shape: tuple[int, int, int]
    masks: Mapping[str, RegionMask]
    notes: tuple[str, ...] = ()

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the regions that are present."""
        return tuple(self.masks)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along each array axis."""
        return Volume(self.array, self.affine).spacing

    def mask(self, region: str) -> Mask:
        """The mask of one region on the whole crop, (h, w, d) bool."""
        return self.region(region).whole(self.array.shape)

    def region(self, region: str) -> RegionMask:
        """The boxed mask of one region.

        Raises:
            ConfigError: the study has no such region.
        """
        try:
            return self.masks[region]
        except KeyError:
            raise ConfigError(f"region {region!r} is not in this study; it has: {', '.join(self.masks)}") from None

    def to_region_volume(self) -> RegionVolume:
        """The crop with whole-crop masks, for overlays and exports."""
        return RegionVolume(
            Volume(self.array, self.affine), {name: self.mask(name) for name in self.masks}, notes=self.notes
        )


def crop_to_foreground(source: RegionVolume, needs_regions: bool = True) -> Detail:
    """Crop a scan to its foreground and each mask to its box. Nothing is copied: the arrays look into the source.

    Args:
        source: the scan with whole masks, or without any.
        needs_regions: refuse a scan whose masks all lie outside the foreground; otherwise it is one without regions.

    Raises:
        DataFault: ``NO_FOREGROUND``, nothing in the scan is above -1000 HU; ``NO_REGION``, there are masks and none
            reaches into the foreground.
    """
    array = source.volume.array
    box = bounding_box(array, above=FOREGROUND_HU)
    if box is None:
        raise DataFault.of(
            "NO_FOREGROUND",
            found=f"the highest voxel is {int(array.max())} HU",
            expected=f"a scan with tissue above {FOREGROUND_HU} HU",
            fix="check the rescale slope and intercept of this scan",
        )
    notes = list(source.notes)
    masks: dict[str, RegionMask] = {}
    whole = BoxedMasks.of(source.masks)
    for name in source.masks:
        cut = whole.part(name).within(box) if name in whole else None
        if cut is None:
            notes.append(f"{name}: its mask lies wholly outside the scan's foreground")
        else:
            masks[name] = cut
    if needs_regions and source.masks and not masks:
        raise DataFault.of(
            "NO_REGION",
            found="no region mask reaches into the scan's foreground",
            expected="at least one non-empty region",
            fix="check that masks and scan belong together",
        )
    origin = (box[0][0], box[1][0], box[2][0])
    return Detail(
        array=array[box_slices(box)],
        affine=_shifted(source.volume.affine, origin),
        origin=origin,
        shape=(array.shape[0], array.shape[1], array.shape[2]),
        masks=masks,
        notes=tuple(notes),
    )


def _shifted(affine: npt.NDArray[np.float64], origin: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    moved = np.array(affine, dtype=np.float64)
    moved[:3, 3] += moved[:3, :3] @ np.array(origin, dtype=np.float64)
    return moved
