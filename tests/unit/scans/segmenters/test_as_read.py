"""What makes masks of a DICOM study gets the series that is read, and what knows where masks lie the study itself."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_files import chest, in_ras, save, slices
from reg2rg.core.errors import DataFault
from reg2rg.core.regions import Region, RegionSet
from reg2rg.core.types import RegionFiles
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_image, read_scan
from reg2rg.scans.segmenters import KeptSegmenter, Made, MadeBy, Segmentation, Segmenter, segment_as_read

REGIONS = RegionSet("one", (Region("lung"),))


class Air(KeptSegmenter):
    """What is below -500 HU in the body's frame."""

    version = "1"

    def plan(self, regions):
        return {"lung": ""}

    def make(self, scan, plan):
        volume = read_scan(scan, ReadOptions(min_slices=1)).volume
        return Made({"lung": volume.array < -500}, volume.affine)


@pytest.fixture
def study(tmp_path):
    """Two kernels; the body of one is shifted by some HU, so that other voxels are air."""
    save(slices(), tmp_path / "study", "A")
    hard = np.where(chest() > -500, -900, chest()).astype(np.int16)
    hard[20:40] = chest()[20:40]
    save(slices(hard, uid="1.2.3.4.6", ConvolutionKernel="B70f"), tmp_path / "study", "HARD")
    return tmp_path / "study", {"B30f": chest(), "B70f": hard}


def test_the_series_that_is_read(study, tmp_path) -> None:
    path, kernels = study
    for kernel, hu in kernels.items():
        for clip in (True, False):
            options = ReadOptions(kernel=kernel, clip=clip)
            found = segment_as_read(Air(str(tmp_path / "kept")), path, REGIONS, options)
            [mask] = found.masks.parts()["lung"]
            assert np.array_equal(read_image(mask).stored > 0, in_ras(hu) < -500)
    assert len([*(tmp_path / "kept").iterdir()]) == 2
    with pytest.raises(DataFault, match="SERIES_CHOICE"):
        segment_as_read(Air(str(tmp_path / "kept")), path, REGIONS, ReadOptions())


def test_masks_that_lie_ready(study) -> None:
    class Beside(Segmenter):
        def segment(self, scan, regions):
            return Segmentation(RegionFiles({}), MadeBy("Beside", source=str(scan)))

    assert segment_as_read(Beside(), study[0], REGIONS, ReadOptions()).made_by.source == str(study[0])
