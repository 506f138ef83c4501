"""How many seeds would tell a difference: from the tables of a sweep, for each run and metric.

    python benchmarks/power.py ablations/phantom_small/tables/findings.csv no_lfd:'Lung nodule' txt_geo:'Hiatal hernia'

Paired by seed, two-sided, 5 %: the least number of seeds with which a t test finds the mean difference that was seen
four times of five, and the least difference that the seeds at hand find so. Both are told from the few seeds there are,
and are as rough as they are; patients are those of the test set.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy import stats

POWER, LEVEL, MOST = 0.8, 0.05, 1000


def power(effect: float, seeds: int) -> float:
    """Chance that the t test of `seeds` paired differences excludes 0, on the side of the effect.

    The other side adds less than half of the level, and scipy's lower tail is no number in places (scipy issue 25470).

    Args:
        effect: mean of the differences in their standard deviations.
        seeds: two or more.
    """
    return float(stats.nct.sf(stats.t.isf(LEVEL / 2, seeds - 1), seeds - 1, abs(effect) * np.sqrt(seeds)))


def wanted(effect: float) -> int | None:
    """Seeds for `POWER`; ``None`` for more than `MOST`."""
    return next((count for count in range(2, MOST + 1) if power(effect, count) >= POWER), None)


def told(seeds: int) -> float:
    """The least effect, in standard deviations of the difference, that `seeds` tell with `POWER`."""
    low, high = 0.0, 1e3
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, seeds) < POWER else (low, middle)
    return high


def by_seed(table: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Run and metric -> seed -> value, in percent."""
    with table.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["values"]]
    return {
        (row["run"], row["metric"]): {
            seed: 100 * float(value) for seed, value in (pair.split(":") for pair in row["values"].split(";"))
        }
        for row in rows
    }


def lines(values: dict[tuple[str, str], dict[str, float]], asked: Iterable[str], full: str) -> Iterable[str]:
    """A row of Markdown for each run and metric."""
    yield f"| run, metric | differences to {full} by seed | mean | spread over seeds | seeds for 80 % | told by these |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for one in asked:
        run, _, name = one.partition(":")
        found = [metric for other, metric in values if other == run and name in metric]
        if len(found) != 1:
            sys.exit(f"{one}: fits {len(found)} metrics of a run in the table (expected RUN:METRIC, of one)")
        own, base = values[run, found[0]], values.get((full, found[0]), {})
        gaps = np.array([own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())])
        if len(gaps) < 2:
            sys.exit(f"{one}: {len(gaps)} seeds in common with {full} (expected two or more)")
        spread = float(gaps.std(ddof=1))
        count = wanted(float(gaps.mean()) / spread) if spread else 2
        seen = ", ".join(f"{gap:+.1f}" for gap in gaps)
        least = f"{told(len(gaps)) * spread:.1f}"
        yield f"| {run}, {found[0]} | {seen} | {gaps.mean():+.1f} | {spread:.1f} | {count or f'> {MOST}'} | {least} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="a CSV that reg2rg ablate wrote")
    parser.add_argument("asked", nargs="+", metavar="RUN:METRIC", help="part of the metric's name will do")
    parser.add_argument("--full", default="full", help="the run that the others are compared with")
    options = parser.parse_args()
    sys.stdout.write("\n".join(lines(by_seed(options.table), options.asked, options.full)) + "\n")


if __name__ == "__main__":
    main()
