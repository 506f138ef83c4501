"""A scan and its regions as the pages' viewer takes them: two small NIfTI files that it cannot misread.

Viewers of NIfTI agree on one form only: int16 or unsigned labels, slope 1, intercept 0, mm, qform and sform alike and
along the axes, little-endian, one gzip member. So the files are always written here, never passed on. Their axes are
those of the scan in RAS; what a voxel's place is in the patient is told by the scan's own affine, oblique ones too.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from reg2rg.core.types import HU, Mask, RegionVolume
from reg2rg.scans.grid import Box, bounding_box, box_slices

_BODY_HU, _AROUND_MM = -500, 10.0
_HU = (-1024, 3071)
_ROUNDED = (8, 12)  # HU; a soft tissue window has 50 and 33 steps of it, below the noise of a chest CT
_MOST_SETS = 256  # labels of a byte
_SAMPLED = 6  # slices that a file's size is guessed from
_LEVEL = 6  # of gzip; 9 takes five times as long for two per cent
_LABELS = 1002  # NIFTI_INTENT_LABEL

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ViewerVolume:
    """A scan and its regions for the viewer.

    Attributes:
        ct: NIfTI-1 file, gzipped: int16 HU.
        labels: NIfTI-1 file, gzipped, on the same grid: uint8, index into `sets`.
        sets: the regions that lie over each other in a voxel; the first set is empty.
        shape: of both arrays.
        first: index in the scan of the first voxel.
        step: voxels of the scan along each axis whose mean one voxel is.
        hu_step: values are rounded to multiples of it.
        scan_shape: of the scan in RAS.
        affine: (4, 4), voxel indices of the scan in RAS -> RAS mm.
        focus: region -> voxel well inside it, in its largest axial slice.
    """

    ct: bytes
    labels: bytes
    sets: tuple[tuple[str, ...], ...]
    shape: Triple
    first: Triple
    step: Triple
    hu_step: int
    scan_shape: Triple
    affine: npt.NDArray[np.float64]
    focus: Mapping[str, Triple]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0) * self.step
        return float(sizes[0]), float(sizes[1]), float(sizes[2])

    @property
    def thinned(self) -> str:
        """How the picture differs from the scan, ``""`` where it does not."""
        if self.step == (1, 1, 1) and self.hu_step == 1:
            return ""
        sizes = " x ".join(f"{size:.2f}".rstrip("0").rstrip(".") for size in self.spacing)
        grid = f"means over voxels of {sizes} mm" if self.step != (1, 1, 1) else "the scan's own voxels"
        rounded = f", rounded to {self.hu_step} HU" if self.hu_step > 1 else ""
        return f"The picture is thinned to fit into this file: {grid}{rounded}."


def draw_volume(study: RegionVolume, budget: int) -> ViewerVolume:
    """The finest picture of a scan whose files have no more bytes than a budget.

    Args:
        study: the scan and its masks in RAS.
        budget: bytes of both files together. The coarsest picture has 32 voxels of the scan in a voxel along each axis;
            it is given whatever its size.
    """
    box = _shown(study)
    for step, hu_step, last in _grids(study.volume.spacing):
        grid = _Grid(study, box, step)
        if not last and grid.guess(hu_step) > 1.1 * budget:
            continue
        affine = grid.affine()
        ct = _nifti(grid.picture(hu_step), affine)
        if not last and len(ct) > budget:
            continue
        labels, sets = _overlaps(grid.masks(), grid.shape)
        packed = _nifti(labels, affine, _LABELS)
        if last or len(ct) + len(packed) <= budget:
            break
    shape = study.volume.array.shape
    return ViewerVolume(
        ct=ct,
        labels=packed,
        sets=sets,
        shape=grid.shape,
        first=grid.first,
        step=step,
        hu_step=hu_step,
        scan_shape=(shape[0], shape[1], shape[2]),
        affine=study.volume.affine,
        focus={name: _deepest(mask) for name, mask in grid.masks().items()},
    )


def _grids(spacing: tuple[float, float, float]) -> Iterator[tuple[Triple, int, bool]]:
    """Voxels of the scan a voxel, rounding of HU, whether it is the last; from fine to coarse, towards cubes."""
    across, along = 1, 1
    for hu_step in (1, 4):
        yield (1, 1, 1), hu_step, False
    while max(across, along) < 32:
        for hu_step in _ROUNDED:
            yield (across, across, along), hu_step, False
        if along * spacing[2] < across * max(spacing[:2]):
            along += 1
        else:
            across += 1
    yield (across, across, along), _ROUNDED[-1], True


def _shown(study: RegionVolume) -> Box:
    """All slices, and of each the box around the body, its table and the regions."""
    array, spacing = study.volume.array, study.volume.spacing
    boxes = [bounding_box(array, _BODY_HU), *(bounding_box(mask) for mask in study.masks.values())]
    found = [box for box in boxes if box is not None] or [((0, array.shape[0]), (0, array.shape[1]), (0, 0))]
    sides = []
    for axis in (0, 1):
        around = int(np.ceil(_AROUND_MM / spacing[axis]))
        low, high = min(box[axis][0] for box in found), max(box[axis][1] for box in found)
        sides.append((max(0, low - around), min(array.shape[axis], high + around)))
    return sides[0], sides[1], (0, array.shape[2])


class _Grid:
    """Blocks of voxels of a part of a scan."""

    def __init__(self, study: RegionVolume, box: Box, step: Triple) -> None:
        self.study, self.box, self.step = study, box, step
        self.first: Triple = (box[0][0], box[1][0], box[2][0])
        sizes = [-(-(high - low) // size) for (low, high), size in zip(box, step, strict=True)]
        self.shape: Triple = (sizes[0], sizes[1], sizes[2])

    def affine(self) -> npt.NDArray[np.float64]:
        """Along the axes, with the middle of the first voxel where it is in the patient."""
        middle = np.add(self.first, np.subtract(self.step, 1) / 2)
        affine = np.diag([*np.multiply(self.study.volume.spacing, self.step), 1.0])
        affine[:3, 3] = self.study.volume.affine[:3, :3] @ middle + self.study.volume.affine[:3, 3]
        return affine

    def picture(self, hu_step: int) -> HU:
        """Means of the blocks."""
        result = np.empty(self.shape, np.int16, order="F")
        for index in range(self.shape[2]):
            result[:, :, index] = self._slice(index, hu_step)
        return result

    def guess(self, hu_step: int) -> float:
        """How many bytes the picture may have, from a few of its slices."""
        chosen = np.unique(np.linspace(0, self.shape[2] - 1, _SAMPLED).round().astype(int))
        some = b"".join(self._slice(int(index), hu_step).tobytes("F") for index in chosen)
        return len(gzip.compress(some, 1)) * self.shape[2] / len(chosen)

    def _slice(self, index: int, hu_step: int) -> HU:
        rows, columns, slices = box_slices(self.box)
        start = slices.start + index * self.step[2]
        part = self.study.volume.array[rows, columns, start : min(slices.stop, start + self.step[2])]
        total = part.sum(axis=2, dtype=np.int32)
        counts = np.full((1, 1), part.shape[2])
        for axis, size in enumerate(self.step[:2]):
            edges = np.arange(0, total.shape[axis], size)
            total = np.add.reduceat(total, edges, axis)
            widths = np.diff([*edges, part.shape[axis]])
            counts = counts * np.expand_dims(widths, 1 - axis)
        mean = np.clip(total / counts, *_HU)
        rounded: HU = (np.rint(mean / hu_step) * hu_step).astype(np.int16)
        return rounded

    def masks(self) -> dict[str, Mask]:
        """The masks at the middle of each block; of a region that all middles miss, all blocks that it touches."""
        places = np.ix_(
            *(
                np.minimum(low + np.arange(count) * size + size // 2, high - 1)
                for (low, high), count, size in zip(self.box, self.shape, self.step, strict=True)
            )
        )
        thinned = {}
        for name, mask in self.study.masks.items():
            thinned[name] = np.asfortranarray(mask[places])
            if not thinned[name].any():
                touched = (np.argwhere(mask) - self.first) // self.step
                thinned[name][tuple(touched.T)] = True
        return thinned


def _overlaps(masks: Mapping[str, Mask], shape: Triple) -> tuple[npt.NDArray[Any], tuple[tuple[str, ...], ...]]:
    """Which regions lie in each voxel, as one label map: a label for every set of regions that lie over each other."""
    labels = np.zeros(shape, np.int32, order="F")
    sets: list[tuple[str, ...]] = [()]
    for name, mask in masks.items():
        under = labels[mask]
        table = np.zeros(len(sets), np.int32)
        for label in np.flatnonzero(np.bincount(under, minlength=len(sets))):
            table[label] = len(sets)
            sets.append((*sets[label], name))
        labels[mask] = table[under]
    counts = np.bincount(labels.ravel("K"), minlength=len(sets))
    counts[0] = labels.size  # what lies in no region keeps label 0
    commonest: list[int] = np.argsort(-counts, kind="stable")[:_MOST_SETS].tolist()
    kept = sorted(label for label in commonest if counts[label])
    # More sets than labels: the rarest are told by the largest set that they hold.
    told = [max(range(len(kept)), key=lambda new: _held(sets[kept[new]], names)) for names in sets]
    return np.array(told, np.uint8)[labels], tuple(sets[label] for label in kept)


def _held(names: tuple[str, ...], by: tuple[str, ...]) -> int:
    """How many regions a set has, ``-1`` if another one does not hold it."""
    return len(names) if set(names) <= set(by) else -1


def _deepest(mask: Mask) -> Triple:
    """The voxel farthest from the edge in the axial slice where a region is largest."""
    index = int(mask.sum(axis=(0, 1)).argmax())
    depth = ndimage.distance_transform_edt(np.pad(mask[:, :, index], 1))
    i, j = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return int(i) - 1, int(j) - 1, index


def _nifti(array: npt.NDArray[np.integer], affine: npt.NDArray[np.float64], intent: int = 0) -> bytes:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_intent(intent, allow_unknown=True)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return gzip.compress(image.to_bytes(), _LEVEL, mtime=0)
