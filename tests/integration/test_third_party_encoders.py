"""Encoders of others by config alone: timm's, MONAI's, one's own from a plug-in; mixed precision, two processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from reg2rg.cli.main import main
from reg2rg.training.checkpoints import read_checkpoint
from tiny_runs import make_phantoms

PLUGIN = '''
from torch import Tensor, nn

from reg2rg.models.encoders import ENCODERS, Encoder


class TheirNet(nn.Module):
    """A network as it is found: it knows nothing of this package."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(1, width, 8, stride=8), nn.GELU(), nn.GroupNorm(1, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@ENCODERS.register
class TheirEncoder(Encoder):
    """That network, its map as tokens."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.net = TheirNet(width)
        self.pool = nn.AdaptiveAvgPool3d(2)
        self.out_channels, self.num_tokens = width, 8

    def forward(self, volumes: Tensor) -> Tensor:
        return self.pool(self.net(volumes)).flatten(2).transpose(1, 2)
'''
ENCODERS = {
    "timm": "{class_path: TimmDepthChannels, init_args: {model_name: test_convnext, size: SIZE, grid: [2, 2]}}",
    "monai": "{class_path: MonaiSwinUNETR, init_args: {size: SIZE, feature_size: 12, depths: [1, 1, 1, 1], window: 4}}",
    "plugin": "{class_path: TheirEncoder, init_args: {width: 16}}",
}
OWN = """
vars: {word_alignment: 0.0}
data:
  dataset: {init_args: {root: ROOT/data}}
  store: ROOT/store
  workers: 0
  batch_size: 1
task: {views: {size: [32, 32, 32]}}
model:
  geometry: null
  llm: {init_args: {path: ROOT/lm}}
  val_generate: 0
trainer: {max_steps: 2, limit_val_batches: 1, val_check_interval: 1.0, check_val_every_n_epoch: 1}
"""
TWO = """
trainer:
  devices: 2
  strategy:
    class_path: lightning.pytorch.strategies.DDPStrategy
    init_args: {start_method: fork, process_group_backend: gloo}
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantoms(tmp_path_factory.mktemp("third_party"), OWN, TWO)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, components: None):
    """An installed package with the plug-in, as `pip install` leaves it."""
    site = tmp_path / "site-packages"
    (site / "their_encoders-1.0.dist-info").mkdir(parents=True)
    (site / "their_encoders.py").write_text(PLUGIN)
    installed = site / "their_encoders-1.0.dist-info"
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: their-encoders\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[reg2rg.plugins]\ntheirs = their_encoders\n")
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("their_encoders", None)


@pytest.fixture(autouse=True)
def one_thread():
    """A forked process must not meet the thread pool of its parent."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ENCODERS)
def test_by_config_alone(name: str, processes: int, phantoms: Path, tmp_path: Path, plugin: None) -> None:
    overlay = tmp_path / "encoder.yaml"
    component = ENCODERS[name].replace("SIZE", '"${task.views.size}"')
    overlay.write_text(f"model: {{texture: {component}}}\n")
    configs = ["phantom.yaml", str(phantoms / "own.yaml"), str(overlay)]
    configs += [str(phantoms / "two.yaml")] if processes == 2 else []
    words = [word for config in configs for word in ("-c", config)]
    options = ["--trainer.precision=bf16-mixed", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *words, *options]) == 0
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2
    encoder = {key: value for key, value in checkpoint["state_dict"].items() if key.startswith("reporter.texture.")}
    assert encoder
    assert all(tensor.isfinite().all() for tensor in encoder.values())
    assert {tensor.dtype for tensor in encoder.values() if tensor.is_floating_point()} == {torch.float32}
