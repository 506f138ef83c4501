"""Inputs that are no CT, from files to a scored report, by the commands that the docs have; and a resumed run with
transforms."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from reg2rg.cli.main import main

TINY = {
    "data": {"batch_size": 1, "eval_batch_size": 1},
    "model": {"word_alignment_steps": 1, "max_new_tokens": 6, "val_generate": 0},
    "trainer": {"max_steps": 3, "val_check_interval": 3, "enable_progress_bar": False, "log_every_n_steps": 1},
}


def command(*words: str | Path) -> None:
    assert main([str(word) for word in words]) == 0


def trained(root: Path, configs: list[str], *options: str) -> dict[str, object]:
    """Check, prepare, a language model, fit, predict, export, evaluate; the scores."""
    (root / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    config = [word for name in (*configs, root / "tiny.yaml") for word in ("-c", str(name))] + list(options)
    command("data", "check", *config, "--workers", "0", "--overlays", "1", "--out", root / "check")
    command("data", "prepare", *config, "--workers", "0")
    command("lm", root / "lm", *config, "--steps", "0", "--hidden_size", "32", "--layers", "2", "--heads", "2")
    command("fit", *config)
    command("predict", *config, "--ckpt_path", "last")
    command("export", "--ckpt_path", root / "runs/checkpoints/last.ckpt", "--out", root / "model")
    return evaluated(root)


def evaluated(root: Path, *options: str | Path) -> dict[str, object]:
    command("evaluate", root / "runs/predictions", "--out", root / "scores", "--resamples", "20", *options)
    found: dict[str, object] = json.loads((root / "scores/metrics.json").read_text())
    return found


@pytest.fixture(scope="module")
def grids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("grids")
    phantom = ("--studies", "6", "--size", "48", "48", "32", "--workers", "0")
    command("data", "phantom", root / "data", *phantom, "--features", root / "features")
    return root


def test_a_grid_of_features(grids: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {"vars": {"folder": str(grids), "orca": f"{grids}/features", "reports": f"{grids}/data/radgenome_files"}}
    (grids / "own.yaml").write_text(yaml.safe_dump(own | {"trainer": {"default_root_dir": f"{grids}/runs"}}))
    scores = trained(grids, ["phantom.yaml", "features/colipri_216.yaml", str(grids / "own.yaml")])
    said = capsys.readouterr().out
    assert "BELOW_ONE_CELL" in said  # the airways, in cells of 64 mm
    assert "REGION_NEVER_SEEN" in said  # breast, esophagus and thyroid are no organs of the masks
    assert scores["studies"] == 1
    stacked = np.load(grids / "features/compressed/colipri/colipri_GridAvg_b216_d768/valid.npy")
    assert (stacked.shape, stacked.dtype) == ((1, 216, 768), np.float16)
    np.save(grids / "valid_6_a_1.npy", stacked[0])
    masks = grids / "features/organ_masks/valid/valid_6_a_1.npz"
    with np.load(masks) as arrays:
        assert (arrays["masks"].shape, arrays["masks"].dtype) == ((11, 24, 24, 24), np.float16)
    report = ("report", grids / "valid_6_a_1.npy", "--model", grids / "model")
    command(*report, "--masks", masks, "-o", grids / "report")
    result = json.loads((grids / "report/valid_6_a_1.json").read_text())
    record = json.loads((grids / "runs/predictions/studies/valid_6_a_1.json").read_text())
    assert result["asked"] == record["regions"]
    assert result["absent"] == dict.fromkeys(["breast", "esophagus", "thyroid"], "no organ of the masks is it")
    assert result["grid"] is None
    paragraphs = [paragraph["text"] for paragraph in record["paragraphs"]]
    assert [paragraph["text"] for paragraph in result["paragraphs"]] == paragraphs
    assert any("trachea and bronchie: below one cell" in note for note in result["made_by"]["notes"])
    assert main([str(word) for word in report]) == 2
    assert "--masks FILE" in capsys.readouterr().err
    scan = grids / "data/valid_preprocessed/valid_6/valid_6a/valid_6_a_1.nii.gz"
    assert main(["report", str(scan), "--masks", str(masks), "--model", str(grids / "model")]) == 2
    assert "UNREADABLE" in capsys.readouterr().err


def test_whole_grids_and_their_averages(grids: Path) -> None:
    """A file a volume, 24 x 24 x 24 x 768 as published; GridAvg is the mean of its blocks."""
    from reg2rg.cli.main import Invocation
    from reg2rg.cli.section import read_section
    from reg2rg.core.regions import load_region_set
    from reg2rg.core.types import MaskChannels, Study
    from reg2rg.extras.phantom.features import write_features
    from reg2rg.extras.phantom.writer import plan
    from reg2rg.scans.features import read_features

    last = plan(grids / "data", 6, 0, (48, 48, 32))[-1:]
    write_features(last, grids / "whole", grids=True)
    file = grids / "whole/uncompressed/colipri/valid/valid_6_a_1.npy"
    whole = np.load(file, mmap_mode="r")
    assert (whole.shape, whole.dtype) == ((24, 24, 24, 768), np.float16)
    pooled = np.load(grids / "features/compressed/colipri/colipri_GridAvg_b216_d768/valid.npy")[0].reshape(6, 6, 6, 768)
    assert np.abs(whole[4:8, 8:12, :4].astype(np.float32).mean((0, 1, 2)) - pooled[1, 2, 0]).max() < 2e-3
    section = read_section(Invocation("check", (), ()), [], ["reg2rg.yaml", "features/colipri.yaml"])
    options = section.data.read.for_views(section.task.views)
    masks = MaskChannels(grids / "whole/organ_masks/valid/valid_6_a_1.npz")
    found = read_features(Study("s", "s", "train", file, masks), load_region_set("radgenome"), options)
    assert list(found.weights) == ["abdomen", "bone", "heart", "lung", "mediastinum", "pleura", "trachea and bronchie"]
    assert found.notes == ()  # fine enough for the airways, and all axes as they are said to be
    upside_down = np.ascontiguousarray(whole[:, :, ::-1])
    np.save(grids / "turned.npy", upside_down)
    (note,) = read_features(
        Study("s", "s", "train", grids / "turned.npy", masks), load_region_set("radgenome"), options
    ).notes
    assert re.search("with ..IC: look at data.read.grid.axes", note)  # from left and right it looks nearly the same


def test_one_vector_a_scan(grids: Path) -> None:
    """Merlin's embeddings: reports as a whole, without regions."""
    vectors = grids / "merlin/embeddings"
    vectors.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        np.save(vectors / f"{name}.npy", random.normal(size=2048).astype(np.float32))
    table = "id,split,report\na,train,The liver is normal.\nb,val,A cyst.\nc,test,The liver is normal.\n"
    (grids / "merlin/reports.csv").write_text(table)
    own = {"folder": str(grids / "merlin"), "merlin": str(grids / "merlin")}
    trainer = {"default_root_dir": f"{grids}/merlin/runs"}
    (grids / "merlin.yaml").write_text(yaml.safe_dump({"vars": own, "trainer": trainer}))
    root = grids / "merlin"
    scores = trained(root, ["phantom.yaml", "features/merlin.yaml", str(grids / "merlin.yaml")])
    assert scores["studies"] == 1
    command("report", vectors / "c.npy", "--model", root / "model", "-o", root / "report")
    result = json.loads((root / "report/c.json").read_text())
    assert (result["asked"], result["absent"], [p["region"] for p in result["paragraphs"]]) == ([], {}, [""])


