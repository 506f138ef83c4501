"""Typos in a config are told before torch is imported, in the words of the whole check, and never without reason."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("lightning")

from lightning.pytorch import Trainer, callbacks, loggers, profilers, strategies

from reg2rg.cli.checking import _LIGHTNING, unknown_keys
from reg2rg.cli.trainer import check_config, component_registries, core_classes
from reg2rg.config.overlay import fold, packaged_configs
from reg2rg.config.sources import closed_arguments, components, imported_from
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import load_plugins
from reg2rg.core.task import ReportTask
from unit.cli.test_mistakes import GOOD, MISTAKES, drop, put

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", packaged_configs())
@pytest.mark.parametrize("command", ["fit", "predict"])
def test_no_packaged_config_is_complained_about(name: str, command: str) -> None:
    assert unknown_keys(command, fold([name])) == []
    if name.startswith(("ablations/", "strategies/")):
        assert unknown_keys(command, fold(["reg2rg.yaml", name])) == []
        assert unknown_keys(command, fold(["phantom.yaml", name])) == []


@pytest.mark.parametrize(("name", "edit"), [(entry[0], entry[1]) for entry in MISTAKES], ids=[e[0] for e in MISTAKES])
def test_what_is_told_early_is_told_by_the_whole_check_too(name: str, edit: Any, tmp_path: Path) -> None:
    config = copy.deepcopy(GOOD)
    edit(config)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    told = unknown_keys("fit", fold([str(tmp_path / "run.yaml")]))
    assert told or not any(word in name for word in ("key", "field")) or "reference" in name
    if told:
        with pytest.raises(ConfigError) as caught:
            check_config("fit", fold([str(tmp_path / "run.yaml")]))
        assert set(told) <= set(str(caught.value).splitlines())


def test_several_typos_are_told_together_and_inside_lists(tmp_path: Path) -> None:
    config = copy.deepcopy(GOOD)
    put("trainer.callbacks.0.init_args.save_topk", 3)(config)
    put("model.llm.init_args.lora.rnak", 3)(config)
    put("modle", {})(config)
    put("ckpt_pth", "x")(config)
    put("max_steps", 3)(config)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    told = "\n".join(unknown_keys("fit", fold([str(tmp_path / "run.yaml")])))
    for said in ("'save_top_k'?", "'rank'?", "'model'?", "'ckpt_path'?", "It takes: dirpath, filename"):
        assert said in told
    assert len(told.splitlines()) == 5


def test_sources_say_what_the_classes_say() -> None:
    load_plugins()
    model, data = core_classes()
    kinds = {registry.kind: registry for registry in component_registries()}
    known = [cls for part in (callbacks, loggers, profilers, strategies) for cls in vars(part).values()]
    mine = [kinds[one.kind].get(one.name) for one in components() if one.kind in kinds]
    told = 0
    for cls in {model, data, Trainer, ReportTask, *mine, *filter(inspect.isclass, known)}:
        read = closed_arguments(cls.__module__, cls.__name__)
        if read is not None:
            told += 1
            assert [argument.name for argument in read] == list(inspect.signature(cls).parameters), cls
            for argument in read:
                assert all(field.name for field in argument.arguments)
    assert told > 50
    for package in _LIGHTNING:
        found = imported_from(package)
        assert all(hasattr(sys.modules[package], name) for name in found if name[0].isupper())
    assert dataclasses.is_dataclass(ReportTask)


def run(config: dict[str, Any], folder: Path, words: str, check: bool = True) -> tuple[int, str, float]:
    """A command in a process of its own; `check` says whether torch was imported."""
    (folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    script = (
        "import sys; from reg2rg.cli.main import main; code = main(sys.argv[1:]); "
        "print('torch' in sys.modules, 'lightning' in sys.modules); sys.exit(code)"
    )
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, *words.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert not check or done.stdout.strip() == "False False", done.stdout
    return done.returncode, done.stderr, time.monotonic() - begun


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit -c run.yaml", "run.yaml:3: model.txture: Reg2RG has no argument 'txture'. Did you mean 'texture'?"),
        ("fit -c phantom.yaml --model.lrr 3", "command line: model.lrr: Reg2RG has no argument 'lrr'."),
        ("predict -c phantom.yaml --model.texture.dmi=3", "CNN3D has no argument 'dmi'. Did you mean 'dim'?"),
        ("fit -c phantom.yml", "no config file 'phantom.yml'"),
        ("validate -c phantom.yaml --trainer.max_stepss 3", "Did you mean 'max_steps'?"),
    ],
)
def test_a_typo_is_told_before_torch_is_imported(tmp_path: Path, words: str, said: str) -> None:
    code, err, _ = run({"base": "phantom.yaml", "model": {"txture": None}}, tmp_path, words)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_config_whose_model_a_folder_gives_is_left_to_the_whole_check(tmp_path: Path) -> None:
    code, err, _ = run(
        {"data": {}}, tmp_path, "predict -c run.yaml --ckpt_path gone --model.texture.dim 3", check=False
    )
    assert code == 2
    assert "ckpt_path: 'gone': no model's folder" in err


def test_what_the_sources_do_not_tell_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import reg2rg.cli.checking as module

    (tmp_path / "run.yaml").write_text("modle: {}\n")
    tree = fold([str(tmp_path / "run.yaml")])
    assert unknown_keys("fit", tree)
    monkeypatch.setattr(module, "closed_arguments", lambda *place: None)
    assert unknown_keys("fit", tree) == []
    monkeypatch.setattr(module, "method_arguments", lambda *place: 1 / 0)
    assert unknown_keys("fit", tree) == []
    assert drop("a")({"a": 1}) is None
