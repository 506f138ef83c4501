"""Real series: the voxels and the place that other tools give, the faults planted in them, and those they come with.

What SimpleITK 2.5.7 and dcm2niix 1.0.20260724 read, equal to each other, is held as a checksum of the HU in RAS and as
the affine; highdicom 0.28.2 gave the same for the series that has a SOP class.
"""

from __future__ import annotations

import copy
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_files import enhanced, pydicom, save
from reg2rg.core.errors import DataFault
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_scan

FEW = ReadOptions(min_slices=1)
STEP = 4  # every fourth row and column: as real, and sixteen times faster


def crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


@pytest.mark.parametrize(
    ("folder", "checksum", "affine"),
    [
        ("lidc-idri-0314_CCBY3/dicom_12slices", 3100921400, (0.78125, 1.0, -198.21875, -340.21875, -529.800049)),
        (
            "totalsegmentator_Apache2/example_ct_dicom",
            2762568950,
            (0.9765625, 2, -249.51171875, -61.51171875, -804.5),
        ),
    ],
)
def test_voxels_and_place_are_those_of_other_tools(shared_ct: Path, folder, checksum, affine) -> None:
    scan = read_scan(shared_ct / folder, FEW)
    assert crc(scan.volume.array) == checksum
    pixel, step, *origin = affine
    assert np.allclose(scan.volume.affine[:3], np.c_[np.diag([pixel, pixel, step]), origin], atol=1e-4)


def test_the_step_is_that_of_positions_and_the_grid_that_of_its_segmentation(shared_ct: Path) -> None:
    folder = shared_ct / "totalsegmentator_Apache2"
    scan = read_scan(folder / "example_ct_dicom", ReadOptions())
    thickness = float(pydicom.dcmread(next((folder / "example_ct_dicom").iterdir())).SliceThickness)
    assert (scan.volume.spacing[2], thickness) == (2.0, 3.0)
    labels = nib.as_closest_canonical(nib.load(folder / "example_seg_dicom.nii.gz"))
    assert labels.shape == scan.volume.array.shape
    assert np.allclose(labels.affine, scan.volume.affine, atol=1e-3)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("lidc-idri-0314_CCBY3/ct_1.56x1.56x2mm.nii.gz", (256, 256, 137)),
        ("chestimagingplatform_BSDstyle/ct-64.nrrd", (64, 64, 79)),
        ("totalsegmentator_Apache2/example_ct.nii.gz", (122, 101, 112)),
        ("totalsegmentator_Apache2/example_ct_sm.nii.gz", (122, 101, 30)),
        ("totalsegmentator_Apache2/example_ct_dicom", (512, 512, 20)),
    ],
)
def test_what_must_be_read(shared_ct: Path, path, shape) -> None:
    assert read_scan(shared_ct / path, ReadOptions()).volume.array.shape == shape


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("dicom2nifti_MIT/failing/notavolume/001", "ONE_PLACE .*4 different slices, all at one place"),
        ("dicom2nifti_MIT/failing/sliceincrement/002", "MISSING_SLICE .*1 slice missing between -133.7 to -132.2 mm"),
        (
            "dicom2nifti_MIT/failing/sliceorientation/001",
            "MR, no CT; and MIXED_ORIENTATION: .*2 with normal .*, 2",
        ),
        ("dicom2nifti_MIT/failing/slicecount/001", "FEW_SLICES .*MR, no CT; and 2 slices"),
        ("dcmqi_BSD3/ct-3slice", r"FEW_SLICES .*: 3 slices \(expected at least 16\)"),
        ("rt-utils_MIT/oriented_data", r"FEW_SLICES .*: 3 slices \(expected at least 16\)"),
        ("rt-utils_MIT/one_slice_data", "FEW_SLICES .*: 1 slice"),
        ("lungmask_Apache2", r"FEW_SLICES .*: 2 slices \(expected at least 16\)"),
        ("lidc-idri-0314_CCBY3/dicom_12slices", r"FEW_SLICES .*: 12 slices \(expected at least 16\)"),
        ("chestimagingplatform_BSDstyle/crop_ct_2slices.nrrd", r"FEW_SLICES .*\[443, 349, 2\]"),
        ("dcmqi_BSD3/liver.dcm", "SEG, no CT"),
        ("pydicom_MIT/rtstruct.dcm", "RTSTRUCT, no CT"),
        ("pydicom_MIT/dicomdir_CTs", "MISSING_SLICE .*161 slices missing"),
    ],
)
def test_what_must_be_refused(shared_ct: Path, path, said) -> None:
    with pytest.raises(DataFault, match=said):
        read_scan(shared_ct / path, ReadOptions())


def test_a_real_gantry_tilt(shared_ct: Path) -> None:
    folder = shared_ct / "dicom2nifti_MIT/failing/gantrytilting/001"
    scan = read_scan(folder, ReadOptions(min_slices=1, hu="trust"))
    assert any("gantry tilted by 14.0 degrees: sheared onto an upright grid" in note for note in scan.notes)
    directions = scan.volume.affine[:3, :3] / scan.volume.spacing
    assert np.allclose(directions, np.eye(3), atol=1e-3)
    with pytest.raises(DataFault, match=r"GANTRY_TILT .*14.0 degrees"):
        read_scan(folder, ReadOptions(min_slices=1, hu="trust", tilt="refuse"))


