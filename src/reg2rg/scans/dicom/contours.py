"""RTSTRUCT: closed contours filled on the slices that they were drawn on.

A voxel belongs to a region if its centre lies inside an odd number of its contours on the slice, or on the line of one.
So a hole may be a second contour or the inner part of a keyhole, and contours that were traced through the centres of
voxels (rt-utils) keep their rim, as do those along the edges of voxels, on which no centre lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.core.types import Mask
from reg2rg.scans.dicom.frames import Vector, text
from reg2rg.scans.dicom.onto_scan import MATCH, OntoScan

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_SNAP = 0.01  # voxels; what rounding of decimals moves a point off the centre of a voxel


def contour_names(dataset: Any) -> dict[int, str]:
    """ROI number -> its name."""
    return {int(roi.ROINumber): text(roi.get("ROIName")) for roi in dataset.get("StructureSetROISequence") or ()}


def add_contours(dataset: Any, wanted: Mapping[str, tuple[int, ...]], onto: OntoScan) -> list[str]:
    """Fill the contours of regions.

    Args:
        dataset: of an RTSTRUCT.
        wanted: region -> its ROI numbers.
        onto: gets the masks.

    Returns:
        notes.

    Raises:
        DataFault: MASK_SLICE, a contour that lies on no slice.
    """
    rois = {int(roi.ReferencedROINumber): roi for roi in dataset.get("ROIContourSequence") or ()}
    notes = []
    for name, numbers in wanted.items():
        for number in numbers:  # two ROI are two areas: each is filled alone
            slices, left_out = _by_slice(rois[number].get("ContourSequence") or () if number in rois else (), onto)
            if left_out:
                notes.append(f"{name}: {left_out} contours that are not closed are left out")
            for (axis, place), polygons in slices.items():
                target = np.moveaxis(onto.stored(name), axis, 2)[:, :, place]
                target |= fill(polygons, (target.shape[0], target.shape[1]))
            places = sorted(place for _, place in slices)
            if places and (without := places[-1] - places[0] + 1 - len(places)) > 0:
                notes.append(f"{name}: no contour on {without} slices between its first and its last")
    return notes


def fill(polygons: Iterable[Vector], shape: tuple[int, int]) -> Mask:
    """Voxels inside an odd number of closed polygons, or on the line of one.

    Args:
        polygons: (N, 2) indices of voxels, not rounded; the last point is joined to the first.
        shape: of the result.
    """
    toggles = np.zeros((shape[0] + 1, shape[1]), bool)
    rim = np.zeros(shape, bool)
    for polygon in polygons:
        whole = np.rint(polygon)
        points = np.where(np.abs(polygon - whole) < _SNAP, whole, polygon)
        following = np.roll(points, -1, 0)
        level = points[:, 1] == following[:, 1]
        _cross(toggles, rim, points[~level], following[~level])
        for (x0, y), (x1, _) in zip(points[level], following[level], strict=True):
            if y == round(y) and 0 <= y < shape[1]:
                low, high = sorted((x0, x1))
                rim[max(0, int(np.ceil(low))) : max(0, int(np.floor(high)) + 1), int(y)] = True
    inside: Mask = np.logical_xor.accumulate(toggles[:-1], axis=0)
    return inside | rim


def _cross(toggles: Mask, rim: Mask, start: Vector, end: Vector) -> None:
    """Change sides behind each crossing of a row with an edge, and mark the centres that lie on it."""
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.ceil(low).clip(0).astype(int)
    counts = (np.floor(high).clip(max=rim.shape[1] - 1).astype(int) - first + 1).clip(0)
    edge = np.repeat(np.arange(len(counts)), counts)
    rows = first[edge] + np.arange(len(edge)) - (np.cumsum(counts) - counts)[edge]
    slopes = (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1])
    crossings = start[edge, 0] + (rows - start[edge, 1]) * slopes[edge]
    columns = np.ceil(crossings - _SNAP).clip(0, rim.shape[0]).astype(int)
    counted = rows < high[edge]  # the upper end belongs to the next edge
    np.logical_xor.at(toggles, (columns[counted], rows[counted]), True)
    on = (np.abs(crossings - columns) < _SNAP) & (columns < rim.shape[0])
    rim[columns[on], rows[on]] = True


def _by_slice(contours: Iterable[Any], onto: OntoScan) -> tuple[dict[tuple[int, int], list[Vector]], int]:
    """(Axis, slice) -> the polygons there, in the indices of the other axes; and how many are not closed."""
    found: dict[tuple[int, int], list[npt.NDArray[np.float64]]] = {}
    left_out = 0
    for contour in contours:
        points = np.array([float(value) for value in contour.get("ContourData") or ()])
        if text(contour.get("ContourGeometricType")) not in _CLOSED or not points.size:
            left_out += 1
            continue
        if points.size % 3:
            raise DataFault.of(
                "CORRUPT",
                found=f"a contour of {points.size} coordinates",
                expected="three a point",
                fix="export the contours again",
                path=onto.path,
            )
        voxels = onto.voxels(points.reshape(-1, 3))
        axis = int(np.ptp(voxels, axis=0).argmin())
        if np.ptp(voxels[:, axis]) > 2 * MATCH:
            raise onto.other("a contour that leans across slices", "contours that each lie on a slice")
        place = onto.slice_of(float(np.median(voxels[:, axis])), axis)
        found.setdefault((axis, place), []).append(np.delete(voxels, axis, 1))
    return found, left_out
