"""A scan written as the DICOM study of a scanner: what demo and trials read DICOM from, without a patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.types import Volume
from reg2rg.scans.dicom.library import pydicom
from reg2rg.scans.read import read_volume

_CT = "1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
_INTERCEPT = -1024


def write_dicom_study(scan: Path, out: Path, seed: int = 0) -> Path:
    """Write a scan as a CT series of single slices, with a localizer in a series beside it.

    InstanceNumbers and file names are shuffled, as archives leave them: only positions tell where a slice lies. The
    same scan and seed give the same bytes.

    Args:
        scan: a CT of any kind that can be read, on axes at right angles along those of the patient.
        out: folder of the study; files of the same names are replaced.
        seed: of the shuffles and of the UIDs.

    Returns:
        `out`.

    Raises:
        DataFault: the scan cannot be read, or NO_PYDICOM.
    """
    volume, _ = read_volume(scan)
    numbers = np.random.default_rng(seed).permutation(volume.array.shape[2])
    study = _uid(scan.name, seed, "study")
    out.mkdir(parents=True, exist_ok=True)
    for k, number in enumerate(numbers):
        one = _slice(volume.array[::-1, ::-1, k].T, ((1, 0, 0), (0, 1, 0)), volume, study, _uid(study, "series"))
        corner = volume.affine @ (volume.array.shape[0] - 1, volume.array.shape[1] - 1, k, 1)
        one.ImagePositionPatient = [_decimal(-corner[0]), _decimal(-corner[1]), _decimal(corner[2])]
        one.PixelSpacing = [_decimal(volume.spacing[1]), _decimal(volume.spacing[0])]
        one.SliceThickness, one.ConvolutionKernel = _decimal(volume.spacing[2]), "PHANTOM"
        one.SeriesNumber, one.InstanceNumber, one.ImageType = 2, int(number) + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        _save(one, out / f"IM{number:04d}", f"{study}.{k}")
    _save(_localizer(volume, study), out / f"IM{len(numbers):04d}", f"{study}.localizer")
    return out


def _localizer(volume: Volume, study: str) -> Any:
    """A view from the front: the mean along the patient's depth, the head above."""
    view = volume.array.mean(1)[::-1, ::-1].T.round().astype(np.int16)
    one = _slice(view, ((1, 0, 0), (0, 0, -1)), volume, study, _uid(study, "localizer"))
    corner = volume.affine @ (volume.array.shape[0] - 1, 0, volume.array.shape[2] - 1, 1)
    one.ImagePositionPatient = [_decimal(-corner[0]), _decimal(-corner[1]), _decimal(corner[2])]
    one.PixelSpacing = [_decimal(volume.spacing[2]), _decimal(volume.spacing[0])]
    one.SeriesNumber, one.InstanceNumber, one.ImageType = 1, 1, ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return one


def _slice(hu: npt.NDArray[Any], directions: tuple[Any, Any], volume: Volume, study: str, series: str) -> Any:
    """A CT image with (rows, columns) HU."""
    one = pydicom().Dataset()
    one.file_meta = pydicom().dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = _EXPLICIT
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = _CT
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, _uid(study, "frame")
    one.Modality, one.Manufacturer, one.PatientName, one.PatientID = "CT", "reg2rg phantom", "Phantom", "PHANTOM"
    one.PatientBirthDate = one.PatientSex = one.StudyDate = one.StudyTime = one.StudyID = one.AccessionNumber = ""
    one.ReferringPhysicianName = ""
    one.ImageOrientationPatient = [value for direction in directions for value in direction]
    one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, _INTERCEPT, "HU"
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.Rows, one.Columns = hu.shape
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    one.PixelData = (hu.astype(np.int32) - _INTERCEPT).clip(0).astype("<u2").tobytes()
    one["PixelData"].VR = "OW"
    return one


def _save(one: Any, path: Path, instance: str) -> None:
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = _uid(instance)
    pydicom().dcmwrite(path, one, enforce_file_format=True)


def _uid(*words: object) -> str:
    return str(pydicom().uid.generate_uid(entropy_srcs=[repr(words)]))


def _decimal(value: float) -> str:
    """A DS, which holds 16 characters."""
    return f"{value:.10g}"
