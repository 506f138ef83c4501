"""Swap the texture encoder: the same data and the same model around it, a few steps with each.

In a config it is an overlay of four lines, and nothing else changes (docs/how-to/config.md):

    model:
      texture:
        class_path: MonaiViT
        init_args: {size: "${task.views.size}", patch: [16, 16, 4]}
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning as L

from reg2rg import Reg2RG, RegionReportDataModule
from reg2rg.core.task import ReportTask, Views
from reg2rg.datasets import RadGenome
from reg2rg.extras.phantom.writer import write_phantoms
from reg2rg.extras.tiny_llm.build import build_tiny_llama
from reg2rg.extras.tiny_llm.pretraining import Schedule
from reg2rg.models.encoders import CNN3D, Encoder, MonaiViT, PerceiverResampler, ViT3D
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.projectors import MLPProjector
from reg2rg.store.prepare import prepare

SIZE = (32, 32, 32)


def encoders() -> dict[str, Encoder]:
    """Every encoder takes (N, 1, H, W, D) and gives (N, T, C); T and C are the encoder's own choice."""
    vit = ViT3D(size=SIZE, patch=(8, 8, 8), dim=96, depth=2, heads=4, mlp_dim=192)
    return {
        "CNN3D": CNN3D(size=SIZE, channels=(16, 32), dim=96),
        "MonaiViT": MonaiViT(size=SIZE, patch=(8, 8, 8), dim=96, depth=2, heads=4, mlp_dim=192),
        "PerceiverResampler(ViT3D)": PerceiverResampler(vit, num_latents=8, depth=2, heads=4),
    }


def main() -> None:
    """Prepare phantoms once, then train each encoder on them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/swap_encoder"))
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    out = options.out

    write_phantoms(out / "data", studies=5, seed=0, size=(48, 48, 32), workers=0)
    dataset = RadGenome(str(out / "data"))
    prepare(dataset, out / "store", workers=0)
    reports = [study.reports for study in dataset.studies() if study.split == "train"]
    build_tiny_llama(reports, out / "lm", hidden_size=64, layers=2, heads=2, schedule=Schedule(steps=0))

    task = ReportTask(views=Views(size=SIZE))
    for name, encoder in encoders().items():
        L.seed_everything(0, verbose=False)
        llm = CausalLM(str(out / "lm"))
        model = Reg2RG(encoder, None, "texture", MLPProjector, llm, task=task)  # no geometry encoder
        data = RegionReportDataModule(
            dataset, str(out / "store"), model.tokenizer, model.token_counts, task=task, workers=0
        )
        trainer = L.Trainer(
            max_steps=options.steps, logger=False, enable_checkpointing=False, limit_val_batches=0,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, datamodule=data)
        size = sum(p.numel() for p in encoder.parameters())
        loss = float(trainer.callback_metrics["train/loss"])
        print(f"{name}: {encoder.num_tokens} tokens of {encoder.out_channels}, {size:,} parameters, loss {loss:.3f}")


if __name__ == "__main__":
    main()
