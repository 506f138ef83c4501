"""Pictures are mapped by the window that is stated, never by one that is guessed, and are called what they are."""

from __future__ import annotations

import numpy as np
import pytest

from layouts import as_picture, chest, ctrg
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.task import ReportTask, Views
from reg2rg.data.scaling import to_input
from reg2rg.datasets import CTRG
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_scan, read_study
from reg2rg.scans.segmenters.thresholds import Thresholds
from reg2rg.store.prepare import prepare
from reg2rg.store.store import Store

PICTURE = Views(size=(16, 16, 16), intensity="picture", intensity_range=(0, 255))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return ctrg(tmp_path_factory.mktemp("pictures") / "data", "nifti")


def test_there_is_no_default():
    with pytest.raises(ConfigError, match=r"intensity is picture, but views\.intensity_range is null .*not guessed"):
        ReportTask.of({"intensity": "picture"})
    with pytest.raises(ConfigError, match="two numbers, the lower one first"):
        Views(intensity="picture", intensity_range=(255, 0))


def test_values_are_mapped_by_the_window_that_is_stated(data):
    file = data / "1.nii.gz"
    with pytest.raises(DataFault, match=r"NOT_HU .*task\.views\.intensity: picture"):
        read_scan(file, ReadOptions())
    scan = read_scan(file, ReadOptions().for_views(PICTURE))
    wanted = np.rint(as_picture(chest(0)) * (1200 / 255) - 1000)
    np.testing.assert_allclose(scan.volume.array, wanted, atol=1)
    assert "not HU: 0 and 255 (picture) are the ends of the views" in scan.notes
    half = read_scan(file, ReadOptions().for_views(Views(intensity="picture", intensity_range=(0, 127.5))))
    assert half.volume.array.max() > 200  # what lies above the window is clipped by the views


def test_black_is_minus_one_and_white_is_one_at_the_models_input():
    import torch

    ends = torch.tensor([-1000 * 16, -400 * 16, 200 * 16], dtype=torch.int16)
    assert to_input(ends, PICTURE.window).tolist() == pytest.approx([-1, 0, 1])


def test_nothing_is_measured_or_judged_and_the_store_says_so(data, tmp_path):
    dataset = CTRG(str(data), val_fraction=0.0, max_skip=0.0)
    options = ReadOptions().for_views(PICTURE)
    summary = prepare(dataset, tmp_path / "store", options=options, bake=PICTURE, workers=0)
    assert (summary.ready, summary.skipped) == (5, ())
    store = Store(tmp_path / "store")
    assert any("not HU" in note for note in store.read("1").detail.notes)
    with pytest.raises(DataFault, match="not in Hounsfield units"):
        store.attributes("1")
    study = dataset.studies()[0]
    shifted = read_study(study, dataset.regions, options)  # a lung at any density is no fault here
    assert list(shifted.masks) == ["lung"]


def test_thresholds_refuse_what_is_no_hu(data, tmp_path):
    with pytest.raises(ConfigError, match="Thresholds knows Hounsfield units"):
        Thresholds(str(tmp_path)).segment(data / "1.nii.gz", CTRG(str(data)).regions, ReadOptions().for_views(PICTURE))
