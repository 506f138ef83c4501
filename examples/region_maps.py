"""Regions out of one pass: the inflated ResNet-152 of Merlin and Astra under Reg2RG's prompt, frozen, a few steps.

Every scan passes the encoder once; a region is the mean of the cells under its mask, of layer 3 and layer 4 together,
and the whole image is the mean of all cells. Only projectors, tags and adapters train. With the weights
(docs/how-to/ct_encoder.md) and scans of your own:

    python examples/region_maps.py --weights converted/astra --size 224 224 160 --width 64

Without them the network is random and narrow, and shows that the chain holds and nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning as L
import torch

from reg2rg import Reg2RG, RegionReportDataModule
from reg2rg.core.task import ReportTask, Views
from reg2rg.datasets import RadGenome
from reg2rg.extras.peers import I3ResNet
from reg2rg.extras.phantom.writer import write_phantoms
from reg2rg.extras.tiny_llm.build import build_tiny_llama
from reg2rg.extras.tiny_llm.pretraining import Schedule
from reg2rg.models.encoders import CNN3D, Frozen, MaskPool
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.projectors import MLPProjector
from reg2rg.store.prepare import prepare


def main() -> None:
    """Prepare phantoms, build the model around the encoder, train, and report on one study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/region_maps"))
    parser.add_argument("--weights", help="folder that reg2rg convert --from i3resnet wrote")
    parser.add_argument("--size", type=int, nargs=3, default=(64, 64, 32))
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    out, size = options.out, tuple(options.size)

    write_phantoms(out / "data", studies=4, seed=0, size=(48, 48, 32), workers=0)
    dataset = RadGenome(str(out / "data"))
    prepare(dataset, out / "store", workers=0)
    reports = [study.reports for study in dataset.studies() if study.split == "train"]
    build_tiny_llama(reports, out / "lm", hidden_size=64, layers=2, heads=2, schedule=Schedule(steps=0))

    L.seed_everything(0, verbose=False)
    # What the encoder's contract asks for: RAS and -1000 to 200 HU. Other views are refused where the model is built.
    task = ReportTask(views=Views(size=size, orientation="RAS", window=(-1000, 200)))
    blocks = (3, 8, 36, 3) if options.weights else (1, 1, 1, 1)
    maps = Frozen(I3ResNet(size, maps="both", width=options.width, blocks=blocks), weights=options.weights)
    texture = MaskPool(maps)
    place = CNN3D(size, channels=(8, 16), grid=(1, 1, 1), dim=32)  # a mean knows no place: the mask's own encoder does
    model = Reg2RG(texture, place, "texture", MLPProjector, CausalLM(str(out / "lm")), task=task)
    data = RegionReportDataModule(
        dataset, str(out / "store"), model.tokenizer, model.token_counts, task=task, workers=0
    )
    trainer = L.Trainer(
        max_steps=options.steps, logger=False, enable_checkpointing=False, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{maps.num_tokens} cells of {maps.out_channels}, {trained:,} parameters train, "
          f"loss {float(trainer.callback_metrics['train/loss']):.3f}")  # fmt: skip

    data.setup("validate")
    batch = next(iter(data.val_dataloader())).scaled(task.views.window)
    torch.save(texture.of_regions(batch.global_, batch.geometry, batch.regions, batch.study_ids), out / "regions.pt")
    print(model.reporter.generate(batch, model.decoding)[0].text[:200])


if __name__ == "__main__":
    main()
