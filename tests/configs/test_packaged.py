"""Every packaged config goes through the real command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from reg2rg.cli.main import main
from reg2rg.config.overlay import packaged_configs

BASES = ("ctrg.yaml", "phantom.yaml", "phantom_small.yaml", "reg2rg.yaml", "reg2rg_24gb.yaml")
OVERLAYS = tuple(name for name in packaged_configs() if name not in BASES)
FEATURES: dict[str, tuple[list[int], int, str | None]] = {
    "colipri": ([24, 24, 24], 768, "MaskPool"),
    "colipri_216": ([6, 6, 6], 768, "MaskPool"),
    "merlin": ([1, 1, 1], 2048, None),
}
"""Cells, numbers a cell, and what gives a region's tokens."""
_cache: dict[tuple[str, ...], dict[str, Any]] = {}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without files: packaged configs must be found from anywhere."""
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], *configs: str) -> dict[str, Any]:
    if configs not in _cache:
        code = main(["fit", *(word for name in configs for word in ("-c", name)), "--print_config"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        _cache[configs] = yaml.safe_load(captured.out)
    return _cache[configs]


def changed(old: Any, new: Any, at: str = "") -> dict[str, Any]:
    """Dotted key -> new value, for what differs."""
    if old == new:
        return {}
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in {**old, **new}:
            found |= changed(old.get(key), new.get(key), f"{at}.{key}".lstrip("."))
        return found
    return {at: new}


@pytest.mark.parametrize("name", BASES)
def test_base(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = printed(capsys, name)
    callbacks = [entry["class_path"].rpartition(".")[2] for entry in config["trainer"]["callbacks"]]
    assert {"RichProgressBar", "ModelCheckpoint", "SaveLast", "PredictionWriter"} <= set(callbacks)
    keeper = config["trainer"]["callbacks"][callbacks.index("ModelCheckpoint")]["init_args"]
    assert keeper["save_last"] is True
    assert config["trainer"]["callbacks"][callbacks.index("SaveLast")]["init_args"]["every_minutes"] <= 15
    assert keeper["monitor"] == "val/loss"
    loggers = [entry["class_path"].rpartition(".")[2] for entry in config["trainer"]["logger"]]
    assert loggers[:2] == ["CSVLogger", "TensorBoardLogger"]
    assert "${" not in yaml.safe_dump(config)


def test_the_papers_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    config = printed(capsys, "reg2rg.yaml")
    model, trainer = config["model"], config["trainer"]
    assert model["optimizer"] | {} == {**model["optimizer"], "lr": 5e-5, "schedule": "constant", "warmup_steps": 20}
    assert model["optimizer"]["weight_decay"] == 0.0
    assert model["llm"]["init_args"]["path"] == "meta-llama/Llama-2-7b-chat-hf"
    lora = model["llm"]["init_args"]["lora"]
    assert (lora["rank"], lora["alpha"], lora["dropout"], lora["targets"]) == (8, 32, 0.1, ["q_proj", "v_proj"])
    perceiver = model["texture"]["init_args"]
    assert (perceiver["num_latents"], perceiver["depth"]) == (32, 6)
    vit = perceiver["encoder"]["init_args"]["encoder"]["init_args"]
    assert (vit["size"], vit["patch"], vit["dim"], vit["depth"]) == ([256, 256, 64], [32, 32, 4], 768, 12)
    masks = model["geometry"]["init_args"]["encoder"]["init_args"]
    assert (masks["patch"], masks["dim"], masks["depth"], masks["mlp_dim"]) == ([32, 32, 16], 255, 3, 512)
    assert masks["table_size"] == [256, 256, 64]
    assert model["global_"] == "texture"
    assert (config["data"]["batch_size"], trainer["accumulate_grad_batches"]) == (1, 8)
    assert (trainer["gradient_clip_val"], trainer["precision"], trainer["max_epochs"]) == (1.0, "bf16-mixed", 6)


def test_24gb_takes_the_same_step(capsys: pytest.CaptureFixture[str]) -> None:
    difference = changed(printed(capsys, "reg2rg.yaml"), printed(capsys, "reg2rg_24gb.yaml"))
    assert difference["trainer.accumulate_grad_batches"] == 16
    assert difference["trainer.devices"] == 1
    assert not any(
        key.startswith(("data.dataset", "model.optimizer", "model.llm.init_args.lora")) for key in difference
    )


def test_small_phantoms_are_the_demo_with_coarser_views_and_fewer_steps(capsys: pytest.CaptureFixture[str]) -> None:
    difference = changed(printed(capsys, "phantom.yaml"), printed(capsys, "phantom_small.yaml"))
    folders = {key for key, value in difference.items() if "ablations" in str(value)}
    assert {
        "data.dataset.init_args.root",
        "data.store",
        "model.llm.init_args.path",
        "trainer.default_root_dir",
    } <= folders
    assert "demo/" not in str(difference)
    sizes = {key for key in difference if key.endswith(".size")}
    assert all(difference[key] == [48, 48, 24] for key in sizes)
    assert difference["model.attributes"] is None  # the switches of the paper first
    assert set(difference) - folders - sizes - {"vars"} == {
        "data.limit_eval_studies",
        "model.attributes",
        "model.val_generate",
        "vars.word_alignment_steps",
        "trainer.max_steps",
        "trainer.val_check_interval",
    }


ABLATIONS: dict[str, dict[str, Any]] = {
    "no_lfd": {"task.views.coupled": True, "model.geometry": None},
    "no_texture": {"model.texture": None, "model.global_": None},
    "no_geometry": {"model.geometry": None},
    "no_global": {"model.global_": None},
    "no_rra": {"task.identity": False},
    "independent_paragraphs": {"task.independent_paragraphs": True},
    "text_only": {"model.texture": None, "model.geometry": None, "model.global_": None},
    "attributes": {
        "model.attributes": {
            "class_path": "reg2rg.models.encoders.AttributeEncoder",
            "init_args": {"dim": 64, "hidden": 128, "waves": 8, "frequency": 1.0},
        }
    },
    "no_attributes": {},
    "no_head": {},
    "no_cues": {},
}
OF_PHANTOMS: dict[str, dict[str, Any]] = {
    "no_texture": {"model.attributes": None},
    "text_only": {"model.attributes": None, "model.head": None, "model.cues": False},
    "attributes": {"model.attributes": ...},  # the demo has them
    "no_attributes": {"model.attributes": None},
    "no_head": {"model.head": None, "model.cues": False},
    "no_cues": {"model.cues": False},
}
"""What an ablation changes of the demo's model beside that: the recipe of the paper has no head and no attributes."""


