"""The three traps of config mechanisms, plug-ins, and that a printed config runs."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reg2rg.cli.building import Builder
from reg2rg.cli.main import main
from reg2rg.cli.trainer import ReportCLI, SaveConfig, check_config
from reg2rg.config.reading import Tree
from reg2rg.config.saving import CONFIG_KEY, read_config
from reg2rg.core.errors import ConfigError
from reg2rg.models.encoders import ENCODERS

GOOD: dict[str, Any] = {
    "task": {"views": {"size": [16, 16, 16]}},
    "data": {
        "dataset": {"class_path": "RadGenome", "init_args": {"root": "."}},
        "store": ".",
    },
    "model": {
        "texture": {"class_path": "CNN3D", "init_args": {"size": "${task.views.size}", "dim": 24, "dropout": 0.5}},
        "geometry": None,
        "global_": "texture",
        "projector": "LinearProjector",
        "llm": {"class_path": "CausalLM", "init_args": {"path": "hub/model"}},
    },
    "trainer": {"accelerator": "cpu", "logger": False},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(yaml.safe_dump(GOOD, sort_keys=False))
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *args: str, command: str = "fit") -> dict[str, Any]:
    code = main([command, "-c", "good.yaml", *args, "--print_config"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    config: dict[str, Any] = yaml.safe_load(captured.out)
    return config


def texture(config: dict[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = config["model"]["texture"]["init_args"]
    return arguments


def test_references_resolve_once_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Trap 1: references across files, in an overlay, and to a value that the command line sets."""
    assert texture(printed(capsys))["size"] == [16, 16, 16]
    assert texture(printed(capsys, "--task.views.size=[8, 8, 8]"))["size"] == [8, 8, 8]
    Path("over.yaml").write_text("task: {views: {size: [24, 24, 24]}}\nmodel: {max_new_tokens: '${data.batch_size}'}\n")
    config = printed(capsys, "-c", "over.yaml", "--data.batch_size=7")
    assert texture(config)["size"] == [24, 24, 24]
    assert config["model"]["max_new_tokens"] == 7
    config = printed(capsys, "--task.max_length=${data.batch_size}", "--data.batch_size=9")
    assert config["task"]["max_length"] == 9
    config = printed(capsys, "--vars={folder: here}", "--data.store=${vars.folder}/store")
    assert config["data"]["store"] == "here/store"
    for path in ("${vars.folder}/lm", "${vars.folder}"):  # copied to the data's tokenizer, at another depth
        config = printed(capsys, "--vars={folder: lm}", f"--model.llm.init_args.path={path}")
        assert config["model"]["llm"]["init_args"]["path"] == path.replace("${vars.folder}", "lm")


def test_environment_variables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REG2RG_TEST_STORE", "/somewhere")
    assert printed(capsys, "--data.store=${oc.env:REG2RG_TEST_STORE}/a")["data"]["store"] == "/somewhere/a"
    assert printed(capsys, "--data.store=${oc.env:REG2RG_NOT_SET,here}")["data"]["store"] == "here"


