"""Where a mask lies in its scan: on the same grid, on another one in the same space, or nowhere that makes sense."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reg2rg.core.errors import DataFault
from reg2rg.core.types import Mask
from reg2rg.scans.base import Affine, ReadOptions, Scan, Shape, StoredImage, corner_shift
from reg2rg.scans.grid import Orientation, index_map, overlap, resample_nearest, scatter

_MAX_SHIFT = 0.5  # voxels of the scan, at any corner
_MIN_OVERLAP = 0.5


@dataclass(frozen=True, slots=True)
class Placement:
    """How masks of one file come onto the grid of their scan.

    Attributes:
        orientation: brings the stored array to RAS.
        mapping: voxel indices of the scan -> of the mask, both in RAS; ``None`` where the grids are the same.
        shape: of the scan in RAS.
    """

    orientation: Orientation
    mapping: Affine | None
    shape: Shape

    @classmethod
    def of(cls, image: StoredImage, scan: Scan, options: ReadOptions) -> Placement:
        """Compare the grids of a mask file and its scan.

        Raises:
            DataFault: IDENTITY_AFFINE, MASK_SHAPE, MASK_OFFSET or NO_OVERLAP.
        """
        affine = _trusted_affine(image, scan, options)
        orientation = Orientation.of(affine)
        affine = orientation.affine(affine, image.stored.shape)
        own: Shape = orientation.to_ras(image.stored).shape
        shape: Shape = scan.volume.array.shape
        if own == shape and _same_grid(image, affine, scan):
            return cls(orientation, None, shape)
        mapping = index_map(scan.volume.affine, affine)
        share = overlap(shape, own, mapping)
        if share < _MIN_OVERLAP:
            raise DataFault.of(
                "NO_OVERLAP",
                found=f"a frame that shares {share:.0%} with the scan's",
                expected=f"at least {_MIN_OVERLAP:.0%} of the smaller one",
                fix="check that the mask belongs to this scan",
                path=image.path,
            )
        return cls(orientation, mapping, shape)

    def onto_scan(self, mask: Mask) -> Mask:
        """A mask in RAS on its own grid -> on the scan's, by nearest neighbour.

        A structure so thin that nearest neighbour loses all of it keeps the scan voxels that hold its voxels' centres.
        """
        if self.mapping is None:
            return mask
        result = resample_nearest(mask, self.mapping, self.shape)
        return result if result.any() else scatter(mask, self.mapping, self.shape)


def _trusted_affine(image: StoredImage, scan: Scan, options: ReadOptions) -> Affine:
    """The affine to go by: the file's own, or the scan's where the option says so."""
    same_shape = image.stored.shape == scan.stored.shape
    if options.mask_grid == "scan":
        if same_shape:
            return scan.stored.affine
        raise DataFault.of(
            "MASK_SHAPE",
            found=f"shape {image.stored.shape}",
            expected=f"the scan's {scan.stored.shape}, as mask_grid=scan says",
            fix="use mask_grid=header if the masks have true affines",
            path=image.path,
        )
    identity = np.array_equal(image.affine, np.eye(4))
    if identity and not np.allclose(scan.stored.affine, np.eye(4)):
        fix = "set mask_grid=scan if the array lies on the scan's stored grid (SAT writes such files)"
        raise DataFault.of(
            "IDENTITY_AFFINE",
            found=f"an identity affine, shape {image.stored.shape} beside the scan's {scan.stored.shape}",
            expected="the affine of the scan",
            fix=fix if same_shape else "write the masks again with their true affine",
            path=image.path,
        )
    return image.affine


def _same_grid(image: StoredImage, affine: Affine, scan: Scan) -> bool:
    """Whether a mask of the scan's shape lies on its grid; a pure shift is refused as an error of the header."""
    shape = scan.volume.array.shape
    mapping = index_map(affine, scan.volume.affine)
    if corner_shift(mapping, np.eye(4), shape) < _MAX_SHIFT:
        return True
    shift = mapping[:3, 3].copy()
    mapping[:3, 3] = 0
    if corner_shift(mapping, np.eye(4), shape) < _MAX_SHIFT:
        steps = ", ".join(f"{step:.1f}" for step in shift)
        raise DataFault.of(
            "MASK_OFFSET",
            found=f"the scan's shape and spacing, but an origin {steps} voxels off",
            expected=f"less than {_MAX_SHIFT:g} voxels",
            fix="check that the mask belongs to this scan; if only its header is wrong, set mask_grid=scan",
            path=image.path,
        )
    return False
