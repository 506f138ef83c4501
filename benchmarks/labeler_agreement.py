"""How far the rules agree with RadBERT: the figures of docs/concepts/labeler.md.

    python benchmarks/labeler_agreement.py LABELS.csv                       agreement by half, text and label
    python benchmarks/labeler_agreement.py LABELS.csv --reports FOLDER      and what is published of RadGenome's labels

LABELS.csv has a row a study: its id, the texts ``GT_whole_report`` and ``Pred_whole_report``, and RadBERT's labels of
both as ``GT_<label>`` and ``Pred_<label>``. FOLDER holds ``<region>_reports.csv``; ``metrics_manual.csv``, whose
supports are RadBERT's totals; ``all_regions_micro_avg_results.csv``, clinical efficacy by region with its labels.

A study belongs to the half that rules may be tuned on if the first byte of the SHA-256 of its id is even. Whoever
changes a rule looks at errors of that half only: ``--errors LABEL`` shows them, and there is no option for the others.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from reg2rg.core.labels import FINDINGS
from reg2rg.core.regions import load_region_set
from reg2rg.evaluation.labelers import RuleLabeler, read_label_table
from reg2rg.evaluation.metrics import efficacy
from reg2rg.evaluation.reading import read_reports

SIDES = {"references": ("GT",), "generated": ("Pred",), "both": ("GT", "Pred")}
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of one half and kind.

    Attributes:
        studies: (n,) whose they are.
        texts: (n,) what they say.
        counts: (n, 18, 3) true positives, false positives and false negatives of the rules.
    """

    studies: np.ndarray
    texts: Sequence[str]
    counts: np.ndarray

    def kept(self, keep: np.ndarray) -> Texts:
        """Those that are to be kept."""
        return Texts(
            self.studies[keep], [text for text, yes in zip(self.texts, keep, strict=True) if yes], self.counts[keep]
        )


def is_held_out(study: str) -> bool:
    """The rules were tuned on the other studies only. The split was fixed before anybody looked at errors."""
    return hashlib.sha256(study.encode()).digest()[0] % 2 == 1


