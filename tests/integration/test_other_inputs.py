"""Inputs that are no CT, from files to a scored report, by the commands that the docs have."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from docs_blocks import ROOT, blocks, commands, title, toy
from reg2rg.cli.main import Invocation, main
from reg2rg.cli.section import read_section
from reg2rg.core.regions import load_region_set
from reg2rg.core.types import MaskChannels, Study
from reg2rg.extras.phantom.features import write_features
from reg2rg.extras.phantom.writer import plan
from reg2rg.extras.tiny_llm.build import build_tiny_llama
from reg2rg.extras.tiny_llm.pretraining import Schedule
from reg2rg.scans.features import read_features

TINY = {
    "data": {"batch_size": 1, "eval_batch_size": 1},
    "vars": {"word_alignment_steps": 1},
    "model": {"max_new_tokens": 6, "val_generate": 0},
    "trainer": {"max_steps": 3, "val_check_interval": 3, "enable_progress_bar": False, "log_every_n_steps": 1},
}


def command(*words: str | Path) -> None:
    assert main([str(word) for word in words]) == 0


def trained(root: Path, configs: list[str]) -> None:
    """Check, prepare, fit, export."""
    (root / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    config = [word for name in (*configs, root / "tiny.yaml") for word in ("-c", str(name))]
    command("data", "check", *config, "--workers", "0", "--out", root / "check")
    command("data", "prepare", *config, "--workers", "0")
    command("fit", *config)
    command("export", "--ckpt_path", root / "runs/checkpoints/last.ckpt", "--out", root / "model")


def page_run(name: str, folder: Path) -> str:
    """Run a page of the docs in a folder, at toy size; what its commands printed."""
    page = ROOT / "docs" / name
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said):
        for block in blocks(page):
            if block.language == "python":
                exec(compile(block.text, name, "exec"), {})
            elif block.language == "bash":
                for program, *words in commands(block.text):
                    assert program == "reg2rg"
                    more = ["--vars.word_alignment_steps", "0"] if words[0] == "fit" else []
                    assert main([*toy(words, page), *more]) == 0, words
            elif title(block):
                Path(title(block)).write_text(block.text)
    return said.getvalue()


@pytest.fixture(scope="module")
def grids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the page about features leaves, and what its commands say."""
    folder = tmp_path_factory.mktemp("grids")
    return folder, page_run("how-to/features.md", folder)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_grid_of_features(grids: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, said = grids
    demo = folder / "demo"
    assert "BELOW_ONE_CELL" in said  # the airways, in cells of 64 mm
    assert "REGION_NEVER_SEEN" in said  # breast, esophagus and thyroid are no organs of the masks
    assert read(demo / "scores/metrics.json")["studies"] == 1
    stacked = np.load(demo / "features/compressed/colipri/colipri_GridAvg_b216_d768/valid.npy")
    assert (stacked.shape, stacked.dtype) == ((1, 216, 768), np.float16)
    masks = demo / "features/organ_masks/valid/valid_6_a_1.npz"
    with np.load(masks) as arrays:
        assert (arrays["masks"].shape, arrays["masks"].dtype) == ((11, 24, 24, 24), np.float16)
    result, record = read(demo / "report/one.json"), read(demo / "runs/predictions/studies/valid_6_a_1.json")
    assert sorted(result["asked"]) == sorted(record["regions"])
    assert result["absent"] == dict.fromkeys(["breast", "esophagus", "thyroid"], "no organ of the masks is it")
    assert result["grid"] is None
    assert any("trachea and bronchie: below one cell" in note for note in result["made_by"]["notes"])
    scan = demo / "data/valid_preprocessed/valid_6/valid_6a/valid_6_a_1.nii.gz"
    features, model = str(folder / "one.npy"), ["--model", str(demo / "model")]
    for words, message in (
        ([features], "--masks FILE"),
        ([features, "--segmenter", "Thresholds"], "a segmenter needs a scan"),
        ([features, "--masks", str(masks), "--formats", "Page"], "--formats JSON"),
        ([str(scan), "--masks", str(masks)], "UNREADABLE"),
    ):
        assert main(["report", *words, *model, "-o", str(folder / "none")]) == 2
        assert message in capsys.readouterr().err


def test_the_report_on_one_file_is_that_of_predict(grids: tuple[Path, str]) -> None:
    """Under the study's name, which orders the regions."""
    demo = grids[0] / "demo"
    shutil.copy(grids[0] / "one.npy", grids[0] / "valid_6_a_1.npy")
    masks = demo / "features/organ_masks/valid/valid_6_a_1.npz"
    command("report", grids[0] / "valid_6_a_1.npy", "--model", demo / "model", "--masks", masks, "-o", demo / "again")
    result, record = read(demo / "again/valid_6_a_1.json"), read(demo / "runs/predictions/studies/valid_6_a_1.json")
    assert result["asked"] == record["regions"]
    assert [part["text"] for part in result["paragraphs"]] == [part["text"] for part in record["paragraphs"]]
    assert result["findings"]["regions"].keys() == record["findings"]["regions"].keys() == set(result["asked"])
    assert result["findings"]["operating_point"] == record["findings"]["operating_point"] == "f1"
    assert read(demo / "again/valid_6_a_1.run.json")["operating_point"] == "f1"


def test_whole_grids_and_their_averages(grids: tuple[Path, str], tmp_path: Path) -> None:
    """A file a volume, 24 x 24 x 24 x 768 as published; GridAvg is the mean of its blocks."""
    demo = grids[0] / "demo"
    write_features(plan(demo / "data", 6, 0, (48, 48, 32))[-1:], tmp_path, grids=True)
    file = tmp_path / "uncompressed/colipri/valid/valid_6_a_1.npy"
    whole = np.load(file, mmap_mode="r")
    assert (whole.shape, whole.dtype) == ((24, 24, 24, 768), np.float16)
    pooled = np.load(demo / "features/compressed/colipri/colipri_GridAvg_b216_d768/valid.npy")[0].reshape(6, 6, 6, 768)
    assert np.abs(whole[4:8, 8:12, :4].astype(np.float32).mean((0, 1, 2)) - pooled[1, 2, 0]).max() < 2e-3
    section = read_section(Invocation("check", (), ()), [], ["reg2rg.yaml", "features/colipri.yaml"])
    options, regions = section.data.read.for_views(section.task.views), load_region_set("radgenome")
    masks = MaskChannels(tmp_path / "organ_masks/valid/valid_6_a_1.npz")
    found = read_features(Study("s", "s", "train", file, masks), regions, options)
    assert list(found.weights) == ["abdomen", "bone", "heart", "lung", "mediastinum", "pleura", "trachea and bronchie"]
    assert found.notes == ()  # fine enough for the airways, and all axes as they are said to be
    np.save(tmp_path / "turned.npy", np.ascontiguousarray(whole[:, :, ::-1]))
    (note,) = read_features(Study("s", "s", "train", tmp_path / "turned.npy", masks), regions, options).notes
    assert re.search("with ..IC: look at data.read.grid.axes", note)  # from left and right it looks nearly the same


def test_one_vector_a_scan(tmp_path: Path) -> None:
    """Merlin's embeddings: reports as a whole, without regions."""
    vectors = tmp_path / "embeddings"
    vectors.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = ["id,split,report"]
    for number, split in enumerate(["train"] * 8 + ["val", "test"]):
        np.save(vectors / f"s{number}.npy", random.normal(size=2048).astype(np.float32))
        rows.append(f"s{number},{split},The liver is normal. There is a cyst of {number} mm in the left kidney.")
    (tmp_path / "reports.csv").write_text("\n".join(rows))
    own = {"folder": str(tmp_path), "merlin": str(tmp_path)}
    overlay = {"vars": own, "trainer": {"default_root_dir": f"{tmp_path}/runs"}}
    (tmp_path / "merlin.yaml").write_text(yaml.safe_dump(overlay))
    texts = [{"": row.rpartition(",")[2]} for row in rows[1:]]
    build_tiny_llama(texts, tmp_path / "lm", hidden_size=32, layers=2, heads=2, schedule=Schedule(steps=0))
    trained(tmp_path, ["phantom.yaml", "features/merlin.yaml", str(tmp_path / "merlin.yaml")])
    command("report", vectors / "s9.npy", "--model", tmp_path / "model", "-o", tmp_path / "report")
    result = read(tmp_path / "report/s9.json")
    assert (result["asked"], result["absent"], [p["region"] for p in result["paragraphs"]]) == ([], {}, [""])


def test_mr_like_values_in_regions_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page_run("concepts/modalities.md", tmp_path)
    mr = tmp_path / "mr"
    names = {region["name"] for region in yaml.safe_load((mr / "data/regions.yaml").read_text())["regions"]}
    assert not names & set(load_region_set("radgenome").names)
    assert read(mr / "scores/metrics.json")["studies"] == 1
    result, record = read(mr / "report/valid_6_a_1.json"), read(mr / "runs/predictions/studies/valid_6_a_1.json")
    assert result["asked"] == record["regions"]
    assert set(result["asked"]) <= names
    assert [p["text"] for p in result["paragraphs"]] == [p["text"] for p in record["paragraphs"]]
    assert result["measured"] is None
    assert any("not HU" in note for note in result["made_by"]["notes"])
    assert (mr / "report/valid_6_a_1.html").is_file()
    with contextlib.chdir(tmp_path):
        hu = ["-c", "phantom.yaml", "-c", "mr.yaml", "--task.views.intensity", "hu", "--workers", "0", "--out", "hu"]
        assert main(["data", "check", *hu]) == 3
        assert "NOT_HU" in capsys.readouterr().out
        other = ["predict", "-c", "phantom.yaml", "-c", "mr.yaml", "--task.views.intensity", "zscore"]
        assert main([*other, "--ckpt_path", "last", "--trainer.enable_progress_bar", "false"]) == 2
        assert "views.intensity" in capsys.readouterr().err


def test_flips_are_refused_with_their_place_in_the_config(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_of = "{class_path: torchio.OneOf, init_args: {transforms: [{class_path: torchio.RandomFlip}]}}"
    overlay = tmp_path / "flip.yaml"
    overlay.write_text(f"data: {{cache: false, augment: {{transforms: [{one_of}]}}}}")
    configs = ["-c", "phantom.yaml", "-c", str(phantoms / "own.yaml"), "-c", str(overlay)]
    assert main(["fit", *configs]) == 2
    assert "data.augment: RandomFlip mirrors the axes (0,), but reports name sides" in capsys.readouterr().err
    overlay.write_text(overlay.read_text().replace("RandomFlip", "RandomFlop"))
    assert main(["fit", *configs]) == 2
    assert "RandomFlop" in capsys.readouterr().err
