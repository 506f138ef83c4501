"""From NIfTI files to reports on held-out scans, at toy size: the demo's way, with nothing left out but its length."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from reg2rg.core.regions import load_region_set
from reg2rg.core.task import INSTRUCTION, ReportTask, Views
from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.datasets.radgenome import RadGenome
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.reading import read_reports
from reg2rg.evaluation.records import read_records
from reg2rg.extras.phantom.writer import write_phantoms
from reg2rg.extras.tiny_llm.build import build_tiny_llama
from reg2rg.extras.tiny_llm.pretraining import Schedule
from reg2rg.models.encoders.cnn3d import CNN3D
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.projectors import LinearProjector
from reg2rg.store.prepare import prepare
from reg2rg.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from reg2rg.training.module import Reg2RG
from reg2rg.training.optimization import OptimizerConfig
from reg2rg.training.prediction_writer import PredictionWriter
from reg2rg.training.save_last import SaveLast

SIZE = (32, 32, 32)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    root = tmp_path_factory.mktemp("chain")
    write_phantoms(root / "data", studies=10, seed=0, size=(64, 64, 48), workers=0)
    dataset = RadGenome(str(root / "data"), val_fraction=0.2, labels="multi_abnormality_labels")
    summary = prepare(dataset, root / "store", workers=0)
    reports = [study.reports for study in dataset.studies() if study.split == "train"]
    build_tiny_llama(
        reports, root / "lm", hidden_size=32, layers=2, heads=2, instruction=INSTRUCTION, schedule=Schedule(steps=0)
    )
    return root, dataset, summary


def build(root, dataset):
    torch.manual_seed(0)
    module = Reg2RG(
        texture=CNN3D(size=SIZE, channels=(8, 16), dim=24),
        geometry=CNN3D(size=SIZE, channels=(8, 8), grid=(1, 1, 1), dim=16),
        global_="texture",
        projector=LinearProjector,
        llm=CausalLM(str(root / "lm")),
        optimizer=OptimizerConfig(lr=3e-3, warmup_steps=2),
        task=ReportTask(views=Views(size=SIZE)),
        max_new_tokens=60,
        val_generate=1,
    )
    data = RegionReportDataModule(
        dataset, str(root / "store"), str(root / "lm"), module.token_counts, task=module.task, batch_size=2,
        workers=1, cache=True,
    )  # fmt: skip
    return module, data


def test_scan_to_report(chain, tmp_path):
    root, dataset, _ = chain
    assert {study.split for study in dataset.studies()} == {"train", "val", "test"}
    module, data = build(root, dataset)
    keeper = ModelCheckpoint(dirpath=tmp_path / "ckpt", monitor="val/loss", filename="best", save_last=True)
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=[CSVLogger(tmp_path), TensorBoardLogger(tmp_path)],
        callbacks=[keeper, SaveLast()],
        plugins=[AtomicCheckpointIO()],
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    rows = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()[1:]
    losses = [float(loss) for row in rows if (loss := row.split(",")[2])]
    assert losses[-1] < losses[0]
    assert "val/recognition" in trainer.callback_metrics

    best = tmp_path / "ckpt" / "best.ckpt"
    fresh, data = build(root, dataset)
    fresh.load_state_dict(read_checkpoint(best)["state_dict"])
    L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[PredictionWriter(str(tmp_path / "out"))]
    ).predict(fresh, datamodule=data, return_predictions=False)
    held_out = [study for study in dataset.studies() if study.split == "test"]
    records = list(read_records(tmp_path / "out"))
    assert [record["study"] for record in records] == [study.id for study in held_out]
    for record, study in zip(records, held_out, strict=True):
        assert set(record["regions"]) <= set(study.reports)
        assert record["reference"] == {region: study.reports[region] for region in record["regions"]}
        assert all(paragraph["region"] in record["regions"] for paragraph in record["paragraphs"])
    truth = {study.id: study.findings for study in held_out if study.findings}
    reports = read_reports(tmp_path / "out", None, load_region_set("radgenome"))
    found = evaluate("toy", reports, Settings(truth=truth, resamples=0, floors=False))
    assert 0 <= found.number("Recognition (mean over regions)").value <= 1
    assert sum(row.support for row in found.truth_labels) == sum(sum(labels.values()) for labels in truth.values()) > 0
