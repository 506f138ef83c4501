"""`data check` lists every planted fault in one run, the same on any number of workers."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from reg2rg.check import run as check_module
from reg2rg.check.overlays import COLOURS, Plane, choose_planes, write_overlay
from reg2rg.check.report import print_check
from reg2rg.check.result import CheckResult
from reg2rg.check.run import check_dataset
from reg2rg.check.study import StudyCheck, StudyJob, check_study, voxel_digest
from reg2rg.core.errors import EXIT_OK, EXIT_SKIPPED, EXIT_USAGE, ConfigError, Reg2RGError
from reg2rg.core.regions import load_region_set
from reg2rg.core.types import RegionFiles, RegionVolume, Study, Volume
from reg2rg.datasets import Manifest, RadGenome
from reg2rg.scans.base import ReadOptions

SHAPE = (20, 18, 16)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def body(seed: int) -> np.ndarray:
    """Air around soft tissue, with noise that makes every scan another one."""
    array = np.full(SHAPE, -1000, np.int16)
    array[3:17, 3:15] = np.random.default_rng(seed).integers(-50, 60, (14, 12, SHAPE[2]))
    return array


def box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[start:stop, 6:12, 4:12] = 1
    return mask


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, affine).to_filename(path)


class Folder:
    """A data folder in RadGenome's layout, in which a test can break things."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, list[str]] = {"train": [], "valid": []}
        (root / "valid_preprocessed").mkdir(parents=True)
        (root / "train_preprocessed").mkdir()

    def volume(self, study: str) -> Path:
        split, patient = study.split("_")[0], study.rsplit("_", 2)[0]
        return self.root / f"{split}_preprocessed" / patient / f"{patient}a" / f"{study}.nii.gz"

    def mask(self, study: str, region: str) -> Path:
        return self.root / f"{study.split('_')[0]}_region_mask" / f"seg_{study}" / f"{region}.nii.gz"

    def add(self, study: str, seed: int) -> None:
        save(self.volume(study), body(seed))
        save(self.mask(study, "lung"), box(4, 8))
        save(self.mask(study, "heart"), box(9, 14))
        for region in ("lung", "heart"):
            self.rows[study.split("_")[0]].append(f"{study}.nii.gz,{region},Text of {region}.")

    def dataset(self) -> RadGenome:
        (self.root / "radgenome_files").mkdir(exist_ok=True)
        for split, rows in self.rows.items():
            table = self.root / "radgenome_files" / f"{split}_region_report.csv"
            table.write_text("\n".join(["Volumename,Anatomy,Sentence", *rows]) + "\n")
        return RadGenome(str(self.root), val_fraction=0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "data")
    for number in range(1, 4):
        made.add(f"train_{number}_a_1", number)
    made.add("valid_1_a_1", 101)
    return made


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the CRC: only a reader that reads to the end sees it
    path.write_bytes(bytes(data))


def codes(result: CheckResult, severity: str = "error") -> Counter[str]:
    return Counter(finding.code for finding in result.findings if finding.severity == severity)


def test_a_sound_folder_has_no_errors(folder: Folder, tmp_path: Path) -> None:
    result = check_dataset(folder.dataset(), workers=0, overlays=2, out=tmp_path / "out")
    [never] = result.findings  # the folder has masks of two regions alone
    assert (never.severity, never.code, never.count) == ("note", "REGION_NEVER_SEEN", 8)
    assert never.message.startswith("no study has a voxel of: abdomen, bone, breast, esophagus, mediastinum")
    assert result.exit_code == EXIT_OK
    assert (result.listed, result.usable, result.read) == ({"test": 1, "train": 3}, {"test": 1, "train": 3}, 4)
    lung = [line for line in result.coverage if line.region == "lung"]
    assert [(line.split, line.studies, line.mask, line.text, line.both) for line in lung] == [
        ("test", 1, 1, 1, 1),
        ("train", 3, 3, 3, 3),
    ]
    assert all(line.mask == 0 for line in result.coverage if line.region == "thyroid")
    saved = json.loads((tmp_path / "out/check.json").read_text())
    assert saved == json.loads(json.dumps(result.as_json()))
    assert saved["overlays"] == ["overlays/train_train_1_a_1.png", "overlays/train_train_3_a_1.png"]
    assert all((tmp_path / "out" / name).stat().st_size > 1000 for name in saved["overlays"])


