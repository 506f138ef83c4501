"""Checkpoints in shards, as DeepSpeed and torch write them: made whole, and nothing in them run."""

from __future__ import annotations

import enum
import pickle
import shutil
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch.distributed.checkpoint import save

from reg2rg.core.errors import CheckpointError, ConfigError
from reg2rg.training.checkpoints import checkpoint_size, read_checkpoint, step_of
from reg2rg.training.shards import PlainReader, has_table, is_sharded, load_plain, load_shards
from reg2rg.training.strategies import ZeRO, keeps_gradients


class LossScaler:
    def __init__(self) -> None:
        self.cur_scale = 1.0


class DynamicLossScaler(LossScaler): ...


class ZeroStageEnum(int, enum.Enum):
    gradients = 2


class fragment_address:  # DeepSpeed's own name
    def __init__(self, numel: int, start: int) -> None:
        self.numel, self.start = numel, start


class Harm:
    """What a stranger would put into a pickle."""

    def __reduce__(self) -> Any:
        return print, ("harm",)


@pytest.fixture
def deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules with the records that it pickles, under its names."""
    places = {
        "deepspeed.runtime.fp16.loss_scaler": (LossScaler, DynamicLossScaler),
        "deepspeed.runtime.zero.config": (ZeroStageEnum,),
        "deepspeed.utils.tensor_fragment": (fragment_address,),
    }
    for name, records in places.items():
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
        for record in records:
            monkeypatch.setattr(record, "__module__", name)
            setattr(sys.modules[name], record.__name__, record)
    precision: Any = types.ModuleType("deepspeed.runtime.fp16")
    precision.loss_scaler = sys.modules["deepspeed.runtime.fp16.loss_scaler"]
    monkeypatch.setitem(sys.modules, "deepspeed.runtime.fp16", precision)


WEIGHTS = {"a": torch.arange(6.0).view(2, 3) / 7, "b": torch.arange(4.0) / 7}


def write_zero(path: Path, **more: Any) -> Path:
    """Two ranks with one group: `a` ends on the second, where `b` is."""
    folder = path / "checkpoint"
    folder.mkdir(parents=True)
    flat = torch.cat([weight.flatten() for weight in WEIGHTS.values()])
    shapes = [OrderedDict((name, weight.shape) for name, weight in WEIGHTS.items())]
    half = {name: weight.bfloat16() for name, weight in WEIGHTS.items()} | {"buffer": torch.ones(1)}
    model = {"module": half, "param_shapes": shapes, "dp_world_size": 2, "global_step": 7, "optimizer": None, **more}
    torch.save(model, folder / "mp_rank_00_model_states.pt", _use_new_zipfile_serialization=False)
    slices = ({"a": fragment_address(5, 0)}, {"a": fragment_address(1, 0), "b": fragment_address(4, 1)})
    for rank, found in enumerate(slices):
        state = {
            "loss_scaler": LossScaler(),
            "zero_stage": ZeroStageEnum.gradients,
            "single_partition_of_fp32_groups": [flat[5 * rank : 5 * rank + 5]],
            "param_slice_mappings": [OrderedDict(found)],
        }
        file = folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        torch.save({"optimizer_state_dict": state}, file)
    return path


def test_copies_in_float32_are_put_together_without_the_package(
    tmp_path: Path, deepspeed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zero(tmp_path / "zero.ckpt")
    file = path / "checkpoint" / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    assert isinstance(load_plain(str(file))["optimizer_state_dict"]["loss_scaler"], LossScaler)
    for name in [name for name in sys.modules if name.startswith("deepspeed")]:
        monkeypatch.delitem(sys.modules, name)
    assert is_sharded(path)
    found = read_checkpoint(path)
    assert set(found) == {"state_dict", "dp_world_size", "global_step"}
    assert found["state_dict"].keys() == {"a", "b", "buffer"}
    for name, weight in WEIGHTS.items():
        assert torch.equal(found["state_dict"][name], weight)
    assert step_of(path) == 7
    assert checkpoint_size(path) == sum(part.stat().st_size for part in (path / "checkpoint").iterdir())
    file.unlink()
    with pytest.raises(ConfigError, match="1 files of 2 ranks with whole weights"):
        read_checkpoint(path)


def test_what_a_stranger_pickled_is_not_run(
    tmp_path: Path, deepspeed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_zero(tmp_path / "zero.ckpt", more=Harm())
    with pytest.raises(CheckpointError, match="Only tensors and plain values"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="holds more than tensors and plain values"):
        load_plain(str(path / "checkpoint" / "mp_rank_00_model_states.pt"))
    path = write_fsdp(tmp_path / "fsdp.ckpt", more=Harm())
    with pytest.raises(CheckpointError, match="Only tensors and plain values"):
        load_shards(path, {"more": 1}, alone=True)
    (path / ".metadata").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(CheckpointError, match="print is no record of a checkpoint"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="print is no record of a checkpoint"):
        has_table(path)
    assert "harm" not in capsys.readouterr().out


def write_fsdp(path: Path, **more: Any) -> Path:
    save({"state_dict": dict(WEIGHTS), "optimizer_0": {"lr": 0.5}, **more}, checkpoint_id=path, no_dist=True)
    torch.save({"global_step": 7}, path / "meta.pt")
    return path


def test_shards_of_fsdp_are_put_together(tmp_path: Path) -> None:
    path = write_fsdp(tmp_path / "fsdp.ckpt")
    assert is_sharded(path)
    assert has_table(path)
    assert not has_table(tmp_path)
    found = read_checkpoint(path)
    assert set(found) == {"state_dict", "global_step"}
    torch.testing.assert_close(found["state_dict"], WEIGHTS, rtol=0, atol=0)
    assert step_of(path) == 7
    state = {"optimizer_0": {"lr": 0.0}}
    load_shards(path, state, alone=True)
    assert state == {"optimizer_0": {"lr": 0.5}}


def test_a_table_leads_nowhere_else(tmp_path: Path) -> None:
    path = write_fsdp(tmp_path / "fsdp.ckpt")
    table = PlainReader(path).read_metadata()
    for info in table.storage_data.values():
        info.relative_path = f"../{info.relative_path}"
    (path / ".metadata").write_bytes(pickle.dumps(table))
    with pytest.raises(CheckpointError, match="no table of contents of this folder"):
        read_checkpoint(path)


def test_a_folder_of_zero_takes_its_place_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, path = ZeRO.__new__(ZeRO), tmp_path / "last.ckpt"
    monkeypatch.setattr(ZeRO, "broadcast", lambda self, value: value)
    monkeypatch.setattr(ZeRO, "barrier", lambda self: None)
    monkeypatch.setattr(ZeRO, "is_global_zero", True)

    def write(self: Any, checkpoint: dict[str, Any], filepath: Path, storage_options: Any = None) -> None:
        filepath.mkdir()
        (filepath / "one").write_text(checkpoint["text"])
        assert "fails" not in checkpoint

    monkeypatch.setattr(DeepSpeedStrategy, "save_checkpoint", write)
    for text in ("old", "new"):
        strategy.save_checkpoint({"text": text}, path)
        assert (path / "one").read_text() == text
    with pytest.raises(AssertionError):
        strategy.save_checkpoint({"text": "half", "fails": True}, path)
    assert (path / "one").read_text() == "new"
    path.rename(tmp_path / ".last.ckpt.tmp.old")  # as a kill between the two renames leaves it
    with pytest.raises(AssertionError):
        strategy.save_checkpoint({"text": "half", "fails": True}, path)
    assert (path / "one").read_text() == "new"
    shutil.rmtree(path)
    path.write_text("the file of another strategy")
    strategy.save_checkpoint({"text": "next"}, path)
    assert [part.name for part in tmp_path.iterdir()] == ["last.ckpt"]
    strategy.model = types.SimpleNamespace(checkpoint_engine=types.SimpleNamespace())
    with pytest.raises(ConfigError, match=r"last\.ckpt: no folder of DeepSpeed"):
        strategy.load_checkpoint(path)
    assert strategy.deepspeed_engine.checkpoint_engine.load is load_plain


class Engine:
    """Keeps what it is told."""

    def set_gradient_accumulation_boundary(self, last: bool) -> None:
        self.last = last


@pytest.mark.parametrize("accumulates", [False, True])
def test_zero_steps_when_lightning_says(monkeypatch: pytest.MonkeyPatch, accumulates: bool) -> None:
    strategy, told = ZeRO.__new__(ZeRO), {}
    loop = types.SimpleNamespace(_should_accumulate=lambda: accumulates)
    state = types.SimpleNamespace(fn="fit")
    trainer: Any = types.SimpleNamespace(fit_loop=loop, strategy=strategy, accumulate_grad_batches=2, state=state)
    strategy._lightning_module = types.SimpleNamespace(trainer=trainer)
    strategy.model = Engine()
    monkeypatch.setattr(DeepSpeedStrategy, "backward", lambda self, *_, **options: told.update(options))
    strategy.backward(torch.ones(()), None)
    assert told == {"scale_wrt_gas": False}
    assert strategy.model.last is not accumulates
    assert not strategy.handles_gradient_accumulation
    with strategy.block_backward_sync():
        assert not keeps_gradients(trainer)
    strategy._optimizers = [types.SimpleNamespace(overflow=True)]
    assert strategy.skipped
