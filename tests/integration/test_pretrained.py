"""A trained model exported, moved and used by somebody else, from the command line and from Python."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest
import yaml

from reg2rg import Reg2RG, report_on
from reg2rg.cli.main import main
from reg2rg.config.saving import read_config
from reg2rg.core.report import parse_report
from reg2rg.evaluation.records import read_records

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "predict_one_scan.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path, Path, str]:
    """Folder of a run, its exported model, a held-out scan and its masks."""
    root = tmp_path_factory.mktemp("trained")
    return root, *runpy.run_path(str(EXAMPLE))["train_toy"](root)


@pytest.fixture
def theirs(trained, tmp_path, monkeypatch) -> Path:
    """Somebody else's machine: the exported folder elsewhere, and a config of their data."""
    root, folder, _, _ = trained
    shutil.copytree(folder, tmp_path / "downloads" / "model")
    data = {
        "dataset": {"class_path": "RadGenome", "init_args": {"root": str(root / "data")}},
        "store": str(root / "store"),
    }
    trainer = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "default_root_dir": "run"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"data": data | {"workers": 0}, "trainer": trainer}))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "downloads" / "model"


def predictions(out: str) -> list[dict]:
    return sorted(read_records(Path(out)), key=lambda record: record["study"])


def test_predict_test_and_go_on_with_somebodys_folder(trained, theirs, capsys) -> None:
    root = trained[0]
    configs = ["--config", "phantom.yaml", "--config", str(root / "toy.yaml"), "--trainer.logger", "false"]
    checkpoint = str(root / "runs" / "checkpoints" / "last.ckpt")
    out = ["--trainer.default_root_dir", "by_checkpoint", "--trainer.accelerator", "cpu"]
    assert main(["predict", *configs, "--ckpt_path", checkpoint, *out]) == 0
    assert main(["predict", "--ckpt_path", str(theirs), "--config", "mine.yaml"]) == 0
    wanted = predictions("by_checkpoint/predictions")
    assert wanted
    assert predictions("run/predictions") == wanted

    window = ["--task.views.window", "[-500, 900]", "--trainer.default_root_dir", "window"]
    assert main(["predict", "--ckpt_path", str(theirs), "--config", "mine.yaml", *window]) == 0
    assert predictions("window/predictions") == wanted

    capsys.readouterr()
    lobes = ["--task.regions", "lobes", "--trainer.default_root_dir", "lobes"]
    assert main(["predict", "--ckpt_path", str(theirs), "--config", "mine.yaml", *lobes]) == 2
    assert "which the model was not trained on" in capsys.readouterr().err
    assert (
        main(["test", "--config", str(theirs / "config.yaml"), "--config", "mine.yaml", "--ckpt_path", str(theirs)])
        == 0
    )

    steps = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--model.word_alignment_steps", "0"]
    assert main(["fit", "--ckpt_path", str(theirs), "--config", "mine.yaml", *steps]) == 0


def test_the_card_has_the_figures_and_names_nobodys_disk(trained, theirs, tmp_path) -> None:
    root = trained[0]
    metrics = {"numbers": [], "studies": 2, "patients": 2, "protocol": {"name": "strict"}, "intervals": {}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    words = ["--name", "Phantom reader", "--training_data", "Phantoms", "--licence", "mit", "--metrics", "metrics.json"]
    assert main(["export", "--ckpt_path", str(theirs), "--out", "again", *words]) == 0
    card = (tmp_path / "again" / "README.md").read_text()
    for said in (
        "# Phantom reader",
        "Phantoms",
        "license: mit",
        "2 studies of 2 patients",
        "Report on each region"[:0],
    ):
        assert said in card
    for file in (tmp_path / "again").iterdir():
        if file.suffix in (".md", ".yaml", ".json"):
            assert str(root) not in file.read_text(), file.name
    for name in ("model.safetensors", "config.yaml", "input_contract.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (theirs / name).read_bytes(), name


def test_report_on_a_scan_is_what_predict_wrote(trained, theirs) -> None:
    _, _, image, masks = trained
    model = Reg2RG.from_pretrained(theirs, max_new_tokens=8)
    assert main(["predict", "--ckpt_path", str(theirs), "--config", "mine.yaml", "--model.max_new_tokens", "8",
                 "--data.test_regions", "all"]) == 0  # fmt: skip
    [record] = [record for record in predictions("run/predictions") if image.name.startswith(record["study"])]
    wanted = parse_report(record["text"], record["regions"])
    assert report_on(image, masks, model).report == wanted
    assert report_on(image, Path(masks).parent, model).report == wanted


def test_a_checkpoints_config_is_the_folders(trained) -> None:
    from reg2rg.training.checkpoints import read_checkpoint

    root, folder, _, _ = trained
    trained_with = read_config(read_checkpoint(root / "runs" / "checkpoints" / "last.ckpt"))
    written = yaml.safe_load((folder / "config.yaml").read_text())
    for name in ("texture", "geometry", "global_", "projector", "optimizer", "max_new_tokens"):
        assert written["model"][name] == trained_with["model"][name], name
    assert {name: written["task"][name] for name in trained_with["task"]} == trained_with["task"]
    assert not set(written["task"]) & set(written["data"])
