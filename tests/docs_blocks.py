"""The blocks of the documentation's pages, and its commands at toy size."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS_TRAINER = ("quickstart.md", "pretrained.md", "features.md", "modalities.md", "split.md", "datasets.md")
"""The pages whose training commands run; elsewhere their arguments are folded and checked."""
ELSEWHERE = ("features.md", "modalities.md")
"""The pages that `test_other_inputs` runs, and looks at what they leave."""

FENCE = re.compile(r"^(<!-- notest: [^\n]+ -->\n+)?^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LM = ["--steps", "0", "--hidden_size", "32", "--layers", "2", "--heads", "2"]
_FEWER = ["--studies", "4"]  # the last one of an option counts
_FIT = (
    "--trainer.max_epochs 1 --trainer.limit_train_batches 1 --trainer.limit_val_batches 1 --model.max_new_tokens 8 "
    "--model.val_generate 1 --data.workers 0 --trainer.accelerator cpu --trainer.val_check_interval 1"
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    info: str
    text: str
    runs: bool


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[2], match[3].strip(), match[4], runs=not match[1])
        for match in FENCE.finditer(text)
    ]


def title(block: Block) -> str:
    found = re.search(r'title="([^"]+)"', block.info)
    return found[1] if found and block.language in ("yaml", "csv") else ""


def commands(text: str) -> list[list[str]]:
    """The words of each command, without comments and redirections."""
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [line[: line.index(">")] if ">" in line else line for line in lines if line]


def toy(args: list[str], page: Path) -> list[str]:
    """The same command, small."""
    what = args[:2] if args[:1] == ["data"] else args[:1]
    if what == ["data", "phantom"]:
        small = [*args, "--size", "48", "48", "32", "--workers", "1"]
        small[args.index("--studies") + 1] = "6"
        return [*small, *(_FEWER if page.name == "datasets.md" else ())]
    if what == ["data", "check"]:
        return [*args, "--overlays", "1", "--workers", "1"]
    if what == ["data", "prepare"]:
        return [*args, "--workers", "1"]
    if what == ["evaluate"] and page.name in RUNS_TRAINER:
        return [*args, "--resamples", "20", *(["--no-floors"] if page.name == "datasets.md" else [])]
    if what == ["lm"]:
        return [*args, *_LM]
    if what[0] in ("fit", "validate", "test", "predict"):
        smaller = ["--task.views.size", "[32, 32, 32]"] if page.name == "datasets.md" else []
        return [*args, *_FIT.split(), *smaller] if page.name in RUNS_TRAINER else [*args, "--print_config"]
    if what == ["ablate"]:
        return [*args, "--dry-run", *(() if "--runs" in args else ("--runs", "full"))]
    return args
