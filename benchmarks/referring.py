"""Is a referring probability of .9 right nine times in ten? Calibration of the names that a model gave to its regions.

    python benchmarks/referring.py demo/predictions [MORE ...]

Reads what `reg2rg predict` wrote with ``model.decoding: constrained`` or ``forced``. For each paragraph: the
probability of the name at its slot, and whether that is the region which was given there. Beside it the model's belief,
its likeliest name, whatever the paragraph was called; of forced names only that is of use. ECE is the mean gap of
probability and share right, over 15 bins of equal width, weighted by their paragraphs. Exit status 1 when the ECE is
over 0.05, or probabilities of a paragraph do not sum to one within 1e-5.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from reg2rg.evaluation.records import read_records, read_written

BINS, BAR, SUM = 15, 0.05, 1e-5


def calibration(sure: np.ndarray, right: np.ndarray) -> tuple[float, list[tuple[float, float, int, float, float]]]:
    """ECE, and of each bin that is not empty its edges, paragraphs, mean probability and share right."""
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    rows = [
        (b / BINS, (b + 1) / BINS, int((place == b).sum()), sure[place == b].mean(), right[place == b].mean())
        for b in range(BINS)
        if (place == b).any()
    ]
    return sum(count * abs(mean - share) for _, _, count, mean, share in rows) / len(sure), rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, nargs="+", help="folders that reg2rg predict wrote")
    options = parser.parse_args()
    named, believed, off, studies, forced = [], [], 0.0, 0, False
    for folder in options.predictions:
        for record in read_records(folder):
            studies += 1
            for one in read_written(record):
                if one.referring:
                    given = record["regions"][one.slot]
                    best = max(one.referring, key=one.referring.__getitem__)
                    named.append((one.probability, one.region == given))
                    believed.append((one.referring[best], best == given))
                    off = max(off, abs(sum(one.referring.values()) - 1))
                    forced |= one.forced
    if not named:
        raise SystemExit("no referring probabilities: decoding was free, or frames name no region")
    print(f"{studies} studies, {len(named)} paragraphs; probabilities sum to one within {off:.1e}")
    found = {}
    for title, pairs in (("name as written", named), ("likeliest name", believed)):
        sure, right = np.array(pairs, dtype=float).T
        found[title], rows = calibration(sure, right)
        print(f"\n{title}: right {right.mean():.4f}, mean probability {sure.mean():.4f}, ECE {found[title]:.4f}")
        print(f"{'probability':>14}{'paragraphs':>12}{'mean':>8}{'right':>8}")
        for low, high, count, mean, share in rows:
            print(f"{low:8.2f}-{high:4.2f}{count:13}{mean:8.3f}{share:8.3f}")
    counts = "likeliest name" if forced else "name as written"
    met = found[counts] <= BAR and off <= SUM
    print(f"\nECE of the {counts}: {found[counts]:.4f} (bar {BAR}): {'met' if met else 'missed'}")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
