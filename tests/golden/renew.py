"""``python -m tests.golden.renew``: writes the golden files anew and shows what changed."""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

import torch
from tests.golden.compare import changes
from tests.golden.recording import FILES, LEAST_MARGIN, ablation, as_json, config, evaluation, of_run, train
from tests.tiny import Toy

RECORDED = "recorded.json"
"""Where and how the files were made; not compared."""


def renew() -> int:
    """Write what differs beyond the tolerance; print the difference.

    Returns:
        0, or 1 if the reports are too close a call to be held to.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        run = train(Toy(root))
        found = of_run(run) | {"config.yaml": config(root)} | evaluation(root) | ablation(root)
    made = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), "machine": platform.machine()}
    for file, content in (found | {RECORDED: as_json(made | {"smallest_margin": run.smallest_margin})}).items():
        path = FILES / file
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if told := changes(file, before, content):
            path.write_text(content, encoding="utf-8", newline="")
            sys.stdout.write(told)
        else:
            sys.stdout.write(f"{file}: no change\n")
    for path in FILES.rglob("*"):
        if path.is_file() and path.relative_to(FILES).as_posix() not in {*found, RECORDED}:
            path.unlink()
            sys.stdout.write(f"{path}: removed\n")
    if run.smallest_margin < LEAST_MARGIN:
        sys.stderr.write(
            f"A token of the reports was chosen by {run.smallest_margin:.4f} (expected {LEAST_MARGIN} or more): "
            "another CPU may choose another one. Fix: other EPOCHS or SEED in tests/golden/recording.py\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(renew())
