"""``reg2rg page``: scores of predictions beside their floors, and a page that ties each paragraph to its region."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import Study
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.reading import Reports, read_reports, reference_pairs
from reg2rg.evaluation.records import STUDIES, read_records, read_report, read_written

if TYPE_CHECKING:
    from reg2rg.cli.section import DataSection
    from reg2rg.evaluation.results import Evaluation
    from reg2rg.show.case_page import PageStudy

PANELS = {
    "training loss": ("train/loss", "train/loss_step"),
    "validation loss": ("val/loss",),
    "region recognition, validation": ("val/recognition", "val/region_accuracy"),
}


def run(invocation: Invocation) -> int:
    """Run ``reg2rg page``; see `reg2rg.cli.main`."""
    options, rest = _parser().parse_known_args(list(invocation.args))

    from rich.console import Console

    from reg2rg.cli.section import read_section
    from reg2rg.core.files import Outputs, json_text
    from reg2rg.show.case_page import write_page, written_notes
    from reg2rg.show.case_tables import as_json, build_tables, summary_rows
    from reg2rg.show.plots import draw_curves
    from reg2rg.show.render import print_tables
    from reg2rg.training.curves import read_curves

    section = read_section(invocation, rest, options.config)
    studies = {study.id: study for study in section.data.dataset.studies()}
    train = [study for study in studies.values() if study.split == "train"]
    scores, beside = _evaluations(options, section.task.region_set, studies, train)
    tables = build_tables(scores, beside)
    print_tables(tables, Console())
    rows = as_json(summary_rows(scores, beside))
    outputs = Outputs()
    outputs.write(options.out.with_suffix(".json"), json_text({"studies": scores.studies, "scores": rows}))
    curves = {name: read_curves(path) for name, path in _pairs(options.curves, "--curves")}
    shown = _page_studies(section.data, studies, options.predictions, options.studies)
    write_page(
        options.out,
        title=options.title,
        studies=shown,
        tables=tables,
        curves=draw_curves(curves, PANELS) if curves else "",
        facts={
            "predictions": str(options.predictions),
            "held-out studies": str(scores.studies),
            "training studies": str(len(train)),
            "studies shown": str(min(options.studies, scores.studies)),
        },
        notes=written_notes(one for study in shown for one in study.written),
        outputs=outputs,
    )
    outputs.check()
    sys.stdout.write(f"page: {options.out}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reg2rg page",
        description="Score the predictions of a folder, with floors, and write one HTML page to look at.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("-c", "--config", action="append", metavar="FILE", default=[], help="as for reg2rg fit")
    parser.add_argument("--predictions", type=place, required=True, metavar="DIR", help="what reg2rg predict wrote")
    parser.add_argument("--name", default="Reg2RG", help="row name of these predictions")
    parser.add_argument(
        "--compare", action="append", default=[], metavar="NAME=DIR", help="predictions of another model, as a row"
    )
    parser.add_argument(
        "--curves", action="append", default=[], metavar="NAME=CSV", help="metrics.csv of a training run to draw"
    )
    parser.add_argument("--studies", type=whole(0), default=12, help="studies shown with their slices")
    parser.add_argument("--title", default="Chest CT, region by region", help="heading")
    parser.add_argument(
        "--out", type=place, default=Path("page.html"), help="the page; the scores go beside it as .json"
    )
    return parser


def _pairs(words: Sequence[str], option: str) -> list[tuple[str, Path]]:
    pairs = []
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise ConfigError(f"command line: {option} {word}: expected NAME=PATH")
        pairs.append((name, place(path)))
    return pairs


def _evaluations(
    options: argparse.Namespace, regions: RegionSet, studies: Mapping[str, Study], train: Sequence[Study]
) -> tuple[Evaluation, list[Evaluation]]:
    """Of the predictions, with floors, and of those that they are set beside."""
    from reg2rg.evaluation.engine import Settings, evaluate
    from reg2rg.evaluation.metrics.base import metrics_giving
    from reg2rg.show.case_tables import NUMBERS

    own = _reports(options.predictions, regions, studies)
    if not any(pair.given for pair in own.pairs):
        raise ConfigError(
            f"{options.predictions}: reports without regions (expected regions: the page ties paragraphs to them). "
            "Fix: score them with `reg2rg evaluate`, or set them beside reports with regions: --compare NAME=DIR"
        )
    others = {name: _reports(path, regions, studies) for name, path in _pairs(options.compare, "--compare")}
    truth = {study.id: study.findings for study in studies.values() if study.findings is not None}
    settings = Settings(labeler=RuleLabeler(), truth=truth, metrics=metrics_giving(NUMBERS), by_region=False)
    common = reference_pairs({study.id: study.reports for study in train}, regions)
    scores = evaluate(options.name, own, settings, source=common or None)
    beside = [evaluate(name, reports, replace(settings, floors=False)) for name, reports in others.items()]
    return scores, beside


def _reports(folder: Path, regions: RegionSet, studies: Mapping[str, Study]) -> Reports:
    if not any((folder / STUDIES).glob("*.json")):
        raise ConfigError(
            f"{folder}: no predictions (expected studies/<id>.json in it). Fix: run `reg2rg predict`, and name the "
            "folder of its PredictionWriter: <trainer.default_root_dir>/predictions unless the config says otherwise"
        )
    reports = read_reports(folder, None, regions, intersection=True)
    unknown = [pair.study for pair in reports.pairs if pair.study not in studies]
    if unknown:
        raise ConfigError(
            f"{folder}: {len(unknown)} of {len(reports.pairs)} studies are not in the config's data set, such as "
            f"{unknown[0]}. Fix: give the config that the predictions were made with"
        )
    return reports


def _page_studies(section: DataSection, studies: Mapping[str, Study], folder: Path, shown: int) -> list[PageStudy]:
    from reg2rg.evaluation.labelers.keywords import KeywordReader
    from reg2rg.show.case_page import PageStudy
    from reg2rg.show.slices import draw_study
    from reg2rg.store.store import Store

    if section.store is None:
        raise ConfigError("config: data.store: no folder to read scans from. Give it: --data.store FOLDER")
    store, reader = Store(section.store), KeywordReader()
    pages = []
    for record in islice(read_records(folder), shown):
        study, report = studies[record["study"]], read_report(record)
        said = reader.read(" ".join(paragraph.text for paragraph in report.paragraphs))
        truth = study.findings
        labels = said if truth is None else truth
        pages.append(
            PageStudy(
                study=study.id,
                given=tuple(record["regions"]),
                predicted=report,
                reference=study.reports,
                images=draw_study(store.read(study.id).detail.to_region_volume()),
                written=read_written(record),
                findings={label: (None if truth is None else truth[label], said.get(label, False)) for label in labels},
            )
        )
    return pages
