"""TotalSegmentator and lungmask by their APIs: fakes with recorded shapes and labels, the real ones if installed."""

from __future__ import annotations

import inspect
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import segmenter_fakes as fakes
from reg2rg.core.errors import ConfigError, DataFault, MissingExtraError
from reg2rg.core.regions import Region, RegionSet, load_region_set
from reg2rg.core.types import Study
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.class_names import TOTAL
from reg2rg.scans.read import read_study
from reg2rg.scans.segmenters import LungMask, TotalSegmentator

REGIONS = load_region_set()
LOBES = load_region_set("lobes")
SIDES = RegionSet(
    "sides",
    (
        Region("left lung", totalsegmentator=(10, 11)),
        Region("right lung", totalsegmentator=(12, 13, 14)),
        Region("lung and trachea", totalsegmentator=(10, 11, 12, 13, 14, 16)),
    ),
)
AFFINE = np.array([[-3.0, 0, 0, 40], [0, -3, 0, 30], [0, 0, 4, -20], [0, 0, 0, 1]])  # stored LPS, as most are


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Left and right lung of different sizes in soft tissue, and a bright spot above them; stored LPS."""
    array = np.full((30, 28, 24), -1000, np.int16)
    array[2:28, 3:25, 1:23] = np.random.default_rng(0).normal(0, 10, (26, 22, 22)).round()
    array[5:12, 8:20, 2:14] = -800  # low in x of LPS: the right lung
    array[18:25, 8:20, 2:20] = -800
    array[14:16, 12:16, 10:14] = 60
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def masks_of(segmenter, scan: Path, regions: RegionSet) -> dict[str, np.ndarray]:
    found = segmenter.segment(scan, regions).masks
    options = ReadOptions(min_slices=8, implausible="ignore")
    return dict(read_study(Study("a", "a", "test", scan, found), regions, options).masks)


def test_regions_are_unions_of_classes(scan, monkeypatch, tmp_path: Path) -> None:
    calls = fakes.totalsegmentator(monkeypatch)
    segmenter = TotalSegmentator(str(tmp_path / "kept"), device="cpu")
    found = segmenter.segment(scan, REGIONS)
    assert calls.made == [("total", {"ml": True, "fast": False, "skip_saving": True, "device": "cpu"})]
    assert list(found.masks.files) == ["heart", "lung"]
    assert (found.made_by.version, found.made_by.for_measurements) == ("2.18.0 2.8.1 0.25.5", True)
    assert found.absent["esophagus"] == "TotalSegmentator found none"
    assert "The task breasts, class 1, gives it" in found.absent["breast"]
    masks = masks_of(segmenter, scan, REGIONS)
    assert masks["lung"].sum() == 7 * 12 * (12 + 18)
    assert len(calls.made) == 1


def test_further_tasks_by_names_of_their_classes(scan, monkeypatch, tmp_path: Path) -> None:
    calls = fakes.totalsegmentator(monkeypatch)
    extra = {
        "trunk_cavities": {"mediastinum": ["mediastinum"]},
        "lung_vessels": {"airways": ["lung_airways", "lung_airways_wall"], "heart": ["lung_veins"]},
    }
    segmenter = TotalSegmentator(str(tmp_path / "kept"), fast=True, extra=extra)
    plan = segmenter.plan(REGIONS)
    assert plan["heart"] == {"total": ["heart", "atrial_appendage_left"], "lung_vessels": ["lung_veins"]}
    assert plan["trachea and bronchie"] == {"total": ["trachea"], "lung_vessels": ["lung_airways", "lung_airways_wall"]}
    segmenter.segment(scan, REGIONS)
    fast = {task: options["fast"] for task, options in calls.made}
    assert fast == {"total": True, "trunk_cavities": False, "lung_vessels": False}
    assert len(calls.made) == 3
    for wrong, words in (
        ({"breast": {"breast": ["breast"]}}, r"no task 'breast'\. Did you mean 'breasts'"),
        ({"breasts": {"breast": ["breast_left"]}}, r"task breasts has no class breast_left \(it has breast\)"),
        ({"breasts": {"brest": ["breast"]}}, "Unknown region 'brest'"),
    ):
        with pytest.raises(ConfigError, match=words):
            TotalSegmentator(str(tmp_path / "kept"), extra=wrong).segment(scan, REGIONS)


def test_a_model_is_loaded_once_for_many_scans(scan, monkeypatch, tmp_path: Path) -> None:
    calls = fakes.totalsegmentator(monkeypatch)
    from totalsegmentator import nnunet

    plain = nnunet.nnUNetPredictor
    segmenter = TotalSegmentator(str(tmp_path / "kept"), extra={"breasts": {"breast": ["breast"]}})
    image = nib.load(scan)
    for number in range(3):
        array = np.asarray(image.dataobj) + np.int16(number)
        nib.save(nib.Nifti1Image(array, image.affine), tmp_path / f"{number}.nii.gz")
        segmenter.segment(tmp_path / f"{number}.nii.gz", REGIONS)
    assert (len(calls.made), calls.loaded) == (6, ["total", "breasts"])
    assert nnunet.nnUNetPredictor is plain


def test_what_goes_wrong_in_totalsegmentator_is_said(scan, monkeypatch, tmp_path: Path) -> None:
    calls = fakes.totalsegmentator(monkeypatch)
    calls.shift = 1.5
    segmenter = TotalSegmentator(str(tmp_path / "kept"))
    with pytest.raises(
        DataFault, match=r"NOT_SEGMENTED .*ct.nii.gz: .*task total, gave labels of \(30, 28, 24\) voxels, or"
    ):
        segmenter.segment(scan, REGIONS)
    calls.error = SystemExit(1)
    with pytest.raises(DataFault, match=r"NOT_SEGMENTED .*TotalSegmentator, task total, ended with SystemExit: 1"):
        segmenter.segment(scan, REGIONS)
    assert list((tmp_path / "kept").glob("*")) == []


@pytest.mark.parametrize("model", ["R231", "LTRCLobes"])
def test_lungs_lie_on_their_side(scan, monkeypatch, tmp_path: Path, model: str) -> None:
    calls = fakes.lungmask(monkeypatch)
    segmenter = LungMask(str(tmp_path / "kept"), model=model)
    masks = masks_of(segmenter, scan, SIDES)
    if model == "R231":
        assert {name: int(mask.sum()) for name, mask in masks.items()} == {
            "left lung": 7 * 12 * 18, "right lung": 7 * 12 * 12
        }  # fmt: skip
        right = np.argwhere(masks["right lung"])  # RAS: rising to the patient's right, front and head
        assert right[:, 0].min() > np.argwhere(masks["left lung"])[:, 0].max()
        assert (right[:, 2].min(), right[:, 2].max()) == (2, 13)
    shape, given = calls.made[0]
    assert (shape, given) == ("(24, 28, 30)", {"dtype": np.int16, "contiguous": True})
    segmenter.segment(scan, REGIONS)
    assert calls.loaded == [model]  # it stays in memory


def test_what_a_model_can_tell_apart(scan, monkeypatch, tmp_path: Path) -> None:
    calls = fakes.lungmask(monkeypatch)
    sides, lobes = LungMask(str(tmp_path)), LungMask(str(tmp_path), model="LTRCLobes")
    assert sides.plan(SIDES) == {"left lung": [2], "right lung": [1]}
    assert sides.plan(REGIONS) == {"lung": [1, 2]}
    assert lobes.plan(REGIONS) == {"lung": [1, 2, 3, 4, 5]}
    assert lobes.plan(LOBES) == {name: [label] for label, name in enumerate(LOBES.names, 1)}
    with pytest.raises(ConfigError, match="LungMask can give none of the regions of the set 'lobes'"):
        sides.segment(scan, LOBES)
    (tmp_path / "w.pth").write_bytes(b"1")
    settings = LungMask(weights=str(tmp_path / "w.pth")).settings()
    (tmp_path / "w.pth").write_bytes(b"2")
    assert LungMask(weights=str(tmp_path / "w.pth")).settings() != settings
    calls.error = RuntimeError("no memory")
    with pytest.raises(DataFault, match=r"NOT_SEGMENTED .*ct.nii.gz: lungmask, model R231, ended with RuntimeError"):
        sides.segment(scan, REGIONS)


def test_a_package_that_is_not_installed(scan, tmp_path: Path, monkeypatch) -> None:
    from reg2rg.scans.segmenters import installed

    def none(package: str) -> str:
        raise installed.PackageNotFoundError(package)

    monkeypatch.setattr(installed, "version", none)
    for segmenter, extra in ((TotalSegmentator(), "totalsegmentator"), (LungMask(), "lungmask")):
        with pytest.raises(MissingExtraError, match=rf"is not installed\. Fix: pip install 'reg2rg\[{extra}\]'"):
            segmenter.segment(scan, REGIONS)


# The real packages


def test_totalsegmentators_own_signature_and_classes() -> None:
    api = pytest.importorskip("totalsegmentator.python_api")
    config = pytest.importorskip("totalsegmentator.config")
    config.setup_nnunet()
    from totalsegmentator import nnunet
    from totalsegmentator.map_to_binary import class_map

    inspect.signature(api.totalsegmentator).bind(
        None, None, ml=True, task="total", fast=False, skip_saving=True, quiet=True, device="cpu"
    )
    assert {name: label for label, name in class_map["total"].items()} == dict(TOTAL)
    for task, classes in fakes.CLASS_MAP.items():
        assert class_map[task] == classes
    assert "nnUNetPredictor(" in inspect.getsource(nnunet.nnUNetv2_predict)
    inspect.signature(nnunet.nnUNetPredictor.initialize_from_trained_model_folder).bind(None, "folder", use_folds=[0])


def test_lungmasks_own_signature() -> None:
    lungmask = pytest.importorskip("lungmask")
    from lungmask.mask import MODEL_URLS

    inspect.signature(lungmask.LMInferer).bind(modelname="R231", modelpath=None, force_cpu=True, tqdm_disable=True)
    assert {name: count for name, (_, count) in MODEL_URLS.items()} == {"R231": 3, "R231CovidWeb": 3, "LTRCLobes": 6}
