"""The packaged configs of other systems: what they change and what they build."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reg2rg.cli.main import main
from reg2rg.config.overlay import packaged_configs
from reg2rg.config.saving import build
from reg2rg.models.encoders import Encoder, Resize
from reg2rg.models.projectors import LinearNormProjector, LinearProjector, MLPProjector, Projector

PEERS: dict[str, tuple[int, int, type[Projector]]] = {
    "radfm": (32, 768, LinearProjector),
    "m3d": (256, 768, MLPProjector),
    "ct2rep": (125, 512, LinearProjector),
    "ctchat": (256, 512, MLPProjector),
    "r2gengpt": (49, 1024, LinearNormProjector),
    "medvint": (32, 1024, MLPProjector),
}
"""Tokens, their width, projector."""
_printed: dict[tuple[str, ...], dict[str, Any]] = {}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], *configs: str) -> dict[str, Any]:
    if configs not in _printed:
        code = main(["fit", *(word for name in configs for word in ("-c", name)), "--print_config"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        _printed[configs] = yaml.safe_load(captured.out)
    return _printed[configs]


def changed(old: Any, new: Any, at: str = "") -> dict[str, Any]:
    if old == new:
        return {}
    if isinstance(old, dict) and isinstance(new, dict):
        return {k: v for key in {**old, **new} for k, v in changed(old.get(key), new.get(key), f"{at}.{key}").items()}
    return {at.lstrip("."): new}


def without_weights(component: Any) -> Any:
    """A component as a config names it, with nothing to read."""
    if not isinstance(component, dict):
        return component
    return {key: None if key == "weights" else without_weights(value) for key, value in component.items()}


def encoder_of(config: dict[str, Any]) -> Encoder:
    class Holder:
        def __init__(self, encoder: Encoder) -> None:
            self.encoder = encoder

    found: Encoder = build(Holder, {"encoder": without_weights(config["model"]["global_"])}).encoder
    return found


@pytest.mark.parametrize("base", ["reg2rg.yaml", "phantom.yaml"])
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_changes_the_encoder_and_the_target_alone(
    name: str, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same data, same views, same language model, same training.

    The tiny language model of phantoms has read what it is to write: whole reports here.
    """
    overlay = f"peers/{'phantom/' if base == 'phantom.yaml' else ''}{name}.yaml"
    difference = changed(printed(capsys, base), printed(capsys, base, overlay))
    assert (difference.pop("task.target"), difference.pop("model.texture")) == ("joined", None)
    assert difference.pop("model.geometry") is None
    folder = difference.pop("trainer.default_root_dir")
    assert folder.endswith(f"peers/{name}")
    allowed = {"model.global_", "model.projector"}
    if base == "phantom.yaml":
        regional = {"model.attributes": None, "model.head": None, "model.cues": False}  # what tells of regions
        assert {key: difference.pop(key) for key in regional} == regional
        assert difference.pop("model.llm.init_args.path").endswith("/lm_whole")
    if (name, base) == ("ctchat", "reg2rg.yaml"):
        assert difference.pop("task.views.window") == [-1000, 1000]
    others = {key for key, value in difference.items() if not any(key == a or key.startswith(f"{a}.") for a in allowed)}
    assert {key for key in others if folder not in str(difference[key])} == set()


@pytest.mark.parametrize("name", PEERS)
def test_full_size(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = printed(capsys, "reg2rg.yaml", f"peers/{name}.yaml")
    tokens, width, projector = PEERS[name]
    with torch.device("meta"):
        encoder = encoder_of(config).eval()
        out = encoder(torch.zeros(1, 1, 256, 256, 64))
    assert (encoder.num_tokens, encoder.out_channels) == (tokens, width)
    assert out.shape == (1, tokens, width)
    assert config["model"]["projector"]["class_path"].rpartition(".")[2] == projector.__name__


@pytest.mark.parametrize("name", PEERS)
def test_phantom_size(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = printed(capsys, "phantom.yaml", f"peers/phantom/{name}.yaml")
    torch.manual_seed(0)
    encoder = encoder_of(config).eval()
    with torch.no_grad():
        tokens = encoder(torch.rand(2, 1, *config["task"]["views"]["size"]) * 2 - 1)
    assert tokens.shape == (2, encoder.num_tokens, encoder.out_channels)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3  # it looks
    assert encoder.num_tokens <= 64
    assert not any(isinstance(part, Resize) for part in encoder.modules())


@pytest.mark.slow
def test_the_page_has_the_sizes_that_the_script_counts() -> None:
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("peers_sizes", root / "benchmarks" / "peers.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules["peers_sizes"] = script  # its dataclass looks itself up
    spec.loader.exec_module(script)
    page = (root / "docs" / "how-to" / "peers.md").read_text(encoding="utf-8")
    assert "\n".join(script.table()) in page


def test_every_peer_is_tested() -> None:
    found = {name.removeprefix("peers/") for name in packaged_configs() if name.startswith("peers/")}
    shared = {"whole_report.yaml", "phantom/whole_report.yaml"}
    assert found == {*shared, *(f"{where}{name}.yaml" for name in PEERS for where in ("", "phantom/"))}


def test_the_peers_of_the_paper_see_what_reg2rg_sees(capsys: pytest.CaptureFixture[str]) -> None:
    views = printed(capsys, "reg2rg.yaml")["task"]["views"]
    for name in ("radfm", "m3d", "ct2rep", "r2gengpt", "medvint"):
        assert printed(capsys, "reg2rg.yaml", f"peers/{name}.yaml")["task"]["views"] == views
