"""Masks are held against the voxels: mirrored, shifted, renamed and foreign ones are named; disease is not."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from reg2rg.cli.main import main
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.expected import Expected
from reg2rg.core.regions import Region, RegionSet, load_region_set
from reg2rg.core.types import RegionFiles, RegionVolume, Study, Volume
from reg2rg.datasets import Manifest
from reg2rg.extras.phantom.anatomy import draw
from reg2rg.extras.phantom.grid import Grid
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.plausibility import Verdict, judge
from reg2rg.scans.read import read_study
from reg2rg.store.prepare import PrepareSummary, prepare
from reg2rg.store.store import Store

RADGENOME = load_region_set()
Masks = dict[str, np.ndarray]


def phantom(number: int, size: tuple[int, int, int] = (80, 80, 64)) -> tuple[Volume, Masks]:
    grid = Grid(size)
    array, masks = draw(draw_patient(77, number), grid)
    return Volume(array, grid.affine), dict(masks)


@pytest.fixture(scope="module")
def one() -> tuple[Volume, Masks]:
    return phantom(0)


@pytest.fixture(scope="module")
def other() -> Masks:
    return phantom(4)[1]


def strength(verdict: Verdict | None) -> str:
    return "" if verdict is None else verdict.strength


def moved(masks: Masks, axis: int, voxels: int) -> Masks:
    result = {}
    for name, mask in masks.items():
        mask = np.roll(mask, voxels, axis)
        edge = [slice(None)] * 3
        edge[axis] = slice(0, voxels) if voxels > 0 else slice(voxels, None)
        mask[tuple(edge)] = False
        result[name] = mask
    return {name: mask for name, mask in result.items() if mask.any()}


def filled(volume: Volume, where: np.ndarray, hu: float) -> Volume:
    array = volume.array.copy()
    array[where] = np.random.default_rng(0).normal(hu, 15, np.count_nonzero(where))
    return Volume(array, volume.affine)


# What is wrong


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ((0,), "left and right (x) is mirrored"),
        ((1,), "front and back (y) is mirrored"),
        ((2,), "top and bottom (z) is mirrored"),
        ((0, 1), "left and right (x) and front and back (y) are mirrored"),
    ],
)
def test_a_mirrored_set_is_named_with_its_axes(one, axes, words) -> None:
    volume, masks = one
    verdict = judge(volume, {name: np.flip(mask, axes) for name, mask in masks.items()}, RADGENOME)
    assert strength(verdict) == "strong"
    assert verdict.found.startswith("the edges of abdomen, bone, ")
    assert words in verdict.found
    assert "in the scan's orientation" in verdict.fix


@pytest.mark.parametrize(("order", "words"), [((2, 1, 0), "z, y, x"), ((1, 0, 2), "y, x, z"), ((1, 2, 0), "z, x, y")])
def test_permuted_axes_are_named(order, words) -> None:
    volume, masks = phantom(0, (72, 72, 72))
    verdict = judge(volume, {name: mask.transpose(order) for name, mask in masks.items()}, RADGENOME)
    assert strength(verdict) == "strong"
    assert f"the axes are in the order {words}" in verdict.found
    assert "array.transpose(2, 1, 0)" in verdict.fix


def test_lost_signs_are_named_where_the_origin_is_not_the_middle(one) -> None:
    volume, masks = one
    affine = volume.affine.copy()
    affine[0, 3] += 40  # the mirror at x = 0 stands 40 mm from the middle of the frame
    mirrored = moved({name: np.flip(mask, 0) for name, mask in masks.items()}, 0, -round(80 / volume.spacing[0]))
    verdict = judge(Volume(volume.array, affine), mirrored, RADGENOME)
    assert strength(verdict) == "strong"
    assert "at the origin of the world: signs of the affine are lost" in verdict.found
    assert "ITK counts x and y the other way" in verdict.fix


@pytest.mark.parametrize(("axis", "voxels"), [(0, 5), (1, -5), (2, 4)])
def test_a_shift_is_measured(one, axis, voxels) -> None:
    volume, masks = one
    verdict = judge(volume, moved(masks, axis, voxels), RADGENOME)
    assert strength(verdict) == "strong"
    told = [float(step) for step in verdict.found.split("they lie ")[1].split(" mm")[0].split(", ")]
    expected = np.eye(3)[axis] * voxels * volume.spacing[axis]
    assert np.abs(np.array(told) - expected).max() <= 6
    assert "with the origin of the array" in verdict.fix


def test_a_small_shift_is_a_note(one) -> None:
    volume, masks = one
    assert strength(judge(volume, moved(masks, 0, 2), RADGENOME)) == "weak"


def test_another_patients_masks_are_named(one, other) -> None:
    volume, _ = one
    verdict = judge(volume, other, RADGENOME)
    assert strength(verdict) == "strong"
    assert "these look like masks of another patient or scan" in verdict.found
    assert "of one study and series" in verdict.fix


def test_exchanged_names_are_named_and_told_apart(one) -> None:
    volume, masks = one
    names = ["lung", "heart", "bone", "abdomen"]
    renamed = {name: masks[source] for name, source in zip(names, [*names[1:], names[0]], strict=True)}
    verdict = judge(volume, renamed, RADGENOME)
    assert strength(verdict) == "strong"
    assert "abdomen is 9" in verdict.found
    assert "abdomen looks like lung" in verdict.found
    assert "TotalSegmentator version 1, version 2" in verdict.fix


def test_lobes_under_each_others_names_and_all_mirrored_in_name(one) -> None:
    volume, masks = one
    x, _, z = np.ogrid[tuple(slice(0, n) for n in volume.array.shape)]
    right, upper = x > volume.array.shape[0] / 2, z > np.argwhere(masks["lung"])[:, 2].mean()
    lung = masks["lung"]
    lobes = {
        "left upper lobe": lung & ~right & upper,
        "left lower lobe": lung & ~right & ~upper,
        "right upper lobe": lung & right & upper,
        "right lower lobe": lung & right & ~upper,
    }
    regions = load_region_set("lobes")
    assert judge(volume, lobes, regions) is None
    turned = dict(zip(lobes, [*list(lobes.values())[1:], lobes["left upper lobe"]], strict=True))
    verdict = judge(volume, turned, regions)
    assert strength(verdict) == "strong"
    assert "of left lower lobe lies on the patient's right" in verdict.found
    other_side = {
        name: lobes[name.replace("left", "x").replace("right", "left").replace("x", "right")] for name in lobes
    }
    verdict = judge(volume, other_side, regions)
    assert strength(verdict) == "weak"  # as in a patient with situs inversus
    assert "lie on the other side of the body" in verdict.found


# What is not


def test_masks_in_their_place_pass(one) -> None:
    volume, masks = one
    assert judge(volume, masks, RADGENOME) is None
    for name, mask in masks.items():
        assert judge(volume, {name: mask}, RADGENOME) is None, name


def disease(volume: Volume, masks: Masks) -> dict[str, tuple[Volume, Masks]]:
    lung = masks["lung"]
    x, y, z = np.ogrid[tuple(slice(0, n) for n in lung.shape)]
    points = np.argwhere(lung)
    right = x > points[:, 0].mean()
    low, front = z < np.percentile(points[:, 2], 60), y > np.percentile(points[:, 1], 55)
    outer = lung & right & (x > np.percentile(points[:, 0], 80))
    metal = volume.array.copy()
    spine = np.argwhere(masks["bone"])[::40]
    metal[tuple(spine.T)] = 3071
    metal[:, :, 20:24] += (900 * np.cos(np.arange(lung.shape[0]) * 0.7))[:, None, None].astype(np.int16)
    narrow = (slice(16, 64), slice(14, 62), slice(16, 56))
    turned = {name: np.flip(mask, (0, 1)) for name, mask in masks.items()}
    return {
        "white-out": (filled(volume, lung & right, 35), masks),
        "white-out of both": (filled(volume, lung, 35), masks),
        "collapse": (filled(volume, lung & right, 30), masks | {"lung": lung & ~right | outer}),
        "pneumonectomy": (filled(volume, lung & right, 8), masks | {"lung": lung & ~right}),
        "effusion": (
            filled(volume, lung & low, 8),
            masks | {"lung": lung & ~low, "pleura": masks["pleura"] | lung & low},
        ),
        "effusion in the lung's mask": (filled(volume, lung & low, 8), masks),
        "pneumothorax": (filled(volume, outer, -1000), masks | {"lung": lung & ~outer}),
        "metal": (Volume(np.clip(metal, -1024, 3071), volume.affine), masks),
        "narrow": (Volume(volume.array[narrow], volume.affine), {name: mask[narrow] for name, mask in masks.items()}),
        "prone": (filled(volume, lung & front, 5), masks),
        "turned with the scan": (Volume(np.flip(volume.array, (0, 1)), volume.affine), turned),
    }


def test_disease_metal_and_narrow_views_are_notes_at_most(one) -> None:
    noted = set()
    for name, (volume, masks) in disease(*one).items():
        verdict = judge(volume, {region: mask for region, mask in masks.items() if mask.any()}, RADGENOME)
        assert strength(verdict) != "strong", (name, verdict)
        noted |= {name} if verdict else set()
    assert "white-out of both" in noted
    assert noted <= {"white-out of both", "white-out", "effusion in the lung's mask", "metal"}
    verdict = judge(*disease(*one)["white-out of both"], RADGENOME)
    assert verdict.note().startswith("masks look implausible: lung is ")
    assert "disease can look like this" in verdict.note()


def test_too_little_to_tell_is_no_verdict(one) -> None:
    volume, masks = one
    mirrored = {name: np.flip(mask, 0) for name, mask in masks.items()}
    bare = RegionSet("bare", tuple(Region(name) for name in masks))
    assert judge(volume, mirrored, bare) is None  # nothing is expected of them
    assert judge(volume, {}, RADGENOME) is None
    speck = np.zeros_like(masks["lung"])
    speck[40:42, 40:42, 30] = True
    assert judge(volume, {"bone": speck}, RADGENOME) is None
    thin = slice(20, 30)  # 50 mm of a chest
    cut = {name: mask[:, :, thin] for name, mask in mirrored.items()}
    assert judge(Volume(volume.array[:, :, thin], volume.affine), cut, RADGENOME) is None


# What a region set says


def test_every_packaged_region_says_what_is_expected() -> None:
    for name in ("radgenome", "lobes", "radgenome_lobes"):
        assert all(region.expected for region in load_region_set(name)), name
    assert load_region_set("lobes").regions[0].expected.side == "left"
    same = {region.name: region for region in load_region_set("lobes")}
    assert all(region == same[region.name] for region in load_region_set("radgenome_lobes") if region.name in same)


def expected_of(tmp_path: Path, text: str) -> Expected:
    (tmp_path / "own.yaml").write_text(f"name: own\nregions:\n  - name: liver\n    expected: {text}\n")
    return load_region_set(tmp_path / "own.yaml").regions[0].expected


def test_expectations_are_read_from_yaml(tmp_path) -> None:
    assert expected_of(tmp_path, "{air: [0, 0.1], side: right}") == Expected(air=(0.0, 0.1), side="right")
    assert not expected_of(tmp_path, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dense", "expected is 'dense' (expected a mapping"),
        ("{airy: [0, 1]}", "unknown key 'airy'. Did you mean 'air'?"),
        ("{air: 0.5}", "expected.air is 0.5 (expected two numbers from 0 to 1"),
        ("{air: [0.5, 0.1]}", "the smaller one first"),
        ("{air: [0, 2]}", "expected.air is [0, 2]"),
        ("{median: [low, 3]}", "expected two numbers from -1024 to 3071"),
        ("{volume: [true, 3]}", "expected.volume is [True, 3]"),
        ("{side: middle}", "expected.side is 'middle' (expected left or right"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, text, words) -> None:
    with pytest.raises(ConfigError) as caught:
        expected_of(tmp_path, text)
    assert words in str(caught.value)
    assert str(tmp_path / "own.yaml") in str(caught.value)
    assert "regions[0].expected" in str(caught.value)


# On the way of a study


def written(folder: Path, volume: Volume, masks: Masks) -> Study:
    nib.save(nib.Nifti1Image(volume.array, volume.affine), folder / "ct.nii.gz")
    files = {}
    for name, mask in masks.items():
        files[name] = folder / "masks" / f"{name}.nii.gz"
        files[name].parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), volume.affine), files[name])
    return Study("s1", "p1", "train", folder / "ct.nii.gz", RegionFiles(files))


@pytest.fixture
def mirrored(one, tmp_path: Path) -> Study:
    volume, masks = one
    return written(tmp_path, volume, {name: np.flip(masks[name], 0) for name in ("lung", "heart", "bone", "abdomen")})


def read(study: Study, implausible: str) -> RegionVolume:
    return read_study(study, RADGENOME, ReadOptions(implausible=implausible))


def test_an_error_a_note_or_nothing(mirrored) -> None:
    with pytest.raises(DataFault) as caught:
        read_study(mirrored, RADGENOME)
    assert caught.value.code == "MASK_IMPLAUSIBLE"
    assert str(caught.value).startswith(f"MASK_IMPLAUSIBLE s1 {mirrored.image.parent / 'masks'}: the edges of ")
    assert "left and right (x) is mirrored (expected masks that fit the scan as they lie). Fix: " in str(caught.value)
    noted, ignored = read(mirrored, "note"), read(mirrored, "ignore")
    assert [note for note in noted.notes if note.startswith("masks look implausible")] == [noted.notes[-1]]
    assert noted.notes[:-1] == ignored.notes
    assert all(np.array_equal(noted.masks[name], ignored.masks[name]) for name in noted.masks)


def test_regions_that_are_not_what_they_are_called_are_left_out_by_option(one, tmp_path) -> None:
    volume, masks = one
    named = {"lung": "bone", "bone": "lung"} | {name: name for name in ("heart", "abdomen", "mediastinum")}
    study = written(tmp_path, volume, {name: masks[source] for name, source in named.items()})
    with pytest.raises(DataFault, match=r"MASK_IMPLAUSIBLE s1 .*lung looks like bone"):
        read(study, "error")
    found = read(study, "drop")
    assert list(found.masks) == [name for name in RADGENOME.names if name in ("abdomen", "heart", "mediastinum")]
    assert all(np.array_equal(found.masks[name], masks[name]) for name in found.masks)
    said = [note for note in found.notes if "implausible" in note]
    assert sorted(note.split(": ")[0] for note in said) == ["bone", "lung"]
    assert all(": implausible, left out: " in note for note in said)


def test_a_set_that_lies_elsewhere_is_an_error_whatever_is_left_out(mirrored) -> None:
    with pytest.raises(DataFault, match="left and right \\(x\\) is mirrored"):
        read(mirrored, "drop")


def manifest(study: Study, folder: Path) -> Manifest:
    row = {"id": study.id, "image": str(study.image), "split": "test"}
    row |= {"masks": {name: str(path) for name, path in study.masks.files.items()}}
    (folder / "all.jsonl").write_text(json.dumps(row))
    return Manifest(str(folder / "all.jsonl"), root="/")


def test_check_names_it_once_and_exits_with_the_code_of_skipped_studies(mirrored, tmp_path) -> None:
    manifest(mirrored, tmp_path)
    where = {"path": str(tmp_path / "all.jsonl"), "root": "/"}
    config = {"data": {"dataset": {"class_path": "Manifest", "init_args": where}}}
    (tmp_path / "data.yaml").write_text(json.dumps(config))
    command = ["data", "check", "--config", str(tmp_path / "data.yaml"), "--out", str(tmp_path / "out")]
    command += ["--workers", "0"]
    assert main(command) == 3
    found = json.loads((tmp_path / "out/check.json").read_text())["findings"]
    assert [finding["code"] for finding in found if finding["severity"] == "error"] == ["MASK_IMPLAUSIBLE"]
    assert "left and right (x) is mirrored" in found[0]["message"]


def test_prepare_follows_option_and_expectations(one, mirrored, tmp_path) -> None:
    dataset, store = manifest(mirrored, tmp_path), tmp_path / "store"

    def run(option: str, regions: RegionSet = RADGENOME) -> PrepareSummary:
        options = ReadOptions(implausible=option)
        return prepare(dataset, store, regions=regions, workers=0, max_skip=1.0, options=options)

    assert run("error").skipped
    assert not run("ignore").skipped
    first = Store(store).read("s1").detail
    assert run("error").skipped  # what was kept without a look is looked at
    bare = RegionSet("bare", tuple(Region(name) for name in RADGENOME.names))
    assert not run("error", bare).skipped  # nothing is expected, nothing is wrong
    second = Store(store).read("s1").detail
    assert np.array_equal(first.array, second.array)
    assert all(np.array_equal(first.mask(name), second.mask(name)) for name in first.regions)
