"""Where a mask lies in its scan: on the same grid, on another one in the same space, or nowhere that makes sense.

Two mistakes of programs that write masks leave a mark in the header and are refused by it: the scan's affine beside an
array whose axes are in another order (SimpleITK and NumPy count k, j, i), and the scan's affine with signs of another
convention (LPS for RAS). A file without an affine is placed by `reg2rg.scans.mask_sets`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from reg2rg.core.errors import DataFault
from reg2rg.core.types import Grid, Mask
from reg2rg.scans.base import Affine, MaskGrid, ReadOptions, Scan, Shape, StoredImage, corner_shift
from reg2rg.scans.grid import Orientation, index_map, overlap, resample_nearest, scatter

_MAX_SHIFT = 0.5  # voxels of the scan, at any corner
_MIN_OVERLAP = 0.5
_IDENTITIES = (np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0]))


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
            DataFault: IDENTITY_AFFINE, MASK_SHAPE, MASK_AXES, MASK_SIGNS, MASK_OFFSET or NO_OVERLAP.
        """
        affine = _trusted_affine(image, scan, options)
        orientation = Orientation.of(affine)
        affine = orientation.affine(affine, image.stored.shape)
        own: Shape = orientation.to_ras(image.stored).shape
        shape: Shape = scan.volume.array.shape
        mapping = index_map(scan.volume.affine, affine)
        if own == shape and corner_shift(mapping, np.eye(4), shape) < _MAX_SHIFT:
            return cls(orientation, None, shape)
        if options.mask_grid == "header":
            _refuse_signs(image, scan)
        if own == shape:
            _refuse_shift(image, affine, scan)
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


def without_affine(image: StoredImage, scan: Scan) -> bool:
    """Whether a file says nothing of where it lies, and its scan's file does or says something else.

    It has neither sform nor qform, no space directions, or an identity: in RAS, or in LPS as ITK writes it.
    """
    bare = not image.placed or any(np.array_equal(image.affine, identity) for identity in _IDENTITIES)
    return bare and (image.placed or scan.placed) and not np.allclose(image.affine, scan.stored.affine)


def _trusted_affine(image: StoredImage, scan: Scan, options: ReadOptions) -> Affine:
    """The affine to go by: the file's own, or the scan's where the option says so."""
    if options.mask_grid != "header":
        return _scan_affine(image, scan, options.mask_grid)
    own, stored = image.stored.shape, scan.stored.shape
    if np.allclose(image.affine, scan.stored.affine, atol=1e-3) and own != stored and sorted(own) == sorted(stored):
        orders = [order for order in itertools.permutations(range(3)) if tuple(stored[axis] for axis in order) == own]
        named = " or ".join(", ".join("ijk"[axis] for axis in order) for order in orders)
        raise DataFault.of(
            "MASK_AXES",
            found=f"the scan's affine, but shape {own}: the scan's axes in the order {named}",
            expected=f"the scan's shape {stored}",
            fix="transpose the array before it is saved (SimpleITK's arrays count k, j, i: transpose(2, 1, 0))",
            path=image.path,
        )
    return image.affine


def _scan_affine(image: StoredImage, scan: Scan, grid: MaskGrid) -> Affine:
    """The scan's affine for an array that lies on its grid, as stored or as brought to RAS."""
    lies = scan.stored if grid == "scan" else Grid(scan.volume.array.shape, scan.volume.affine)
    if image.stored.shape == lies.shape:
        return lies.affine
    raise DataFault.of(
        "MASK_SHAPE",
        found=f"shape {image.stored.shape}",
        expected=f"{lies.shape}, the scan's {'as stored' if grid == 'scan' else 'in RAS'}, as mask_grid={grid} says",
        fix="use mask_grid=header if the masks have true affines",
        path=image.path,
    )


def _refuse_signs(image: StoredImage, scan: Scan) -> None:
    """Raise for the scan's affine with the signs of some axes of space changed, all over or in a part of it."""
    if image.stored.shape != scan.stored.shape:
        return
    parts = ((slice(4), ""), (slice(3), " in its directions, not its origin"), (slice(3, 4), " in its origin alone"))
    for signs, (columns, part) in itertools.product(itertools.product((1, -1), repeat=3), parts):
        changed = scan.stored.affine.copy()
        changed[:, columns] = (np.diag([*signs, 1]) @ changed)[:, columns]
        if -1 in signs and corner_shift(changed, image.affine, image.stored.shape) < 1e-2:
            axes = " and ".join(axis for axis, sign in zip("xyz", signs, strict=True) if sign < 0)
            raise DataFault.of(
                "MASK_SIGNS",
                found=f"the scan's affine with the signs of {axes} changed{part}",
                expected="the scan's own",
                fix="save the mask with the scan's affine (DICOM and ITK count in LPS, NIfTI in RAS); if the array "
                "lies on the scan's stored grid, mask_grid=scan reads it as it is",
                path=image.path,
            )


def _refuse_shift(image: StoredImage, affine: Affine, scan: Scan) -> None:
    """Raise for a mask of the scan's shape that is shifted against it: an error of the header."""
    mapping = index_map(affine, scan.volume.affine)
    shift = mapping[:3, 3].copy()
    mapping[:3, 3] = 0
    if corner_shift(mapping, np.eye(4), scan.volume.array.shape) < _MAX_SHIFT:
        steps = ", ".join(f"{step:.1f}" for step in shift)
        raise DataFault.of(
            "MASK_OFFSET",
            found=f"the scan's shape and spacing, but an origin {steps} voxels off",
            expected=f"less than {_MAX_SHIFT:g} voxels",
            fix="check that the mask belongs to this scan; if only its header is wrong, set mask_grid=scan",
            path=image.path,
        )
