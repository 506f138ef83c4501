"""Without pydicom everything but DICOM works, and DICOM says what to install."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dicom_files import SHAPE, save, slices
from dicom_regions import seg, write
from reg2rg.core.errors import DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.datasets.recognise import recognise
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.find_masks import find_masks
from reg2rg.scans.read import read_scan


def test_what_to_install(tmp_path, monkeypatch) -> None:
    save(slices(), tmp_path / "ct")
    path = write(seg({"lung": np.ones(SHAPE, bool)}), tmp_path / "seg.dcm")
    (tmp_path / "nifti").mkdir()
    (tmp_path / "nifti" / "a.nii.gz").touch()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for read in (
        lambda: read_scan(tmp_path / "ct", ReadOptions()),
        lambda: find_masks(path, load_region_set("radgenome")),
    ):
        with pytest.raises(DataFault, match=r"NO_PYDICOM .*DICOM .*Fix: pip install 'reg2rg\[dicom\]'"):
            read()
    assert recognise(tmp_path / "nifti").dataset == "ScanFolder"
