"""Thresholds: measured on phantoms and on real CTs, and silent about what they cannot find."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import Region, RegionSet, load_region_set
from reg2rg.core.types import LabelMap, Mask, RegionFiles, Study, Volume
from reg2rg.extras.phantom.anatomy import draw
from reg2rg.extras.phantom.grid import Grid
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.class_names import TOTAL
from reg2rg.scans.plausibility import judge
from reg2rg.scans.read import read_image, read_study
from reg2rg.scans.segmenters import Thresholds, segmenter_named
from reg2rg.scans.segmenters.thresholds import averaged, segment

REGIONS = load_region_set()
AIRWAYS = "trachea and bronchie"
BONES = ("rib", "vertebrae", "sacrum", "humerus", "scapula", "clavicula", "femur", "hip", "skull", "sternum", "costal")


def phantom(number: int, size: tuple[int, int, int]) -> tuple[Volume, dict[str, Mask]]:
    grid = Grid(size)
    array, masks = draw(draw_patient(77, number), grid)
    return Volume(array, grid.affine), dict(masks)


@pytest.fixture(scope="module")
def coarse() -> tuple[Volume, dict[str, Mask]]:
    return phantom(2, (96, 96, 80))


def dice(one: Mask, other: Mask) -> float:
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


def save(volume: Volume, folder: Path) -> Path:
    nib.save(nib.Nifti1Image(volume.array, volume.affine), folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


def on_scan(scan: Path, masks: RegionFiles | LabelMap, regions: RegionSet) -> dict[str, Mask]:
    options = ReadOptions(min_slices=1, implausible="ignore")
    return dict(read_study(Study("a", "a", "test", scan, masks), regions, options).masks)


def agreement(scan: Path, masks: RegionFiles | LabelMap, regions: RegionSet, kept: Path) -> dict[str, float]:
    """Dice of each region with masks of somebody else's."""
    truth = on_scan(scan, masks, regions)
    found = on_scan(scan, Thresholds(str(kept)).segment(scan, regions).masks, regions)
    return {name: dice(found[name], truth[name]) for name in truth}


def test_a_phantom(tmp_path: Path) -> None:
    volume, truth = phantom(2, (144, 144, 128))
    scan = save(volume, tmp_path)
    found = Thresholds(str(tmp_path / "kept")).segment(scan, REGIONS)
    assert list(found.masks.files) == ["bone", "lung", AIRWAYS]  # no boxes called heart
    assert (found.made_by.name, found.made_by.for_measurements) == ("Thresholds", False)
    assert "not for measurements" in str(found.made_by)
    assert found.absent["heart"].startswith("Thresholds does not give it")
    masks = read_study(Study("a", "a", "test", scan, found.masks), REGIONS).masks
    for name in found.masks.files:
        assert dice(masks[name], truth[name]) >= 0.9, name


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2, 4])
def test_phantoms_at_fine_spacing(number: int, tmp_path: Path) -> None:
    volume, truth = phantom(number, (224, 224, 208))
    masks = segment(volume)
    for name, region in (("lung", "lung"), ("bone", "bone"), ("trachea", AIRWAYS)):
        assert dice(masks[name], truth[region]) >= 0.9, name


def test_a_finer_grid_is_averaged_in_place() -> None:
    affine = np.array([[0.5, 0, 0, -7], [0, 0.7, 0, 3], [0, 0, 1.5, 20], [0, 0, 0, 1]])
    array = np.arange(7 * 8 * 3, dtype=np.int16).reshape(7, 8, 3)
    volume, placed = averaged(Volume(array, affine))
    assert (volume.array.shape, volume.spacing) == ((3, 4, 3), (1.0, 1.4, 1.5))
    assert volume.array[1, 2, 0] == round(array[2:4, 4:6, 0].mean())
    np.testing.assert_allclose((placed @ [1, 2, 0, 1])[:3], (affine @ [2.5, 4.5, 0, 1])[:3])  # the middle of the four
    coarse = Volume(array, np.diag([1.4, 1.5, 5, 1]))
    assert averaged(coarse)[0] is coarse


