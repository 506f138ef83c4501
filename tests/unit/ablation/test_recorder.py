"""What a run says of itself while it trains and predicts."""

from __future__ import annotations

import lightning as L

from reg2rg.ablation.recorder import RunRecorder
from reg2rg.ablation.state import PROGRESS, read_progress


def trainer(folder, callback, **options):
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, callbacks=[callback], **options,
    )  # fmt: skip


def test_steps_parameters_tokens_seconds_and_memory(toy, tmp_path):
    module = toy.module(lora=True)
    data = toy.data(module)
    trainer(tmp_path, RunRecorder(str(tmp_path)), max_steps=4, max_epochs=-1).fit(module, datamodule=data)
    found = read_progress(tmp_path)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert (found["stage"], found["done"], found["total"]) == ("fit", 4, 4.0)
    assert found["parameters_trained"] == trained < found["parameters"]
    assert found["tokens"] == [2, 2, 2]
    assert found["device"] == "cpu"
    assert found["fit_seconds"] > 0
    assert found["peak_memory_gib"] > 0.05
    trainer(tmp_path, RunRecorder(str(tmp_path))).predict(module, datamodule=data, return_predictions=False)
    later = read_progress(tmp_path)
    assert (later["stage"], later["done"], later["total"]) == ("predict", 1, 1.0)
    assert later["fit_seconds"] == found["fit_seconds"], "what training took stays"


def test_seconds_add_up_over_resumes(toy, tmp_path):
    (tmp_path / PROGRESS).write_text('{"fit_seconds": 1000.0, "peak_memory_gib": 77.0}')
    module = toy.module()
    trainer(tmp_path, RunRecorder(str(tmp_path)), max_steps=1).fit(module, datamodule=toy.data(module))
    found = read_progress(tmp_path)
    assert 1000 < found["fit_seconds"] < 1100
    assert found["peak_memory_gib"] == 77.0


def test_a_file_that_is_not_whole_tells_nothing(tmp_path):
    (tmp_path / PROGRESS).write_text("{half")
    assert read_progress(tmp_path) == {}
