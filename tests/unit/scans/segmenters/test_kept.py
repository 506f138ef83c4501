"""Masks that a segmenter made are kept by content and version, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from reg2rg.core.errors import ConfigError, DataFault, Reg2RGError
from reg2rg.core.regions import Region, RegionSet
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_image
from reg2rg.scans.segmenters import KeptSegmenter, Made, MadeBy
from reg2rg.scans.segmenters import kept as module

AFFINE = np.array([[-2.0, 0, 0, 5], [0, 2, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1]])
REGIONS = RegionSet("two", (Region("lung"), Region("heart"), Region("spleen", note="Look elsewhere.")))


class Halves(KeptSegmenter):
    """The lower half is the lung; there is no heart."""

    calls = 0
    number = "1"
    setting = 0

    @property
    def version(self) -> str:
        return self.number

    def plan(self, regions):
        return {name: name for name in regions.names if name in ("lung", "heart")}

    def settings(self):
        return {"setting": self.setting}

    def make(self, scan, plan, options):
        self.calls += 1
        self.read = options
        image = read_image(scan)
        lung = np.zeros(image.stored.shape, bool)
        lung[:, :, : lung.shape[2] // 2] = image.stored[:, :, : lung.shape[2] // 2] > -2000
        masks = {"lung": lung, "heart": np.zeros_like(lung)}
        return Made({name: masks[name] for name in plan}, image.affine)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    nib.save(nib.Nifti1Image(np.full((9, 10, 12), -800, np.int16), AFFINE), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


@pytest.fixture
def segmenter(tmp_path: Path) -> Halves:
    return Halves(str(tmp_path / "kept"))


def test_masks_are_made_once_and_lie_where_the_scan_does(scan, segmenter) -> None:
    found = segmenter.segment(scan, REGIONS)
    assert list(found.masks.files) == ["lung"]
    path = found.masks.files["lung"]
    image = nib.load(path)
    assert np.asarray(image.dataobj).sum() == 9 * 10 * 6
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert image.get_data_dtype() == np.uint8
    assert found.made_by == MadeBy("Halves", "1", str(path.parent))
    assert found.absent == {"heart": "Halves found none", "spleen": "Halves does not give it. Look elsewhere"}
    assert segmenter.segment(scan, REGIONS) == found
    assert segmenter.calls == 1


def test_a_copy_is_known_and_any_change_is_not(scan, segmenter, tmp_path: Path) -> None:
    first = segmenter.segment(scan, REGIONS)
    copy = Path(shutil.copy(scan, tmp_path / "copy.nii.gz"))
    assert segmenter.segment(copy, REGIONS) == first
    folders = {first.made_by.source}
    for change in ("version", "setting", "regions", "scan"):
        regions = REGIONS
        if change == "version":
            segmenter.number = "2"
        elif change == "setting":
            segmenter.setting = 5
        elif change == "regions":
            regions = RegionSet("one", (Region("lung"),))
        else:
            nib.save(nib.Nifti1Image(np.full((9, 10, 12), -801, np.int16), AFFINE), scan)
        folders.add(segmenter.segment(scan, regions).made_by.source)
    assert (len(folders), segmenter.calls) == (5, 5)


def test_how_a_scan_is_read_counts_where_it_changes_the_scan(scan, segmenter) -> None:
    first = segmenter.segment(scan, REGIONS)
    same = ReadOptions(min_slices=4, implausible="note", mask_grid="ras", clip=False)  # it segments what is clipped
    assert segmenter.segment(scan, REGIONS, same) == first
    for options in (ReadOptions(series="1.2.3"), ReadOptions(kernel="B30f"), ReadOptions(padding="air")):
        assert segmenter.segment(scan, REGIONS, options).made_by.source != first.made_by.source
        assert segmenter.read == options
    assert segmenter.calls == 4


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "record", "no record"])
def test_a_damaged_or_half_written_folder_is_made_anew(scan, segmenter, damage: str) -> None:
    found = segmenter.segment(scan, REGIONS)
    path = found.masks.files["lung"]
    good, record = path.read_bytes(), path.with_name(module.RECORD)
    if damage == "flip":
        path.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    elif damage == "cut":
        path.write_bytes(good[:-1])
    elif damage == "gone":
        path.unlink()
    elif damage == "record":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"version": "x"}))
    else:
        record.unlink()
    assert segmenter.segment(scan, REGIONS) == found
    assert (path.read_bytes(), segmenter.calls) == (good, 2)
    assert [file.name for file in segmenter.kept.iterdir()] == [path.parent.name]


def test_a_kill_leaves_no_folder_and_its_rests_are_cleared(scan, segmenter, monkeypatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        segmenter.segment(scan, REGIONS)
    assert list(segmenter.kept.iterdir()) == []
    monkeypatch.undo()
    old, new = segmenter.kept / ".new-old", segmenter.kept / ".new-new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    segmenter.segment(scan, REGIONS)
    assert (old.exists(), new.exists()) == (False, True)


def test_of_two_processes_the_faster_one_counts(scan, segmenter, tmp_path: Path) -> None:
    class Slow(Halves):
        name = "Halves"

        def make(self, scan, plan, options):
            made = super().make(scan, plan, options)
            self.other = segmenter.segment(scan, REGIONS)
            self.inode = self.other.masks.files["lung"].stat().st_ino
            return made

    slow = Slow(str(tmp_path / "kept"))
    found = slow.segment(scan, REGIONS)
    assert found == slow.other
    assert found.masks.files["lung"].stat().st_ino == slow.inode  # it may be in use already


def test_what_cannot_be_given_found_or_written_is_said(scan, segmenter, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Halves can give none of the regions of the set 'other': liver\. Fix"):
        segmenter.segment(scan, RegionSet("other", (Region("liver"),)))
    with pytest.raises(
        DataFault, match=r"NO_REGION .*ct.nii.gz: nothing that Halves could find \(expected one of heart"
    ):
        segmenter.segment(scan, RegionSet("one", (Region("heart"),)))
    (tmp_path / "file").write_text("")
    with pytest.raises(Reg2RGError, match=r"masks of Halves: .*file.*Fix: .*; or name another folder \(kept\)"):
        Halves(str(tmp_path / "file")).segment(scan, REGIONS)


def test_masks_go_into_the_users_cache(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Halves().kept == tmp_path / "reg2rg" / "masks"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert Halves().kept == Path.home() / ".cache" / "reg2rg" / "masks"
