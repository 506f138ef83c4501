"""Short forms of four benchmarks, each ratio beside the stored one of the same size: what a change made slower shows.

    python benchmarks/quick.py            about two minutes on one core; nothing is written
    python benchmarks/quick.py --store    also enter the ratios into stored.json, as "quick"

A ratio is CPU seconds of the published way over ours, both in one run, so that machines and their load compare. The
ratios of the full sizes stand beside them for orientation: they are those of docs/project/performance.md. Exit status
1 when a benchmark's two sides do not compute the same, or a ratio is under two thirds of the stored one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

STORED = Path(__file__).with_name("stored.json")
SHARE = 2 / 3  # short runs differ by a fifth from one to the next

# How each file of figures gives the CPU seconds of both sides, published first.
SIDES: dict[str, Callable[[Any], tuple[float, float]]] = {
    "step": lambda found: (found["published"], found["ours"]),
    "generate": lambda found: (found["published"], found["ours"]),
    "prepare": lambda found: (found[0]["published"]["cpu"], found[0]["ours"]["cpu"]),
    "evaluate": lambda found: (found["metrics"]["together"]["library"], found["metrics"]["together"]["ours"]),
}
# Where the short form misses a bar that is for the full size, or meets it by chance, its two sides count alone.
EQUAL: dict[str, Callable[[Any], bool]] = {
    "step": lambda found: bool(found["equal"]),
    "generate": lambda found: bool(found["equal"]),
    "prepare": lambda found: found[0]["ours"]["difference"] < 1e-4,
    "evaluate": lambda found: all(one.get("difference", 0.0) <= 1e-9 for one in found["metrics"].values()),
}


def figures(name: str, folder: Path) -> Any:
    """What a benchmark measured; its own words are shown where it wrote none."""
    path = folder / f"{name}.json"
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--quick", "--json", str(path)]
    if name == "evaluate":
        command += ["--reports", str(folder)]  # none there: the same synthetic ones everywhere
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    if not path.exists():
        sys.exit(f"{name} measured nothing:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> int:
    """Run them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="store_true", help="enter the ratios into stored.json")
    options = parser.parse_args()
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    failed = []
    print(f"{'':10}{'published, s':>14}{'ours, s':>10}{'ratio':>9}{'stored':>9}{'full size':>11}", flush=True)
    with tempfile.TemporaryDirectory(prefix="reg2rg-bench-") as folder:
        for name, sides in SIDES.items():
            found = figures(name, Path(folder))
            theirs, mine = sides(found)
            ratio, before = theirs / mine, stored[name].get("quick")
            same, slower = EQUAL[name](found), before is not None and ratio < SHARE * before
            told = "" if same else "  the two sides differ"
            told += "  slower than stored" if slower else ""
            kept = "-" if before is None else f"{before:.2f}x"
            full = f"{stored[name]['full']:.2f}x"
            print(f"{name:10}{theirs:14.2f}{mine:10.2f}{ratio:8.2f}x{kept:>9}{full:>11}{told}", flush=True)
            stored[name]["quick"] = round(ratio, 2)
            if not same or slower:
                failed.append(name)
    if options.store:
        STORED.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
