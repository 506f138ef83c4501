"""``--ckpt_path FOLDER`` and ``reg2rg export``: what they take, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml

from reg2rg.cli.folder import with_folder, write_somewhere
from reg2rg.cli.main import main
from reg2rg.config.overlay import fold
from reg2rg.config.reading import Tree
from reg2rg.core.errors import ConfigError
from reg2rg.core.model_folder import CONTRACT
from reg2rg.core.regions import Region, RegionSet
from reg2rg.core.task import ReportTask, Views
from reg2rg.pretrained.contract import InputContract
from reg2rg.pretrained.fingerprint import fingerprint
from reg2rg.pretrained.folder import LanguageModelRef, write_folder
from reg2rg.training.prediction_writer import PredictionWriter

CONFIG: dict[str, Any] = {
    "model": {
        "texture": {"class_path": "CNN3D", "init_args": {"dim": 24}},
        "llm": {"class_path": "CausalLM", "init_args": {}},
    },
    "task": {"views": {"size": [16, 16, 16]}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder with a region set and a language model of its own, and the working folder beside it."""
    llm = tmp_path / "lm"
    llm.mkdir()
    (llm / "config.json").write_text("{}")
    regions = RegionSet("mine", (Region("left lung"), Region("spleen")))
    ref = LanguageModelRef("lm", fingerprint=fingerprint({"w": torch.ones(3)}), copy=llm)
    contract = InputContract(ReportTask(regions, Views((16, 16, 16))), ("texture",))
    write_folder(
        tmp_path / "m", config=CONFIG, tensors={"w": torch.ones(2)}, contract=contract, language_model=ref, card="#"
    )
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "m"


def test_the_config_of_a_folder_leads_into_it_from_anywhere(folder: Path) -> None:
    values = fold(["../m/config.yaml"]).values
    assert values["model"]["llm"]["init_args"]["path"] == "../m/llm"
    assert values["task"]["regions"] == "../m/regions.yaml"
    (folder / CONTRACT).unlink()  # the same words in an ordinary config mean themselves
    values = fold(["../m/config.yaml"]).values
    assert values["model"]["llm"]["init_args"]["path"] == "llm"


@pytest.mark.parametrize("option", [["--ckpt_path", "../m"], ["--ckpt_path=../m"], []])
def test_a_folder_brings_its_config_where_none_has_a_model(folder: Path, option: list[str]) -> None:
    Path("data.yaml").write_text(
        "data: {store: here}\ntask: {views: {window: [-500, 100]}}\n" + ("" if option else "ckpt_path: ../m\n")
    )
    tree = with_folder(fold(["data.yaml"]), option)
    assert tree.values["model"]["texture"]["init_args"] == {"dim": 24}
    assert tree.values["data"]["store"] == "here"
    views = tree.values["task"]["views"]
    assert (views["size"], views["window"], views["coupled"]) == ([16, 16, 16], [-500, 100], False)
    assert tree.values["task"]["regions"] == "../m/regions.yaml"
    mine = Tree({"model": {"texture": None}})
    assert with_folder(mine, option) is mine


@pytest.mark.parametrize(
    ("named", "said"),
    [("nothing", "no model's folder"), ("x.ckpt", "read with the configs"), ("../lm", "no model's folder"),
     ("a/b.ckpt", "no model's folder"), ("lab/model", "hf download lab/model")],
)  # fmt: skip
def test_what_is_no_folder_is_said(folder: Path, named: str, said: str) -> None:
    Path("x.ckpt").write_bytes(b"")
    with pytest.raises(ConfigError, match=said):
        with_folder(Tree({"data": {}}), ["--ckpt_path", named])


@pytest.mark.parametrize("named", ["best", "last"])
def test_names_of_checkpoints_are_left_to_the_config(folder: Path, named: str) -> None:
    tree = Tree({"data": {}})
    assert with_folder(tree, ["--ckpt_path", named]) is tree


def test_predictions_have_a_place(tmp_path: Path) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_checkpointing=False)
    write_somewhere(trainer)
    write_somewhere(trainer)
    writers = [callback for callback in trainer.callbacks if isinstance(callback, PredictionWriter)]
    assert [writer.out for writer in writers] == [tmp_path / "predictions"]


def error_of(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["export", *args]) == 2
    return capsys.readouterr().err


def test_export_refuses_before_it_loads_anything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.ckpt").write_bytes(b"no checkpoint")
    Path("notes").mkdir()
    Path("notes/mine.txt").write_text("")
    assert "holds mine.txt" in error_of(capsys, "--ckpt_path", "x.ckpt", "--out", "notes")
    assert "--metrics gone.json" in error_of(capsys, "--ckpt_path", "x.ckpt", "--out", "new", "--metrics", "gone.json")
    Path("other.json").write_text(json.dumps({"numbers": 3}))
    assert "not what reg2rg evaluate writes" in error_of(
        capsys, "--ckpt_path", "x.ckpt", "--out", "new", "--metrics", "other.json"
    )
    assert "gone.ckpt: no such checkpoint. The folder has x.ckpt" in error_of(
        capsys, "--ckpt_path", "gone.ckpt", "--out", "new"
    )
    Path("sharded.ckpt").mkdir()
    assert "a folder without shards of a checkpoint" in error_of(capsys, "--ckpt_path", "sharded.ckpt", "--out", "new")
    assert not Path("new").exists()


def test_the_config_of_a_folder_parses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was written can be read by the command line itself, up to the model, without a key that it does not know."""
    Path("data.yaml").write_text(
        "data: {dataset: {class_path: RadGenome, init_args: {root: .}}, store: .}\n"
        "model: {geometry: null, global_: texture, projector: LinearProjector,\n"
        "        texture: {init_args: {size: [16, 16, 16]}}}\n"
    )
    assert main(["predict", "-c", "../m/config.yaml", "-c", "data.yaml", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["task"]["regions"] == "../m/regions.yaml"
    assert config["model"]["llm"]["init_args"]["path"] == "../m/llm"