@pytest.fixture(scope="module")
def real(shared_ct: Path) -> list:
    """The series of TotalSegmentator, decoded, with fewer rows and columns; by position."""
    series = []
    for file in (shared_ct / "totalsegmentator_Apache2/example_ct_dicom").iterdir():
        one = pydicom.dcmread(file)
        one.decompress(generate_instance_uid=False)
        put(one, one.pixel_array[::STEP, ::STEP])
        one.PixelSpacing = [STEP * float(one.PixelSpacing[0])] * 2
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID
        series.append(one)
    return sorted(series, key=lambda one: float(one.ImagePositionPatient[2]))


def put(one, stored: np.ndarray) -> None:
    one.Rows, one.Columns = stored.shape
    one.PixelData = np.ascontiguousarray(stored).tobytes()


def truth(series) -> np.ndarray:
    """HU of the series in RAS, with nothing of ours."""
    planes = [one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in series]
    return np.stack(planes, -1).transpose(1, 0, 2)[::-1, ::-1]


def missing(series):
    del series[9]


def twin(series):
    series.append(copy.deepcopy(series[6]))
    series[-1].SOPInstanceUID += ".1"


def other_twin(series):
    twin(series)
    put(series[-1], series[-1].pixel_array + 1)


def two_kernels(series):
    for one in copy.deepcopy(series):
        one.ConvolutionKernel = "Br60f"
        one.SOPInstanceUID += ".1"
        put(one, one.pixel_array + 1)
        series.append(one)


def survey(series):
    series.append(copy.deepcopy(series[6]))
    series[-1].SOPInstanceUID += ".1"
    series[-1].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    series[-1].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def turned(series):
    series[4].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def jittered(series):
    series[4].ImageOrientationPatient = [1, 1e-7, 0, -1e-7, 1, 0]


def leaning(series):
    angle = np.radians(15)
    for one in series:
        one.ImageOrientationPatient = [1, 0, 0, 0, float(f"{np.cos(angle):.9f}"), float(f"{-np.sin(angle):.9f}")]


def uneven(series):
    for place, one in enumerate(series):
        one.ImagePositionPatient[2] += 0.4 * (place % 3 == 1)


def own_intercepts(series):
    for place, one in enumerate(series):
        put(one, (one.pixel_array.astype(int) + 500 * (place % 2)).astype(one.pixel_array.dtype))
        one.RescaleIntercept = float(one.RescaleIntercept) - 500 * (place % 2)


def multi_frame(series):
    own_intercepts(series)
    series[:] = [enhanced(series, [*range(1, len(series), 2), *range(0, len(series), 2)])]


def shuffled(series):
    for number, one in zip(np.random.default_rng(0).permutation(len(series)), series, strict=True):
        one.InstanceNumber = int(number)


@pytest.mark.parametrize(
    ("plant", "verdict"),
    [
        (missing, "MISSING_SLICE .*1 slice missing between -788.5 to -784.5 mm .*step is 2 mm"),
        (twin, "1 identical copy of slices: dropped"),
        (other_twin, "DUPLICATE_SLICE .*1 place with slices of different pixels"),
        (two_kernels, r"SERIES_CHOICE .*ConvolutionKernel Br38f.*ConvolutionKernel Br60f"),
        (survey, "1 localizer among the slices: dropped"),
        (turned, "MIXED_ORIENTATION .*19 with normal"),
        (jittered, ""),
        (leaning, "gantry tilted by 15.0 degrees: sheared onto an upright grid"),
        (uneven, "UNEVEN_SPACING .*slices 1.6 to 2.4 mm apart .*uneven=resample"),
        (own_intercepts, ""),
        (multi_frame, ""),
        (shuffled, ""),
    ],
)
def test_twelve_faults_planted_in_it(real, tmp_path, plant, verdict) -> None:
    series, wanted = copy.deepcopy(real), truth(real)
    plant(series)
    save(series, tmp_path)
    if verdict[:3].isupper():
        with pytest.raises(DataFault, match=verdict):
            read_scan(tmp_path, ReadOptions())
        return
    scan = read_scan(tmp_path, ReadOptions())
    assert verdict in "; ".join(scan.notes)
    assert bool(verdict) == bool(scan.notes)
    if plant is leaning:  # values are looked at on a phantom, in test_faults; of the real one, the grid
        assert np.allclose(scan.volume.affine[:3, :3] / scan.volume.spacing, np.eye(3), atol=1e-6)
        row = scan.volume.array[:, -1]  # the first row of the files, which the shear leaves in its place
        assert np.array_equal(row[:, (row != -1024).any(0)], wanted[:, -1])
        return
    assert np.array_equal(scan.volume.array, np.clip(wanted, -1024, 3071))
    assert np.allclose(scan.volume.spacing, (STEP * 0.9765625, STEP * 0.9765625, 2))
