"""How far `RuleSplitter` puts sentences where RadGenome-ChestCT has them: the figures of docs/how-to/split.md.

    python benchmarks/splitter.py --tables FOLDER              the half that the vocabulary was tuned on
    python benchmarks/splitter.py --tables FOLDER --held-out   the other half
    python benchmarks/splitter.py --tables FOLDER --errors lung   sentences of a region that went elsewhere

FOLDER holds ``<region>_reports.csv`` with the columns AccNum and GT_combined_report (default: below ../shared, or in
$REG2RG_SHARED).
A study's region texts are put in random order and joined to one report, which is cut into sentences and placed again. A
sentence is right if it is placed in its region, and in no other. A sentence that the tables have under several regions
of the study has no one right place: it is left out and counted. One that the cutting joins across two regions is wrong.

A study belongs to the half that words may be tuned on if the first byte of the SHA-256 of its id is even. Whoever
changes a vocabulary looks at errors of that half only: there is no option that shows the others.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.datasets.splitters import RuleSplitter
from reg2rg.datasets.splitters.sentences import sentence_spans

FOLDER = (
    Path(os.environ.get("REG2RG_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data/reports/radgenome"
)
BAR = 0.90
ENDING = "_reports.csv"


def is_held_out(study: str) -> bool:
    """Whether a study is of the half that nobody looks at."""
    return hashlib.sha256(study.encode()).digest()[0] % 2 == 1


def read_tables(folder: Path, regions: RegionSet) -> dict[str, dict[str, str]]:
    """Study -> region -> text."""
    texts: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob(f"*{ENDING}")):
        region = regions.canonical(path.name.removesuffix(ENDING))
        with open(path, encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream):
                if text := row["GT_combined_report"].strip():
                    texts.setdefault(row["AccNum"].removesuffix(".nii.gz"), {})[region] = text
    return texts


def placed(
    study: str, texts: Mapping[str, str], regions: RegionSet
) -> Iterator[tuple[str, set[str], tuple[str, ...], str]]:
    """Sentences of a study: text, the regions that have it in the tables, where it was placed, and why."""
    names = sorted(texts)
    random.Random(study).shuffle(names)
    report, ends = "", []
    for name in names:
        report += f"{texts[name]} "
        ends.append((len(report), name))
    homes: dict[str, set[str]] = {}
    for name in names:
        for start, end in sentence_spans(texts[name]):
            homes.setdefault(texts[name][start:end], set()).add(name)
    spans = sentence_spans(report)
    told = [report[start:end] for start, end in spans]
    for (start, _), sentence, place in zip(spans, told, RuleSplitter(language="en").place(told, regions), strict=True):
        own = next(name for end, name in ends if start < end)
        yield sentence, homes.get(sentence, {own, "torn"}), place.regions, f"{own}|{place.reason}"


def main() -> int:
    """Print the figures; 1 below the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, default=FOLDER)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--errors", metavar="REGION")
    options = parser.parse_args()
    if options.errors and options.held_out:
        parser.error("--errors shows sentences of the tuned half alone")
    regions = load_region_set("radgenome")
    texts = read_tables(options.tables, regions)
    chosen = {study: own for study, own in sorted(texts.items()) if is_held_out(study) == options.held_out}
    if not chosen:
        sys.stderr.write(f"{options.tables}: no tables <region>{ENDING}\n")
        return 2
    begun = time.perf_counter()
    total, right, among, given = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    shared = within = torn = 0
    for study, own in chosen.items():
        for sentence, homes, place, why in placed(study, own, regions):
            region, reason = why.split("|", 1)
            if "torn" in homes:
                torn += 1
            elif len(homes) > 1:
                shared += 1
                within += bool(place) and set(place) <= homes
                continue
            total[region] += 1
            right[region] += place == (region,) and "torn" not in homes
            among[region] += region in place
            given.update(place or ("other",))
            if options.errors == region and place != (region,):
                print(f"{', '.join(place) or 'other'} ({reason}): {sentence}")
    seconds = time.perf_counter() - begun
    count, commonest = total.total(), total.most_common(1)[0]
    half = "held out" if options.held_out else "tuned on"
    print(f"{len(chosen):,} studies of the half {half}; {count:,} sentences under one region, {torn} of them torn")
    some = within / max(1, shared)
    print(f"left out: {shared:,} sentences under several regions; all places of {some:.1%} are among these")
    print(f"{seconds:.1f} s, {1000 * seconds / (count + shared):.2f} ms a sentence")
    print(f"\n{'region':<22}{'sentences':>10}{'right':>8}{'found':>8}{'precision':>11}")
    for region in regions.names:
        if total[region]:
            precision = among[region] / given[region] if given[region] else 0.0
            row = f"{right[region] / total[region]:>8.1%}{among[region] / total[region]:>8.1%}{precision:>11.1%}"
            print(f"{region:<22}{total[region]:>10,}{row}")
    micro = right.total() / count
    row = f"{micro:>8.1%}{among.total() / count:>8.1%}{among.total() / given.total():>11.1%}"
    print(f"{'all (micro)':<22}{count:>10,}{row}")
    print(
        f"{'all ' + commonest[0]:<22}{'':>10}{commonest[1] / count:>8.1%}   (the commonest region for every sentence)"
    )
    print(f"\nbar {BAR:.0%}: {'held' if micro >= BAR else 'MISSED'}")
    return 0 if micro >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
