"""What the golden files hold, made anew through public doors: the command, the toy model of all tests, Lightning.

Floats drift from CPU to CPU, and training amplifies it: over the first 20 steps of the toy run by parts in 1e7, over
100 steps by any amount. So the run is short, and its reports are compared only because no token of theirs was a close
call: `smallest_margin` is the least distance of the best logit to the second, far above what logits drift by then.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import lightning as L
import torch
import yaml

from reg2rg.cli.main import main

HERE = Path(__file__).parent
FILES = HERE / "files"
PREDICTIONS = HERE / "predictions.csv"
STEPS = 20
EPOCHS, SEED, MAX_NEW_TOKENS = 13, 4, 40  # chosen for reports that differ, at a large margin
LEAST_MARGIN = 0.03
"""Of logits that drift by 2e-4 between AVX-512 and AVX2, and by 2e-3 where there is neither."""


@dataclass(frozen=True)
class ToyRun:
    """A training run of the toy model, with dropout, and the reports that it ends in."""

    losses: list[float]
    reports: dict[str, str]
    smallest_margin: float


def train(toy) -> ToyRun:
    """Train on the five training studies, then report on all eight."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module = toy.module(seed=SEED, max_new_tokens=MAX_NEW_TOKENS, decoding="free")
        record = _Record()
        trainer = L.Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            callbacks=[record],
            default_root_dir=toy.root,
        )
        trainer.fit(module, datamodule=toy.data(module))
        head = next(layer for name, layer in module.named_modules() if name.endswith("lm_head"))
        head.register_forward_hook(record.margin)
        reports = {}
        for split in ("train", "val", "test"):
            for batch in trainer.predict(module, datamodule=toy.data(module, predict_split=split)):
                reports |= {report.study: report.text for report in batch}
        return ToyRun(record.losses[:STEPS], dict(sorted(reports.items())), record.smallest)
    finally:
        torch.set_num_threads(threads)


class _Record(L.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.smallest = float("inf")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(float(outputs["loss"]))

    def margin(self, layer, inputs, logits) -> None:
        best, second = logits[:, -1].float().topk(2).values.unbind(-1)
        self.smallest = min(self.smallest, float((best - second).min()))


def config(root: Path) -> str:
    """A packaged config with an overlay, all defaults filled in; of the trainer, which others make, what is set.

    Classes go by their names alone: moving a module changes no golden file.
    """
    files = ("--config", "phantom.yaml", "--config", "ablations/no_global.yaml")
    said = yaml.safe_load(command(root, "fit", *files, "--print_config"))
    said["trainer"] = yaml.safe_load(command(root, "fit", *files, "--print_config=skip_default"))["trainer"]
    return re.sub(r"(class_path: )[\w.]+\.", r"\1", yaml.safe_dump(said, sort_keys=False))


def evaluation(root: Path) -> dict[str, str]:
    """Invented reports with every kind of mistake, scored: the JSON, and the tables on screen and on disk."""
    out = root / "evaluation"
    said = command(root, "evaluate", str(PREDICTIONS), "--resamples", "100", "--out", str(out))
    found = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    for of_this_machine in ("software", "inputs"):
        del found[of_this_machine]
    for number in found["numbers"]:
        del number["definition"]  # printed.txt has them, once
    return {
        "metrics.json": as_json(found),
        "tables/printed.txt": "".join(
            line.rstrip() + "\n" for line in said.splitlines() if not line.startswith("written: ")
        ),
        **{f"tables/{name}": (out / name).read_text(encoding="utf-8") for name in ("per_study.csv", "per_region.csv")},
    }


def ablation(root: Path) -> dict[str, str]:
    """The table of a sweep, from the invented reports; runs are worse as more studies have each other's reports."""
    from reg2rg.ablation.compare import Comparer
    from reg2rg.ablation.scoring import Scorer
    from reg2rg.ablation.sweep import Run, TableSpec
    from reg2rg.ablation.table import Collected, Costs, build_table
    from reg2rg.core.regions import load_region_set
    from reg2rg.evaluation.labelers import RuleLabeler
    from reg2rg.show.ablation_files import write_table

    metrics = ("CE F1 (micro)", "Recognition accuracy", "BLEU-4", "METEOR")
    scorer = Scorer("strict", RuleLabeler(), load_region_set("radgenome"), metrics, {})
    table = {name: scorer.score(_exchanged(root, count)) for name, count in (("a", 0), ("b", 2), ("c", 6), ("d", 12))}
    runs = {
        "full": Collected(
            Run("full", "full model"), {0: table["a"], 1: table["b"]}, Costs(12345, (8, 1, 8), 61.0, 3.0, 1.5)
        ),
        "half": Collected(Run("half", "half of it"), {0: table["c"]}, missing=(1,)),
        "blind": Collected(Run("blind", "no image", floor=True), {0: table["d"], 1: table["d"]}),
    }
    spec = TableSpec("golden", "A table", "What it shows.", "full", tuple(runs))
    made = build_table(spec, runs, metrics, scorer.floors(PREDICTIONS, None), Comparer(runs["full"].scores, 100))
    write_table(made, root / "ablation")
    endings = ("md", "csv", "tex")
    return {f"tables/ablation.{e}": (root / "ablation" / f"golden.{e}").read_text(encoding="utf-8") for e in endings}


def _exchanged(root: Path, count: int) -> Path:
    """The invented reports, those of the first studies handed on by one study."""
    with open(PREDICTIONS, newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    said = [row[-1] for row in rows]
    said[:count] = said[:count][1:] + said[:count][:1]
    path = root / f"exchanged_{count}.csv"
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *([*row[:-1], text] for row, text in zip(rows, said, strict=True))])
    return path


def command(root: Path, *words: str) -> str:
    """What ``reg2rg`` prints in an empty folder, on a screen of fixed width without colours."""
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, {**plain, "COLUMNS": "120", "NO_COLOR": "1"}, clear=True),
        contextlib.chdir(root),
        contextlib.redirect_stdout(said),
    ):
        code = main(list(words))
    assert code == 0, f"reg2rg {' '.join(words)} ended with {code}"
    return said.getvalue()


def as_json(content: object, depth: int = 2) -> str:
    """JSON with what lies deeper than `depth` on one line: short files, and differences that can be read."""
    return _laid_out(content, depth, "\n") + "\n"


def _laid_out(content: object, depth: int, line: str) -> str:
    if not depth or not content or not isinstance(content, dict | list):
        return json.dumps(content, ensure_ascii=False)
    inner = line + "  "
    if isinstance(content, dict):
        parts = [f"{json.dumps(key)}: {_laid_out(value, depth - 1, inner)}" for key, value in content.items()]
        return "{" + inner + ("," + inner).join(parts) + line + "}"
    return "[" + inner + ("," + inner).join(_laid_out(value, depth - 1, inner) for value in content) + line + "]"


def of_run(run: ToyRun) -> dict[str, str]:
    return {"losses.json": as_json(run.losses), "reports.json": as_json(run.reports)}
