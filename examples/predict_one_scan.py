"""Report on one scan: a CT, its region masks and a model go in, paragraphs tied to regions come out.

python examples/predict_one_scan.py --model FOLDER --image ct.nii.gz --masks "seg/{region}.nii.gz"
FOLDER is what `reg2rg export`, `reg2rg convert` or `save_pretrained` wrote, or a hub id.
Without a model a toy one is trained first, on phantoms, and reports on one of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from reg2rg import Reg2RG, report_on
from reg2rg.cli.main import main as reg2rg
from reg2rg.inference.exporters import JSON
from reg2rg.show.page_exporter import Page

TOY = """data: {dataset: {init_args: {root: OUT/data}}, store: OUT/store, workers: 0}
task: {views: {size: [32, 32, 32]}}
model: {llm: {init_args: {path: OUT/lm}}, max_new_tokens: 40, val_generate: 0}
trainer: {default_root_dir: OUT/runs, max_steps: 2, limit_val_batches: 1}
"""


def train_toy(out: Path) -> tuple[Path, Path, str]:
    """What `make demo` does, at toy size: a model's folder, and a held-out scan with the pattern of its masks."""
    (out / "toy.yaml").write_text(TOY.replace("OUT", str(out.resolve())))
    config = ["--config", "phantom.yaml", "--config", str(out / "toy.yaml")]
    checkpoint = str(out / "runs" / "checkpoints" / "last.ckpt")
    for command in (
        ["data", "phantom", str(out / "data"), "--studies", "5", "--size", "48", "48", "32", "--workers", "1"],
        ["data", "prepare", *config, "--workers", "1"],
        ["lm", str(out / "lm"), *config, "--steps", "0"],
        ["fit", *config],
        ["export", "--ckpt_path", checkpoint, "--out", str(out / "model"), "--training_data", "five phantoms"],
    ):
        if code := reg2rg(command):
            raise SystemExit(code)
    image = next((out / "data").glob("valid_preprocessed/**/*.nii.gz"))
    masks = out / "data" / "valid_region_mask" / f"seg_{image.name.removesuffix('.nii.gz')}" / "{region}.nii.gz"
    return out / "model", image, str(masks)


def main() -> None:
    """Load a model, report on one scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder, or hub id")
    parser.add_argument("--language_model", help="where the base language model is, if not where the folder says")
    parser.add_argument("--image", type=Path, help="CT in Hounsfield units: NIfTI, NRRD or DICOM")
    parser.add_argument("--masks", help='one file a region, as "folder/{region}.nii.gz", or one file of labels')
    parser.add_argument("--out", type=Path, default=Path("runs/predict_one_scan"))
    options = parser.parse_args()
    (out := options.out).mkdir(parents=True, exist_ok=True)
    given = (options.model, options.image, options.masks)
    folder, image, masks = given if all(given) else train_toy(out)
    model = Reg2RG.from_pretrained(folder, language_model=options.language_model)
    result = report_on(image, masks, model)
    written = [*JSON().write(result, out), *Page().write(result, out)]
    print(result)
    print(f"no paragraph for: {', '.join(result.report.missing) or 'none'}; no mask of: {', '.join(result.absent)}")
    print(f"written: {', '.join(map(str, written))}")


if __name__ == "__main__":
    main()