def test_what_a_set_calls_them_and_what_it_lacks(tmp_path: Path, coarse) -> None:
    segmenter = Thresholds(str(tmp_path))
    own = RegionSet("own", (Region("airways", ("trachea",)), Region("whole", ("body",)), Region("spleen")))
    assert segmenter.plan(own) == {"airways": "trachea", "whole": "body"}
    with pytest.raises(ConfigError, match="Thresholds can give none of the regions of the set 'lobes'"):
        segmenter.segment(save(coarse[0], tmp_path), load_region_set("lobes"))
    assert isinstance(segmenter_named("Thresholds"), Thresholds)


# What misleads it


def test_white_lungs_are_not_taken_for_gas_in_the_bowel(coarse, tmp_path: Path) -> None:
    volume, truth = coarse
    white = Volume(np.where(truth["lung"], np.int16(30), volume.array), volume.affine)
    assert "lung" not in segment(white)
    with pytest.raises(DataFault, match=r"NO_REGION .*ct.nii.gz: nothing that Thresholds could find"):
        Thresholds(str(tmp_path / "kept")).segment(save(white, tmp_path), RegionSet("one", (Region("lung"),)))


@pytest.mark.parametrize("misled", ["contrast", "noise", "offset"])
def test_what_else_is_bright_is_not_taken_for_bone(coarse, misled: str) -> None:
    volume, truth = coarse
    array = volume.array.astype(np.float64)
    if misled == "contrast":
        array[(array > 0) & ~truth["bone"]] += 120
    else:
        array += 150 if misled == "offset" else np.random.default_rng(0).normal(0, 150, array.shape)
    found = segment(Volume(array.clip(-1024, 3071).astype(np.int16), volume.affine))
    assert "bone" not in found
    assert dice(found["lung"], truth["lung"]) > 0.9


def test_plausibility_sees_what_it_lets_through(coarse) -> None:
    volume, truth = coarse
    array = np.where(truth["lung"], volume.array + np.int16(450), volume.array)  # half white: nearer to tissue than air
    masks = segment(Volume(array, volume.affine))
    verdict = judge(Volume(array, volume.affine), {"lung": masks["lung"]}, REGIONS)
    assert verdict is not None
    assert "lung is" in verdict.found
    assert "air (expected 30%" in verdict.found


def test_no_body() -> None:
    assert segment(Volume(np.full((40, 40, 30), -1000, np.int16), np.diag([2.0, 2, 2, 1]))) == {}


# Real scans


def test_lungs_of_a_whole_chest(shared_ct: Path, tmp_path: Path) -> None:
    folder = shared_ct / "chestimagingplatform_BSDstyle"
    values = np.unique(read_image(folder / "lm-64.nrrd").stored)
    lung = tuple(int(value) for value in values if 9 <= value % 256 <= 14)
    masks = LabelMap(folder / "lm-64.nrrd", {"lung": lung})
    found = agreement(folder / "ct-64.nrrd", masks, RegionSet("lung", (Region("lung"),)), tmp_path)
    assert found["lung"] >= 0.93  # 0.979


@pytest.mark.parametrize(
    ("scan", "labels"),
    [("example_ct", "example_seg_fast_force_split"), ("example_ct_sm", "example_seg")],
)
def test_beside_totalsegmentator(shared_ct: Path, tmp_path: Path, scan: str, labels: str) -> None:
    folder = shared_ct / "totalsegmentator_Apache2"
    bones = tuple(label for name, label in TOTAL.items() if name.startswith(BONES))
    masks = LabelMap(folder / f"{labels}.nii.gz", {"lung": (10, 11, 12, 13, 14), "bone": bones})
    regions = RegionSet("two", (Region("lung"), Region("bone")))
    found = agreement(folder / f"{scan}.nii.gz", masks, regions, tmp_path)
    assert found["lung"] >= 0.90  # 0.956, 0.965
    assert found["bone"] >= 0.75  # 0.841, 0.867
