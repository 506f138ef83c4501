"""Two processes take the steps that one process takes on the union of their batches."""

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from reg2rg.predict import PredictionWriter
from reg2rg.records import read_records


@pytest.fixture(autouse=True)
def one_thread():
    """A forked process must not meet the thread pool of its parent."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_dropout(toy):
    module = toy.module(dropout=0.0, val_generate=2)
    for part in module.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.0
    return module


def trainer(toy, devices, **options):
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo") if devices > 1 else "auto"
    return L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=toy.root,
        **options,
    )


def test_two_processes_equal_one_on_the_union(toy):
    runs = []
    for devices, batch_size in ((1, 4), (2, 2)):
        module = without_dropout(toy)
        run = trainer(toy, devices, max_epochs=3, limit_train_batches=1, gradient_clip_val=1.0)
        run.fit(module, datamodule=toy.data(module, batch_size=batch_size))
        runs.append((module, {key: float(value) for key, value in run.callback_metrics.items()}))
    (one, figures), (two, figures2) = runs
    for (name, value), (_, value2) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        torch.testing.assert_close(value2, value, rtol=1e-4, atol=1e-6, msg=name)
    for key in ("train/loss", "val/loss", "val/recognition"):
        assert figures2[key] == pytest.approx(figures[key], rel=1e-5), key


def test_two_processes_predict_every_study_once(toy, tmp_path):
    module = without_dropout(toy)
    for devices in (1, 2):
        writer = PredictionWriter(str(tmp_path / str(devices)))
        run = trainer(toy, devices, callbacks=[writer])
        run.predict(module, datamodule=toy.data(module, batch_size=1), return_predictions=False)
    assert list(read_records(tmp_path / "1")) == list(read_records(tmp_path / "2"))
    assert (tmp_path / "1" / "predictions.csv").read_bytes() == (tmp_path / "2" / "predictions.csv").read_bytes()
