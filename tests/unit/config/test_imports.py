"""A config from elsewhere must not run the Python file that lies beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from reg2rg.cli.main import main
from reg2rg.config.imports import is_allowed

CANARY = "import pathlib\npathlib.Path({mark!r}).write_text('ran')\n\nclass Thing:\n    pass\n"


def config_with(**changes: object) -> dict[str, object]:
    data = {"dataset": {"class_path": "RadGenome", "init_args": {"root": "."}}, "store": "."}
    model = {"texture": None, "geometry": None, "global_": None, "projector": "LinearProjector", "llm": "CausalLM"}
    config: dict[str, object] = {"data": data, "model": model, "trainer": {"accelerator": "cpu"}}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        config[section][key] = value  # type: ignore[index]
    return config


EVIL = {"class_path": "evil_canary.Thing"}
WAYS = {
    "component": config_with(model__texture=EVIL),
    "bare dotted name": config_with(model__texture="evil_canary.Thing"),
    "factory": config_with(model__projector="evil_canary.Thing"),
    "nested component": config_with(
        model__texture={"class_path": "Frozen", "init_args": {"encoder": {"class_path": "evil_canary.Thing"}}}
    ),
    "callback": config_with(trainer__callbacks=[EVIL]),
    "where text is fine too": config_with(trainer__strategy="evil_canary.Thing"),
    "untyped dictionary": {**config_with(), "vars": {"x": EVIL}},
    "dataset": config_with(data__dataset=EVIL),
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    mark = tmp_path / "canary"
    (tmp_path / "evil_canary.py").write_text(CANARY.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield mark
    sys.modules.pop("evil_canary", None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("command", [["fit"], ["data", "prepare"]], ids=["fit", "prepare"])
def test_canary_does_not_run(way: str, command: list[str], canary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(yaml.safe_dump(WAYS[way]))
    code = main([*command, "-c", "run.yaml"])
    assert not canary.exists()
    assert "evil_canary" not in sys.modules
    assert code != 0
    if way in ("component", "nested component", "callback", "dataset"):
        message = capsys.readouterr().err
        assert code == 2
        assert "run.yaml:" in message
        assert "--allow-import evil_canary" in message


def test_not_from_the_command_line_either(canary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(yaml.safe_dump(config_with()))
    assert main(["fit", "-c", "run.yaml", "--model.texture=evil_canary.Thing"]) == 2
    assert not canary.exists()
    assert "command line: " in capsys.readouterr().err


def test_the_user_may_allow_it_for_one_run(canary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(yaml.safe_dump(WAYS["component"]))
    assert main(["fit", "-c", "run.yaml", "--allow-import", "evil_canary"]) == 2
    assert canary.exists()
    assert "is not an encoder: it does not extend Encoder" in capsys.readouterr().err
    sys.modules.pop("evil_canary")
    canary.unlink()
    assert main(["fit", "-c", "run.yaml"]) == 2
    assert not canary.exists()


def test_allowed_are_whole_names() -> None:
    assert is_allowed("torch.nn.ReLU", ["torch"])
    assert not is_allowed("torchevil.X", ["torch"])
