"""Frames that a reconstruction filled with a constant: noted, and set to air on request; nothing of the patient is."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from reg2rg.core.errors import DataFault
from reg2rg.extras.phantom.writer import write_phantoms
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_volume

SHAPE = (48, 44, 20)
KEEP, AIR = ReadOptions(), ReadOptions(padding="air")
LPS = np.diag([-2.0, -2.0, 3.0, 1.0])


def chest():
    """Noisy air and a noisy body with voxels of exactly 0 HU in it."""
    rng = np.random.default_rng(0)
    hu = rng.normal(-960, 12, SHAPE)
    body = disc(0.3)
    hu[body] = rng.normal(10, 15, int(body.sum()))
    hu[disc(0.12)] = rng.normal(-850, 30, int(disc(0.12).sum()))
    hu = hu.round().astype(np.int16)
    hu[24, 8:12] = 0
    return hu


def disc(radius):
    i, j, _ = (np.indices(SHAPE) + 0.5) / np.array(SHAPE).reshape(3, 1, 1, 1)
    return (i - 0.5) ** 2 + (j - 0.5) ** 2 < radius**2


FRAMES = {
    "outside a circle": ~disc(0.49),
    "block beside": np.indices(SHAPE)[0] < 8,
    "block above": np.indices(SHAPE)[2] >= 16,
}


def written(path, hu, affine=LPS, slope=1.0, inter=0.0):
    image = nib.Nifti1Image(((hu - inter) / slope).round().astype(np.int16), affine)
    image.header["scl_slope"], image.header["scl_inter"] = slope, inter
    nib.save(image, path)
    return path


def in_ras(array):
    return array[::-1, ::-1]


def said(notes):
    return [note for note in notes if "constant frame" in note]


@pytest.mark.parametrize("value", [-3024, -2000, 0, 500])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_frame_is_noted_and_set_to_air(tmp_path, value, frame):
    hu = np.where(frame, value, chest()).astype(np.int16)
    path = written(tmp_path / "a.nii.gz", hu, inter=-1024.0 if value >= -1024 else 0.0)
    volume, notes = read_volume(path, KEEP)
    np.testing.assert_array_equal(volume.array, in_ras(np.clip(hu, -1024, 3071)))
    (note,) = said(notes)
    assert f"constant frame of {value} HU" in note
    assert f"{frame.mean():.0%} of its voxels" in note
    assert ("kept (data.read.padding: air" in note) == (value >= -1024)
    volume, notes = read_volume(path, AIR)
    np.testing.assert_array_equal(volume.array, in_ras(np.where(frame, -1024, hu)))
    assert said(notes)[0].endswith("read as -1024")


def test_air_and_tissue_are_no_frame(tmp_path):
    cases = {
        "noisy air": chest(),
        "constant air": np.where(disc(0.49), chest(), -1024),
        "air of -1000": np.where(disc(0.3), chest(), -1000),
        "tissue to the border": np.random.default_rng(1).normal(20, 12, SHAPE).round() - 900 * disc(0.2),
        "a line of 0": np.where(np.indices(SHAPE)[0] < 1, np.where(np.indices(SHAPE)[1] < 2, 0, chest()), chest()),
    }
    for name, hu in cases.items():
        path = written(tmp_path / "a.nii.gz", hu)
        for options in (KEEP, AIR):
            volume, notes = read_volume(path, options)
            assert not said(notes), name
            np.testing.assert_array_equal(volume.array, in_ras(np.clip(hu, -1024, 3071)))


def test_values_that_are_no_hounsfield_units_are_left_alone(tmp_path):
    path = written(tmp_path / "a.nii.gz", np.where(disc(0.4), chest() + 1024, 0))
    with pytest.raises(DataFault):
        read_volume(path, KEEP)
    assert not said(read_volume(path, ReadOptions(hu="trust"))[1])


def test_phantoms_and_real_scans_have_none(tmp_path, shared_ct):
    write_phantoms(tmp_path, studies=3, size=(64, 64, 40), workers=0)
    scans = [*tmp_path.glob("*_preprocessed/*/*/*.nii.gz"), *(shared_ct / name for name in REAL)]
    for path in scans:
        assert not said(read_volume(path, ReadOptions(hu="trust", padding="air"))[1]), path


REAL = ("totalsegmentator_Apache2/example_ct.nii.gz", "lidc-idri-0314_CCBY3/ct_1.56x1.56x2mm.nii.gz")