def texts_of(path: Path, sides: Sequence[str], held_out: bool, labeler: RuleLabeler) -> Texts:
    """Texts of one half, read by the rules and held against the table."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.DictReader(stream) if is_held_out(row["AccNum"]) is held_out]
    studies = [row["AccNum"] for row in rows]
    texts = [row[f"{side}_whole_report"] for side in sides for row in rows]
    truth = np.concatenate([read_label_table(path, studies, prefix=f"{side}_") for side in sides])
    return Texts(np.array(studies * len(sides)), texts, efficacy.count(truth, labeler.label(texts)))


def macro_with_support(counts: np.ndarray) -> tuple[float, int]:
    """Mean F1 of the labels that RadBERT gave to any text, and how many they are."""
    seen = counts[:, [0, 2]].sum(axis=1) > 0
    return float(efficacy.precision_recall_f1(counts)[seen, 2].mean()), int(seen.sum())


def interval(part: Texts) -> tuple[float, float]:
    """95 % interval of micro-F1 by resampling studies."""
    names, place = np.unique(part.studies, return_inverse=True)
    by_study = np.zeros((len(names), *part.counts.shape[1:]))
    np.add.at(by_study, place, part.counts)
    times = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    low, high = np.quantile(efficacy.micro(np.tensordot(times, by_study, 1))[:, 2], [0.025, 0.975])
    return float(low), float(high)


def print_halves(parts: dict[tuple[bool, str], Texts]) -> None:
    print(
        "| half | texts | number | labels of RadBERT | precision | recall | micro-F1 | macro-F1 (labels with support) |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for (held_out, side), part in parts.items():
        counts = part.counts.sum(axis=0)
        precision, recall, f1 = efficacy.micro(counts)
        macro, labels = macro_with_support(counts)
        half, bold = ("**held-out**", "**") if held_out else ("tuning", "")
        print(
            f"| {half} | {side} | {len(part.texts)} | {counts[:, [0, 2]].sum()} | {precision:.3f} | {recall:.3f} | "
            f"{bold}{f1:.3f}{bold} | {macro:.3f} ({labels}) |"
        )


def print_labels(parts: dict[tuple[bool, str], Texts]) -> None:
    head = "support | precision | recall | F1"
    print(f"| label | tuning: {head} | held-out: {head} |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for i, label in enumerate(FINDINGS):
        cells = []
        for held_out in (False, True):
            tp, fp, fn = parts[held_out, "both"].counts[:, i].sum(axis=0).tolist()
            cells += [
                f"{tp + fn}",
                *(_share(a, b) for a, b in ((tp, tp + fp), (tp, tp + fn), (2 * tp, 2 * tp + fp + fn))),
            ]
        print(f"| {label} | {' | '.join(cells)} |")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "–"


def print_details(parts: dict[tuple[bool, str], Texts], path: Path) -> None:
    for (held_out, side), part in parts.items():
        if held_out:
            low, high = interval(part)
            print(f"held-out {side}: 95 % interval of micro-F1 {low:.3f} to {high:.3f}")
    known = set(parts[False, "both"].texts)
    for side in SIDES:
        part = parts[True, side]
        fresh = np.array([text not in known for text in part.texts])
        f1 = efficacy.micro(part.counts[fresh].sum(axis=0))[2]
        print(f"held-out {side}, without the {(~fresh).sum()} texts that the tuning half has too: micro-F1 {f1:.3f}")
    counts = parts[True, "both"].counts.sum(axis=0)
    support = counts[:, [0, 2]].sum(axis=1)
    first, second = np.argsort(-support)[:2]
    share = support[[first, second]].sum() / support.sum()
    print(f"{FINDINGS[first]} and {FINDINGS[second]}: {share:.0%} of the held-out positives")
    others = np.arange(len(FINDINGS)) != FINDINGS.index("Lung opacity")
    print(f"held-out both, without Lung opacity: micro-F1 {efficacy.micro(counts[others])[2]:.3f}")
    strict = RuleLabeler(uncertain="absent")
    for held_out in (False, True):
        f1 = efficacy.micro(texts_of(path, SIDES["both"], held_out, strict).counts.sum(axis=0))[2]
        print(f"{'held-out' if held_out else 'tuning'} both, uncertain mentions absent: micro-F1 {f1:.3f}")


def print_totals(folder: Path) -> None:
    """RadBERT's totals on RadGenome's references beside the rules', which read the regions' texts joined."""
    with (folder / "metrics_manual.csv").open(newline="", encoding="utf-8-sig") as stream:
        totals = {row["Label"]: int(row["Support"]) for row in csv.DictReader(stream)}
    pairs = read_reports(folder, None, load_region_set("radgenome")).pairs
    references = [pair.reference_text for pair in pairs]
    start = time.process_time()
    found = RuleLabeler().label(references)
    taken = time.process_time() - start
    print("| label | RadBERT | rules | label | RadBERT | rules |\n|---|--:|--:|---|--:|--:|")
    cells = [f"{label} | {totals[label]} | {found[:, i].sum()}" for i, label in enumerate(FINDINGS)]
    for left, right in zip(cells[: len(cells) // 2], cells[len(cells) // 2 :], strict=True):
        print(f"| {left} | {right} |")
    words = sum(len(text.split()) for text in references) / len(references)
    print(f"{len(references):,} reports of {words:.0f} words: {taken:.2f} s of CPU time")
    strict = RuleLabeler(uncertain="absent").label(references)
    print(f"uncertain mentions decide {(found != strict).sum()} of {found.sum():,} labels")
    said = RuleLabeler().label([pair.prediction_text for pair in pairs])
    print(f"generated reports with Medical material by the rules: {said[:, FINDINGS.index('Medical material')].sum()}")


def print_regions(folder: Path) -> None:
    """Clinical efficacy of the published reports by region: as published with RadBERT's labels, and with the rules'."""
    labeler = RuleLabeler()
    head = "precision | recall | micro-F1"
    print(f"| region | RadBERT: labels | {head} | rules: labels | {head} |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    with (folder / "all_regions_micro_avg_results.csv").open(newline="", encoding="utf-8-sig") as stream:
        for row in csv.DictReader(stream):
            path = folder / f"{row['region']}_reports.csv"
            if not path.is_file():
                continue
            pairs = read_reports(path, None, load_region_set("radgenome")).pairs
            sides = [[pair.reference for pair in pairs], [pair.prediction for pair in pairs]]
            counts = efficacy.count(*map(labeler.label, sides)).sum(axis=0)
            published = (float(row[name]) for name in ("precision", "recall", "f1-score"))
            theirs, ours = (
                " | ".join(f"{value:.3f}" for value in figures) for figures in (published, efficacy.micro(counts))
            )
            print(f"| {row['region']} | {float(row['support']):.0f} | {theirs} | {counts[:, [0, 2]].sum()} | {ours} |")


def print_errors(path: Path, label: str, labeler: RuleLabeler) -> None:
    part, column = texts_of(path, SIDES["both"], False, labeler), FINDINGS.index(label)
    for study, text, (_, extra, missed) in zip(part.studies, part.texts, part.counts[:, column], strict=True):
        if extra or missed:
            print(f"\n{study}: {'rules alone' if extra else 'RadBERT alone'}\n{text}")
            print(labeler.reader.explain(text)[label])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--reports", type=Path, metavar="FOLDER", help="published reports by region")
    parser.add_argument("--errors", choices=FINDINGS, metavar="LABEL", help="show the errors of the tuning half")
    options = parser.parse_args()
    labeler = RuleLabeler()
    if options.errors:
        print_errors(options.labels, options.errors, labeler)
        return
    parts = {
        (held_out, name): texts_of(options.labels, sides, held_out, labeler)
        for held_out in (False, True)
        for name, sides in SIDES.items()
    }
    steps: list[Callable[[], None]] = [
        lambda: print_halves(parts),
        lambda: print_labels(parts),
        lambda: print_details(parts, options.labels),
    ]
    if options.reports is not None:
        steps += [lambda: print_totals(options.reports), lambda: print_regions(options.reports)]
    for step in steps:
        step()
        print()


if __name__ == "__main__":
    main()