@pytest.mark.parametrize("way", ["file", "file with arguments", "bare name", "option"])
def test_another_class_takes_nothing_over(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Trap 2: ViT3D also has 'dim' and 'dropout', with defaults of its own."""
    overlays = {
        "file": "model: {texture: {class_path: ViT3D}}",
        "file with arguments": "model: {texture: {class_path: ViT3D, init_args: {depth: 2}}}",
        "bare name": "model: {texture: ViT3D}",
    }
    Path("over.yaml").write_text(overlays.get(way, "{}"))
    config = printed(capsys, "-c", "over.yaml", *(["--model.texture=ViT3D"] if way == "option" else []))
    assert config["model"]["texture"]["class_path"] == "reg2rg.models.encoders.ViT3D"
    assert texture(config)["dim"] == 768
    assert texture(config)["dropout"] == 0.1
    assert texture(config)["depth"] == (2 if way == "file with arguments" else 12)


def test_the_same_class_keeps_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert texture(printed(capsys, "--model.texture=CNN3D", "--model.texture.dropout=0.25")) == {
        **texture(printed(capsys)),
        "dropout": 0.25,
    }


class _Reached(Exception):
    """The command line got as far as building the model."""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command up to building, and give its parsed config."""
    found: dict[str, Any] = {}

    def stop(self: ReportCLI) -> None:
        found["config"], found["cli"] = self.config[self.command].as_dict(), self
        raise _Reached

    monkeypatch.setattr(ReportCLI, "instantiate_classes", stop)

    def run(*args: str) -> dict[str, Any]:
        assert main(list(args)) == 1
        return found

    return run


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_printed_config_runs_and_means_the_same(
    command: str, parsed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = printed(capsys, "--model.optimizer.lr=1e-3", command=command)
    Path("printed.yaml").write_text(yaml.safe_dump(config))
    first = parsed(command, "-c", "good.yaml", "--model.optimizer.lr=1e-3")["config"]
    again = parsed(command, "-c", "printed.yaml")["config"]
    assert {**again, "config": None} == {**first, "config": None}


def test_without_defaults_it_is_shorter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "-c", "good.yaml", "--print_config=skip_default"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 50
    assert "dropout: 0.5" in text
    assert "max_epochs" not in text


def test_help_of_a_trainer_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--model.llm" in text
    assert "--trainer.max_epochs" in text


def test_an_extra_that_is_not_installed(
    parsed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(self: ReportCLI) -> None:
        raise ModuleNotFoundError("No module named 'wandb'")

    monkeypatch.setattr(ReportCLI, "instantiate_classes", missing)
    assert main(["fit", "-c", "good.yaml"]) == 2
    assert "wandb is not installed. Fix: pip install 'reg2rg[wandb]'" in capsys.readouterr().err


def test_links_fill_the_data_from_the_model(parsed: Any) -> None:
    config = parsed("fit", "-c", "good.yaml", "--task.identity=false", "--task.regions=lobes")["config"]
    assert config["data"]["tokenizer"] == "hub/model"
    assert (config["task"]["identity"], config["task"]["regions"]) == (False, "lobes")
    assert not {"task", "identity", "regions"} & (set(config["model"]) | set(config["data"]))  # it stands once


def test_a_key_of_the_task_among_the_datas_is_shown_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "-c", "good.yaml", "--data.views.size=[8, 8, 8]", "--print_config"]) == 2
    assert "has no argument 'views'. It stands in the section 'task'." in capsys.readouterr().err


def test_the_config_travels_in_the_checkpoint_and_nothing_else_does(parsed: Any) -> None:
    """Trap 3: no hyper-parameters in the checkpoint, so --ckpt_path cannot overrule the config."""
    cli = parsed("fit", "-c", "good.yaml", "--model.texture.dim=48")["cli"]
    checkpoint: dict[str, Any] = {}
    SaveConfig(cli._parser("fit"), cli.config["fit"]).on_save_checkpoint(None, None, checkpoint)  # type: ignore[arg-type]
    assert set(checkpoint) == {CONFIG_KEY}
    saved = read_config(checkpoint)
    assert saved["model"]["texture"]["init_args"]["dim"] == 48
    assert saved["task"]["regions"] == "radgenome"
    Path("saved.yaml").write_text(checkpoint[CONFIG_KEY])
    again = parsed("fit", "-c", "saved.yaml")["config"]
    assert again["model"] == parsed("fit", "-c", "good.yaml", "--model.texture.dim=48")["config"]["model"]


def test_a_checkpoint_with_arguments_does_not_overrule_the_config(parsed: Any) -> None:
    import torch

    torch.save({"hyper_parameters": {}, "state_dict": {}}, "old.ckpt")
    config = parsed("fit", "-c", "good.yaml", "--ckpt_path=old.ckpt")["config"]
    assert config["model"]["texture"]["init_args"]["dim"] == 24


def test_best_and_last_are_found_where_the_config_saves_them(parsed: Any) -> None:
    Path("kept").mkdir()
    Path("kept/best.ckpt").write_bytes(b"")
    callbacks = "--trainer.callbacks=[{class_path: ModelCheckpoint, init_args: {dirpath: kept}}]"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReportCLI, "_parse_ckpt_path", lambda self: None)
        assert parsed("predict", "-c", "good.yaml", callbacks, "--ckpt_path=best")["config"]["ckpt_path"] == str(
            Path("kept/best.ckpt").absolute()
        )


def test_what_a_constructor_refuses_names_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "-c", "good.yaml", "--model.texture.channels=[7]"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: command line: model.texture.init_args.channels (CNN3D): ")
    assert "multiple of 8" in message


