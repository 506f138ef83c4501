"""``reg2rg evaluate``: score files of reports, of any system, under a named protocol."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reg2rg.cli.help import HelpFormatter
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place, place_or_name
from reg2rg.core.errors import ConfigError
from reg2rg.core.hub import looks_like_hub_id
from reg2rg.core.labels import FINDINGS
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.registry import did_you_mean, load_plugins
from reg2rg.evaluation.labelers import LABELERS, Labeler, read_label_table
from reg2rg.evaluation.metrics.synonyms import SynonymSource
from reg2rg.evaluation.protocols import PROTOCOLS, find_protocol
from reg2rg.evaluation.reading import Columns, Reports, read_predictions, read_references, read_reports
from reg2rg.evaluation.results import Evaluation

if TYPE_CHECKING:
    from reg2rg.evaluation.metrics.base import Metric

_MOST_RESAMPLES = 100_000
_SAY_EVERY_S = 10.0
_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "reference_labels": ("GT_", ""),
    "predicted_labels": ("Pred_", ""),
    "against_labels": ("Pred_", ""),
}
"""Option -> what may stand before a label in the columns of its table: as in published inferences, or nothing."""


def run(invocation: Invocation) -> int:
    """Run ``reg2rg evaluate``; see `reg2rg.cli.main`."""
    options = _parser().parse_args(list(invocation.args))
    _check(options)

    from reg2rg.core.files import Outputs
    from reg2rg.core.progress import progress as watch
    from reg2rg.evaluation.engine import Settings, evaluate
    from reg2rg.evaluation.metrics.base import usual_metrics
    from reg2rg.evaluation.metrics.external import exported_texts, load_judge
    from reg2rg.show.evaluation_files import write_evaluation

    protocol, regions = find_protocol(options.protocol), load_region_set(options.regions)
    columns = Columns(
        options.id_column,
        options.reference_column,
        options.prediction_column,
        options.region_column,
        options.patient_column,
    )
    judges = [judge for name in options.judge if not (judge := load_judge(name)).always]
    with watch("evaluation", every_seconds=_SAY_EVERY_S) as progress:
        progress("reading")
        reports, truth = _reports(options, regions, columns)
        reports, against = _against(options, reports, regions, columns)
        source = options.train_references
        common = read_references(source, regions, columns, options.encoding) if source is not None else None
        tables = _label_tables(options, reports)
        given = [f"--{option.replace('_', '-')}" for option in tables]  # what is done already is no advice
        reports = replace(reports, notes=tuple(n for n in reports.notes if not any(word in n for word in given)))
        progress("the labeler")
        labeler = load_labeler(options.labeler, options.labeler_backbone)
        settings = Settings(
            protocol=protocol,
            labeler=labeler,
            reference_labels=tables.get("reference_labels"),
            predicted_labels=tables.get("predicted_labels"),
            against_labels=tables.get("against_labels"),
            labels=labeler.labels if labeler is not None else FINDINGS,
            resamples=options.resamples,
            confidence=options.confidence,
            seed=options.seed,
            floors=not options.no_floors,
            truth=truth,
            synonyms=_synonyms(options.wordnet),
            metrics=_against_labels_alone() if options.truth is not None else (*usual_metrics(), *judges),
            costly_floors=options.judge_floors,
        )
        evaluation = evaluate(
            options.name or options.predictions.name,
            reports,
            settings,
            source=common,
            against=against,
            inputs=_inputs(options),
            progress=progress,
        )
        progress("writing")
        outputs = Outputs()
        if options.out is not None:
            write_evaluation(evaluation, options.out, outputs)
        if options.export is not None:
            outputs.write(options.export, lambda: exported_texts(options.export, reports.pairs))
    _print(options, evaluation)
    for path in outputs.written:
        sys.stdout.write(f"written: {path}\n")
    outputs.check()
    return 0


def _print(options: argparse.Namespace, evaluation: Evaluation) -> None:
    """The evaluation; and the data set's own labels beside those that were read, where they are given."""
    from rich.console import Console

    from reg2rg.show.evaluation_terminal import print_evaluation
    from reg2rg.show.label_sources import label_sources
    from reg2rg.show.render import print_tables

    print_evaluation(evaluation, Console())
    if options.shipped_labels is None:
        return
    studies = list(evaluation.per_study["study"])
    shipped = dict(zip(studies, read_label_table(options.shipped_labels, studies), strict=True))
    print_tables([label_sources(evaluation.per_study, shipped, FINDINGS, evaluation.labeler)], Console())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reg2rg evaluate",
        description="Score a file of generated reports, of any system, with a named protocol, bootstrap intervals over "
        "patients, and floors. Needs no model and no network.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add(
        "predictions",
        type=place,
        metavar="PREDICTIONS",
        help="CSV, JSON lines, a JSON list, or a folder (predict's, or one of <region>_reports.csv)",
    )
    add(
        "--references",
        type=place,
        metavar="FILE",
        help="file of the references, where they do not stand beside the predictions",
    )
    add("--protocol", default="strict", metavar="NAME", help=" | ".join(PROTOCOLS))
    add("--out", type=place, metavar="DIR", help="folder for metrics.json, tables, plots and the page")
    add("--name", help="of these predictions in tables; the file's name by default")
    add("--against", type=place, metavar="FILE", help="other predictions of the same studies: paired differences")
    columns = parser.add_argument_group("columns of tables (usual names are found by themselves)")
    for option, what in (
        ("--id-column", "study id"),
        ("--reference-column", "reference text"),
        ("--prediction-column", "predicted text"),
        ("--region-column", "region, of tables with a row a region"),
        ("--patient-column", "patient; by default from ids such as valid_12_a_1"),
    ):
        columns.add_argument(option, metavar="NAME", help=what)
    columns.add_argument("--encoding", metavar="NAME", help="of tables; UTF-8, or UTF-16 by its mark, by default")
    add("--regions", type=place_or_name, default="radgenome", metavar="SET", help="region set by name or file")
    add("--intersection", action="store_true", help="score what all files have, where their studies differ")
    findings = parser.add_argument_group("findings")
    findings.add_argument(
        "--labeler",
        type=place_or_name,
        default="rules",
        metavar="NAME",
        help="rules | none | a registered labeler | RadBERT's 18-label classifier: folder or .pth",
    )
    findings.add_argument(
        "--labeler-backbone", type=place, metavar="DIR", help="config and tokenizer, where they are not beside the .pth"
    )
    findings.add_argument(
        "--shipped-labels",
        type=place,
        metavar="CSV",
        help="labels that the data set ships (CT-RATE), beside those that are read from the references",
    )
    findings.add_argument("--reference-labels", type=place, metavar="CSV", help="labels of the references")
    findings.add_argument("--predicted-labels", type=place, metavar="CSV", help="labels of the predictions")
    findings.add_argument("--against-labels", type=place, metavar="CSV", help="labels of the predictions of --against")
    findings.add_argument(
        "--truth",
        type=place,
        metavar="CSV",
        help="labels of the studies in place of references: CT-RATE's form, or RAD-ChestCT's",
    )
    findings.add_argument(
        "--truth-map",
        type=place_or_name,
        default="radchestct_standard",
        metavar="NAME",
        help="of RAD-ChestCT's abnormalities: radchestct_standard | radchestct_extended | a YAML file",
    )
    add("--resamples", type=whole(0), default=1000, help="bootstrap resamples; 0 for no intervals")
    add("--confidence", type=float, default=0.95, help="of the intervals")
    add("--seed", type=whole(0), default=0, help="of resamples and shuffles")
    add("--no-floors", action="store_true", help="leave the floors out")
    add("--train-references", type=place, metavar="FILE", help="references of the training split, for the floors")
    add(
        "--wordnet",
        type=place_or_name,
        default="bundled",
        metavar="SOURCE",
        help="METEOR's synonyms: bundled | nltk | WordNet folder | none, which makes it METEOR-es",
    )
    add("--judge", action="append", default=[], metavar="NAME", help="scorer of an installed package; may be repeated")
    add("--judge-floors", action="store_true", help="let the judges score the floors too")
    add("--export", type=place, metavar="FILE", help="write the compared texts: .json for radeval, or .csv")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Refuse what would fail after minutes of work."""
    from reg2rg.evaluation.metrics.external import check_export

    if not 0 < options.confidence < 1:
        raise ConfigError(f"--confidence {options.confidence}: expected a number between 0 and 1, such as 0.95")
    if options.resamples > _MOST_RESAMPLES:
        raise ConfigError(f"--resamples {options.resamples}: expected at most {_MOST_RESAMPLES}; 1000 is usual")
    if options.against is not None and not options.resamples:
        raise ConfigError("--against compares by resampling: expected --resamples above 0")
    if options.against_labels is not None and options.against is None:
        raise ConfigError("--against-labels: expected --against with the predictions that they belong to")
    if options.predicted_labels is not None and options.against is not None and options.against_labels is None:
        raise ConfigError(
            "--predicted-labels with --against: labels of one file would be compared with readings of the other. Fix: "
            "give both tables (--against-labels), or none"
        )
    if options.truth is not None:
        named = ("references", "against", "reference_labels", "predicted_labels", "judge", "export")
        if given := [f"--{name.replace('_', '-')}" for name in named if getattr(options, name)]:
            raise ConfigError(
                f"--truth with {', '.join(given)}: labels stand in place of references, so that findings alone are "
                "scored. Fix: leave one of them out"
            )
    if options.export is not None:
        check_export(options.export)
    for option, folder in (("--out", options.out), ("--export", options.export and options.export.parent)):
        if folder is None:
            continue
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            what = "no folder" if not there.is_dir() else "not to be written in"
            raise ConfigError(
                f"{option} {folder}: {there} is {what} (expected a folder to write into). Fix: name another one"
            )


def _reports(
    options: argparse.Namespace, regions: RegionSet, columns: Columns
) -> tuple[Reports, dict[str, dict[str, bool]] | None]:
    """The reports to score, and the labels that stand in place of their references, if any do."""
    if options.truth is None:
        files = (options.predictions, options.references)
        return read_reports(*files, regions, columns, options.intersection, options.encoding), None
    from reg2rg.evaluation.truth_table import read_truth

    truth, notes = read_truth(options.truth, options.truth_map)
    reports = read_predictions(options.predictions, regions, columns, options.encoding)
    unknown = [pair.study for pair in reports.pairs if pair.study not in truth]
    if len(unknown) == len(reports.pairs) or (unknown and not options.intersection):
        raise ConfigError(
            f"{options.truth}: no labels of {len(unknown)} of {len(reports.pairs)} predicted studies, such as "
            f"{', '.join(unknown[:5])} (expected a row each). Fix: check the ids, or leave them out with --intersection"
        )
    if unknown:
        notes = (*notes, f"{len(unknown)} predictions of studies without labels are left out.")
    pairs = [pair for pair in reports.pairs if pair.study in truth]
    if left := len(truth) - len(pairs):
        notes = (*notes, f"{left:,} labelled studies without a prediction are not scored.")
    return replace(reports, pairs=pairs, notes=(*reports.notes, *notes)), truth


def _against_labels_alone() -> tuple[Metric, ...]:
    from reg2rg.evaluation.metrics.truth import TruthLabels

    return (TruthLabels(),)


def _against(
    options: argparse.Namespace, reports: Reports, regions: RegionSet, columns: Columns
) -> tuple[Reports, tuple[str, Reports] | None]:
    """The reports to score, and those to compare with: of the same studies, with the same references."""
    if options.against is None:
        return reports, None
    other = read_reports(options.against, options.references, regions, columns, options.intersection, options.encoding)
    ours, theirs = {p.study: p for p in reports.pairs}, {p.study: p for p in other.pairs}
    only = sorted(ours.keys() ^ theirs.keys())
    if only and not options.intersection:
        raise ConfigError(
            f"{options.against}: {len(only)} studies are in one of the two prediction files only, such as "
            f"{', '.join(only[:5])} (expected the same studies). Fix: complete the files, or compare what both have "
            "with --intersection"
        )
    if only:
        both = ours.keys() & theirs.keys()
        if not both:
            raise ConfigError(f"{options.against}: no study is in both prediction files. Fix: check their ids")
        note = f"{len(only)} studies that only one of the two prediction files has are left out."
        reports = replace(
            reports, pairs=[pair for pair in reports.pairs if pair.study in both], notes=(*reports.notes, note)
        )
        other = replace(other, pairs=[pair for pair in other.pairs if pair.study in both])
    changed = [pair.study for pair in reports.pairs if pair.reference_text != theirs[pair.study].reference_text]
    if changed:
        raise ConfigError(
            f"{options.against}: {len(changed)} studies have another reference than in {options.predictions}, such as "
            f"{', '.join(changed[:5])} (expected the same). Fix: give one file of references with --references"
        )
    return reports, (options.against.name, other)


def load_labeler(name: str, backbone: Path | None = None) -> Labeler | None:
    """The labeler behind ``--labeler``: rules, none, one registered that needs no arguments, RadBERT's path or hub id.

    Raises:
        ConfigError: no such labeler or path; the message names the commands that get the weights.
    """
    if name == "none":
        return None
    name = "RuleLabeler" if name == "rules" else name
    if Path(name).exists() or (name.count("/") == 1 and looks_like_hub_id(name)):
        from reg2rg.evaluation.labelers.radbert import RadBertLabeler  # here: it brings torch along

        return RadBertLabeler(name, backbone=backbone)
    if name not in LABELERS:
        load_plugins()
    arguments = signature(LABELERS.get(name)).parameters.values() if name in LABELERS else None
    if arguments is not None and all(one.default is not one.empty for one in arguments):
        return LABELERS.get(name)()
    raise ConfigError(
        f"--labeler {name}: there is no such labeler or path (expected rules, none, {', '.join(LABELERS)}, or the "
        f"folder of RadBERT's 18-label classifier).{did_you_mean(name, LABELERS)} Fix: on a machine with network, `hf "
        "download zzxslp/RadBERT-RoBERTa-4m --local-dir radbert` and `hf download Trusure/Reg2RG RadBertClassifier.pth "
        "--local-dir radbert`; then give that folder"
    )


def _label_tables(options: argparse.Namespace, reports: Reports) -> dict[str, Mapping[str, NDArray[np.bool_]]]:
    ids = [pair.study for pair in reports.pairs]
    return {
        option: dict(zip(ids, read_label_table(path, ids, prefix=prefixes), strict=True))
        for option, prefixes in _PREFIXES.items()
        if (path := getattr(options, option)) is not None
    }


def _synonyms(source: str) -> SynonymSource:
    named: dict[str, SynonymSource] = {"none": None, "bundled": "bundled", "nltk": "nltk"}
    return named.get(source, Path(source))


def _inputs(options: argparse.Namespace) -> dict[str, str]:
    names = ("predictions", "references", "against", "train_references", "truth", "shipped_labels", *_PREFIXES)
    return {name: str(path) for name in names if (path := getattr(options, name)) is not None}
