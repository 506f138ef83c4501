"""DeepSpeed ZeRO-2 on CPUs over gloo, one and two ranks, held to one process without it.

Needs the package: `make test-deepspeed`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import DDPStrategy

from ranks import fit_on_ranks, on_ranks, without_dropout
from reg2rg.cli.main import main
from reg2rg.core.errors import CheckpointError, ConfigError
from reg2rg.training.checkpoints import read_checkpoint, step_of
from reg2rg.training.strategies import ZeRO

pytest.importorskip("deepspeed", reason="deepspeed is not installed (make test-deepspeed)")


class OnCpu(ZeRO):
    """Lightning gives DeepSpeed to GPUs alone; DeepSpeed itself takes CPUs."""

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)

    def setup_environment(self) -> None:
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()


def zero() -> OnCpu:
    return OnCpu(process_group_backend="gloo", logging_batch_size_per_gpu=1)


@pytest.mark.parametrize(
    ("ranks", "accumulate", "batches"), [(1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 2, 2), (1, 2, 3)], ids=str
)
def test_it_takes_the_steps_of_one_process(toy: Any, ranks: int, accumulate: int, batches: int) -> None:
    """Neither scaled nor clipped otherwise: with so large an eps the steps of AdamW show how large a gradient is."""
    options = {"accumulate": accumulate, "batches": batches, "clip": 30.0, "eps": 1.0}
    size = 4 if batches == 1 else 2
    (one,) = fit_on_ranks(toy, 1, "auto", batch_size=size, **options)
    assert one["losses"][-1] < one["losses"][0] - 0.02
    for found in fit_on_ranks(toy, ranks, zero, batch_size=size // ranks, **options):
        assert found["losses"] == pytest.approx(one["losses"], abs=1e-6)
        assert found["step"] == 8
        for name, value in one["state"].items():
            np.testing.assert_allclose(found["state"][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


class Poison(L.Callback):
    """Makes the loss of two batches, or a gradient of them, not a number."""

    def __init__(self, gradient: bool) -> None:
        self.gradient, self.count = gradient, -1

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        self.count += 1
        if self.count in (1, 4) and not self.gradient:
            batch.texture[0] = torch.nan

    def on_before_backward(self, trainer: L.Trainer, module: Any, loss: torch.Tensor) -> None:
        if self.count in (1, 4) and self.gradient:
            loss.register_hook(lambda gradient: gradient * torch.inf)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(toy: Any, gradient: bool, precision: str) -> None:
    def callbacks() -> list[L.Callback]:
        return [Poison(gradient)]

    options = {"batch_size": 1, "batches": 2, "steps": 6, "precision": precision, "callbacks": callbacks}
    for found in fit_on_ranks(toy, 2, zero, **options):
        assert found["skipped"] == 2
        assert all(np.isfinite(value).all() for value in found["state"].values())


def test_a_checkpoint_is_read_without_the_package_and_goes_on(toy: Any, tmp_path: Path) -> None:
    path = tmp_path / "zero.ckpt"
    options = {"batch_size": 1, "batches": 1.0}
    whole = fit_on_ranks(toy, 2, zero, steps=5, save=(path, 2), **options)
    assert sorted(part.name for part in tmp_path.iterdir()) == ["zero.ckpt"]
    resumed = fit_on_ranks(toy, 2, zero, steps=5, resume=path, **options)
    for one, other in zip(whole, resumed, strict=True):
        assert other["losses"] == one["losses"][2:]
        for name, value in one["state"].items():
            np.testing.assert_array_equal(other["state"][name], value, err_msg=name)

    found = read_checkpoint(path)
    assert found["global_step"] == 2
    assert not any(name.endswith("q_proj.base_layer.weight") for name in found["state_dict"])  # from its own file
    one = without_dropout(toy)
    one.load_state_dict(found["state_dict"])
    (alone,) = fit_on_ranks(toy, 1, "auto", batch_size=2, batches=1.0, steps=2)
    for name, value in one.state_dict().items():
        np.testing.assert_allclose(value.numpy(), alone["state"][name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_copies_in_float32_are_what_is_exported(toy: Any, tmp_path: Path) -> None:
    fit_on_ranks(toy, 2, zero, batch_size=2, steps=2, precision="bf16-mixed", save=(tmp_path / "half.ckpt", 2))
    tags = read_checkpoint(tmp_path / "half.ckpt")["state_dict"]["reporter.tags"]
    assert tags.dtype == torch.float32
    assert not torch.equal(tags, tags.bfloat16().float())
    file = next((tmp_path / "half.ckpt" / "checkpoint").glob("*rank_1_*"))
    file.unlink()
    with pytest.raises(ConfigError, match="1 files of 2 ranks"):
        read_checkpoint(tmp_path / "half.ckpt")


def reports(toy: Any, strategy: Any, path: Path) -> dict[str, str]:
    """Of the studies to test on, after a step and a validation that end in `path`, if it is not there yet."""

    def work() -> dict[str, str]:
        module = without_dropout(toy, val_generate=1)
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
        run = L.Trainer(accelerator="cpu", devices=1, strategy=strategy(), max_steps=1, **quiet)
        data = toy.data(module, batch_size=5)
        if not path.exists():
            run.fit(module, datamodule=data)
            assert np.isfinite(float(run.callback_metrics["val/loss"]))
            run.save_checkpoint(path)
        if not isinstance(run.strategy, ZeRO):
            module.load_state_dict(read_checkpoint(path)["state_dict"])
        batches = run.predict(module, datamodule=data, ckpt_path=path if isinstance(run.strategy, ZeRO) else None)
        return {answer.study: answer.text for answers in batches or [] for answer in answers}

    return on_ranks(1, work)[0]


def test_it_validates_and_predicts_from_its_folder(toy: Any, tmp_path: Path) -> None:
    found = reports(toy, zero, tmp_path / "zero.ckpt")
    assert found == reports(toy, zero, tmp_path / "zero.ckpt")
    assert found == reports(toy, lambda: "auto", tmp_path / "zero.ckpt")
    assert set(found) == {"s6", "s7"}


def test_the_overlay_by_the_command_line(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, gone on with, exported and predicted with; and refused in a line where it cannot go on."""
    for name in ("root_device", "setup_environment", "setup_distributed"):
        monkeypatch.setattr(ZeRO, name, OnCpu.__dict__[name])
    (tmp_path / "cpu.yaml").write_text("trainer: {strategy: {init_args: {process_group_backend: gloo}}}")
    own = ["-c", "phantom.yaml", "-c", str(phantoms / "own.yaml"), "--vars.word_alignment_steps=0"]
    own += ["--model.llm.lora={rank: 2}", f"--trainer.default_root_dir={tmp_path}"]
    zero = ["-c", "strategies/deepspeed_zero2.yaml", "-c", str(tmp_path / "cpu.yaml"), "--trainer.devices=2"]
    last, model = str(tmp_path / "checkpoints" / "last.ckpt"), str(tmp_path / "model")
    for more in ([], ["--trainer.max_steps=4", "--ckpt_path=last"]):
        command = ["fit", *own, *zero, "--trainer.accelerator=cpu", *more]
        assert on_ranks(2, main, command) == [0, 0]
    assert step_of(Path(last)) == 4
    assert main(["export", "--ckpt_path", last, "--out", model]) == 0
    texts = []
    for path in (last, model):
        assert main(["predict", *own, "--ckpt_path", path]) == 0
        texts.append((tmp_path / "predictions" / "predictions.csv").read_text())
        shutil.rmtree(tmp_path / "predictions")
    assert texts[0] == texts[1]
    assert main(["fit", *own, "--ckpt_path", last]) == 2


class Harm:
    """What a stranger would put into a pickle."""

    def __reduce__(self) -> Any:
        return print, ("harm",)


def test_a_checkpoint_that_holds_code_is_not_resumed(toy: Any, tmp_path: Path) -> None:
    path = tmp_path / "zero.ckpt"
    fit_on_ranks(toy, 1, zero, batch_size=2, steps=1, save=(path, 1))
    file = path / "checkpoint" / "mp_rank_00_model_states.pt"
    torch.save(torch.load(file, weights_only=True) | {"more": Harm()}, file)
    with pytest.raises(AssertionError, match=r"CheckpointError: .*holds more than tensors and plain values"):
        fit_on_ranks(toy, 1, zero, batch_size=2, steps=2, resume=path)
    with pytest.raises(CheckpointError, match="Only tensors and plain values"):
        read_checkpoint(path)
