"""Lightning's usual switches over a packaged config, and its strategies for several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar

from ranks import on_ranks
from reg2rg.cli.main import main
from reg2rg.training.checkpoints import read_checkpoint


@pytest.fixture(autouse=True)
def one_thread():
    """A forked process must not meet the thread pool of its parent."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fit(phantoms: Path, runs: Path, *options: str) -> int:
    own = ["-c", "phantom.yaml", "-c", str(phantoms / "own.yaml"), f"--trainer.default_root_dir={runs}"]
    return main(["fit", *own, *options])


@pytest.mark.parametrize(
    ("switch", "kind"),
    [
        ("enable_progress_bar=false", ProgressBar),
        ("enable_checkpointing=false", ModelCheckpoint),
        ("fast_dev_run=true", ModelCheckpoint),  # which would write over the last.ckpt of a run
        ("logger=false", LearningRateMonitor),
        (None, None),
    ],
)
def test_a_switch_takes_its_callback_along(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str | None, kind: type | None
) -> None:
    built: list[Any] = []
    monkeypatch.setattr(L.Trainer, "fit", lambda trainer, *_, **__: built.append(trainer))
    assert fit(phantoms, tmp_path, *([f"--trainer.{switch}"] if switch else [])) == 0
    kinds = {ProgressBar, ModelCheckpoint, LearningRateMonitor}
    found = {one for one in kinds if any(isinstance(callback, one) for callback in built[0].callbacks)}
    assert found == kinds - {kind}


def test_a_quiet_run(phantoms: Path, tmp_path: Path) -> None:
    off = [f"--trainer.{name}=false" for name in ("enable_progress_bar", "enable_checkpointing", "logger")]
    assert fit(phantoms, tmp_path, *off, "--trainer.log_every_n_steps=0") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"]


def test_the_ddp_overlay_trains_in_phases(phantoms: Path, tmp_path: Path) -> None:
    """Word alignment alone first, which has no part for the language model; then all."""
    two = ["-c", "strategies/ddp.yaml", "-c", str(phantoms / "two.yaml")]
    assert fit(phantoms, tmp_path, *two) == 0
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2


@pytest.mark.slow
def test_the_fsdp2_overlay_trains_in_phases_and_is_exported(phantoms: Path, tmp_path: Path) -> None:
    two = ["-c", "strategies/fsdp2.yaml", "--trainer.devices=2", "--trainer.accelerator=cpu"]
    assert on_ranks(2, fit, phantoms, tmp_path, *two) == [0, 0]
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert read_checkpoint(last)["global_step"] == 2
    assert main(["export", "--ckpt_path", str(last), "--out", str(tmp_path / "model")]) == 0
