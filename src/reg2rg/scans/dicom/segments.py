"""DICOM SEG: frames of segments, each placed by its position; empty ones are left out of such files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.scans.dicom.frames import first, functional, text
from reg2rg.scans.dicom.library import damage
from reg2rg.scans.dicom.onto_scan import OntoScan

FRACTION = 0.5
"""Least probability, or share of a voxel, that counts as of the segment in a FRACTIONAL file."""


def segment_names(dataset: Any) -> dict[int, str]:
    """Segment number -> its label; 0 is the background of a label map."""
    segments = {int(one.SegmentNumber): text(one.get("SegmentLabel")) for one in dataset.get("SegmentSequence") or ()}
    return {number: label for number, label in segments.items() if number}


def add_segments(dataset: Any, wanted: Mapping[str, tuple[int, ...]], onto: OntoScan) -> list[str]:
    """Put the frames of regions on the scan.

    Args:
        dataset: of a SEG, BINARY, FRACTIONAL or LABELMAP, with its pixels.
        wanted: region -> its segment numbers.
        onto: gets the masks.

    Returns:
        notes.

    Raises:
        DataFault: MASK_SLICE, a frame that lies on no slice; HEADER, one without a place; CORRUPT.
    """
    kind = text(dataset.get("SegmentationType"))
    least = FRACTION * float(dataset.get("MaximumFractionalValue") or 1) if kind == "FRACTIONAL" else 1
    numbers = {number for found in wanted.values() for number in found}
    for index, segment, values in _frames(dataset, onto):
        if kind != "LABELMAP" and segment not in numbers:
            continue
        with damage(onto.path, f"frame {index + 1}"):
            pixels = _pixels(dataset, index)
        position, steps = _place(values)
        for name, own in wanted.items():
            if kind == "LABELMAP" or segment in own:
                inside = np.isin(pixels, own) if kind == "LABELMAP" else pixels >= least
                if inside.any():
                    onto.add(name, inside, position, steps)
    return [f"masks: fractions from {FRACTION:g} on count"] if kind == "FRACTIONAL" else []


def _pixels(dataset: Any, index: int) -> npt.NDArray[Any]:
    """(rows, columns) values of a frame."""
    from pydicom.pixels import pixel_array

    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if int(dataset.BitsAllocated) == 1 and not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        # pydicom 3.0.2 takes a byte too few for frames that end in one byte more than they need.
        start, count = index * rows * columns, rows * columns
        packed = np.frombuffer(dataset.PixelData, np.uint8)[start // 8 : (start + count + 7) // 8]
        return np.unpackbits(packed, bitorder="little")[start % 8 :][:count].reshape(rows, columns)
    many = int(dataset.get("NumberOfFrames") or 1) > 1
    pixels: npt.NDArray[Any] = pixel_array(dataset, index=index if many else None, raw=True)
    return pixels


def _frames(dataset: Any, onto: OntoScan) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Number of the frame, its segment (0 in a label map), and what is said of its place."""
    shared = first(dataset, "SharedFunctionalGroupsSequence")
    for index, group in enumerate(dataset.get("PerFrameFunctionalGroupsSequence") or ()):
        values = functional(shared) | functional(group)
        if any(name not in values for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")):
            fix = "export the segmentation again"
            found = f"frame {index + 1} without a place in the patient"
            raise DataFault.of(
                "HEADER", found=found, expected="position, orientation, spacing", fix=fix, path=onto.path
            )
        yield index, int(values.get("ReferencedSegmentNumber") or 0), values


def _place(values: Mapping[str, Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Centre of the first pixel, and the steps from column to column and from row to row; LPS mm."""
    orientation = np.array([float(value) for value in values["ImageOrientationPatient"]]).reshape(2, 3)
    between_rows, between_columns = (float(value) for value in values["PixelSpacing"])
    position = np.array([float(value) for value in values["ImagePositionPatient"]])
    return position, orientation * [[between_columns], [between_rows]]
