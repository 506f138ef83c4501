"""``reg2rg evaluate`` of many reports: CPU seconds and peak memory of the command, as a user runs it.

    python benchmarks/load.py                            20,000 rows
    python benchmarks/load.py --rows 100000              as many as a large archive has
    python benchmarks/load.py --against CHECKOUT         this checkout and another one, in turns, on the same file

Reports are invented, from a seed: clauses of a phrase book with sizes and places drawn anew, --sentences of them (2 to
5, about 30 words, as a region's paragraph or a short report); a prediction has about half of its sentences from its
reference. The command runs in a process of its own;
seconds are those that it spent computing (user and system), so that a busy machine disturbs them little. Memory is the
highest that was resident. Exit status 1 if more is used than --seconds or --gigabytes allow (--seconds 0: no limit).
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("A nodule", "A mass", "Consolidation", "A cyst", "An opacity", "Pleural effusion", "Atelectasis", "Thickening")
PLACES = (
    "in the right upper lobe", "in the left lower lobe", "in the mediastinum", "in the middle lobe", "in the lingula",
    "in the liver", "at the level of the aortic arch", "in the left kidney", "in the thyroid", "in the thoracic spine",
)  # fmt: skip
ENDS = (
    "is observed.", "is seen, measuring {a} x {b} mm.", "was not detected.", "with a diameter of {a} mm is noted.",
    "appears stable compared with the previous examination.", "is followed, density {b} HU.",
)  # fmt: skip
FIXED = (
    "Heart size is normal.", "No pericardial effusion.", "Trachea and both main bronchi are open.",
    "No lymph node in pathological size and appearance was detected.", "Calcific plaques in the coronary arteries.",
    "Degenerative changes are observed in the bone structures.", "The esophagus is of normal calibre.",
)  # fmt: skip


def sentence(random: np.random.Generator) -> str:
    if random.random() < 0.35:
        return FIXED[random.integers(len(FIXED))]
    a, b = random.integers(2, 60, 2)
    parts = [book[random.integers(len(book))] for book in (KINDS, PLACES, ENDS)]
    return " ".join(parts).format(a=a, b=b)


def write_reports(path: Path, rows: int, sentences: tuple[int, int] = (2, 5), seed: int = 0) -> None:
    """A table of invented reports and predictions."""
    random = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("study", "reference", "prediction"))
        for row in range(rows):
            given = [sentence(random) for _ in range(random.integers(sentences[0], sentences[1] + 1))]
            said = [one if random.random() < 0.5 else sentence(random) for one in given]
            writer.writerow((f"study_{row}", " ".join(given), " ".join(said)))


def measure(checkout: Path, table: Path, options: list[str]) -> tuple[float, float, float]:
    """CPU seconds, peak GB and seconds of the clock of one evaluation by the code of a checkout."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "reg2rg.cli.main", "evaluate", str(table), "--out", out, *options]
        start = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        errors = process.stderr.read() if process.stderr is not None else b""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{checkout}: exit code {process.returncode}\n{errors.decode(errors='replace')[-2000:]}")
        return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--sentences", type=int, nargs=2, default=(2, 5), metavar=("FEWEST", "MOST"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--seconds", type=float, default=0, help="most CPU seconds; 0: no limit")
    parser.add_argument("--gigabytes", type=float, default=0, help="most memory; 0: no limit")
    parser.add_argument("options", nargs="*", help="of reg2rg evaluate, after --")
    given = parser.parse_args()
    checkouts = {"this": ROOT} | ({"other": given.against.resolve()} if given.against is not None else {})
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "reports.csv"
        write_reports(table, given.rows, tuple(given.sentences), given.seed)
        print(f"{given.rows:,} rows, {table.stat().st_size / 1e6:.1f} MB")
        for _ in range(given.repeats):
            for name, checkout in checkouts.items():
                found[name].append(measure(checkout, table, given.options))
                cpu, memory, clock = found[name][-1]
                print(f"{name:6} {cpu:8.1f} CPU s {memory:8.2f} GB {clock:8.1f} s", flush=True)
    cpu, memory, _ = (statistics.median(column) for column in zip(*found["this"], strict=True))
    if (given.seconds and cpu > given.seconds) or (given.gigabytes and memory > given.gigabytes):
        sys.exit(1)


if __name__ == "__main__":
    main()
