"""DICOM SEG and RTSTRUCT for tests, on the grid of `dicom_files.slices`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dicom_files import Dataset, FileMetaDataset, Items, _item, lps, pydicom

SEG, LABELMAP, RTSTRUCT = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.66.7",
    "1.2.840.10008.5.1.4.1.1.481.3",
)


def _new(sop_class: str, modality: str) -> Any:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = sop_class
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{len(modality)}"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.Modality = "1.2.3.4", f"1.2.3.4.9{len(modality)}", modality
    one.PatientName, one.PatientID = "Doe^Jane", "SECRET1"
    return one


def seg(masks: Mapping[str, np.ndarray], kind: str = "BINARY", affine: np.ndarray | None = None, seed: int = 0) -> Any:
    """A SEG with frames in no order, the empty ones left out.

    Args:
        masks: label -> (columns, rows, slices), bool, or probabilities for FRACTIONAL.
        kind: BINARY, FRACTIONAL or LABELMAP; a later mask covers an earlier one in a label map.
        affine: indices -> LPS mm.
        seed: of the order of frames.
    """
    affine = lps() if affine is None else affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    one = _new(LABELMAP if kind == "LABELMAP" else SEG, "SEG")
    one.SegmentationType = kind
    one.SegmentSequence = Items([_item(SegmentNumber=k, SegmentLabel=name) for k, name in enumerate(masks, 1)])
    planes = {k: np.asarray(mask) for k, mask in enumerate(masks.values(), 1)}
    if kind == "LABELMAP":
        labels = np.zeros(planes[1].shape, np.uint8)
        for k, mask in planes.items():
            labels[mask] = k
        planes = {0: labels}
    if kind == "FRACTIONAL":
        one.MaximumFractionalValue, one.SegmentationFractionalType = 250, "PROBABILITY"
        planes = {k: np.rint(mask * 250).astype(np.uint8) for k, mask in planes.items()}
    frames = [(k, place) for k, mask in planes.items() for place in range(mask.shape[2]) if mask[:, :, place].any()]
    frames = [frames[i] for i in np.random.default_rng(seed).permutation(len(frames))]
    pixels = np.stack([planes[k][:, :, place].T for k, place in frames])
    one.NumberOfFrames, one.Rows, one.Columns = pixels.shape
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
    one.BitsAllocated = one.BitsStored = 1 if kind == "BINARY" else 8
    one.HighBit = one.BitsStored - 1
    data = np.packbits(pixels.ravel(), bitorder="little").tobytes() if kind == "BINARY" else pixels.tobytes()
    one.PixelData = data + b"\0" * (len(data) % 2)
    one["PixelData"].VR = "OB"
    shared = Dataset()
    shared.PlaneOrientationSequence = Items(
        [_item(ImageOrientationPatient=[float(v) for axis in (0, 1) for v in affine[:3, axis] / spacing[axis]])]
    )
    shared.PixelMeasuresSequence = Items([_item(PixelSpacing=[float(spacing[1]), float(spacing[0])])])
    one.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for k, place in frames:
        group = Dataset()
        corner = [float(f"{value:.8f}") for value in affine[:3] @ (0, 0, place, 1)]
        group.PlanePositionSequence = Items([_item(ImagePositionPatient=corner)])
        if k:
            group.SegmentIdentificationSequence = Items([_item(ReferencedSegmentNumber=k)])
        groups.append(group)
    one.PerFrameFunctionalGroupsSequence = Items(groups)
    return one


def rtstruct(regions: Mapping[str, Sequence[tuple[float, Sequence[tuple[float, float]]]]], **contour: Any) -> Any:
    """An RTSTRUCT.

    Args:
        regions: name -> its contours, each a slice and points (column, row) in voxels.
        contour: further elements of each contour.
    """
    one = _new(RTSTRUCT, "RTSTRUCT")
    one.StructureSetROISequence = Items([_item(ROINumber=k, ROIName=name) for k, name in enumerate(regions, 1)])
    rois = []
    for k, contours in enumerate(regions.values(), 1):
        drawn = []
        for place, points in contours:
            mm = [lps()[:3] @ (column, row, place, 1) for column, row in points]
            values = [float(f"{value:.6f}") for point in mm for value in point]
            words = {"ContourGeometricType": "CLOSED_PLANAR", "NumberOfContourPoints": len(points), **contour}
            drawn.append(_item(ContourData=values, **words))
        rois.append(_item(ReferencedROINumber=k, ContourSequence=Items(drawn)))
    one.ROIContourSequence = Items(rois)
    return one


def write(one: Any, path: Any) -> Any:
    """Write it, and give the path back."""
    pydicom.dcmwrite(path, one, enforce_file_format=True)
    return path
