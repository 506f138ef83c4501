"""Every mistake in a config ends in one message with file, line and key, and exit code 2, before anything is built."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("lightning")

from reg2rg.cli.main import main

GOOD: dict[str, Any] = {
    "task": {"views": {"size": [16, 16, 16]}},
    "data": {
        "dataset": {"class_path": "RadGenome", "init_args": {"root": "."}},
        "store": ".",
        "batch_size": 2,
    },
    "model": {
        "texture": {"class_path": "CNN3D", "init_args": {"size": "${task.views.size}", "dim": 24}},
        "geometry": None,
        "global_": "texture",
        "projector": {"class_path": "MLPProjector", "init_args": {"hidden_factor": 2.0}},
        "llm": {"class_path": "CausalLM", "init_args": {"path": "nowhere/lm", "lora": {"rank": 4}}},
        "optimizer": {"lr": 0.001},
    },
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 1,
        "callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"save_top_k": 1}}],
    },
}

Edit = Callable[[dict[str, Any]], None]


def put(path: str, value: Any) -> Edit:
    def edit(config: dict[str, Any]) -> None:
        holder: Any = config
        *parts, last = path.split(".")
        for part in parts:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        holder[last] = value

    return edit


def zero_by_reference(config: dict[str, Any]) -> None:
    config["data"]["batch_size"], config["vars"] = "${vars.studies}", {"studies": 0}


def drop(path: str) -> Edit:
    def edit(config: dict[str, Any]) -> None:
        holder: Any = config
        *parts, last = path.split(".")
        for part in parts:
            holder = holder[part]
        del holder[last]

    return edit


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mistake below may get as far as building a model or a data set."""
    from reg2rg.cli.building import Builder

    def refuse(self: Builder, cls: type, *args: object, **kwargs: object) -> None:
        raise AssertionError(f"{cls.__name__} was built")

    monkeypatch.setattr(Builder, "__call__", refuse)


@pytest.fixture(scope="session", autouse=True)
def _import_once() -> None:
    """Pay for the imports outside the first test's time."""
    import reg2rg.cli.trainer as trainer

    trainer.component_registries()
    trainer.core_classes()


def line_of(text: str, key: str) -> int:
    """Line of the `key`, or with ``key#2`` of its second occurrence."""
    key, _, nth = key.partition("#")
    return [n for n, line in enumerate(text.splitlines(), 1) if key in line][int(nth or 1) - 1]


