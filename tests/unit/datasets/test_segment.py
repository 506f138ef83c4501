"""Masks for many studies: from files of labels, on disks without links, past whatever one study does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
import pytest

from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.core.regions import Region, RegionSet
from reg2rg.core.types import LabelMap, RegionFiles, Study
from reg2rg.datasets.segment import segment
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.find_masks import find_masks
from reg2rg.scans.segmenters import MadeBy, Segmentation, Segmenter

REGIONS = RegionSet("two", (Region("lung"), Region("heart")))
AFFINE = np.diag([-2.0, 2, 3, 1])


class Labels(Segmenter):
    """One file of labels; a scan called odd it does not survive."""

    def segment(self, scan: Path, regions: RegionSet, options: ReadOptions | None = None) -> Segmentation:
        if scan.name == "odd.nii":
            raise ZeroDivisionError("no scan")
        return Segmentation(LabelMap(scan, {"lung": (1, 2), "heart": (3,)}), MadeBy("Labels"))


class Parts(Segmenter):
    def segment(self, scan: Path, regions: RegionSet, options: ReadOptions | None = None) -> Segmentation:
        return Segmentation(RegionFiles({"lung": (scan, scan)}), MadeBy("Parts"))


class Same(Segmenter):
    def segment(self, scan: Path, regions: RegionSet, options: ReadOptions | None = None) -> Segmentation:
        return Segmentation(RegionFiles({"lung": scan}), MadeBy("Same"), {"heart": "not looked for"})


class Network(Same):
    """It notes which object was asked."""

    asked: ClassVar[list[int]] = []

    def segment(self, scan: Path, regions: RegionSet, options: ReadOptions | None = None) -> Segmentation:
        self.asked.append(id(self))
        return super().segment(scan, regions, options)


@pytest.fixture
def studies(tmp_path: Path) -> list[Study]:
    array = np.arange(9 * 10 * 12).reshape(9, 10, 12).astype(np.uint8) % 4
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "a.nii")
    return [Study(name, name, "test", tmp_path / f"{name}.nii") for name in ("a", "odd")]


def test_a_file_of_labels_becomes_a_file_a_region(studies, tmp_path: Path) -> None:
    summary = segment(studies, Labels(), REGIONS, tmp_path / "out", max_skip=0.5)
    assert (summary.made, summary.kept, summary.regions) == (1, 0, {"lung": 1, "heart": 1})
    assert [(skip.study, skip.code) for skip in summary.skipped] == [("odd", "UNEXPECTED")]
    found = find_masks(tmp_path / "out" / "a", REGIONS).files
    image = nib.load(found["lung"])
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert np.asarray(image.dataobj).sum() == 9 * 10 * 12 // 2
    assert segment(studies, Labels(), REGIONS, tmp_path / "out", max_skip=0.5).kept == 1
    found["heart"].unlink()
    assert segment(studies, Labels(), REGIONS, tmp_path / "out", max_skip=0.5).made == 1


def test_one_segmenter_does_all_scans_so_that_its_model_stays_loaded(studies, tmp_path: Path) -> None:
    several = [Study(name, name, "test", studies[0].image) for name in "abc"]
    assert segment(several, Network(), REGIONS, tmp_path / "out").made == 3
    assert (len(Network.asked), len(set(Network.asked))) == (3, 1)


def test_files_are_copied_where_there_are_no_links(studies, tmp_path: Path, monkeypatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert segment(studies[:1], Same(), REGIONS, tmp_path / "out").made == 1
    copy = tmp_path / "out" / "a" / "lung.nii"
    assert copy.read_bytes() == studies[0].image.read_bytes()
    assert segment(studies[:1], Same(), REGIONS, tmp_path / "out").kept == 1
    copy.write_bytes(b"changed")
    assert segment(studies[:1], Same(), REGIONS, tmp_path / "out").made == 1
    assert copy.read_bytes() == studies[0].image.read_bytes()


def test_what_cannot_be(studies, tmp_path: Path) -> None:
    with pytest.raises(Reg2RGError, match="a: region lung: 2 files"):
        segment(studies[:1], Parts(), REGIONS, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"shard is 3/2 \(expected i/n"):
        segment(studies, Same(), REGIONS, tmp_path / "out", shard=(3, 2))
    (tmp_path / "file").write_text("")
    with pytest.raises(Reg2RGError, match=r"a: .*file"):
        segment(studies[:1], Same(), REGIONS, tmp_path / "file")