FAULTS: dict[str, Callable[[Folder, str], None]] = {
    "TRUNCATED": lambda folder, study: truncate(folder.volume(study)),
    "NOT_HU": lambda folder, study: save(folder.volume(study), np.maximum(body(9), 0)),
    "NOT_3D": lambda folder, study: save(folder.volume(study), np.stack([body(1)] * 2, -1)),
    "CONSTANT": lambda folder, study: save(folder.volume(study), np.zeros(SHAPE, np.int16)),
    "MASK_OFFSET": lambda folder, study: save(folder.mask(study, "lung"), box(4, 8), AFFINE + np.eye(4, k=3) * 20),
    "MASK_VALUES": lambda folder, study: save(folder.mask(study, "lung"), box(4, 8) * 7),
    "MASK_SIGNS": lambda folder, study: save(folder.mask(study, "lung"), box(4, 8), np.diag([-1, -1, 1, 1]) @ AFFINE),
    "NO_REGION": lambda folder, study: [save(folder.mask(study, r), box(0, 0)) for r in ("lung", "heart")],
    "NO_MASK": lambda folder, study: shutil.rmtree(folder.mask(study, "lung").parent),
    "VOLUME_MISSING": lambda folder, study: folder.volume(study).unlink(),
    "DUPLICATE_ROWS": lambda folder, study: folder.rows["train"].append(f"{study},lung,Another text."),
    "NO_REPORT": lambda folder, study: folder.rows.update(
        train=[row for row in folder.rows["train"] if not row.startswith(study)]
    ),
}  # fmt: skip


def test_every_planted_fault_is_listed(folder: Folder, tmp_path: Path) -> None:
    for number, plant in enumerate(FAULTS.values(), start=10):
        folder.add(f"train_{number}_a_1", number)
        plant(folder, f"train_{number}_a_1")
    folder.rows["train"].append("../../etc/passwd,lung,Text.")
    result = check_dataset(folder.dataset(), workers=0, overlays=0, out=tmp_path / "out")
    found = codes(result)
    assert found.pop("UNSAFE_ID") == 1
    assert found == dict.fromkeys(FAULTS, 1)
    for place, code in enumerate(FAULTS, start=10):
        (line,) = [finding for finding in result.faults if finding.study == f"train_{place}_a_1"]
        assert line.code == code
        assert "Fix:" in line.message
    assert result.exit_code == EXIT_SKIPPED
    assert result.usable == {"test": 1, "train": 3}


def test_all_faults_of_one_study_are_listed(folder: Folder) -> None:
    flip_bit(folder.volume("train_1_a_1"))
    flip_bit(folder.mask("train_1_a_1", "lung"))
    truncate(folder.mask("train_1_a_1", "heart"))
    save(folder.mask("train_2_a_1", "lung"), box(4, 8) * 7)
    save(folder.mask("train_2_a_1", "heart"), box(4, 8), np.diag([-1, -1, 1, 1]) @ AFFINE)
    result = check_dataset(folder.dataset(), workers=0, overlays=0)
    [never] = [finding.message for finding in result.findings if finding.code == "REGION_NEVER_SEEN"]
    assert never.startswith("no study without an error has a voxel of: abdomen, bone")
    first = [finding.message for finding in result.faults if finding.study == "train_1_a_1"]
    assert len(first) == 3
    assert all(any(name in message for message in first) for name in ("train_1_a_1.nii", "lung.nii", "heart.nii"))
    assert {finding.code for finding in result.faults if finding.study == "train_2_a_1"} == {
        "MASK_VALUES",
        "MASK_SIGNS",
    }


def test_empty_masks_and_notes_are_no_errors(folder: Folder) -> None:
    save(folder.mask("train_1_a_1", "heart"), box(0, 0))
    folder.rows["train"].append("train_1_a_1,thyroid,Text.")
    result = check_dataset(folder.dataset(), workers=0, overlays=0)
    assert result.exit_code == EXIT_OK
    assert codes(result, "note") == {"EMPTY_MASK": 1, "TEXT_WITHOUT_MASK": 1, "REGION_NEVER_SEEN": 1}
    heart = next(line for line in result.coverage if (line.region, line.split) == ("heart", "train"))
    assert (heart.mask, heart.text, heart.both) == (2, 3, 2)


