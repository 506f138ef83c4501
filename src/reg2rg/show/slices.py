"""Slices of a scan as a browser shows them: radiological convention, with the outline of every region.

The patient's right is on the left of the picture, in axial slices front is up, in coronal slices head is up.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import contourpy
import numpy as np
import numpy.typing as npt
from PIL import Image

from reg2rg.core.types import Mask, RegionVolume

Plane = Literal["axial", "coronal"]
_SLICE_AXIS: dict[Plane, int] = {"axial": 2, "coronal": 1}

# One byte a pixel spans this range, in steps of 7 HU: enough for the page to window it as lung, soft tissue or bone.
HU_RANGE = (-1100, 700)
_AIR_BELOW_HU = -500


@dataclass(frozen=True, slots=True)
class SliceView:
    """Slices of one plane.

    Attributes:
        width, height: size in mm on screen, for the right aspect ratio.
        pixels: (columns, rows) of each picture, the frame of the outlines.
        images: slice index -> PNG as a data URI, 8 bit over `HU_RANGE`.
        outlines: slice index -> region -> SVG path in pixels. Regions that the slice does not cut are absent.
        best: region -> slice index with the largest cross-section.
        middle: the slice to show before a region is chosen.
        count: how many slices the scan has in this plane.
    """

    width: float
    height: float
    pixels: tuple[int, int]
    images: Mapping[int, str]
    outlines: Mapping[int, Mapping[str, str]]
    best: Mapping[str, int]
    middle: int
    count: int


@dataclass(frozen=True, slots=True)
class StudyImages:
    """What a page shows of one scan.

    Attributes:
        planes: plane -> its slices.
        window: region -> ``"lung"`` where most of the region is air, else ``"soft"``; ``"all"`` for values that are no
            HU, under ``""`` too.
    """

    planes: Mapping[Plane, SliceView]
    window: Mapping[str, str]


def draw_study(study: RegionVolume, max_pixels: int = 320, hu: bool = True) -> StudyImages:
    """Draw the slices in which each region is largest, and the middle ones.

    Args:
        study: the scan and its masks in RAS.
        max_pixels: larger pictures are thinned to at most this many pixels a side.
        hu: values are HU; otherwise all of them are shown.
    """
    array = study.volume.array
    window = {
        region: "lung" if float(np.median(array[mask])) < _AIR_BELOW_HU else "soft"
        for region, mask in study.masks.items()
    }
    if not hu:
        window = dict.fromkeys(("", *study.masks), "all")
    planes: dict[Plane, SliceView] = {plane: _draw_plane(study, plane, max_pixels) for plane in ("axial", "coronal")}
    return StudyImages(planes, window)


def _draw_plane(study: RegionVolume, plane: Plane, max_pixels: int) -> SliceView:
    array, spacing = study.volume.array, study.volume.spacing
    axis = _SLICE_AXIS[plane]
    other = tuple(i for i in range(3) if i != axis)
    best = {region: int(mask.sum(axis=other).argmax()) for region, mask in study.masks.items()}
    middle = array.shape[axis] // 2
    step = max(1, -(-max(array.shape[i] for i in other) // max_pixels))
    images, outlines = {}, {}
    for index in sorted({middle, *best.values()}):
        picture = _on_screen(np.moveaxis(array, axis, 0)[index], step)
        images[index] = _png(picture)
        paths = {
            name: _outline(_on_screen(np.moveaxis(mask, axis, 0)[index], step)) for name, mask in study.masks.items()
        }
        outlines[index] = {name: path for name, path in paths.items() if path}
    rows, columns = picture.shape
    width, height = (array.shape[i] * spacing[i] for i in other)
    return SliceView(width, height, (columns, rows), images, outlines, best, middle, array.shape[axis])


def _on_screen(plane: npt.NDArray[np.generic], step: int) -> npt.NDArray[np.generic]:
    """(right, up) in RAS -> (row, column) with up first and the patient's right on the left."""
    return plane[::-step, ::-step].T


def _png(picture: npt.NDArray[np.generic]) -> str:
    low, high = HU_RANGE
    scaled = (picture.astype(np.float32) - low) * (255 / (high - low))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _outline(mask: Mask | npt.NDArray[np.generic]) -> str:
    """SVG path around a mask, ``""`` where it is empty; pixel (row, column) covers [column, column + 1] across."""
    if not mask.any():
        return ""
    padded = np.pad(mask, 1).astype(np.float32)
    lines = contourpy.contour_generator(z=padded).lines(0.5)
    return "".join("M" + "L".join(f"{x - 0.5:.1f} {y - 0.5:.1f}" for x, y in np.asarray(line)) + "Z" for line in lines)