# name, edit of the good config, key whose line must be named, words the message must hold
MISTAKES: list[tuple[str, Edit, str, tuple[str, ...]]] = [
    ("unknown section", put("modle", {}), "modle:", ("no key 'modle'", "Did you mean 'model'?")),
    ("unknown model key", put("model.txture", None), "txture:", ("'txture'", "Did you mean 'texture'?")),
    ("unknown data key", put("data.batchsize", 3), "batchsize:", ("'batchsize'", "'batch_size'", "It takes: dataset,")),
    ("unknown trainer key", put("trainer.max_epoch", 3), "max_epoch:", ("Trainer", "Did you mean 'max_epochs'?")),
    ("unknown component argument", put("model.texture.init_args.dmi", 3), "dmi:", ("CNN3D", "Did you mean 'dim'?")),
    ("unknown dataclass field", put("task.views.siz", [1, 2, 3]), "siz:", ("Views", "Did you mean 'size'?")),
    ("unknown lora field", put("model.llm.init_args.lora", {"rnak": 3}), "rnak:", ("LoRA", "Did you mean 'rank'?")),
    ("unknown optimizer field", put("model.optimizer.lrr", 1), "lrr:", ("OptimizerConfig", "Did you mean 'lr'?")),
    (
        "unknown argument that a logger hands on",
        put("trainer.logger", [{"class_path": "TensorBoardLogger", "init_args": {"save_dir": "x", "flush_sec": 3}}]),
        "flush_sec:",
        ("trainer.logger.0.init_args.flush_sec", "TensorBoardLogger", "Did you mean 'flush_secs'?"),
    ),
    (
        "unknown argument that a strategy hands on",
        put("trainer.strategy", {"class_path": "DDPStrategy", "init_args": {"find_unused": True}}),
        "find_unused:",
        ("DDPStrategy has no argument", "Did you mean 'find_unused_parameters'?"),
    ),
    (
        "wrong type inside a logger",
        put("trainer.logger", {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "x", "version": {"a": 1}}}),
        "version:",
        ("trainer.logger.init_args.version: expected a whole number or text, found {'a': 1}.",),
    ),
    (
        "path of a logger",
        put("trainer.logger", {"class_path": "CSVLogger", "init_args": {"save_dir": 3}}),
        "save_dir:",
        ("trainer.logger.init_args.save_dir: expected text or a path, found 3.",),
    ),
    (
        "wrong type inside one of two callbacks of a class",
        put("trainer.callbacks", [{"class_path": "ModelCheckpoint", "init_args": {"save_top_k": k}} for k in (1, "x")]),
        "save_top_k:#2",
        ("trainer.callbacks.1.init_args.save_top_k: expected a whole number, found 'x'.",),
    ),
    (
        "time of a callback",
        put("trainer.callbacks.0.init_args.train_time_interval", {"minute": 3}),
        "train_time_interval:",
        (
            "trainer.callbacks.0.init_args.train_time_interval: expected a time such as '1:30:00'",
            "found {'minute': 3}.",
        ),
    ),
    (
        "function of a callback",
        put("trainer.callbacks", [{"class_path": "LambdaCallback", "init_args": {"setup": 3}}]),
        "setup:",
        ("trainer.callbacks.0.init_args.setup: expected the dotted name of a function or class, found 3.",),
    ),
    (
        "function of another package by way of an allowed one",
        put("trainer.callbacks", [{"class_path": "LambdaCallback", "init_args": {"setup": "torch.os.system"}}]),
        "setup:",
        ("'torch.os.system' is posix.system: it would import the package 'posix', which a config may not",),
    ),
    (
        "class of another package by way of an allowed one",
        put("model.texture", {"class_path": "torch.hub.Path", "init_args": {}}),
        "class_path: torch.hub.Path",
        ("'torch.hub.Path' is pathlib.Path: it would import the package 'pathlib'", "Fix: name a class of these"),
    ),
    (
        "kind of shards",
        put("trainer.strategy", {"class_path": "FSDPStrategy", "init_args": {"sharding_strategy": 3}}),
        "sharding_strategy:",
        ("trainer.strategy.init_args.sharding_strategy: expected one of FULL_SHARD, SHARD_GRAD_OP, NO_SHARD",),
    ),
    (
        "time of a strategy",
        put("trainer.strategy", {"class_path": "DDPStrategy", "init_args": {"timeout": "abc"}}),
        "timeout:",
        ("trainer.strategy.init_args.timeout: expected a time such as '1:30:00'", "found 'abc'."),
    ),
    (
        "unknown projector argument",
        put("model.projector.init_args.hiden", 1),
        "hiden:",
        ("MLPProjector", "It takes: hidden_factor"),
    ),
    (
        "unknown callback argument",
        put("trainer.callbacks.0.init_args.save_topk", 1),
        "save_topk:",
        ("ModelCheckpoint", "Did you mean 'save_top_k'?"),
    ),
    (
        "unknown encoder",
        put("model.texture.class_path", "CNN3"),
        "CNN3",
        ("unknown encoder 'CNN3'", "'CNN3D'", "Known:"),
    ),
    ("unknown encoder, bare", put("model.geometry", "VitT3D"), "VitT3D", ("unknown encoder", "Did you mean 'ViT3D'?")),
    ("unknown callback", put("trainer.callbacks.0.class_path", "ModelChekpoint"), "ModelChek", ("'ModelCheckpoint'",)),
    ("unknown plugin", put("trainer.plugins", ["AtomicIO"]), "AtomicIO", ("unknown",)),
    ("unknown llm", put("model.llm.class_path", "CausalLLM"), "CausalLLM", ("unknown llm", "Did you mean 'CausalLM'?")),
    ("unknown dataset", put("data.dataset.class_path", "Radgenome_"), "Radgenome_", ("dataset", "'RadGenome'")),
    (
        "wrong kind",
        put("model.texture.class_path", "MLPProjector"),
        "class_path: MLPProjector",
        ("is a projector, not an encoder",),
    ),
    (
        "wrong kind, dotted",
        put("model.texture.class_path", "reg2rg.models.projectors.MLPProjector"),
        "reg2rg.models.projectors.MLP",
        ("is not an encoder", "does not extend Encoder"),
    ),
    ("no such class", put("model.texture.class_path", "reg2rg.models.encoders.Nope"), "Nope", ("has no class 'Nope'",)),
    ("no such module", put("model.texture.class_path", "reg2rg.nope.X"), "reg2rg.nope", ("cannot be imported",)),
    ("package not allowed", put("model.texture.class_path", "evil.Thing"), "evil", ("'evil'", "--allow-import evil")),
    ("argument beside init_args", put("model.texture.dim", 3), "dim: 3", ("below its 'init_args:'",)),
    ("class_path missing", put("model.texture", {"dim": 3}), "texture:", ("class_path: Name", "found the keys dim")),
    ("init_args a list", put("model.texture.init_args", [1]), "init_args:#2", ("expected a mapping of arguments",)),
    ("section a list", put("model", [1]), "model:", ("expected a mapping of arguments",)),
    ("required value missing", drop("data.store"), "data:", ("RegionReportDataModule needs 'data.store'",)),
    ("required component missing", drop("model.llm"), "model:", ("Reg2RG needs 'model.llm'",)),
    ("required argument missing", drop("model.llm.init_args.path"), "init_args:#4", ("CausalLM needs", "path'")),
    ("text for a number", put("data.batch_size", "two"), "batch_size:", ("expected a whole number", "found 'two'")),
    ("text for a float", put("model.optimizer.lr", "fast"), "lr:", ("expected a number", "found 'fast'")),
    ("text for a nested number", put("model.texture.init_args.dim", "wide"), "dim:", ("whole number", "'wide'")),
    ("list for a number", put("data.batch_size", [1]), "batch_size:", ("expected a whole number", "[1]")),
    ("too short a size", put("task.views.size", [16, 16]), "size:", ("tuple with 3 elements", "[16, 16]")),
    ("not a choice", put("task.order", "sorted"), "order:", ("one of 'shuffled', 'listed'", "'sorted'")),
    ("text for a trainer number", put("trainer.max_epochs", "x"), "max_epochs:", ("whole number", "'x'")),
    ("neither encoder nor word", put("model.global_", "textur"), "global_:", ("Did you mean 'texture'?",)),
    (
        "reference to nothing",
        put("data.store", "${data.stor}"),
        "store:",
        ("'data.stor'", "Did you mean 'data.store'?"),
    ),
    ("reference inside text", put("data.store", "${vars.x}/s"), "store:", ("'vars.x'",)),
    (
        "unset variable",
        put("data.store", "${oc.env:REG2RG_NOT_SET}"),
        "store:",
        ("REG2RG_NOT_SET is not set", "export"),
    ),
    ("open reference", put("data.store", "${task.views"), "store:", ("without closing it",)),
    ("circular reference", put("data.store", "${data.store}"), "store:", ("refers to itself",)),
    (
        "references that double again and again",
        put("vars", {"a0": "lol", **{f"a{n + 1}": f"${{vars.a{n}}}${{vars.a{n}}}" for n in range(40)}}),
        "a16:",
        ("written out, its references take 1.5e+06 signs", "at most 1,000,000", "write the value out"),
    ),
    (
        "references one behind another without end",
        put("vars", {"b0": "x", **{f"b{n + 1}": f"${{vars.b{n}}}" for n in reversed(range(300))}}),
        "b300:",
        ("its references stand more than 100 deep",),
    ),
    ("linked value", put("data.token_counts", {}), "token_counts:", ("is filled from model.token_counts",)),
    ("size of zero", put("data.batch_size", 0), "batch_size:", ("must be 1 or more, found 0",)),
    ("negative size", put("model.texture.init_args.dim", -3), "dim:", ("must be 1 or more, found -3",)),
    ("zero by reference", zero_by_reference, "batch_size:", ("data.batch_size: must be 1 or more, found 0",)),
    ("zero in a size", put("task.views.size", [16, 0, 16]), "- 0", ("size.1: must be 1 or more, found 0",)),
    ("negative rate", put("model.optimizer.lr", -1.0), "lr:", ("must be 0 or more",)),
    ("no share", put("model.cue_dropout", 3), "cue_dropout:", ("must be 0 to 1, found 3",)),
    (
        "size that is not the views'",
        put("model.texture.init_args.size", [32, 32, 32]),
        "size:#3",
        ("[32, 32, 32] is not the size of the views", "${task.views.size}"),
    ),
    ("patches that do not fill", put("task.views.size", [16, 16, 18]), "init_args:#2", ("do not fill a view",)),
    (
        "no data folder",
        put("data.dataset.init_args.root", "gone"),
        "root:",
        ("data folder is expected", "/gone'"),
    ),
    (
        "no store",
        put("data.store", "gone"),
        "store:",
        ("no store at", "/gone'. Make it", "reg2rg data prepare"),
    ),
    ("no checkpoint", put("ckpt_path", "gone.ckpt"), "ckpt_path:", ("no checkpoint at 'gone.ckpt'",)),
    (
        "no weights",
        put(
            "model.texture",
            {
                "class_path": "Frozen",
                "init_args": {"encoder": copy.deepcopy(GOOD["model"]["texture"]), "weights": "gone.pth"},
            },
        ),
        "weights:",
        ("expected at '/", "/gone.pth'"),
    ),
]


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n" for before, after in pairwise("abcdefghijk")
)


