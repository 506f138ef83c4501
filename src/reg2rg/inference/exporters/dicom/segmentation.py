"""The masks of a result as DICOM SEG on the pixels of the CT: a segment a region, a frame a slice of it.

Segments of one file do not overlap: regions that do go into a second file, and a third. Cornerstone's adapters, which
OHIF reads with, silently lose segments of files where some overlap (docs/how-to/hospital.md).

Pixels are BINARY, one bit each, where a frame is an even number of bytes, which 512 x 512 pixels are. Of other sizes
the same adapters mix up the frames of a BINARY file; there it is FRACTIONAL with 0 and 255 alone, which all read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg import __version__
from reg2rg.core.codes import Code
from reg2rg.core.errors import ConfigError
from reg2rg.core.types import Mask
from reg2rg.inference.exporters.base import EXPORTERS, Exporter
from reg2rg.inference.exporters.dicom.objects import (
    MADE_BY,
    coded,
    finish,
    item,
    references,
    sequence,
    start,
    uid,
    write,
)
from reg2rg.inference.exporters.dicom.source import SourceSeries, SourceSlice, refusal, source_series
from reg2rg.inference.result import ReportResult
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.dicom.library import pydicom

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
Planes = dict[int, npt.NDArray[np.uint8]]
"""Slice -> its pixels, row by row, a bit each."""
NOT_FOR_MEASUREMENTS = "Masks for trials: not for measurements"
_ANATOMY = Code("91723000", "Anatomical Structure")
_FAMILY = Code("SEGMENTER", "Segmentation algorithm", "99REG2RG")  # of any kind: a segmenter does not tell
_DERIVED = Code("113076", "Segmentation", "DCM")
_PURPOSE = Code("121322", "Source image for image processing operation", "DCM")
_SERIES = 8001  # SeriesNumber of the first
_FULL = np.uint8(255)  # of a FRACTIONAL file: all of the pixel
_LABEL = 64  # characters of a SegmentLabel; longer ones are invalid, and some writers do not say so


class OnPixels(Exporter):
    """What points to regions on the pixels of the CT: not without DICOM, regions, or the CT's own grid."""

    def refusal(self, scan: Path, regions: bool, read: ReadOptions) -> str:
        """No DICOM, a CT that has to be resampled, or no regions."""
        return self._without_regions(scan, regions) or refusal(scan, read, type(self).__name__, on_grid=True)

    def source(self, result: ReportResult) -> SourceSeries:
        """The CT of a result.

        Raises:
            ConfigError: see `refusal`.
            DataFault: the series cannot be read any more.
        """
        if reason := self._without_regions(result.study.image, bool(result.masks)):
            raise ConfigError(reason)
        return source_series(result, type(self).__name__, on_grid=True)

    def _without_regions(self, scan: Path, regions: bool) -> str:
        name = type(self).__name__
        reason = f"{scan}: {name} holds regions, and the report has none. Fix: leave {name} out of the formats"
        return "" if regions else reason


@EXPORTERS.register
class SEG(OnPixels):
    """A DICOM segmentation: the region masks on the pixels of the CT, a coded segment a region."""

    def write(self, result: ReportResult, out: Path) -> list[Path]:
        """Write ``<study>.seg.dcm``, and ``<study>.seg2.dcm`` and so on for regions that overlap.

        Raises:
            ConfigError: see `refusal`.
            DataFault: the series cannot be read any more.
        """
        return write_segmentations(segmentations(result, self.source(result)), result, out)


def write_segmentations(found: Sequence[Any], result: ReportResult, out: Path) -> list[Path]:
    """Write the SEG files of a result; those of an earlier run with more of them are removed."""
    names = (f"{result.study.id}.seg{number if number > 1 else ''}.dcm" for number in count(1))
    written = [write(one, out / name) for one, name in zip(found, names, strict=False)]
    for name in takewhile(lambda name: (out / name).exists(), names):
        (out / name).unlink()
    return written


