"""The bars of detection and writing on held-out phantoms, one table a question.

    reg2rg data phantom held/data --studies 375 --first 900      numbers that the demo does not have
    reg2rg data prepare --config phantom.yaml --vars.folder held --bake
    reg2rg predict --config phantom.yaml --ckpt_path demo/model --data.dataset.init_args.root held/data \\
        --data.dataset.init_args.train null --data.dataset.init_args.test train --data.store held/store \\
        --data.limit_eval_studies null --trainer.callbacks.5.init_args.out held/predictions
    python benchmarks/findings.py head demo/model                AUROC, average precision, calibration, coverage
    python benchmarks/findings.py text held/predictions ...      the written text against the truth, a folder a column
    python benchmarks/findings.py lists held/predictions ...     paragraphs that state just what their prompt named
    python benchmarks/findings.py sizes PREDICTIONS ...          words of size in references and texts, by region
    python benchmarks/findings.py rules                          rules on attributes, no network
    python benchmarks/findings.py around                         what lies beside a region in no mask, of all phantoms
    python benchmarks/findings.py shift demo/model               noise, blur and an offset; false alarms
    python benchmarks/findings.py fewer demo/model               headers of absent regions, given 1, 3, 7 and 10

The 300 studies of the held folder's ``train`` split are the held-out ones. Truth labels are those that drew the scans.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage, stats

from reg2rg.cli.main import Invocation
from reg2rg.cli.section import Sections, read_section
from reg2rg.core.labels import FINDINGS
from reg2rg.core.report import parse_report
from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.evaluation.attribute_rules import AttributeRules
from reg2rg.evaluation.calibration import average_precision, expected_calibration_error, reliability, roc_area
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.labelers.keywords import KeywordReader
from reg2rg.evaluation.metrics.size_words import SIZE_WORDS
from reg2rg.evaluation.records import read_records, reference_paragraphs
from reg2rg.inference.calibration import covered, detect, head_of
from reg2rg.inference.generate import load_model
from reg2rg.store.attributes import VECTOR_NAMES, density_table, measure, vectors
from reg2rg.store.crop import Detail
from reg2rg.store.store import Store
from reg2rg.training.module import Reg2RG

RESAMPLES, SAMPLE = 100, 60
FEWEST = 8  # positives that an AUROC is shown of


def section(options: argparse.Namespace) -> Sections:
    """The held-out studies, as a config says them."""
    words = ["--data.dataset.init_args.train", "null", "--data.dataset.init_args.test", "train"]
    return read_section(Invocation("data", ()), ["--config", options.config, "--vars.folder", options.held, *words])


def data_of(model: Reg2RG, where: Sections, batch: int) -> RegionReportDataModule:
    """The data of a config as a model takes them, so many studies at a time."""
    plain = RegionReportDataModule(
        where.data.dataset, where.data.store, model.tokenizer, model.token_counts, where.task, workers=0,
        eval_batch_size=batch,
    )  # fmt: skip
    return model.conform(plain)


def f1_lines(said: np.ndarray, truth: np.ndarray) -> tuple[float, float, np.ndarray, float, float]:
    """Micro-F1, macro-F1, F1 of each label, precision and recall over all."""
    hits = (said & truth).sum(0)
    each = 2 * hits / np.maximum(1, said.sum(0) + truth.sum(0))
    precision, recall = hits.sum() / max(1, said.sum()), hits.sum() / truth.sum()
    return 2 * hits.sum() / (said.sum() + truth.sum()), each.mean(), each, precision, recall


def head(options: argparse.Namespace) -> None:
    """What the head says, and what the omission control holds."""
    model, where = load_model(options.paths[0]), section(options)
    found, own = detect(model, data_of(model, where, 20), "test"), head_of(model)
    can = own.possible.cpu().numpy()[found.region]
    names = model.task.region_set.names
    print(f"{'region':22}{'label':38}{'stated':>7}{'AUROC':>8}{'AP':>7}{'F1':>7}")
    for region, label in np.argwhere(own.possible.cpu().numpy()):
        rows = found.region == region
        shares, stated, said = (part[rows, label] for part in (found.probabilities, found.stated, found.detected))
        f1 = 2 * (said & stated).sum() / max(1, said.sum() + stated.sum())
        print(
            f"{names[region]:22}{FINDINGS[label]:38}{stated.sum():7}{roc_area(shares, stated):8.3f}"
            f"{average_precision(shares, stated):7.3f}{f1:7.3f}"
        )
    shares, stated = found.probabilities[can], found.stated[can]
    print(f"\nECE {expected_calibration_error(shares, stated):.4f}, temperature {float(own.temperature):.2f}")
    for one in reliability(shares, stated):
        print(f"  said {one.said:.3f}, found {one.found:.3f} of {one.count}")
    if not own.omissions.calibrated:
        return
    alpha, fine = float(own.omissions.alpha), covered(found, own)
    present = (found.stated & can).any(1)
    print(f"\nparagraphs with findings of which none is left out unmarked; at least {1 - alpha:.0%} promised")
    for place, name in enumerate(names):
        rows = found.region[present] == place
        used = int(own.omissions.used[place])
        if rows.any() and used:
            low, high = band(alpha, used, int(rows.sum()))
            print(f"  {name:22}{fine[rows].mean():7.3f} of {rows.sum():4}, band [{low:.3f}, {high:.3f}]")
    print(f"  {'all':22}{fine.mean():7.3f} of {len(fine):4}")


def band(alpha: float, calibrated: int, tested: int) -> tuple[float, float]:
    """95 % band of the coverage: beta-binomial, for the bound itself comes from so many paragraphs."""
    rank = int(np.floor(alpha * (calibrated + 1)))
    if rank == 0:
        return 1.0, 1.0
    law = stats.betabinom(tested, calibrated + 1 - rank, rank)
    return law.ppf(0.025) / tested, law.ppf(0.975) / tested


def text(options: argparse.Namespace) -> None:
    """Findings of written reports against the truth, a column a folder."""
    studies = {study.id: study for study in section(options).data.dataset.studies()}
    reader, columns = RuleLabeler(), {}
    for folder in map(Path, options.paths):
        records = list(read_records(folder))
        if not records:
            raise SystemExit(f"{folder}: no predictions (expected a folder that `reg2rg predict` wrote)")
        truth = np.array([[bool(studies[one["study"]].findings[name]) for name in FINDINGS] for one in records])
        told = [" ".join(part["text"] for part in one["paragraphs"]) for one in records]
        named = [
            part["region"] == one["regions"][part["slot"]] for one in records for part in one["paragraphs"]
        ]  # fmt: skip
        slots = sum(len(one["regions"]) for one in records)
        columns[folder] = (*f1_lines(reader.label(told), truth), sum(named) / slots, truth.sum(0))
    print(f"{'':38}{'n':>5}" + "".join(f"{folder.name[-12:]:>14}" for folder in columns) + f"{'mean':>8}")
    values = list(columns.values())
    for place, name in ((0, "micro-F1"), (1, "macro-F1"), (3, "precision"), (4, "recall"), (5, "recognition")):
        row = [one[place] for one in values]
        print(f"{name:38}{'':5}" + "".join(f"{value:14.3f}" for value in row) + f"{np.mean(row):8.3f}")
    for place, name in enumerate(FINDINGS):
        row = [one[2][place] for one in values]
        print(f"{name:38}{values[0][6][place]:5}" + "".join(f"{v:14.3f}" for v in row) + f"{np.mean(row):8.3f}")


def lists(options: argparse.Namespace) -> None:
    """Of paragraphs by how many findings the prompt named: the share that state just these, a line a folder."""
    reader = RuleLabeler()
    for folder in map(Path, options.paths):
        told = [
            (one["findings"]["regions"][one["regions"][part["slot"]]]["detected"], part["text"])
            for one in read_records(folder)
            for part in one["paragraphs"]
        ]
        exact: dict[int, list[bool]] = {}
        for (named, _), row in zip(told, reader.label([text for _, text in told]), strict=True):
            stated = {FINDINGS[place] for place in np.flatnonzero(row)}
            exact.setdefault(len(named), []).append(set(named) == stated)
        shares = (f"{count}: {np.mean(exact[count]):.3f} of {len(exact[count])}" for count in sorted(exact))
        print(f"{folder.name[-12:]:>14}  {'; '.join(shares)}")


def sizes(options: argparse.Namespace) -> None:
    """Words of size in the references, those of them that are written, and those written without, over all folders."""
    reader, found = KeywordReader(SIZE_WORDS), Counter[tuple[str, str, str]]()
    for record in itertools.chain(*(read_records(Path(folder)) for folder in options.paths)):
        texts = {part["slot"]: part["text"] for part in record["paragraphs"]}
        for slot, (region, reference) in enumerate(zip(record["regions"], reference_paragraphs(record), strict=True)):
            wanted, said = reader.read(reference), reader.read(texts.get(slot, ""))
            for word in wanted:
                found[region, word, "wanted"] += wanted[word]
                found[region, word, "written"] += wanted[word] and said[word]
                found[region, word, "without"] += said[word] and not wanted[word]
    print(f"{'':32}{'in references':>14}{'written':>9}{'written without':>17}")
    for region, word in sorted({key[:2] for key in found}):
        row = [found[region, word, kind] for kind in ("wanted", "written", "without")]
        if any(row):
            print(f"{region + ', ' + word:32}{row[0]:14}{row[1]:9}{row[2]:17}")


def rules(options: argparse.Namespace) -> None:
    """The baseline without a network."""
    held, reader = section(options), RuleLabeler()
    demo = read_section(Invocation("data", ()), ["--config", options.config, "--vars.folder", options.demo])
    train = [study for study in demo.data.dataset.studies() if study.split == "train"]
    store = Store(demo.data.store)
    fitted = AttributeRules.fit(
        [(vectors(store.attributes(study.id)), study.reports) for study in train], reader, VECTOR_NAMES
    )
    for region, own in fitted.rules.items():
        for label, rule in own.items():
            print(f"{region:22}{label:38}{rule}")
    studies, there = held.data.dataset.studies(), Store(held.data.store)
    measured = [vectors(there.attributes(study.id)) for study in studies]
    reports = [fitted.write(own, list(study.reports)) for own, study in zip(measured, studies, strict=True)]
    told = [" ".join(report.values()) for report in reports]
    truth = np.array([[bool(study.findings[name]) for name in FINDINGS] for study in studies])
    micro, macro, *_ = f1_lines(reader.label(told), truth)
    print(f"micro-F1 {micro:.3f}, macro-F1 {macro:.3f} of {len(studies)} studies")


def around(options: argparse.Namespace) -> None:
    """How well each number of what lies beside a region tells the labels that its texts state, in the demo's folder."""
    demo = read_section(Invocation("data", ()), ["--config", options.config, "--vars.folder", options.demo])
    store, reader = Store(demo.data.store), RuleLabeler()
    ready = set(store.studies())
    studies = [study for study in demo.data.dataset.studies() if study.id in ready]
    places = [place for place, name in enumerate(VECTOR_NAMES) if name.endswith("around it")]
    print(f"{'AUROC':60}{'n':>5}" + "".join(f"{VECTOR_NAMES[place]:>22}" for place in places))
    for region in demo.task.region_set.names:
        own = [study for study in studies if study.reports.get(region)]
        measured = np.array([vectors(store.attributes(study.id))[region] for study in own])
        stated = reader.label([study.reports[region] for study in own])
        for label in np.flatnonzero(stated.sum(0) >= FEWEST):
            shares = [roc_area(measured[:, place], stated[:, label]) for place in places]
            print(
                f"{region:22}{FINDINGS[label]:38}{stated[:, label].sum():5}" + "".join(f"{one:22.3f}" for one in shares)
            )


