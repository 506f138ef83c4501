"""FSDP2 over gloo on two CPUs, held to one process."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from ranks import fit_on_ranks, on_ranks, without_dropout
from reg2rg.core.errors import CheckpointError
from reg2rg.extras.word_alignment import WordAlignment
from reg2rg.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from reg2rg.training.fully_shard import FullyShard
from reg2rg.training.shards import has_table


def whole() -> FullyShard:
    return FullyShard(process_group_backend="gloo")


def in_shards() -> FullyShard:
    return FullyShard(save_distributed_checkpoint=True, process_group_backend="gloo")


OPTIONS: dict[str, Any] = {"batches": 1.0, "clip": 30.0, "eps": 1.0, "plugins": AtomicCheckpointIO}


@pytest.fixture(scope="module")
def four(toy: Any) -> Any:
    """As many studies to train on as two processes can share."""
    found = copy.copy(toy)
    found.studies = toy.studies[1:]
    return found


@pytest.fixture(scope="module")
def runs(four: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """The folder of checkpoints after step 3, amid an epoch; the run of one process and that of two."""
    folder = tmp_path_factory.mktemp("shards")
    (one,) = fit_on_ranks(four, 1, "auto", batch_size=2, save=(folder / "one.ckpt", 3), **OPTIONS)
    two = fit_on_ranks(four, 2, whole, batch_size=1, save=(folder / "two.ckpt", 3), **OPTIONS)
    return folder, one, two


def test_two_ranks_take_the_steps_of_one_process(runs: Any) -> None:
    """With so large an eps the steps of AdamW show how large a gradient is."""
    folder, one, two = runs
    for found in two:
        assert found["losses"] == pytest.approx(one["losses"], abs=1e-6)
    a, b = (read_checkpoint(folder / f"{name}.ckpt") for name in ("one", "two"))
    assert set(a) == set(b)
    torch.testing.assert_close(b["state_dict"], a["state_dict"], rtol=1e-4, atol=1e-6)
    (mine,), (theirs,) = b["optimizer_states"], a["optimizer_states"]
    assert mine["param_groups"] == theirs["param_groups"]
    torch.testing.assert_close(mine["state"], theirs["state"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("ranks", "strategy", "of"), [pytest.param(2, whole, "one", marks=pytest.mark.slow), (1, "auto", "two")]
)
def test_either_goes_on_from_the_file_of_the_other(four: Any, runs: Any, ranks: int, strategy: Any, of: str) -> None:
    folder, one, _ = runs
    for found in fit_on_ranks(four, ranks, strategy, batch_size=2 // ranks, resume=folder / f"{of}.ckpt", **OPTIONS):
        assert found["losses"] == pytest.approx(one["losses"][3:], abs=1e-6)


@pytest.mark.slow
def test_a_folder_of_shards_is_made_whole_and_goes_on(four: Any, runs: Any, tmp_path: Path) -> None:
    path, (folder, _, two) = tmp_path / "shards.ckpt", runs
    fit_on_ranks(four, 2, in_shards, batch_size=1, steps=3, save=(path, 3), **OPTIONS)
    assert len(list(path.glob("*.distcp"))) == 2
    found, alone = read_checkpoint(path), read_checkpoint(folder / "two.ckpt")
    assert set(found) == set(alone) - {"optimizer_states"}
    torch.testing.assert_close(found["state_dict"], alone["state_dict"], rtol=0, atol=0)
    for rank in fit_on_ranks(four, 2, in_shards, batch_size=1, resume=path, **OPTIONS):
        assert rank["losses"] == two[0]["losses"][3:]

    (path / ".metadata").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(CheckpointError, match="print is no record of a checkpoint"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="print is no record of a checkpoint"):
        has_table(path)


class Harm:
    """What a stranger would put into a pickle."""

    def __reduce__(self) -> Any:
        return print, ("harm",)


def half(toy: Any) -> Any:
    """A language model in bfloat16 with adapters in float32."""
    module = without_dropout(toy)
    for weight in module.reporter.llm.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.bfloat16()
    return module


@pytest.mark.slow
def test_weights_of_two_dtypes(four: Any) -> None:
    options = {"batches": 2, "accumulate": 2, "precision": "bf16-mixed", "module": half}
    (one,) = fit_on_ranks(four, 1, "auto", batch_size=2, **options)
    for found in fit_on_ranks(four, 2, whole, batch_size=1, **options):
        assert found["losses"] == pytest.approx(one["losses"], rel=2e-4)
    assert one["losses"][-1] < 0.98 * one["losses"][0]


@pytest.mark.slow
def test_what_has_no_part_in_a_step_rests(four: Any) -> None:
    options = {**OPTIONS, "callbacks": lambda: [WordAlignment(0.5, steps=3)]}
    (one,) = fit_on_ranks(four, 1, "auto", batch_size=2, **options)
    for found in fit_on_ranks(four, 2, whole, batch_size=1, **options):
        assert found["losses"][3:] == pytest.approx(one["losses"][3:], rel=1e-6)  # of words each rank logs its own


def written(toy: Any, ranks: int, strategy: Any) -> list[dict[str, str]]:
    """Reports of the studies to test on; every second process stops early."""

    def work() -> dict[str, str]:
        module = without_dropout(toy)
        run = L.Trainer(
            accelerator="cpu",
            devices=ranks,
            strategy=strategy() if ranks > 1 else "auto",
            logger=False,
            enable_progress_bar=False,
            default_root_dir=toy.root,
        )
        most = 3 if run.global_rank else 12
        module.decoding = replace(module.decoding, max_new_tokens=most, stop_on_loop=0, form=None)
        batches = run.predict(module, datamodule=toy.data(module, batch_size=1))
        return {answer.study: answer.text for answers in batches or [] for answer in answers}

    return on_ranks(ranks, work)


def test_ranks_write_reports_of_different_lengths(four: Any) -> None:
    """Each asks the others for its part of every layer, once a token."""
    (alone,), (first, second) = written(four, 1, whole), written(four, 2, whole)
    assert len(first) == len(second) == 1
    assert set(alone) == set(first) | set(second)
    for study, text in first.items():
        assert text == alone[study]
    for study, text in second.items():
        assert alone[study].startswith(text)
        assert 0 < len(text) < len(alone[study])


class Poison(L.Callback):
    """Spoils one number of a gradient, which one process alone has."""

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        if trainer.global_step == 2:
            gradient = module.reporter.texture.conv.bias.grad.to_local()
            if trainer.global_rank == 0:
                gradient[0] = torch.nan


@pytest.mark.slow
def test_all_ranks_skip_a_step_that_one_finds_spoilt(four: Any) -> None:
    for found in fit_on_ranks(four, 2, whole, batch_size=1, steps=4, batches=1, callbacks=lambda: [Poison()]):
        assert found["skipped"] == 1
        assert np.isfinite(found["losses"]).all()