def test_mr_like_values_in_regions_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(
        "data", "phantom", tmp_path / "data", "--studies", "6", "--size", "48", "48", "32", "--workers", "0", "--mr"
    )
    regions = tmp_path / "data/regions.yaml"
    small = {"init_args": {"channels": [8, 16]}}
    own = {
        "vars": {"folder": str(tmp_path)},
        "task": {"regions": str(regions), "views": {"size": [16, 16, 16], "intensity": "percentile"}},
        "model": {"texture": small, "geometry": small},
        "trainer": {"default_root_dir": f"{tmp_path}/runs"},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    wrong = ["data", "check", "-c", "phantom.yaml", "-c", str(tmp_path / "own.yaml"), "--task.views.intensity", "hu"]
    assert main([*wrong, "--workers", "0", "--out", str(tmp_path / "check")]) == 3
    assert "NOT_HU" in capsys.readouterr().out
    scores = trained(tmp_path, ["phantom.yaml", str(tmp_path / "own.yaml")])
    assert scores["studies"] == 1
    scan = tmp_path / "data/valid_preprocessed/valid_6/valid_6a/valid_6_a_1.nii.gz"
    masks = tmp_path / "data/valid_region_mask/seg_valid_6_a_1"
    command("report", scan, "--masks", masks, "--model", tmp_path / "model", "-o", tmp_path / "report")
    result = json.loads((tmp_path / "report/valid_6_a_1.json").read_text())
    record = json.loads((tmp_path / "runs/predictions/studies/valid_6_a_1.json").read_text())
    assert result["asked"] == record["regions"]
    assert set(result["asked"]) <= {region["name"] for region in yaml.safe_load(regions.read_text())["regions"]}
    assert [p["text"] for p in result["paragraphs"]] == [p["text"] for p in record["paragraphs"]]
    assert result["measured"] is None
    assert any("not HU" in note for note in result["made_by"]["notes"])
    assert (tmp_path / "report/valid_6_a_1.html").is_file()


AUGMENT = """
data:
  augment:
    transforms:
      - class_path: torchio.RandomAffine
        init_args: {scales: 0.05, degrees: 5, translation: 5}
      - class_path: torchio.OneOf
        init_args:
          transforms:
            - class_path: torchio.RandomNoise
              init_args: {std: 30}
            - class_path: torchio.RandomGamma
"""


def test_a_resumed_run_with_transforms_is_the_one_that_was_not_stopped(phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "augment.yaml").write_text(AUGMENT)
    configs = ["-c", "phantom.yaml", "-c", str(phantoms / "own.yaml"), "-c", str(tmp_path / "augment.yaml")]
    weights = {}
    for name, steps, options in (
        ("whole", 5, ["--data.workers", "0"]),
        ("stopped", 2, ["--data.workers", "2"]),
        ("resumed", 5, ["--data.workers", "1", "--ckpt_path", str(tmp_path / "stopped/checkpoints/last.ckpt")]),
        ("plain", 5, ["--data.augment", "null"]),
    ):
        trainer = ["--trainer.default_root_dir", str(tmp_path / name), "--trainer.max_steps", str(steps)]
        trainer += ["--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"]
        assert main(["fit", *configs, *trainer, *options, "--model.word_alignment_steps", "0"]) == 0
        file = tmp_path / name / "checkpoints/last.ckpt"
        weights[name] = torch.load(file, weights_only=True)
    states = {name: found["state_dict"] for name, found in weights.items()}
    assert [weights[name]["global_step"] for name in states] == [5, 2, 5, 5]
    assert all(torch.equal(value, states["resumed"][key]) for key, value in states["whole"].items())
    assert not all(torch.equal(value, states["plain"][key]) for key, value in states["whole"].items())


def test_flips_are_refused_with_their_place_in_the_config(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip = "data: {augment: {transforms: [{class_path: torchio.RandomFlip, init_args: {axes: [0]}}]}}"
    (tmp_path / "flip.yaml").write_text(flip)
    configs = ["-c", "phantom.yaml", "-c", str(phantoms / "own.yaml"), "-c", str(tmp_path / "flip.yaml")]
    assert main(["fit", *configs]) == 2
    said = capsys.readouterr().err
    assert "data.augment: RandomFlip mirrors the axes (0,), but reports name sides" in said
    (tmp_path / "flip.yaml").write_text(flip.replace("RandomFlip", "RandomFlop"))
    assert main(["fit", *configs]) == 2
    assert "RandomFlop" in capsys.readouterr().err
