"""``reg2rg page``: scores of predictions beside their floors, and a page that ties each paragraph to its region."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg2rg.cli.help import HelpFormatter
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.report import Report
from reg2rg.core.types import Study
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.reading import Reports, read_reports, reference_pairs
from reg2rg.evaluation.records import STUDIES, read_records, read_report, read_written

if TYPE_CHECKING:
    import pandas as pd

    from reg2rg.cli.section import DataSection, Sections
    from reg2rg.evaluation.results import Evaluation
    from reg2rg.show.case_page import PageStudy, RegionRow
    from reg2rg.store.crop import Detail

PAGE_MB = 10.0
PANELS = {
    "word alignment": ("train/word_loss", "train/word_loss_step"),
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
    from reg2rg.show.case_page import Around, head_notes, write_page, written_notes
    from reg2rg.show.case_tables import as_json, build_tables, summary_rows
    from reg2rg.show.plots import draw_curves, draw_lengths
    from reg2rg.show.render import print_tables
    from reg2rg.training.curves import read_curves

    section = read_section(invocation, rest, options.config)
    studies = {study.id: study for study in section.data.dataset.studies()}
    train = [study for study in studies.values() if study.split == "train"]
    ruled = _by_rules(section.data, studies, train)
    scores, beside = _evaluations(options, section.task.region_set, studies, train, ruled)
    tables = build_tables(scores, beside)
    print_tables(tables, Console())
    rows = as_json(summary_rows(scores, beside))
    outputs = Outputs()
    outputs.write(options.out.with_suffix(".json"), json_text({"studies": scores.studies, "scores": rows}))
    curves = {name: read_curves(path) for name, path in _pairs(options.curves, "--curves")}
    lengths = {"reference": scores.words["reference"]}
    lengths |= {one.name: one.words["predicted"] for one in (scores, *beside)}
    shown, chosen = _page_studies(section, studies, options)
    around = Around(
        tables=tables,
        words=draw_lengths(lengths),
        curves=draw_curves(curves, PANELS) if curves else "",
        curves_caption=_explained(curves),
        facts={
            "predictions": str(options.predictions),
            "held-out studies": str(scores.studies),
            "training studies": str(len(train)),
            "studies shown": str(len(shown)),
        },
        notes=[
            *written_notes(one for study in shown for one in study.written),
            *head_notes(study.told for study in shown),
        ],
        models=(options.name, *(one.name for one in beside)),
        chosen=chosen,
    )
    write_page(options.out, title=options.title, studies=shown, around=around, outputs=outputs)
    outputs.check()
    sys.stdout.write(f"page: {options.out}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reg2rg page",
        description="Score the predictions of a folder, with floors, and write one HTML page to look at.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("-c", "--config", action="append", metavar="FILE", default=[], help="as for reg2rg fit")
    parser.add_argument("--predictions", type=place, required=True, metavar="DIR", help="what reg2rg predict wrote")
    parser.add_argument("--name", default="Reg2RG", help="row name of these predictions")
    parser.add_argument(
        "--compare", action="append", default=[], metavar="NAME=DIR", help="predictions of another model, beside these"
    )
    parser.add_argument(
        "--curves", action="append", default=[], metavar="NAME=CSV", help="metrics.csv of a training run to draw"
    )
    parser.add_argument("--studies", type=whole(0), default=12, help="studies shown, from right ones to wrong ones")
    parser.add_argument(
        "--volumes", type=whole(0), default=4, help="of these, how many carry their scan for the viewer"
    )
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
    options: argparse.Namespace,
    regions: RegionSet,
    studies: Mapping[str, Study],
    train: Sequence[Study],
    written: Mapping[str, Mapping[str, Mapping[str, str]]],
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
    settings = Settings(
        labeler=RuleLabeler(), truth=truth, metrics=metrics_giving(NUMBERS), by_region=False, written=written
    )
    common = reference_pairs({study.id: study.reports for study in train}, regions)
    scores = evaluate(options.name, own, settings, source=common or None)
    beside = [evaluate(name, reports, replace(settings, floors=False)) for name, reports in others.items()]
    return scores, beside


def _by_rules(
    section: DataSection, studies: Mapping[str, Study], train: Sequence[Study]
) -> dict[str, dict[str, dict[str, str]]]:
    """The floor that looks at measured numbers alone, where the store has them of the training studies."""
    from reg2rg.evaluation.attribute_rules import NAME, AttributeRules
    from reg2rg.store.attributes import VECTOR_NAMES, vectors
    from reg2rg.store.store import Store

    if section.store is None:
        return {}
    store, ready = Store(section.store), set(Store(section.store).studies())
    try:
        fitted = [(vectors(store.attributes(study.id)), study.reports) for study in train if study.id in ready]
        rules = AttributeRules.fit(fitted, RuleLabeler(), VECTOR_NAMES)
        told = [study for study in studies.values() if study.split != "train" and study.id in ready]
        written = {study.id: rules.write(vectors(store.attributes(study.id)), list(study.reports)) for study in told}
    except DataFault as fault:
        if fault.code != "NOT_PREPARED":
            raise
        return {}  # a store of before there were attributes, or one of views alone
    return {NAME: written} if fitted else {}


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


def _page_studies(
    section: Sections, studies: Mapping[str, Study], options: argparse.Namespace
) -> tuple[list[PageStudy], str]:
    """The studies of the page, and in words how they were chosen."""
    from reg2rg.show.case_page import room_for_volumes, wrong_count
    from reg2rg.show.slices import draw_study
    from reg2rg.show.volume import draw_volume
    from reg2rg.store.store import Store

    if section.data.store is None:
        raise ConfigError("config: data.store: no folder to read scans from. Give it: --data.store FOLDER")
    store = Store(section.data.store)
    ranked = sorted(_texts(studies, options), key=lambda study: (wrong_count(study), study.study))
    shown = [ranked[index] for index in _evenly(len(ranked), options.studies)]
    carry = set(_evenly(len(shown), options.volumes))

    def detail(study: PageStudy) -> Detail:
        return store.read(study.study).detail

    drawn = [
        replace(one, images=draw_study(found.to_region_volume()), regions=_rows(found, section.task.region_set))
        for one, found in ((one, detail(one)) for one in shown)
    ]
    room = room_for_volumes(1e6 * PAGE_MB, [one.images for one in drawn]) // max(1, len(carry))
    drawn = [
        replace(one, volume=draw_volume(detail(one).to_region_volume(), room)) if index in carry else one
        for index, one in enumerate(drawn)
    ]
    if not shown:
        return drawn, ""
    fewest, most = wrong_count(ranked[0]), wrong_count(ranked[-1])
    scale = f"findings and sentences of {options.name} that do not agree with truth and reference"
    which = (
        f"All {len(ranked)} studies, by the number of {scale} ({fewest} to {most})"
        if len(shown) == len(ranked)
        else f"{len(shown)} of {len(ranked)} studies, chosen by rule and not by hand: evenly from the one with the "
        f"fewest {scale} ({fewest}) to the one with the most ({most})"
    )
    scans = f"{len(carry)} of them, chosen alike, carry their scan; of the others the page has pictures of slices."
    return drawn, f"{which}. {scans}"


def _texts(studies: Mapping[str, Study], options: argparse.Namespace) -> list[PageStudy]:
    """All studies of the predictions, without pictures."""
    from reg2rg.evaluation.labelers.keywords import KeywordReader
    from reg2rg.models.findings import StudyFindings, report_lines
    from reg2rg.show.case_page import PageStudy
    from reg2rg.show.slices import StudyImages

    reader, none = KeywordReader(), StudyImages({}, {})
    compared = [path for _, path in _pairs(options.compare, "--compare")]
    others = [{record["study"]: _beside(record) for record in read_records(path)} for path in compared]
    pages = []
    for record in read_records(options.predictions):
        study, report = studies[record["study"]], read_report(record)
        said = reader.read(" ".join(paragraph.text for paragraph in report.paragraphs))
        truth = study.findings
        labels = said if truth is None else truth
        told = StudyFindings.of(record["findings"]) if record.get("findings") else None
        pages.append(
            PageStudy(
                study=study.id,
                given=tuple(record["regions"]),
                predicted=report,
                reference=study.reports,
                images=none,
                written=read_written(record),
                findings={label: (None if truth is None else truth[label], said.get(label, False)) for label in labels},
                others=tuple(_in_slots(other.get(study.id), record["regions"]) for other in others),
                files={"txt": "".join(f"{line}\n" for line in report_lines(report, told))},
                told=told,
            )
        )
    return pages


def _beside(record: Mapping[str, Any]) -> tuple[tuple[str, ...], Report]:
    return tuple(record["regions"]), read_report(record)


def _in_slots(other: tuple[tuple[str, ...], Report] | None, regions: Sequence[str]) -> Report | None:
    """Another model's report in the slots of this one; it was asked for the same regions in an order of its own."""
    if other is None:
        return None
    asked, report = other
    slots = {slot: regions.index(name) for slot, name in enumerate(asked) if name in regions}
    moved = (replace(part, slot=slots[part.slot]) for part in report.paragraphs if part.slot in slots)
    return Report(tuple(sorted(moved, key=lambda part: part.slot)), report.invalid, report.duplicate, report.missing)


