"""Train on phantoms from Python: scans, store, language model, training, and reports on held-out scans.

python examples/train_on_phantoms.py --out runs/phantoms --studies 300 --size 96 96 64 --epochs 10 --lm-steps 300
The defaults are toy values: everything runs in seconds, and the reports are not worth reading.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from reg2rg import Reg2RG, RegionReportDataModule
from reg2rg.core.task import INSTRUCTION, ReportTask, Views
from reg2rg.datasets import RadGenome
from reg2rg.evaluation.engine import evaluate
from reg2rg.evaluation.reading import read_reports
from reg2rg.extras.phantom.writer import write_phantoms
from reg2rg.extras.tiny_llm.build import build_tiny_llama
from reg2rg.extras.tiny_llm.pretraining import Schedule
from reg2rg.models.encoders import CNN3D
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.projectors import LinearProjector
from reg2rg.store.prepare import prepare
from reg2rg.training.optimization import OptimizerConfig
from reg2rg.training.prediction_writer import PredictionWriter


def main() -> None:
    """From nothing to reports on held-out phantoms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/train_on_phantoms"))
    parser.add_argument("--studies", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=3, default=(48, 48, 32), help="voxels of a scan and of its views")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lm-steps", type=int, default=0, help="of the language model, on text")
    options = parser.parse_args()
    out, size = options.out, tuple(options.size)
    # Scans on disk, in the layout of RadGenome-ChestCT, then in the store. `workers=None` would take all cores.
    write_phantoms(out / "data", studies=options.studies, seed=0, size=size, workers=0)
    dataset = RadGenome(str(out / "data"), val_fraction=0.1)
    prepare(dataset, out / "store", workers=0)

    # A small language model from the training reports. With a pretrained one this step falls away.
    reports = [study.reports for study in dataset.studies() if study.split == "train"]
    build_tiny_llama(reports, out / "lm", instruction=INSTRUCTION, schedule=Schedule(steps=options.lm_steps))
    L.seed_everything(0)
    model = Reg2RG(
        texture=CNN3D(size=size),
        geometry=CNN3D(size=size, patch=(8, 8, 8), channels=(16, 32), grid=(1, 1, 1), dim=64),
        global_="texture",  # the whole scan goes through the texture encoder too, as published
        projector=LinearProjector,
        llm=CausalLM(str(out / "lm")),
        optimizer=OptimizerConfig(lr=1e-3, schedule="cosine", warmup_steps=10),
        task=ReportTask(views=Views(size=size)),
        max_new_tokens=400 if options.epochs > 1 else 40,
    )
    data = RegionReportDataModule(
        dataset, str(out / "store"), model.tokenizer, model.token_counts, task=model.task, batch_size=2,
        workers=None if options.epochs > 1 else 0,
    )  # fmt: skip
    trainer = L.Trainer(
        max_epochs=options.epochs,
        gradient_clip_val=1.0,
        logger=CSVLogger(out, name="csv"),
        callbacks=[ModelCheckpoint(out / "checkpoints", save_last=True), PredictionWriter(str(out / "predictions"))],
    )
    trainer.fit(model, datamodule=data)
    trainer.predict(model, datamodule=data, return_predictions=False)
    reports = read_reports(out / "predictions", None, model.task.region_set)
    named = evaluate("phantoms", reports).number("Recognition (mean over regions)").value
    print(f"regions named rightly on held-out scans: {named:.2f}; reports: {out / 'predictions' / 'predictions.csv'}")


if __name__ == "__main__":
    main()
