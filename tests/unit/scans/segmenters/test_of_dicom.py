"""A segmenter reads the series that the report is on, not whichever a study's folder holds."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_files import chest, lps, points, save, slices
from reg2rg.core.errors import DataFault
from reg2rg.core.regions import Region, RegionSet
from reg2rg.core.types import Study
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_study
from reg2rg.scans.segmenters import Thresholds

REGIONS = RegionSet("one", (Region("lung"),))


def test_the_series_that_is_meant(tmp_path: Path) -> None:
    study, kept = tmp_path / "study", tmp_path / "kept"
    save(slices(uid="1.2.3.4.5", ConvolutionKernel="B30f"), study, "A")
    affine = lps((5.0, 4.0, 4.5))
    save(slices(chest(points((64, 60, 16), affine)), affine, uid="1.2.3.4.6", ConvolutionKernel="B70f"), study, "B")
    depths = set()
    for kernel, depth in (("B30f", 24), ("B70f", 16)):
        options = ReadOptions(kernel=kernel, implausible="ignore")
        found = Thresholds(str(kept)).segment(study, REGIONS, options)
        depths.add(nib.load(found.masks.files["lung"]).shape[2])
        read = read_study(Study("a", "a", "test", study, found.masks), REGIONS, options)
        assert read.masks["lung"].shape[2] == depth
        assert np.median(read.volume.array[read.masks["lung"]]) == pytest.approx(-800, abs=15)
    assert depths == {24, 16}
    assert len(list(kept.glob("Thresholds-*"))) == 2
    with pytest.raises(DataFault, match="NO_SERIES"):
        Thresholds(str(kept)).segment(study, REGIONS, ReadOptions(kernel="B99"))
