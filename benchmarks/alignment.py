"""What models of a sweep write of some regions only, in an order of their own: region-report alignment put to the test.

    python benchmarks/alignment.py ablations/phantom_small full no_rra --given 3

Of every test study so many regions are drawn, in a random order; the same ones for all runs and seeds. A finding is
*under another region* if the paragraph of one region states what the reference states of another alone, given or not.
Differences as in the tables of `reg2rg ablate`: paired by seed and study, 95 %, patients resampled; p by Holm's method
over the runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from findings import data_of

from reg2rg.ablation.compare import Comparer, holm
from reg2rg.ablation.scoring import Scores
from reg2rg.cli.main import Invocation
from reg2rg.cli.section import read_section
from reg2rg.core.report import parse_report
from reg2rg.evaluation.bootstrap import Statistic, mean_statistic, summed
from reg2rg.evaluation.cohort import Cohort, Settings
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.metrics.efficacy import figure_at
from reg2rg.evaluation.metrics.misplaced import MisplacedFindings
from reg2rg.evaluation.pairs import Side, pair_sides
from reg2rg.evaluation.protocols import find_protocol
from reg2rg.evaluation.results import REPORT
from reg2rg.inference.generate import load_model

NUMBERS = (
    "Findings under another region",
    "F1 by paragraph",
    "Headers of regions that are not given, or twice",
    "Regions without a paragraph",
)
RESAMPLES = 4000


def drawn(study: str, regions: Sequence[str], count: int) -> tuple[str, ...]:
    """So many regions of a study at random, the same ones in every run; the data module gives them an order."""
    seed = [count, *study.encode()]
    chosen = set(np.random.default_rng(seed).permutation(len(regions))[:count].tolist())
    return tuple(name for place, name in enumerate(regions) if place in chosen)


def written(folder: Path, given: int, form: str) -> Scores:
    """What one run with one seed writes of some regions, scored."""
    model = load_model(folder / "checkpoints" / "last.ckpt")
    where = read_section(Invocation("data", ()), ["--config", str(folder / "config.yaml")])
    data = data_of(model, where, 40)
    full = {entry.study: entry for entry in data.entries("test")}
    some = [
        replace(entry, regions=names, reports=("",) * len(names))
        for entry in full.values()
        for names in [drawn(entry.study, entry.regions, given)]
    ]
    decoding = replace(model.decoding, form=None) if form == "free" else model.decoding
    patients = {study.id: study.patient for study in where.data.dataset.studies()}
    pairs, kept, surplus, missing = [], [], [], []
    for batch in data._loader("predict", some, with_target=False):
        for one in model.reporter.generate(data.on_after_batch_transfer(batch, 0), decoding):
            entry, told = full[one.study], parse_report(one.text, one.regions, model.task.identity)
            texts = dict(zip(entry.regions, entry.reports, strict=True))
            said = Side(regions=told.by_region(), given=one.regions)
            known = [texts, {name: texts[name] for name in one.regions}]
            for place, references in zip((pairs, kept), known, strict=True):
                reference = Side(regions=references, given=one.regions)
                place.append(pair_sides(one.study, patients[one.study], reference, said, model.task.region_set))
            surplus.append((len(told.invalid) + len(told.duplicate)) / len(one.regions))
            missing.append(len(told.missing) / len(one.regions))
    settings = Settings(find_protocol("strict"), RuleLabeler(), by_region=False)
    found = [*MisplacedFindings().score(Cohort(pairs, model.task.region_set.names, settings)).statistics]
    found += [by_paragraph(Cohort(kept, model.task.region_set.names, settings))]
    rows, studies = np.arange(len(pairs)), len(pairs)
    for name, values in zip(NUMBERS[2:], (surplus, missing), strict=True):
        found.append(mean_statistic("regions", REPORT, name, "", rows=rows, values=np.array(values), studies=studies))
    order = sorted(range(len(pairs)), key=lambda place: pairs[place].study)
    found = [replace(one, units=one.units[order]) for one in found]
    ids, whose = zip(*((pairs[place].study, pairs[place].patient) for place in order), strict=True)
    return Scores(ids, whose, {one.name: one for one in found})


def by_paragraph(cohort: Cohort) -> Statistic:
    """Micro-F1 of the findings of the given regions' paragraphs, each region's for itself; silence denies."""
    labels = [cohort.paragraph_labels(cell, region, RuleLabeler()) for region, cell in cohort.cells.items()]
    parts = [replace(one, silent=None).counts for one in labels]
    rows = np.concatenate([cell.rows for cell in cohort.cells.values()])
    units = summed(rows, np.concatenate(parts).sum(axis=1), len(cohort.pairs))
    return Statistic("findings", REPORT, NUMBERS[1], "", units, figure_at(2), len(rows))


def table(found: Mapping[str, Mapping[int, Scores]], full: str) -> None:
    """Each run's numbers, and the differences to the full model."""
    comparer = Comparer(found[full], RESAMPLES)
    for number in NUMBERS:
        print(f"\n{number}, percent")
        all_of_them = {run: comparer.compare(scores, number) for run, scores in found.items() if run != full}
        others = {run: one for run, one in all_of_them.items() if one is not None}
        corrected = dict(zip(others, holm([one.p for one in others.values()]), strict=True))
        for run, scores in found.items():
            values = [100 * value for own in scores.values() if (value := own.value(number)) is not None]
            if not values:  # no finding is stated, or all studies lack what the number needs
                print(f"{run:16}     –")
                continue
            told = f"{run:16} {np.mean(values):5.1f}  " + " ".join(f"{one:5.1f}" for one in values)
            if (one := others.get(run)) is not None:
                mean, low, high = (100 * value for value in (one.difference, one.low, one.high))
                told += f"   {mean:+.1f} [{low:+.1f}, {high:+.1f}] p {corrected[run]:.3f}"
            print(told)


def main(words: Sequence[str] | None = None) -> None:
    """Let every run report on the same regions, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="folder of a sweep's runs, such as ablations/phantom_small")
    parser.add_argument("runs", nargs="+", help="the full model first")
    parser.add_argument("--given", type=int, default=3, help="regions of each study")
    parser.add_argument("--form", choices=("constrained", "free"), default="free")
    options = parser.parse_args(words)
    torch.set_grad_enabled(False)
    found: dict[str, dict[int, Scores]] = {}
    for run in options.runs:
        for folder in sorted((options.sweep / run).glob("seed*"), key=lambda path: int(path.name[4:])):
            if (folder / "checkpoints" / "last.ckpt").is_file():
                found.setdefault(run, {})[int(folder.name[4:])] = written(folder, options.given, options.form)
                print(f"{run}, {folder.name}: done", flush=True)
    table(found, options.runs[0])


if __name__ == "__main__":
    main()
