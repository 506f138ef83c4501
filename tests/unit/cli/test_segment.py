"""``reg2rg data segment``: masks for a data set, resumable, in parts, by a runner; what it makes is read back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from reg2rg.cli.main import Invocation, main
from reg2rg.cli.section import read_section
from reg2rg.datasets import RadGenome, ScanFolder
from reg2rg.runners import Outcome
from reg2rg.scans.segmenters import TotalSegmentator

SEGMENT = ["data", "segment", "scans", "--segmenter", "Thresholds", "--out", "scans/masks"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "phantoms"
    assert main(["data", "phantom", str(out), "--studies", "3", "--size", "48", "48", "40", "--workers", "0"]) == 0
    return out


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantoms: Path) -> None:
    """Scans alone, and one that is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("scans/images").mkdir(parents=True)
    for path in phantoms.glob("*_preprocessed/**/*.nii.gz"):
        Path("scans/images", path.name).symlink_to(path)


def test_masks_of_a_folder_are_made_once_and_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SEGMENT) == 0
    said = capsys.readouterr().out
    assert "3 of 3 studies have masks in scans/masks: 3 made, 0 kept, 0 skipped" in said
    assert "  lung: 3" in said
    found = json.loads(Path("scans/masks/segment.json").read_text())
    assert (found["ready"], found["regions"]["lung"], found["regions"]["heart"], found["skipped"]) == (3, 3, 0, [])
    assert not Path("cache").exists()  # masks of a data set lie with it
    studies = ScanFolder("scans").studies()
    assert [sorted(study.masks.files) for study in studies] == [["bone", "lung", "trachea and bronchie"]] * 3
    made_by = json.loads((studies[0].masks.files["lung"].parent / "made_by.json").read_text())
    assert made_by["made_by"]["for_measurements"] is False
    assert made_by["absent"]["heart"].startswith("Thresholds does not give it")
    assert studies[0].masks.files["lung"].stat().st_nlink == 2  # nothing is stored twice

    assert main(SEGMENT) == 0
    assert "0 made, 3 kept" in capsys.readouterr().out
    studies[0].masks.files["lung"].unlink()
    assert main(SEGMENT) == 0
    assert "1 made, 2 kept" in capsys.readouterr().out
    assert main(["data", "check", "scans", "--workers", "0", "--overlays", "0"]) == 0


