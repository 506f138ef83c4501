"""Report on one scan: a CT, its region masks and a checkpoint go in, paragraphs tied to regions come out.

python examples/predict_one_scan.py --checkpoint best.ckpt --image ct.nii.gz --masks "seg/{region}.nii.gz"
Without a checkpoint a toy model is trained first, on phantoms, and reports on one of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import lightning as L

from reg2rg import Reg2RG, RegionReportDataModule, parse_report
from reg2rg.checkpoints import read_checkpoint
from reg2rg.cli.main import main as reg2rg
from reg2rg.config.saving import read_config
from reg2rg.data.datasets import Manifest
from reg2rg.data.prepare import prepare
from reg2rg.data.views import Views
from reg2rg.regions import load_region_set

TOY = """data: {dataset: {init_args: {root: OUT/data}}, store: OUT/store, views: {size: [32, 32, 32]}, workers: 0}
model: {llm: {init_args: {path: OUT/lm}}, max_new_tokens: 40, val_generate: 0}
trainer: {default_root_dir: OUT/runs, max_steps: 2, limit_val_batches: 1}
"""


def train_toy(out: Path) -> tuple[Path, Path, str]:
    """What `make demo` does, at toy size: a checkpoint, and a held-out scan with the pattern of its masks."""
    (out / "toy.yaml").write_text(TOY.replace("OUT", str(out.resolve())))
    config = ["--config", "phantom.yaml", "--config", str(out / "toy.yaml")]
    for command in (
        ["data", "phantom", str(out / "data"), "--studies", "5", "--size", "48", "48", "32", "--workers", "1"],
        ["data", "prepare", *config, "--workers", "1"],
        ["lm", str(out / "lm"), *config, "--steps", "0"],
        ["fit", *config],
    ):
        if code := reg2rg(command):
            raise SystemExit(code)
    image = next((out / "data").glob("valid_preprocessed/**/*.nii.gz"))
    masks = out / "data" / "valid_region_mask" / f"seg_{image.name.removesuffix('.nii.gz')}" / "{region}.nii.gz"
    return out / "runs" / "checkpoints" / "last.ckpt", image, str(masks)


def main() -> None:
    """Prepare one scan, rebuild the model from its checkpoint, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="written by `reg2rg fit`")
    parser.add_argument("--image", type=Path, help="CT in Hounsfield units, NIfTI")
    parser.add_argument("--masks", help='one file a region, as "folder/{region}.nii.gz"')
    parser.add_argument("--out", type=Path, default=Path("runs/predict_one_scan"))
    options = parser.parse_args()
    (out := options.out).mkdir(parents=True, exist_ok=True)
    given = (options.checkpoint, options.image, options.masks)
    checkpoint, image, masks = given if all(given) else train_toy(out)
    files = {name: Path(masks.format(region=name)).resolve() for name in load_region_set().names}
    row = {"id": "scan", "split": "test", "image": str(image.resolve())}
    row["masks"] = {name: str(file) for name, file in files.items() if file.is_file()}
    (out / "one.jsonl").write_text(json.dumps(row) + "\n")
    dataset = Manifest(str(out / "one.jsonl"), root="/")
    prepare(dataset, out / "one", workers=0, max_skip=0.0)
    settings = read_config(read_checkpoint(checkpoint))["data"]  # the input that the model was trained on
    model = Reg2RG.from_checkpoint(checkpoint)
    data = RegionReportDataModule(
        dataset, str(out / "one"), model.tokenizer, model.token_counts, views=Views(**settings["views"]),
        max_length=settings["max_length"], test_regions="all", workers=0,
    )  # fmt: skip
    [[answer]] = L.Trainer(logger=False).predict(model, datamodule=data)  # one batch of one study
    report = parse_report(answer.text, answer.regions)
    (out / "report.json").write_text(json.dumps(report.by_region(), indent=2))
    for paragraph in report.paragraphs:
        print(f"{paragraph.region}: {paragraph.text}")
    print(f"no paragraph for: {', '.join(report.missing) or 'none'}; written to {out / 'report.json'}")


if __name__ == "__main__":
    main()