@pytest.mark.parametrize("base", ["phantom.yaml", pytest.param("reg2rg.yaml", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_what_it_says_and_nothing_else(
    name: str, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    difference = changed(printed(capsys, base), printed(capsys, base, f"ablations/{name}.yaml"))
    expected = ABLATIONS[name] | (OF_PHANTOMS.get(name, {}) if base == "phantom.yaml" else {})
    assert difference == {key: value for key, value in expected.items() if value is not ...}


@pytest.mark.parametrize("base", ["phantom.yaml", "reg2rg.yaml"])
def test_gpt2(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    difference = changed(printed(capsys, base), printed(capsys, base, "ablations/gpt2.yaml"))
    assert all(key.startswith("model.llm.init_args") or key == "task.max_length" for key in difference)
    assert difference["model.llm.init_args.path"] == "openai-community/gpt2"


def test_parity_changes_what_it_says_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """Each difference one switch, and each of them described in the documentation."""
    difference = changed(printed(capsys, "reg2rg.yaml"), printed(capsys, "reg2rg.yaml", "parity.yaml"))
    assert difference == {
        "task.views.clip": "last",
        "task.order": "listed_in_evaluation",
        "data.test_regions": "all",
        "data.pad_to_max_length": True,
        "data.published_ids": True,
        "data.region_dropout": 0.0,
        "model.texture.init_args.encoder.init_args.dropout": True,
        "model.llm.init_args.float32_residual": True,
        "model.llm.init_args.merge_adapters": False,
        "model.decoding": "free",
        "model.stop_on_loop": 0,
        "model.stop_after_last": False,
        "model.sampling": {"temperature": 0.6, "top_k": 30, "top_p": 0.9, "seed": 20},
    }
    page = Path(__file__).resolve().parents[2] / "docs" / "project" / "parity.md"
    text = page.read_text(encoding="utf-8")
    assert [key for key in difference if f"`{key.replace('.init_args', '')}" not in text] == []


STRATEGIES = {"ddp": "DDPStrategy", "deepspeed_zero2": "strategies.ZeRO", "fsdp2": "fully_shard.FullyShard"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = printed(capsys, "reg2rg.yaml", f"strategies/{name}.yaml")
    assert config["trainer"]["strategy"]["class_path"].endswith(STRATEGIES[name])


def test_wandb_joins_the_other_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    loggers = printed(capsys, "phantom.yaml", "loggers/wandb.yaml")["trainer"]["logger"]
    assert [entry["class_path"].rpartition(".")[2] for entry in loggers] == [
        "CSVLogger",
        "TensorBoardLogger",
        "WandbLogger",
    ]


def test_no_overlay_is_untested() -> None:
    tested = {
        *(f"ablations/{name}.yaml" for name in (*ABLATIONS, "gpt2")),
        *(f"strategies/{name}.yaml" for name in STRATEGIES),
        "loggers/wandb.yaml",
        *(name for name in OVERLAYS if name.startswith("peers/")),  # tests/configs/test_peers.py
        *(f"features/{name}.yaml" for name in FEATURES),
        "parity.yaml",
    }
    assert set(OVERLAYS) == tested
    assert set(packaged_configs()) == {*tested, *BASES}


@pytest.mark.parametrize("name", FEATURES)
def test_features_in_place_of_scans(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    size, channels, texture = FEATURES[name]
    config = printed(capsys, "reg2rg.yaml", f"features/{name}.yaml")
    views, grid = config["task"]["views"], config["data"]["read"]["grid"]
    assert (views["size"], views["channels"], views["features"]) == (size, channels, name.partition("_")[0])
    assert (grid["cells"], grid["channels"], grid["encoder"]) == (size, channels, views["features"])
    assert config["data"]["dataset"]["class_path"].endswith(".FeatureGrid")
    found = config["model"]["texture"]
    assert (found and found["class_path"].rpartition(".")[2]) == texture
    assert config["task"]["target"] == ("regions" if texture else "whole")


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_the_other_commands_read_the_same_file(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "-c", "phantom.yaml", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"] == printed(capsys, "phantom.yaml")["model"]


def test_ctrg_is_the_papers_recipe_with_its_tail(capsys: pytest.CaptureFixture[str]) -> None:
    found = changed(printed(capsys, "reg2rg.yaml"), printed(capsys, "ctrg.yaml"))
    names = {key for key in found if not key.startswith(("trainer.callbacks", "trainer.logger", "data.dataset"))}
    assert names == {"task.tail", "data.store", "trainer.default_root_dir", "trainer.max_epochs"}
    assert (found["task.tail"], found["trainer.max_epochs"]) == (True, 10)
