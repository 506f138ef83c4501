"""DICOM for tests: a small chest written as slices, to be changed in one thing, and saved under names in no order."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra 'dicom')")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.fileset import FileSet as FileSet  # noqa: E402
from pydicom.sequence import Sequence as Items  # noqa: E402
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid  # noqa: E402

SPACING = (5.0, 4.0, 3.0)
ORIGIN = (-160.0, -130.0, 100.0)
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SHAPE = (64, 60, 24)


def points(shape=SHAPE, affine=None) -> list[np.ndarray]:
    """LPS mm of every voxel (column, row, slice)."""
    affine = lps() if affine is None else affine
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)])
    return list(np.tensordot(affine, index, 1)[:3])


def lps(spacing=SPACING, origin=ORIGIN, orientation=AXIAL, step=None) -> np.ndarray:
    """Indices (column, row, slice) -> LPS mm."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = np.multiply(orientation[0], spacing[0]), np.multiply(orientation[1], spacing[1])
    affine[:3, 2] = np.cross(*orientation) * spacing[2] if step is None else step
    affine[:3, 3] = origin
    return affine


def chest(place: Sequence[np.ndarray] | None = None, lesion=(-60.0, -20.0, 136.0)) -> np.ndarray:
    """HU at points in LPS mm: a body with lungs, a spine at the back and a lesion of 20 mm in the right lung."""
    x, y, z = points() if place is None else place
    hu = np.full(x.shape, -1000.0)
    hu[(x / 130) ** 2 + (y / 100) ** 2 < 1] = 40
    for side in (-1, 1):
        hu[((x - side * 62) / 42) ** 2 + ((y + 10) / 60) ** 2 + ((z - 135) / 60) ** 2 < 1] = -800
    hu[x**2 + (y - 70) ** 2 < 20**2] = 500
    hu[(x - lesion[0]) ** 2 + (y - lesion[1]) ** 2 + (z - lesion[2]) ** 2 < 20**2] = 60
    return np.rint(hu + 10 * np.sin(x / 9) * np.cos(y / 7 + z / 11)).astype(np.int16)


def in_ras(hu: np.ndarray) -> np.ndarray:
    """(column, row, slice) of an axial series -> RAS."""
    return hu[::-1, ::-1]


def slices(hu=None, affine=None, *, slope=1.0, inter=-1024.0, uid="1.2.3.4.5", study="1.2.3.4", **tags: Any) -> list:
    """A data set a slice; instance numbers are shuffled.

    Args:
        hu: (columns, rows, slices).
        affine: indices -> LPS mm.
        slope, inter: rescale of all slices.
        uid, study: of series and study.
        tags: further elements of all.
    """
    hu, affine = chest() if hu is None else hu, lps() if affine is None else affine
    numbers = np.random.default_rng(len(uid)).permutation(hu.shape[2])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    found = []
    for k in range(hu.shape[2]):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{k + 1}"
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, uid, f"{study}.9"
        one.Modality, one.ImageType, one.SeriesNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], 2
        one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Doe^Jane", "SECRET1", "19700101", "F"
        one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "20200102", "030405", "1", ""
        one.ReferringPhysicianName = ""
        one.Manufacturer, one.ConvolutionKernel, one.SliceThickness = "Phantom", "B30f", float(spacing[2])
        one.InstanceNumber = int(numbers[k]) + 1
        one.ImagePositionPatient = [float(f"{value:.8f}") for value in affine[:3] @ (0, 0, k, 1)]
        one.ImageOrientationPatient = [float(f"{v:.10f}") for axis in (0, 1) for v in affine[:3, axis] / spacing[axis]]
        one.PixelSpacing = [float(f"{spacing[1]:.8f}"), float(f"{spacing[0]:.8f}")]
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = slope, inter, "HU"
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        for name, value in tags.items():
            setattr(one, name, value)
        store(one, hu[:, :, k])
        found.append(one)
    return found


def store(
    one: Any, hu: np.ndarray, slope: float | None = None, inter: float | None = None, signed: bool = False
) -> None:
    """Put the HU of a slice (columns, rows) into a data set, by its own or another rescale."""
    if slope is not None:
        one.RescaleSlope, one.RescaleIntercept = slope, inter
    raw = np.rint((hu.T.astype(np.float64) - float(one.RescaleIntercept)) / float(one.RescaleSlope))
    one.Rows, one.Columns = raw.shape
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, int(signed)
    one.PixelData = raw.astype("<i2" if signed else "<u2").tobytes()
    one["PixelData"].VR = "OW"


def save(datasets: Sequence[Any], folder: Path, prefix: str = "IM") -> Path:
    """Write data sets into a folder, in an order of names that is none of theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(len(prefix)).permutation(len(datasets))
    for name, one in zip(order, datasets, strict=True):
        pydicom.dcmwrite(folder / f"{prefix}{name:04d}", one, enforce_file_format=True)
    return folder


def localizer(uid="1.2.3.4.7", study="1.2.3.4", **tags: Any) -> Any:
    """A coronal survey."""
    hu = np.random.default_rng(0).integers(-1000, 300, (40, 50, 1)).astype(np.int16)
    affine = lps((3.0, 3.0, 1.0), orientation=((1, 0, 0), (0, 0, -1)))
    kinds = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    [one] = slices(hu, affine, uid=uid, study=study, ImageType=kinds, SeriesNumber=1, **tags)
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{uid}.99"
    return one


def capture(uid="1.2.3.4.8", study="1.2.3.4") -> Any:
    """A secondary capture in colour, as dose reports are."""
    [one] = slices(np.zeros((8, 8, 1), np.int16), uid=uid, study=study, ImageType=["DERIVED", "SECONDARY"])
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
    one.BitsAllocated = one.BitsStored = 8
    one.HighBit, one.PixelData = 7, bytes(8 * 8 * 3)
    one["PixelData"].VR = "OB"
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(one, name)
    return one


def enhanced(datasets: Sequence[Any], order: Sequence[int] | None = None) -> Any:
    """The same slices as one Enhanced CT, each frame with its own position and rescale."""
    datasets = [datasets[k] for k in (range(len(datasets)) if order is None else order)]
    whole = copy.deepcopy(datasets[0])
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    whole.NumberOfFrames = len(datasets)
    whole.PixelData = b"".join(one.PixelData for one in datasets)
    groups = []
    for number, one in enumerate(datasets, 1):
        group = Dataset()
        group.FrameContentSequence = Items([_item(StackID="1", InStackPositionNumber=number)])
        group.PlanePositionSequence = Items([_item(ImagePositionPatient=one.ImagePositionPatient)])
        group.PixelValueTransformationSequence = Items(
            [_item(RescaleIntercept=one.RescaleIntercept, RescaleSlope=one.RescaleSlope, RescaleType="HU")]
        )
        groups.append(group)
    shared = Dataset()
    shared.PlaneOrientationSequence = Items([_item(ImageOrientationPatient=whole.ImageOrientationPatient)])
    shared.PixelMeasuresSequence = Items([_item(PixelSpacing=whole.PixelSpacing, SliceThickness=whole.SliceThickness)])
    shared.CTImageFrameTypeSequence = Items([_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])])
    whole.SharedFunctionalGroupsSequence = Items([shared])
    whole.PerFrameFunctionalGroupsSequence = Items(groups)
    for name in (
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
        "RescaleType",
    ):  # fmt: skip
        delattr(whole, name)
    return whole


def _item(**values: Any) -> Any:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item