def changed(detail: Detail, kind: str, seed: int) -> Detail:
    """A scan with twice the noise, blurred by 1.5 voxels, or 30 HU brighter."""
    array = detail.array.astype(np.float32)
    if kind == "noise":
        steps = np.diff(array, axis=2)
        soft = (array[:, :, 1:] > -50) & (array[:, :, 1:] < 90) & (array[:, :, :-1] > -50) & (array[:, :, :-1] < 90)
        own = 1.4826 * np.median(np.abs(steps[soft])) / np.sqrt(2)
        array += np.random.default_rng(seed).normal(0, own * np.sqrt(3), array.shape)
    array = ndimage.gaussian_filter(array, 1.5) if kind == "blur" else array + 30 * (kind == "offset")
    return replace(detail, array=np.asfortranarray(np.clip(np.rint(array), -1024, 3071).astype(np.int16)))


def shift(options: argparse.Namespace) -> None:
    """Shifts that void the promise, and how often none is taken for one."""
    model, where = load_model(options.paths[0]), section(options)
    control, regions, store = head_of(model).omissions, model.task.region_set, Store(where.data.store)
    studies = [study.id for study in where.data.dataset.studies()]
    plain = density_table([store.attributes(study) for study in studies], regions.names)
    random = np.random.default_rng(0)
    alarms = [
        control.shift(plain[random.permutation(len(studies))[:SAMPLE]], regions.names).p < 0.01
        for _ in range(RESAMPLES)
    ]
    print(f"none: {np.mean(alarms):.0%} of {RESAMPLES} resamples of {SAMPLE} studies called shifted (p < .01)")
    chosen = [studies[place] for place in random.permutation(len(studies))[:SAMPLE]]
    for kind in ("noise", "blur", "offset"):
        moved = [
            measure(changed(store.read(study).detail, kind, seed), regions) for seed, study in enumerate(chosen)
        ]  # fmt: skip
        print(f"{kind}: {control.shift(density_table(moved, regions.names), regions.names)}")