def _rows(detail: Detail, regions: RegionSet) -> tuple[RegionRow, ...]:
    """The list of regions of a prepared study."""
    from reg2rg.show.case_page import RegionRow
    from reg2rg.store.attributes import measure

    return tuple(
        RegionRow(
            name=name,
            status="given",
            why="cut by an end of the scan" if found.cut else "",
            volume_ml=found.volume_ml,
            mean_hu=found.mean_hu,
            sd_hu=found.sd_hu,
        )
        for name, found in measure(detail, regions).regions.items()
    )


def _evenly(count: int, wanted: int) -> list[int]:
    """At most so many of 0 to count - 1, the first and the last among them."""
    if wanted >= count:
        return list(range(count))
    return [round(index * (count - 1) / max(1, wanted - 1)) for index in range(wanted)]


def _explained(curves: Mapping[str, pd.DataFrame]) -> str:
    """What the curves show, and why each begins where it does."""
    sentences = ["Values that the runs logged, by optimiser step."]
    for name, frame in curves.items():
        first = {}
        for title, columns in PANELS.items():
            column = next((column for column in columns if column in frame.columns), None)
            if column is not None and not frame[column].dropna().empty:
                first[title] = int(frame.loc[frame[column].notna(), "step"].min())
        words, loss = first.get("word alignment"), first.get("training loss")
        if loss is None:
            continue
        if words is not None and words < loss:
            sentences.append(
                f"{name}: its training loss begins at step {loss}. Up to there the encoders alone learn, which words a "
                "region's paragraph holds (WordAlignment's steps), and the language model does not run, so the "
                "loss does not begin where an untrained model's would."
            )
        else:
            sentences.append(f"{name}: its training loss begins at step {loss}, the first that was logged.")
    return " ".join(sentences)
