"""Training step and preparation of this checkout against another one: CPU seconds, in turns, the median of each.

    git worktree add ../before COMMIT
    python benchmarks/against.py ../before            five rounds of both, some minutes

Each side runs its own benchmarks (`step.py --quick`, `prepare.py --side ours`) over its own package, in processes
of their own that take turns. A ratio above 1: this checkout needs less. Exit status 1 where one is below 0.95.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _measure import machine

HERE = Path(__file__).resolve().parents[1]
SIZE, BAR = "256x256x150", 0.95


def run(checkout: Path, *words: str) -> str:
    """What a benchmark of a checkout prints, over the package of that checkout, in one thread."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=checkout / "benchmarks", env=environment, capture_output=True, text=True)
    if not done.stdout.strip():
        sys.exit(f"{checkout}: {' '.join(words)} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def step(checkout: Path, folder: Path) -> float:
    """CPU seconds of a training step, the best of three."""
    said = run(checkout, "step.py", "--quick", "--repeats", "3", "--threads", "1")
    return next(float(line.split()[2]) for line in said.splitlines() if line.startswith("ours "))


def prepare(checkout: Path, folder: Path) -> float:
    """CPU seconds of preparing one study."""
    said = run(checkout, "prepare.py", "--side", "ours", "--size", SIZE, "--folder", str(folder))
    return float(json.loads(said.splitlines()[-1])["cpu"])


def main() -> int:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout of another commit")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sides = {"before": options.before.resolve(), "now": HERE}
    missed = 0
    print(machine(1))
    for name, measured in (("training step", step), ("preparation", prepare)):
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side, checkout in sides.items():
                with tempfile.TemporaryDirectory() as folder:
                    seconds[side].append(measured(checkout, Path(folder)))
        medians = {side: statistics.median(values) for side, values in seconds.items()}
        ratio = medians["before"] / medians["now"]
        missed += ratio < BAR
        print(f"{name}: before {medians['before']:.3f}, now {medians['now']:.3f} CPU s; ratio {ratio:.2f} (bar {BAR})")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
