"""A phantom written as a scanner's study is read as the phantom."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_files import pydicom
from reg2rg.cli.main import main
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.dicom.reader import series_of
from reg2rg.scans.read import read_volume


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A held-out phantom, and the folder of its DICOM."""
    root = tmp_path_factory.mktemp("phantom")
    words = ["data", "phantom", str(root / "data"), "--studies", "2", "--size", "40", "44", "36", "--workers", "0"]
    assert main([*words, "--dicom", str(root / "dicom")]) == 0
    [image] = (root / "data").glob("valid_preprocessed/*/*/*.nii.gz")
    return image, root / "dicom" / image.name.removesuffix(".nii.gz")


def test_it_is_read_as_the_phantom(study) -> None:
    image, folder = study
    wanted, _ = read_volume(image)
    found, notes = read_volume(folder)
    assert np.array_equal(found.array, wanted.array)
    assert np.allclose(found.affine, wanted.affine, atol=1e-4)
    assert "localizer" in notes[0]


def test_a_localizer_lies_beside_it_and_no_order_tells_where_a_slice_lies(study) -> None:
    _, judged, _ = series_of(study[1], ReadOptions())
    assert sorted(one.verdict for one in judged) == ["localizer", "taken"]
    files = [pydicom.dcmread(file) for file in sorted(study[1].iterdir())]
    slices = [one for one in files if one.ImageType[2] == "AXIAL"]
    assert len(slices) == 36
    for order in (slices, sorted(slices, key=lambda one: one.InstanceNumber)):
        places = [float(one.ImagePositionPatient[2]) for one in order]
        assert places != sorted(places)
        assert places != sorted(places, reverse=True)