def segmentations(result: ReportResult, source: SourceSeries) -> list[Any]:
    """The data sets.

    Args:
        result: with a region at least.
        source: the CT, on whose grid the masks lie.
    """
    groups: list[tuple[Planes, dict[str, Planes]]] = []
    for region in result.masks:
        planes = _planes(result.stored_mask(region))
        for taken, regions in groups:
            if not any((taken[k] & plane).any() for k, plane in planes.items() if k in taken):
                taken |= {k: taken[k] | plane if k in taken else plane for k, plane in planes.items()}
                regions[region] = planes
                break
        else:
            groups.append((dict(planes), {region: planes}))
    return [_segmentation(result, source, regions, number) for number, (_, regions) in enumerate(groups)]


def _planes(mask: Mask) -> Planes:
    """The slices of a mask that have a voxel."""
    return {int(k): np.packbits(mask[:, :, k].T, bitorder="little") for k in np.flatnonzero(mask.any(axis=(0, 1)))}


def segments_of(found: Sequence[Any]) -> dict[str, tuple[Any, int, str]]:
    """Region -> the data set of its segment, the segment's number and its tracking UID."""
    return {
        str(one.TrackingID): (each, int(one.SegmentNumber), str(one.TrackingUID))
        for each in found
        for one in each.SegmentSequence
    }


def _segmentation(result: ReportResult, source: SourceSeries, regions: Mapping[str, Planes], place: int) -> Any:
    made_by = result.made_by.masks
    what = "Regions of the report" if made_by is None or made_by.for_measurements else NOT_FOR_MEASUREMENTS
    found = start(result, source, SEGMENTATION, "SEG", what, _SERIES + place)
    rows, columns = source.stack.frames[0].shape
    binary = rows * columns % 16 == 0
    pixels, segments, frames = bytearray(), [], []
    for number, (region, planes) in enumerate(regions.items(), 1):
        hashed = hashlib.sha256()
        for k, plane in planes.items():
            hashed.update(source.slices[k].instance.encode())
            hashed.update(plane.tobytes())
            pixels += (plane if binary else _FULL * np.unpackbits(plane, count=rows * columns, bitorder="little")).data
            frames.append((number, k))
        segments.append(_segment(number, region, result, hashed.hexdigest()))
    _image(found, source, (rows, columns), binary)
    found.SegmentSequence, found.NumberOfFrames = sequence(segments), len(frames)
    _functional_groups(found, source, frames)
    found.PixelData = bytes(pixels) + b"\0" * (len(pixels) % 2)
    found["PixelData"].VR = "OB"
    return finish(found)


def _segment(number: int, region: str, result: ReportResult, contents: str) -> Any:
    made_by = result.made_by.masks
    found = item(
        SegmentNumber=number,
        SegmentLabel=region[:_LABEL],
        SegmentedPropertyCategoryCodeSequence=coded(_ANATOMY),
        SegmentedPropertyTypeCodeSequence=coded(result.code(region)),
        TrackingID=region,
        TrackingUID=uid("region", region, contents),
    )
    if made_by is None or made_by.name == "files":
        found.SegmentAlgorithmType, found.SegmentAlgorithmName = "SEMIAUTOMATIC", "not known: masks given as files"
        return found
    found.SegmentAlgorithmType, found.SegmentAlgorithmName = "AUTOMATIC", made_by.name[:64]
    if not made_by.for_measurements:
        found.SegmentDescription = NOT_FOR_MEASUREMENTS
    algorithm = item(
        AlgorithmFamilyCodeSequence=coded(_FAMILY),
        AlgorithmName=made_by.name[:64],
        AlgorithmVersion=made_by.version[:64] or f"{MADE_BY} {__version__}",
    )
    found.SegmentationAlgorithmIdentificationSequence = sequence([algorithm])
    return found