def test_copies_and_patients_across_splits_are_leaks(folder: Folder) -> None:
    # The same voxels under another name, in another type and order of axes.
    flipped = nib.Nifti1Image(body(1)[::-1].astype(np.float32), np.diag([-2.0, 2, 3, 1]) + np.eye(4, k=3) * 38)
    flipped.to_filename(folder.volume("valid_1_a_1"))
    folder.add("valid_9_a_1", 9)
    folder.volume("valid_9_a_1").rename(folder.volume("valid_9_a_1").with_name("train_2_b_1.nii.gz"))
    folder.mask("valid_9_a_1", "lung").parent.rename(folder.root / "valid_region_mask/seg_train_2_b_1")
    folder.rows["valid"] = [row.replace("valid_9_a_1", "train_2_b_1") for row in folder.rows["valid"]]
    result = check_dataset(folder.dataset(), workers=0, overlays=0)
    assert codes(result) == {"DUPLICATE_VOLUME": 1, "PATIENT_LEAK": 1}
    assert "train_1_a_1 (train), valid_1_a_1 (test)" in result.faults[0].message
    assert "train_2 stands in test: train_2_b_1; train: train_2_a_1" in result.faults[1].message
    assert result.exit_code == EXIT_USAGE


def test_copies_inside_a_split_are_a_note(folder: Folder) -> None:
    shutil.copy(folder.volume("train_1_a_1"), folder.volume("train_2_a_1"))
    result = check_dataset(folder.dataset(), workers=0, overlays=0)
    assert (codes(result), codes(result, "note")) == ({}, {"DUPLICATE_VOLUME": 1, "REGION_NEVER_SEEN": 1})


def test_result_does_not_depend_on_workers(folder: Folder, tmp_path: Path) -> None:
    truncate(folder.volume("train_2_a_1"))
    for workers in (0, 2):
        check_dataset(folder.dataset(), workers=workers, overlays=0, out=tmp_path / str(workers))
    assert (tmp_path / "0/check.json").read_bytes() == (tmp_path / "2/check.json").read_bytes()


def test_a_broken_table_and_an_empty_folder_end_in_the_result(folder: Folder, tmp_path: Path) -> None:
    dataset = folder.dataset()
    (folder.root / "radgenome_files/train_region_report.csv").write_bytes(b"a,b\n")
    truncate(folder.volume("train_1_a_1"))
    result = check_dataset(dataset, workers=0, out=tmp_path / "out")
    assert codes(result) == {"TABLE_COLUMNS": 1, "TRUNCATED": 1}  # volumes are read all the same
    assert result.exit_code == EXIT_USAGE
    result = check_dataset(RadGenome(str(tmp_path / "nowhere")), workers=0)
    assert codes(result) == {"CONFIG": 1}
    (tmp_path / "m.csv").write_text("id,image\n")
    assert codes(check_dataset(Manifest(str(tmp_path / "m.csv")), workers=0)) == {"NO_STUDIES": 1}


def test_sample_is_spread_evenly(folder: Folder) -> None:
    result = check_dataset(folder.dataset(), workers=0, overlays=0, sample=2)
    assert result.read == 2
    assert sum(line.studies for line in result.coverage if line.region == "lung") == 2
    assert result.listed == {"test": 1, "train": 3}
    with pytest.raises(ConfigError, match="sample is 0"):
        check_dataset(folder.dataset(), sample=0)