def fewer(options: argparse.Namespace) -> None:
    """What a model writes that is given some regions only, and is not held to its form."""
    model, where = load_model(options.paths[0]), section(options)
    data = data_of(model, where, options.studies)
    free = replace(model.decoding, form=None)
    whole = next(iter(data.texts_dataloader("test")))
    kept = dict(zip(whole.study_ids, whole.regions, strict=True))
    for count in (1, 3, 7, 10):
        entries = [
            replace(entry, regions=names, reports=("",) * len(names))
            for entry in data.entries("test")
            if entry.study in kept
            for names in [tuple(name for name in entry.regions if name in kept[entry.study][:count])]
        ]
        batches = [data.on_after_batch_transfer(batch, 0) for batch in data._loader("predict", entries)]
        reports = list(itertools.chain(*(model.reporter.generate(batch, free) for batch in batches)))
        parsed = [parse_report(one.text, one.regions, model.task.identity) for one in reports]
        asked = sum(len(one.regions) for one in reports)
        right = sum(
            part.region == one.regions[part.slot]
            for one, told in zip(reports, parsed, strict=True)
            for part in told.paragraphs
        )
        invalid = sum(len(told.invalid) + len(told.duplicate) for told in parsed)
        truncated = sum(one.truncated for one in reports)
        print(
            f"{count:2} regions: {asked} paragraphs asked of {len(reports)} studies, {invalid} headers of others, "
            f"{truncated} truncated, recognition {right / asked:.3f}"
        )


def main(words: Sequence[str] | None = None) -> None:
    """Run one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {one.__name__: one for one in (head, text, lists, sizes, rules, around, shift, fewer)}
    parser.add_argument("table", choices=tables)
    parser.add_argument("paths", nargs="*", help="model, or folders of predictions")
    parser.add_argument("--config", default="phantom.yaml")
    parser.add_argument("--held", default="held", help="folder of the held-out phantoms")
    parser.add_argument("--demo", default="demo", help="folder of the demo")
    parser.add_argument("--studies", type=int, default=30, help="of `fewer`")
    options = parser.parse_args(words)
    torch.set_grad_enabled(False)
    tables[options.table](options)


if __name__ == "__main__":
    main()
