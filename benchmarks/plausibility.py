"""Misplaced and misnamed sets of masks that are named, and false alarms over sets that are right: counts, by kind.

    python benchmarks/plausibility.py                    60 phantoms misplaced, 300 as they are, 20 with hard negatives
    python benchmarks/plausibility.py --real FOLDER      the published test data in FOLDER too
    python benchmarks/plausibility.py --seed 7000        other phantoms

A mutation moves or renames the whole set of a study; it counts where the mean Dice of its masks to the true ones is
below 0.7. *Error* and *note* are the two strengths of a verdict of `reg2rg.scans.plausibility.judge`. No phantom of the
seeds that are used here (4000 and up) was looked at while thresholds were set. Exit status 1 if fewer than 95 % of a
kind's mutations of phantoms are named, or if a set that is right is an error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from _mask_cases import (
    COUNTED_BELOW,
    MUTATIONS,
    Masks,
    hard_negatives,
    mean_dice,
    other_patient,
    phantom,
    real_cases,
    renamed,
)  # fmt: skip

from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.types import Volume
from reg2rg.scans.plausibility import judge

BAR = 0.95


class Counts:
    """Sets judged, errors and notes of one kind."""

    def __init__(self) -> None:
        self.sets = self.errors = self.notes = 0
        self.missed: list[str] = []

    def add(self, volume: Volume, masks: Masks, regions: RegionSet, what: str) -> None:
        verdict = judge(volume, masks, regions)
        self.sets += 1
        self.errors += verdict is not None and verdict.strength == "strong"
        self.notes += verdict is not None and verdict.strength == "weak"
        if verdict is None:
            self.missed.append(what)

    @property
    def named(self) -> float:
        return (self.errors + self.notes) / max(1, self.sets)


Table = dict[str, Counts]


def mutate(table: Table, volume: Volume, masks: Masks, others: Iterable[Masks], regions: RegionSet, what: str) -> None:
    """Judge every mutation of one set that moves it far enough to count."""
    kinds = {kind: list(make(volume, masks)) for kind, make in MUTATIONS.items()}
    kinds["another patient"] = [other_patient(volume, masks, other) for other in others]
    kinds["other numbers"] = list(renamed(masks, seed=len(what)))
    for kind, variants in kinds.items():
        for number, variant in enumerate(variants):
            shown = {name: mask for name, mask in variant.items() if mask.any()}
            if shown and mean_dice(variant, masks) < COUNTED_BELOW:
                table[kind].add(volume, shown, regions, f"{what}, {number}")


def show(title: str, table: Table, misplaced: bool) -> None:
    named = " named |" if misplaced else ""
    print(f"\n{title}\n\n| kind | sets | error | note |{named}\n|---|--:|--:|--:|{'--:|' if misplaced else ''}")
    for kind, counts in table.items():
        share = f" {counts.named:.1%} |" if misplaced else ""
        print(f"| {kind} | {counts.sets} | {counts.errors} | {counts.notes} |{share}")
        if misplaced and counts.missed:
            print(f"  not named: {'; '.join(counts.missed[:12])}", file=sys.stderr)
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantoms", type=int, default=60, help="phantoms that are misplaced")
    parser.add_argument("--in_place", type=int, default=300, help="phantoms that are judged as they are")
    parser.add_argument("--sick", type=int, default=20, help="phantoms with hard negatives")
    parser.add_argument("--seed", type=int, default=4000, help="seed of the first of these; the others follow")
    parser.add_argument("--real", type=Path, help="folder of the published test data")
    chosen = parser.parse_args()
    regions = load_region_set("radgenome")

    start, right = time.process_time(), defaultdict[str, Counts](Counts)
    for number in range(chosen.in_place):
        right["phantoms as they are"].add(*phantom(chosen.seed + 1, number), regions, f"{number}")
    for number in range(chosen.sick):
        for kind, volume, masks in hard_negatives(*phantom(chosen.seed + 2, number), seed=number):
            right[kind].add(volume, masks, regions, f"{number}")
    show("Sets that are right: phantoms", right, misplaced=False)

    wrong = defaultdict[str, Counts](Counts)
    for number in range(chosen.phantoms):
        others = (phantom(chosen.seed, chosen.phantoms + 2 * number + k)[1] for k in range(2))
        mutate(wrong, *phantom(chosen.seed, number), others, regions, f"phantom {number}")
    show("Mutations of phantoms", wrong, misplaced=True)

    passed = all(counts.named >= BAR for counts in wrong.values())
    if chosen.real is not None:
        cases = list(real_cases(chosen.real))
        real, moved = defaultdict[str, Counts](Counts), defaultdict[str, Counts](Counts)
        for name, volume, masks, own in cases:
            real[name].add(volume, masks, own, name)
            if not any(region.expected for region in own):
                continue  # of such a set nothing is judged
            others = [other for place, _, other, theirs in cases if theirs.name == own.name and place != name]
            mutate(moved, volume, masks, others, own, name)
        show("Sets that are right: real scans", real, misplaced=False)
        show("Mutations of real scans", moved, misplaced=True)
        passed = passed and not any(counts.errors for counts in real.values())
    print(f"\n{time.process_time() - start:.0f} CPU s")
    return 0 if passed and not any(counts.errors for counts in right.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