def test_a_bad_scan_is_skipped_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("scans/images/bad.nii.gz").write_bytes(b"no image")
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), -1000, np.int16), np.eye(4)), "scans/images/air.nii.gz")
    assert main([*SEGMENT, "--max_skip", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "3 of 5 studies have masks" in said
    skipped = json.loads(Path("scans/masks/segment.json").read_text())["skipped"]
    assert [skip["study"] for skip in skipped] == ["air", "bad"]
    assert main(SEGMENT) == 3
    assert "2 of 5 studies were skipped" in capsys.readouterr().err


def test_parts_by_a_runner_and_the_same_in_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SEGMENT, "--shard", "2/2"]) == 0
    assert "1 of 1 studies have masks" in capsys.readouterr().out
    assert main([*SEGMENT, "--shards", "2", "--jobs", "0"]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 parts done; scans/masks/.logs/segment-2-of-2.txt: done" in said
    assert "3 of 3 studies have masks in scans/masks: 2 made, 1 kept" in said.replace(f"{Path.cwd()}/", "")
    assert len(list(Path("scans/masks").glob("*/lung.nii.gz"))) == 3
    assert json.loads(Path("scans/masks/segment.json").read_text())["ready"] == 3
    assert not Path("scans/masks/.campaigns").exists()


def test_arguments_that_are_mappings() -> None:
    extra = "--data.segmenter.extra={breasts: {breast: [breast]}}"
    words = ["--data.dataset=ScanFolder", "--data.dataset.root=scans", "--data.segmenter=TotalSegmentator", extra]
    found = read_section(Invocation("data segment", ()), [*words, "--data.segmenter.fast=true"]).data.segmenter
    assert isinstance(found, TotalSegmentator)
    assert (found.fast, found.extra) == (True, {"breasts": {"breast": ["breast"]}})


def test_parts_that_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Failing:
        def run(self, jobs, begin, stop):
            for job in jobs:
                begin(job)
                bad = "--shard=2/2" in job.words
                yield job, Outcome("failed" if bad else "done", 1.0, "no GPU" if bad else "")

    monkeypatch.setattr("reg2rg.cli.shards.build_runner", lambda options, folder: Failing())
    assert main([*SEGMENT, "--shards", "2", "--allow-import", "numpy"]) == 1
    assert "1 of 2 parts done; scans/masks/.logs/segment-2-of-2.txt: no GPU" in (said := capsys.readouterr().out)
    assert said.count("no GPU") == 3  # it was handed out again


def test_killed_and_run_again() -> None:
    words = [sys.executable, "-m", "reg2rg.cli.main", *SEGMENT]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(Path("scans/masks").glob("*/made_by.json")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    there = {path: path.stat().st_ino for path in Path("scans/masks").glob("*/*.nii.gz")}
    assert there
    assert main(SEGMENT) == 0
    assert {path: path.stat().st_ino for path in there} == there  # what was finished is kept
    assert len(list(Path("scans/masks").glob("*/lung.nii.gz"))) == 3


def test_by_a_config_with_arguments_and_a_name_for_folders() -> None:
    Path("run.yaml").write_text(
        "task: {regions: radgenome}\ndata:\n"
        "  dataset: {class_path: ScanFolder, init_args: {root: scans, masks: null}}\n"
    )
    words = ["data", "segment", "-c", "run.yaml", "--segmenter=Thresholds", "--segmenter.kept=kept", "--out=masks"]
    assert main([*words, "--folder", "seg_{id}", "--workers", "1"]) == 0
    assert len(list(Path("masks").glob("seg_*/lung.nii.gz"))) == 3
    assert len(list(Path("kept").glob("Thresholds-*/made_by.json"))) == 3
    with open("run.yaml", "a") as stream:
        stream.write("  segmenter: {class_path: Thresholds, init_args: {kept: kept}}\n")
    assert main([*words[:4], "--out=masks", "--folder", "seg_{id}"]) == 0
    assert len(list(Path("kept").iterdir())) == 3  # found again


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "segment", "scans"], "Give --segmenter NAME, or data.segmenter in a config. Known: LungMask, SATF"),
        ([*SEGMENT[:4], "Treshold"], "unknown segmenter 'Treshold'. Did you mean 'Thresholds'?"),
        ([*SEGMENT, "--segmenter.kep=x", "--shards", "2"], "Thresholds has no argument 'kep'. Did you mean 'kept'?"),
        ([*SEGMENT, "--shard", "3/2"], "expected I/N with 1 <= I <= N"),
        ([*SEGMENT, "--shard", "1/2", "--shards", "2"], "both --shard and --shards"),
        ([*SEGMENT, "--folder", "seg"], "{id} must stand in it, once"),
        ([*SEGMENT, "--task.regions", "lobes"], "Thresholds can give none of the regions of the set 'lobes'"),
        ([*SEGMENT, "--shards", "2", "--cluster", "a=1"], "--cluster is for --runner slurm and ray"),
        (["data", "check", "scans", "--data.segmenter", "Thresholds"], "data.segmenter is for `reg2rg data segment`"),
    ],
)
def test_mistakes(words, message, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) in (1, 2)
    assert message in capsys.readouterr().err


def test_data_of_radgenomes_layout_get_what_they_lack(phantoms, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").mkdir()
    for path in phantoms.iterdir():
        if "region_mask" not in path.name:
            Path("data", path.name).symlink_to(path)
    words = ["data", "segment", "--data.dataset=RadGenome", "--data.dataset.root=data", "--segmenter=Thresholds"]
    Path("run.yaml").write_text("task: {regions: radgenome}\ndata: {store: s}\n")
    for split in ("train", "valid"):
        options = [
            f"--data.dataset.{name}=null" for name in ("train", "test") if name != split.replace("valid", "test")
        ]
        command = [*words, *options, "-c", "run.yaml", f"--out=data/{split}_region_mask", "--folder=seg_{id}"]
        assert main(command) == 0
    capsys.readouterr()
    assert main(["data", "check", "data", "--workers", "0", "--overlays", "0"]) in (0, 3)
    assert json.loads(Path("check/check.json").read_text())["listed"] is not None
    assert {len(study.masks.files) for study in RadGenome("data").studies()} == {3}


def test_files_of_others_stay(capsys: pytest.CaptureFixture[str]) -> None:
    name = sorted(Path("scans/images").iterdir())[0].name.removesuffix(".nii.gz")
    mine = Path("scans/masks", name, "lung.nii.gz")
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    assert main(SEGMENT) == 1
    assert "holds files that were not made here" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"