def test_killed_workers_cost_one_study_not_the_run(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(jobs: list[StudyJob], workers: int, title: str) -> object:
        for job in jobs:
            if job.study.id == "train_2_a_1":
                raise Reg2RGError("a worker process was ended from outside")
            yield job, check_study(job)

    monkeypatch.setattr(check_module, "_run", run)
    result = check_dataset(folder.dataset(), workers=2, overlays=0)
    assert [(finding.code, finding.study) for finding in result.faults] == [("WORKER_DIED", "train_2_a_1")]
    assert result.usable == {"test": 1, "train": 2}


def test_any_exception_of_a_study_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study("s", "s", "test", Path("gone.nii.gz"), RegionFiles({"lung": Path("gone too.nii.gz")}))

    def fail(*args: object) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr("reg2rg.check.study.read_study", fail)
    found = check_study(StudyJob(study, load_region_set(), ReadOptions()))
    assert found.faults[0] == (
        "UNREADABLE",
        "UNREADABLE s: MemoryError: no memory. Fix: look at the files of this study",
    )
    assert isinstance(found, StudyCheck)


def test_printed_tables(folder: Folder) -> None:
    from rich.console import Console

    truncate(folder.volume("train_2_a_1"))
    result = check_dataset(folder.dataset(), workers=0, overlays=0)
    stream = io.StringIO()
    print_check(result, Console(file=stream, width=160))
    text = stream.getvalue()
    assert "trachea and bronchie" in text
    assert "100 / 100 / 100" in text
    assert "error" in text
    assert str(folder.volume("train_2_a_1")) in text


# Pictures


def region_volume(masks: dict[str, np.ndarray]) -> RegionVolume:
    array = np.asfortranarray(body(1))
    return RegionVolume(Volume(array, AFFINE), {name: mask.astype(bool) for name, mask in masks.items()})


def test_views_have_the_patients_right_on_the_left() -> None:
    array = np.zeros((3, 4, 5))
    array[-1, -1, 2] = 1  # right, front
    assert Plane(2, 2).view(array).shape == (4, 3)
    assert Plane(2, 2).view(array)[0, 0] == 1
    array[-1, 1, -1] = 2  # right, head
    assert Plane(1, 1).view(array).shape == (5, 3)
    assert Plane(1, 1).view(array)[0, 0] == 2


def test_outlines_lie_on_the_right_side_of_the_picture(tmp_path: Path) -> None:
    found = region_volume({"lung": box(13, 17)})  # high first index: the patient's right
    write_overlay(tmp_path / "a.png", found, ("lung", "heart"), "x")
    pixels = imread(tmp_path / "a.png")[..., :3]
    colour = np.array([int(COLOURS[0][place : place + 2], 16) / 255 for place in (1, 3, 5)])
    hits = np.abs(pixels - colour).sum(-1) < 0.05
    hits[int(0.85 * len(hits)) :] = False  # the legend
    width = pixels.shape[1]
    columns = np.flatnonzero(hits.any(0)) / width * 3 % 1.0  # three panels of one width
    assert columns.size
    assert columns.max() < 0.5


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_overlay(tmp_path / name, region_volume({"lung": box(4, 8)}), ("lung", "heart"), "x")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_planes_show_as_many_regions_as_they_can() -> None:
    masks = {name: np.zeros(SHAPE, bool) for name in ("low", "high", "front")}
    masks["low"][8:12, 8:10, 2:4] = True
    masks["high"][8:12, 8:10, 13:15] = True
    masks["front"][8:12, 14:16, 7:9] = True
    first, second, coronal = choose_planes(masks, SHAPE)
    assert (first.axis, second.axis, coronal.axis) == (2, 2, 1)
    assert coronal.index in (8, 9)
    assert first.index in (7, 8) or second.index in (7, 8)
    assert first.index > second.index
    assert choose_planes(masks, SHAPE) == choose_planes(masks, SHAPE)


def test_digest_is_of_voxels_not_of_layout() -> None:
    found = region_volume({})
    other = RegionVolume(Volume(np.ascontiguousarray(found.volume.array), AFFINE * 2), {})
    assert voxel_digest(found) == voxel_digest(other)
    changed = found.volume.array.copy()
    changed[0, 0, 0] += 1
    assert voxel_digest(RegionVolume(Volume(changed, AFFINE), {})) != voxel_digest(found)


def test_real_ct_with_its_masks(shared_ct: Path, tmp_path: Path) -> None:
    scan = shared_ct / "lidc-idri-0314_CCBY3"
    masks = {"trachea and bronchie": "masks_derived/trachea.nii.gz", "bone": "masks_derived/bone_over220HU.nii.gz"}
    row = {"id": "lidc", "image": "ct_1.56x1.56x2mm.nii.gz", "split": "test", "masks": masks}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    result = check_dataset(Manifest(str(tmp_path / "m.jsonl"), root=str(scan)), workers=0, overlays=1, out=tmp_path)
    assert not result.faults
    assert result.overlays == ("overlays/test_lidc.png",)
    assert imread(tmp_path / result.overlays[0]).ndim == 3


def test_every_reason_code_stands_in_the_data_guide() -> None:
    root = Path(__file__).parents[3]
    word = re.compile(r'"([A-Z][A-Z0-9]*_[A-Z_0-9]+)"')
    sources = [path for path in (root / "src/reg2rg/data").rglob("*.py") if "phantom" not in path.parts]
    lines = [line for path in sources for line in path.read_text().splitlines() if "os.environ" not in line]
    used = {code for line in lines for code in word.findall(line)}
    used -= {code for code in used if code.endswith(("_THREADS", "_NTHREADS")) or code.startswith("HU_")}
    documented = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (root / "docs/how-to/data.md").read_text()))
    assert used - documented == set()