def _image(found: Any, source: SourceSeries, shape: tuple[int, int], binary: bool) -> None:
    """What a SEG says of itself as an image."""
    header = source.header
    found.ImageType = ["DERIVED", "PRIMARY"]
    found.FrameOfReferenceUID = header.get("FrameOfReferenceUID") or uid("frame", header.SeriesInstanceUID)
    found.PositionReferenceIndicator = header.get("PositionReferenceIndicator") or ""
    found.Rows, found.Columns = shape
    found.SamplesPerPixel, found.PhotometricInterpretation, found.PixelRepresentation = 1, "MONOCHROME2", 0
    found.BitsAllocated = found.BitsStored = 1 if binary else 8
    found.HighBit = found.BitsStored - 1
    found.SegmentationType, found.SegmentsOverlap = "BINARY" if binary else "FRACTIONAL", "NO"
    if not binary:
        found.SegmentationFractionalType, found.MaximumFractionalValue = "OCCUPANCY", int(_FULL)
    found.ContentLabel, found.ContentDescription, found.ContentCreatorName = (
        "REGIONS",
        "Regions of a report",
        f"{MADE_BY}^",
    )
    found.LossyImageCompression = str(header.get("LossyImageCompression") or "00")
    for name in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if header.get(name) is not None:
            setattr(found, name, header.get(name))
    found.ReferencedSeriesSequence = sequence(
        [item(SeriesInstanceUID=header.SeriesInstanceUID, ReferencedInstanceSequence=references(source.slices))]
    )


def _functional_groups(found: Any, source: SourceSeries, frames: list[tuple[int, int]]) -> None:
    """Where each frame lies, and which segment it is of.

    Args:
        found: the data set.
        source: the CT.
        frames: number of the segment, and of the slice from 0.
    """
    dimensions = uid("dimensions", source.header.SeriesInstanceUID)
    pointers = {
        "ReferencedSegmentNumber": "SegmentIdentificationSequence",
        "ImagePositionPatient": "PlanePositionSequence",
    }
    tag = pydicom().tag.Tag
    found.DimensionOrganizationSequence = sequence([item(DimensionOrganizationUID=dimensions)])
    found.DimensionIndexSequence = sequence(
        item(DimensionOrganizationUID=dimensions, DimensionIndexPointer=tag(name), FunctionalGroupPointer=tag(group))
        for name, group in pointers.items()
    )
    orientation, spacing, thickness = source.place.values()
    step = f"{source.stack.spacing:.10g}"
    measures = item(PixelSpacing=spacing, SliceThickness=thickness or step, SpacingBetweenSlices=step)
    shared = item(
        PlaneOrientationSequence=sequence([item(ImageOrientationPatient=orientation)]),
        PixelMeasuresSequence=sequence([measures]),
    )
    found.SharedFunctionalGroupsSequence = sequence([shared])
    rank = {place: number for number, place in enumerate(sorted({place for _, place in frames}), 1)}
    found.PerFrameFunctionalGroupsSequence = sequence(
        item(
            DerivationImageSequence=sequence([_derived_from(source.slices[place])]),
            FrameContentSequence=sequence([item(DimensionIndexValues=[number, rank[place]])]),
            PlanePositionSequence=sequence([item(ImagePositionPatient=source.slices[place].position)]),
            SegmentIdentificationSequence=sequence([item(ReferencedSegmentNumber=number)]),
        )
        for number, place in frames
    )


def _derived_from(one: SourceSlice) -> Any:
    image = item(ReferencedSOPClassUID=one.sop_class, ReferencedSOPInstanceUID=one.instance)
    if one.frame is not None:
        image.ReferencedFrameNumber = one.frame
    image.PurposeOfReferenceCodeSequence = coded(_PURPOSE)
    image.SpatialLocationsPreserved = "YES"
    return item(SourceImageSequence=sequence([image]), DerivationCodeSequence=coded(_DERIVED))