@pytest.mark.parametrize("text", [LAUGHS, "a: " + "[" * 5000, "a: &a [*a]"])
@pytest.mark.parametrize("words", [["fit"], ["data", "check"], ["ablate"]])
def test_a_config_that_never_ends_is_one_line(tmp_path, capsys, text: str, words: list[str]) -> None:
    (tmp_path / "bomb.yaml").write_text(text)
    option = [str(tmp_path / "bomb.yaml")] if words == ["ablate"] else ["-c", str(tmp_path / "bomb.yaml")]
    code, said = run([*words, *option], capsys)
    assert code == 2
    assert "bomb.yaml:" in said
    assert "Fix: write the values out, less deep" in said
    assert len(said.strip().splitlines()) == 1


def run(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(args)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.err


@pytest.mark.parametrize(("edit", "key", "words"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistake_in_a_file(
    edit: Edit,
    key: str,
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = copy.deepcopy(GOOD)
    edit(config)
    text = yaml.safe_dump(config, sort_keys=False)
    (tmp_path / "run.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    code, message = run(["fit", "--config", "run.yaml"], capsys)
    assert code == 2, message
    assert message.startswith("error: run.yaml:"), message
    assert f"run.yaml:{line_of(text, key)}: " in message, message
    for word in words:
        assert word in message
    assert len(message.splitlines()) == 1, message


def test_all_mistakes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = copy.deepcopy(GOOD)
    put("model.txture", None)(config)
    put("data.batchsize", 1)(config)
    put("trainer.max_epoch", 1)(config)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    code, message = run(["fit", "-c", "run.yaml"], capsys)
    assert code == 2
    assert len(message.splitlines()) == 3


BROKEN_FILES = {
    "not yaml": ("model:\n  texture: [1, 2\n", "run.yaml:3: not valid YAML"),
    "a tab": ("model:\n\ttexture: null\n", "indented by a tab"),
    "a key twice": (
        "model:\n  texture: null\n  geometry: null\n  texture: null\n",
        "run.yaml:4: the key 'model.texture' stands twice, here and in line 2",
    ),
    "a list": ("- a\n- b\n", "run.yaml:1: a config is a mapping"),
    "a python tag": ("model: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    "a base that is not there": ("base: nowhere.yaml\n", "run.yaml:1: base: no config file 'nowhere.yaml'"),
    "a base that leads back": ("base: run.yaml\n", "run.yaml:1: base: 'run.yaml' leads back"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_broken_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = BROKEN_FILES[name]
    (tmp_path / "run.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    code, message = run(["fit", "--config=run.yaml"], capsys)
    assert code == 2
    assert expected in message


COMMAND_LINES = {
    "misspelt command": (["fitt"], "there is no command 'fitt'. Did you mean 'fit'?"),
    "misspelt option": (["--versoin"], "there is no option '--versoin'"),
    "misspelt data command": (["data", "prepar"], "Did you mean 'data prepare'?"),
    "no config": (["fit"], "no config. Expected: reg2rg fit --config FILE"),
    "config without a name": (["fit", "--config"], "needs the name of a config file"),
    "no such config": (["fit", "-c", "phantm.yaml"], "Did you mean 'phantom.yaml'?"),
    "no such overlay": (["fit", "-c", "good.yaml", "-c", "ablations/no_geometri.yaml"], "'ablations/no_geometry.yaml'"),
    "unknown option": (["fit", "-c", "good.yaml", "--modl.lr=1"], "command line: modl: there is no key 'modl'"),
    "unknown argument": (["fit", "-c", "good.yaml", "--model.texture.detph=1"], "CNN3D has no argument 'detph'"),
    "option without value": (["fit", "-c", "good.yaml", "--data.batch_size"], "--data.batch_size needs a value"),
    "stray word": (["fit", "-c", "good.yaml", "oops"], "unexpected 'oops'"),
    "wrong type": (
        ["fit", "-c", "good.yaml", "--data.batch_size=x"],
        "command line: data.batch_size: expected a whole",
    ),
    "unknown class": (
        ["fit", "-c", "good.yaml", "--model.texture=CNN"],
        "command line: model.texture: unknown encoder",
    ),
    "item of a list": (["fit", "-c", "good.yaml", "--trainer.callbacks.save_top_k=1"], "say which of its 1 items"),
    "GPU that is not there": (["fit", "-c", "good.yaml", "--trainer.accelerator=gpu"], "asks for a CUDA GPU"),
    "not a package": (["fit", "--allow-import", "a b"], "needs the name of a Python package"),
    "unknown kind": (["list", "encodr"], "Did you mean 'encoder'?"),
}


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_mistake_on_the_command_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args, expected = COMMAND_LINES[name]
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(GOOD, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    code, message = run(args, capsys)
    assert code == 2, message
    assert expected in message


def test_overlay_with_arguments_of_another_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(GOOD, sort_keys=False))
    (tmp_path / "over.yaml").write_text(
        "model:\n  texture:\n    class_path: ViT3D\n    init_args:\n      channels: [8]\n"
    )
    monkeypatch.chdir(tmp_path)
    code, message = run(["fit", "-c", "good.yaml", "-c", "over.yaml"], capsys)
    assert code == 2
    assert "over.yaml:5: model.texture.init_args.channels: ViT3D has no argument 'channels'." in message


def test_debug_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--debug", "-c", "nope.yaml"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("REG2RG_DEBUG", "1")
    assert main(["fit", "-c", "nope.yaml"]) == 2
    assert "Traceback" in capsys.readouterr().err