@pytest.mark.parametrize(
    ("given", "refusal", "place"),
    [
        ({"n": 2, "kind": "odd"}, "kind 'odd' (expected even)", r"f:7: model\.a\.init_args\.kind"),
        ({"n": 2, "kind": "even", "size": [3]}, "n is 2", r"command line: model\.a\.init_args\.n"),
        ({"n": 2, "kind": "even", "size": [3]}, "size is [3]", r"f:5: model\.a"),  # n has nothing to do with it
        ({"size": [3], "kind": "even"}, "size [3]", r"f:5: model\.a"),
    ],
)
def test_builder_names_the_argument_that_is_quoted_or_laid_over(
    given: dict[str, Any], refusal: str, place: str
) -> None:
    from reg2rg.config.reading import COMMAND_LINE, Origin, Tree

    at = ("model", "a")
    lines = {"n": COMMAND_LINE, "kind": Origin("f", 7), "size": Origin("f", 8)}
    tree = Tree({}, {at: Origin("f", 5), **{(*at, "init_args", name): line for name, line in lines.items()}})

    class Part:
        def __init__(self, **_: Any) -> None:
            raise ValueError(refusal)

    with pytest.raises(ConfigError, match=f"^{place} \\(Part\\): "):
        Builder({"model": {"a": {"class_path": "a.Part", "init_args": given}}}, tree)(Part, **given)


def test_builder_finds_the_right_one_of_two() -> None:
    from reg2rg.config.reading import Origin, Tree

    def part(n: int) -> dict[str, Any]:
        return {"class_path": "a.Part", "init_args": {"n": n}}

    tree = Tree({}, {("model", "a"): Origin("f", 1), ("model", "b"): Origin("f", 2)})
    builder = Builder({"model": {"a": part(1), "b": part(2)}}, tree)

    class Part:
        def __init__(self, n: int) -> None:
            raise ValueError(f"not {n}")

    with pytest.raises(Exception, match=r"f:2: model\.b \(Part\): not 2"):
        builder(Part, n=2)


PLUGIN = '''
from __future__ import annotations

from torch import Tensor

from reg2rg.models.encoders import ENCODERS, Encoder


@ENCODERS.register
class AcmeEncoder(Encoder):
    """One token of means."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.out_channels, self.num_tokens = width, 1

    def forward(self, volumes: Tensor) -> Tensor:
        return volumes.mean((2, 3, 4)).repeat(1, self.out_channels)[:, None]
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A third-party distribution on the path, as pip would leave it."""
    site = tmp_path / "site"
    info = site / "acme_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[reg2rg.plugins]\nacme = acme_plugin\n")
    (site / "acme_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(site))
    yield
    ENCODERS._classes.pop("AcmeEncoder", None)
    sys.modules.pop("acme_plugin", None)


def test_a_plugin_is_used_by_its_short_name(plugin: None, capsys: pytest.CaptureFixture[str], parsed: Any) -> None:
    Path("acme.yaml").write_text("model:\n  texture:\n    class_path: AcmeEncoder\n    init_args:\n      width: 6\n")
    config = printed(capsys, "-c", "acme.yaml")
    assert config["model"]["texture"] == {"class_path": "acme_plugin.AcmeEncoder", "init_args": {"width": 6}}
    assert main(["fit", "-c", "good.yaml", "-c", "acme.yaml", "--model.texture.wdith=3"]) == 2
    assert "AcmeEncoder has no argument 'wdith'. Did you mean 'width'?" in capsys.readouterr().err
    config = parsed("fit", "-c", "good.yaml", "-c", "acme.yaml")["config"]
    assert config["model"]["texture"]["class_path"] == "acme_plugin.AcmeEncoder"


def test_a_broken_plugin_raises_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site"
    info = site / "acme_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[reg2rg.plugins]\nacme = acme_broken\n")
    (site / "acme_broken.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(str(site))
    assert main(["fit", "-c", "good.yaml"]) != 0
    assert "not_there_at_all" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_a_config_is_checked_without_building_anything(
    command: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Builder, "__call__", lambda *arguments, **options: pytest.fail("built"))
    before = torch.get_rng_state()
    check_config(command, Tree.of(copy.deepcopy(GOOD | {"seed_everything": 5}), "run full"))
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")
    assert not list(Path().glob("*/"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": GOOD["model"] | {"textur": None}}, "run full: model.textur: "),
        ({"data": GOOD["data"] | {"batch_size": "two"}}, "run full: data.batch_size: expected a whole number"),
        (
            {"model": GOOD["model"] | {"projector": "evil.Thing"}},
            "run full: model.projector: not imported: 'evil",
        ),
        ({"trainer": {"max_steps": "${nowhere}"}}, "'nowhere', which no config file and no option sets"),
    ],
)
def test_a_checked_config_says_its_mistakes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config("fit", Tree.of(copy.deepcopy(GOOD | change), "run full"))
    assert message in str(caught.value)
