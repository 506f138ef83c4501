"""``reg2rg evaluate``: score files of reports, of any system, under a named protocol."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg2rg.cli.main import Invocation
from reg2rg.errors import ConfigError

if TYPE_CHECKING:
    from reg2rg.evaluation.reading import Columns, Pair, Reports
    from reg2rg.metrics.labelers import Labeler
    from reg2rg.regions import RegionSet

PROTOCOL_NAMES = ("strict", "paper", "corpus", "vlm3d")


def run(invocation: Invocation) -> int:
    """Run ``reg2rg evaluate``; see `reg2rg.cli.main`."""
    options = _parser().parse_args(list(invocation.args))

    from rich.console import Console

    from reg2rg.evaluation.engine import Settings, evaluate
    from reg2rg.evaluation.judges import export_texts, load_judge
    from reg2rg.evaluation.protocols import find_protocol
    from reg2rg.evaluation.reading import Columns, read_reports
    from reg2rg.evaluation.terminal import print_evaluation
    from reg2rg.evaluation.writing import write_evaluation
    from reg2rg.regions import load_region_set

    protocol = find_protocol(options.protocol)
    if not 0 < options.confidence < 1:
        raise ConfigError(f"--confidence {options.confidence}: expected a number between 0 and 1, such as 0.95")
    regions = load_region_set(options.regions)
    columns = Columns(
        options.id_column,
        options.reference_column,
        options.prediction_column,
        options.region_column,
        options.patient_column,
    )
    reports = read_reports(options.predictions, options.references, regions, columns, options.intersection)
    against = _against(options, reports, regions, columns)
    labeler = _labeler(options.labeler)
    tables = _label_tables(options, reports)
    settings = Settings(
        protocol=protocol,
        labeler=labeler,
        reference_labels=tables.get("reference"),
        predicted_labels=tables.get("predicted"),
        labels=_label_names(labeler),
        resamples=options.resamples,
        confidence=options.confidence,
        seed=options.seed,
        floors=not options.no_floors,
        synonyms=_synonyms(options.wordnet),
        judges={name: load_judge(name) for name in options.judge},
    )
    source = _source(options, regions, columns)
    console = Console()
    with Console(stderr=True).status("reading") as status:
        evaluation = evaluate(
            options.name or options.predictions.name,
            reports,
            settings,
            source=source,
            against=against,
            inputs=_inputs(options),
            progress=lambda text: status.update(text),
        )
        status.update("writing")
        written = write_evaluation(evaluation, options.out) if options.out is not None else []
        if options.export is not None:
            export_texts(options.export, reports.pairs)
            written.append(options.export)
    print_evaluation(evaluation, console)
    for path in written:
        sys.stdout.write(f"written: {path}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reg2rg evaluate",
        description="Score a file of generated reports, of any system, with a named protocol, bootstrap intervals over "
        "patients, and floors. Needs no model and no network.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="CSV, JSON lines, or a folder (predict's, or one of region files)",
    )
    add(
        "--references",
        type=Path,
        metavar="FILE",
        help="file of the references, where they do not stand beside the predictions",
    )
    add("--protocol", default="strict", metavar="NAME", help=f"{' | '.join(PROTOCOL_NAMES)}")
    add("--out", type=Path, metavar="DIR", help="folder for metrics.json, tables, plots and the page")
    add("--name", help="of these predictions in tables; the file's name by default")
    add("--against", type=Path, metavar="FILE", help="other predictions of the same studies: paired differences")
    columns = parser.add_argument_group("columns of tables (usual names are found by themselves)")
    for option, what in (
        ("--id-column", "study id"),
        ("--reference-column", "reference text"),
        ("--prediction-column", "predicted text"),
        ("--region-column", "region, of tables with a row a region"),
        ("--patient-column", "patient; by default from ids such as valid_12_a_1"),
    ):
        columns.add_argument(option, metavar="NAME", help=what)
    add("--regions", default="radgenome", metavar="SET", help="region set by name or file")
    add("--intersection", action="store_true", help="score what both files have, where their studies differ")
    findings = parser.add_argument_group("findings")
    findings.add_argument(
        "--labeler", default="rules", metavar="NAME", help="rules | none | folder of RadBERT's 18-label classifier"
    )
    findings.add_argument("--reference-labels", type=Path, metavar="CSV", help="labels of the references")
    findings.add_argument("--predicted-labels", type=Path, metavar="CSV", help="labels of the predictions")
    add("--resamples", type=_count, default=1000, help="bootstrap resamples; 0 for no intervals")
    add("--confidence", type=float, default=0.95, help="of the intervals")
    add("--seed", type=int, default=0, help="of resamples and shuffles")
    add("--no-floors", action="store_true", help="leave the floors out")
    add("--train-references", type=Path, metavar="FILE", help="references of the training split, for the floors")
    add(
        "--wordnet",
        default="bundled",
        metavar="SOURCE",
        help="METEOR's synonyms: bundled | nltk | WordNet folder | none",
    )
    add("--judge", action="append", default=[], metavar="NAME", help="scorer of an installed package; may be repeated")
    add("--export", type=Path, metavar="CSV", help="write the compared texts, for tools such as radeval")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, found {value}")
    return value


def _against(
    options: argparse.Namespace, reports: Reports, regions: RegionSet, columns: Columns
) -> tuple[str, Reports] | None:
    from reg2rg.evaluation.reading import read_reports

    if options.against is None:
        return None
    if not options.resamples:
        raise ConfigError("command line: --against compares by resampling; expected --resamples above 0")
    other = read_reports(options.against, options.references, regions, columns, options.intersection)
    ours, theirs = {p.study: p for p in reports.pairs}, {p.study: p for p in other.pairs}
    only = sorted(ours.keys() ^ theirs.keys())
    if only:
        raise ConfigError(
            f"{options.against}: {len(only)} studies are in one of the two prediction files only, such as "
            f"{', '.join(only[:5])} (expected the same studies). Fix: leave them out of both files"
        )
    changed = [study for study in ours if ours[study].reference_text != theirs[study].reference_text]
    if changed:
        raise ConfigError(
            f"{options.against}: {len(changed)} studies have another reference than in {options.predictions}, such as "
            f"{', '.join(changed[:5])} (expected the same). Fix: give one file of references with --references"
        )
    return options.against.name, other


def _labeler(name: str) -> Labeler | None:
    from reg2rg.metrics.labelers import RadBertLabeler, RuleLabeler

    if name == "none":
        return None
    if name == "rules":
        return RuleLabeler()
    if not Path(name).exists():
        raise ConfigError(
            f"--labeler {name}: there is no such labeler or path (expected rules, none, or the folder of RadBERT's "
            "18-label classifier). Fix: on a machine with network, `hf download` it, and give the folder"
        )
    return RadBertLabeler(Path(name))


def _label_names(labeler: Labeler | None) -> tuple[str, ...]:
    from reg2rg.labels import FINDINGS

    return labeler.labels if labeler is not None else FINDINGS


def _label_tables(options: argparse.Namespace, reports: Reports) -> Mapping[str, Any]:
    from reg2rg.metrics.labelers import read_label_table

    ids = [pair.study for pair in reports.pairs]
    found = {}
    for side, prefix in (("reference", "GT_"), ("predicted", "Pred_")):
        path = getattr(options, f"{side}_labels")
        if path is not None:
            table = read_label_table(path, ids, prefix=prefix)
            found[side] = dict(zip(ids, table, strict=True))
    return found


def _synonyms(source: str) -> Any:
    if source == "none":
        return None
    return source if source in ("bundled", "nltk") else Path(source)


def _source(options: argparse.Namespace, regions: RegionSet, columns: Columns) -> Sequence[Pair] | None:
    from dataclasses import replace

    from reg2rg.evaluation.reading import read_reports

    if options.train_references is None:
        return None
    # The references are read as their own predictions: only one side of the file is needed.
    path = options.train_references
    same = replace(columns, prediction=columns.reference)
    return read_reports(path, path, regions, same, intersection=True).pairs


def _inputs(options: argparse.Namespace) -> dict[str, str]:
    names = ("predictions", "references", "against", "reference_labels", "predicted_labels", "train_references")
    return {name: str(path) for name in names if (path := getattr(options, name)) is not None}
