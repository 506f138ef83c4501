"""Headers as writers leave them: the voxels lie where the standard says, and what others read differently is noted."""

from __future__ import annotations

import struct

import nibabel as nib
import numpy as np
import pytest

from reg2rg.core.errors import DataFault
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_image, read_scan

A_HALF_TURN = np.array([[-2.0, 0, 0, 40], [0, -1.5, 0, 30], [0, 0, 3, -20], [0, 0, 0, 1]])
SHAPE = (26, 22, 18)
PIXDIM, SLOPE, CODES, QUATERNION, SROW = 76, 112, 252, 256, 280
ZERO, NAN = (SROW, "<12f", *[0.0] * 12), (SROW, "<12f", *[float("nan")] * 12)
NO_SFORM = (254, "<h", 0)


def written(path, *edits, sform=A_HALF_TURN, qform=A_HALF_TURN, kind=nib.Nifti1Image):
    """A file with both forms, then header fields over them: offset, format, values."""
    image = kind(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), sform)
    image.set_sform(sform, 1)
    image.set_qform(qform, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    for offset, fmt, *values in edits:
        struct.pack_into(fmt, data, offset, *values)
    path.write_bytes(bytes(data))
    return path


def conflict(path):
    with pytest.raises(DataFault) as caught:
        read_image(path)
    return caught.value


@pytest.mark.parametrize(
    ("edits", "word"),
    [
        ([], None),
        ([NO_SFORM], None),
        ([NO_SFORM, (PIXDIM, "<f", 0.0)], "pixdim[0] is 0: read as 1"),
        ([NO_SFORM, (PIXDIM, "<f", 2.0)], "pixdim[0] is 2: read as 1"),
        ([NO_SFORM, (QUATERNION, "<3f", 0.0, 0.0, 1.0000005)], "longer than 1 by rounding"),
        ([NO_SFORM, (QUATERNION, "<3f", 0.0, 0.0, 1.0004)], "longer than 1 by rounding"),
        ([NO_SFORM, (PIXDIM + 4, "<3f", -2.0, -1.5, 3.0)], "read without signs"),
        ([(PIXDIM + 4, "<f", -2.0)], "SimpleITK mirrors"),
        ([ZERO], "a sform that is zero, singular or not finite: the qform is used"),
        ([NAN], "a sform that is zero, singular or not finite: the qform is used"),
        ([ZERO, (PIXDIM, "<f", 0.0)], "pixdim[0] is 0"),
        ([(SROW + 16, "<4f", 0.0, 0.0, 0.0, 30.0)], "the qform is used"),  # one row: singular
        ([(QUATERNION, "<3f", 1.0, 1.0, 1.0)], "quaternion has length 1.732, which is no rotation: the sform is used"),
        ([(QUATERNION, "<f", float("nan"))], "a qform that is not finite: the sform is used"),
        ([(CODES, "<h", 0), (PIXDIM + 4, "<3f", 1.0, 1.0, 1.0)], "pixdim says voxels of 1 x 1 x 1 mm, the sform 2 x"),
        ([(SROW + 12, "<f", 140.0), (254, "<h", 4)], "the sform leads to the MNI template, the qform to the scanner"),
    ],
)
@pytest.mark.parametrize("metres", [False, True])
def test_one_place_and_a_note(tmp_path, edits, word, metres):
    path = written(tmp_path / "a.nii", *edits)
    if metres:  # the same millimetres, said in metres
        data = bytearray(path.read_bytes())
        for offset, count in ((PIXDIM + 4, 3), (268, 3), (SROW, 12)):
            values = np.frombuffer(bytes(data[offset : offset + 4 * count]), "<f4") / 1000
            struct.pack_into(f"<{count}f", data, offset, *values)
        data[123] = 1
        path.write_bytes(bytes(data))
    image = read_image(path)
    np.testing.assert_allclose(image.affine, A_HALF_TURN, atol=1e-4)
    odd = [note for note in image.notes if "to mm" not in note]
    assert len(odd) == (word is not None) or (word == "pixdim[0] is 0" and len(odd) == 2)
    assert word is None or any(word in note for note in odd)


def test_handedness_is_the_sign_of_pixdim_0(tmp_path):
    mirrored = A_HALF_TURN * np.array([1, 1, -1, 1])
    path = written(tmp_path / "a.nii", NO_SFORM, qform=mirrored)
    np.testing.assert_allclose(read_image(path).affine, mirrored, atol=1e-5)
    path = written(tmp_path / "b.nii", NO_SFORM, (PIXDIM, "<f", -3.0), qform=mirrored)
    np.testing.assert_allclose(read_image(path).affine, mirrored, atol=1e-5)


def test_the_same_in_nifti_2(tmp_path):
    """pixdim is eight doubles from byte 104 on, the codes are whole numbers from 344 on."""
    path = written(tmp_path / "a.nii", (348, "<i", 0), (104, "<d", 0.0), kind=nib.Nifti2Image)
    image = read_image(path)
    np.testing.assert_allclose(image.affine, A_HALF_TURN, atol=1e-5)
    assert any("read as 1" in note for note in image.notes)


def tilted():
    affine = A_HALF_TURN.copy()
    affine[1, 2] = 3 * np.tan(np.radians(15))  # a gantry of 15 degrees
    return affine


def upright(along):
    affine = tilted()
    affine[:3, 2] = (0, 0, np.linalg.norm(affine[:3, 2]) if along == "axis" else 3)
    return affine


@pytest.mark.parametrize("qform", [tilted(), upright("axis"), upright("normal")])  # set_qform drops the shear
def test_gantry_tilt(tmp_path, qform):
    image = read_image(written(tmp_path / "a.nii", sform=tilted(), qform=qform))
    np.testing.assert_allclose(image.affine, tilted(), atol=1e-5)
    assert any("gantry tilt" in note and "the sform is used" in note for note in image.notes)


def test_tilt_is_no_excuse_for_another_place(tmp_path):
    moved = tilted()
    moved[0, 3] += 25
    fault = conflict(written(tmp_path / "a.nii", sform=tilted(), qform=moved))
    assert fault.code == "FORM_CONFLICT"
    image = nib.load(tmp_path / "a.nii")  # the remedy in the message can be followed, and it helps
    assert "image.set_qform(None)" in str(fault)
    image.set_qform(None)
    nib.save(image, tmp_path / "b.nii")
    np.testing.assert_allclose(read_image(tmp_path / "b.nii").affine, tilted(), atol=1e-5)


@pytest.mark.parametrize(
    ("edits", "word"),
    [
        ([ZERO, (CODES, "<h", 0)], "a sform that is zero"),
        ([ZERO, (QUATERNION, "<3f", 1.0, 1.0, 1.0)], "no rotation"),
        ([NO_SFORM, (QUATERNION, "<3f", 0.8, 0.7, 0.0)], "no rotation"),
        ([NO_SFORM, (PIXDIM + 8, "<f", 0.0)], "voxels of 2 x 0 x 3 mm"),
    ],
)
def test_no_place_at_all(tmp_path, edits, word):
    fault = conflict(written(tmp_path / "a.nii", *edits))
    assert fault.code == "AFFINE"
    assert word in str(fault)


def test_conflicting_forms_in_metres(tmp_path):
    """The bound is one millimetre in whatever unit the header has."""
    small = A_HALF_TURN.copy()
    small[:3] /= 1000
    moved = small.copy()
    moved[0, 3] += 0.05
    fault = conflict(written(tmp_path / "a.nii", (123, "<B", 1), sform=small, qform=moved))
    assert fault.code == "FORM_CONFLICT"
    assert "differ by 50.0 mm" in str(fault)


@pytest.mark.parametrize("slope", [0.0, float("nan")])
def test_an_intercept_without_a_slope(tmp_path, slope):
    image = read_image(written(tmp_path / "a.nii", (SLOPE, "<2f", slope, -1024.0)))
    assert (image.slope, image.inter) == (1.0, 0.0)
    assert any(
        "intercept -1024: not scaled, as the standard says (SimpleITK adds -1024)" in note for note in image.notes
    )
    assert not read_image(written(tmp_path / "b.nii", (SLOPE, "<2f", slope, 0.0))).notes


def test_what_dcm2niix_put_beside_a_scan_is_said(tmp_path):
    options = ReadOptions(hu="trust", min_slices=1)
    path = written(tmp_path / "ct.nii")
    before = read_scan(path, options).notes
    for mark in ("_Tilt_1", "_Eq_1"):
        written(tmp_path / f"ct{mark}.nii")
    tilt, even, *others = read_scan(path, options).notes
    assert tilt == "ct_Tilt_1.nii lies beside it: dcm2niix took a gantry tilt back there, which this file still has"
    assert even.startswith("ct_Eq_1.nii lies beside it: dcm2niix interpolated uneven or missing slices there")
    assert tuple(others) == before
    assert read_scan(tmp_path / "ct_Eq_1.nii", options).notes == before
