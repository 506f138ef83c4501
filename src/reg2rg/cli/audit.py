"""``reg2rg audit``: does each paragraph depend on its own region; and what are reports worth as text alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reg2rg.cli.help import HelpFormatter
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place, place_or_name
from reg2rg.core.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from reg2rg.audit.model import ModelSubject


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    from reg2rg.audit.plan import INTERVENTIONS

    parser = argparse.ArgumentParser(
        prog="reg2rg audit",
        usage="reg2rg audit --model FOLDER --config FILE --out DIR [options]\n"
        "       reg2rg audit PREDICTIONS [options]",
        description="Intervene on the visual tokens of one region at a time and see which paragraphs change: with "
        "--model and --config. Or, of PREDICTIONS of any system, ask what their texts alone tell: template collapse, "
        "and questions on presence, side, lobe and size.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        epilog="Other options, such as --config FILE and --data.store DIR, say where the studies of --model are. "
        "Interventions: " + "; ".join(f"{name}: {what}" for name, what in INTERVENTIONS.items()) + ".",
    )
    add = parser.add_argument
    add("--model", "--ckpt", type=place_or_name, metavar="FOLDER", help="model folder, hub id or checkpoint to audit")
    add("--out", type=place, metavar="DIR", help="records, audit.json, tables and page; an audit goes on from them")
    add("--split", choices=("val", "test"), default="test", help="whose studies")
    add("--studies", type=whole(2), metavar="N", help="audit so many studies, always the same; all by default")
    add("--interventions", metavar="NAME,...", help="of those below; all that can be made by default")
    add("--batch", type=whole(1), default=16, metavar="N", help="reports written at once")
    add("--against", type=place, metavar="DIR", help="another audit of the same studies, or other PREDICTIONS")
    add("--references", type=place, metavar="FILE", help="of PREDICTIONS, where they do not hold them")
    add("--regions", type=place_or_name, default="radgenome", metavar="SET", help="region set of PREDICTIONS")
    add("--labeler", type=place_or_name, default="rules", metavar="NAME", help="reads findings; as evaluate takes it")
    add("--resamples", type=whole(0), default=1000, help="bootstrap resamples; 0 for no intervals")
    add("--seed", type=whole(0), default=0, help="of donors, noise and resamples")
    add("--language_model", type=place_or_name, metavar="PATH", help="where the base language model is now")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    return parser


def run(invocation: Invocation) -> int:
    """Run ``reg2rg audit``; see `reg2rg.cli.main`."""
    # No positional argument: it would take the value of any option that is not known here, such as --config.
    options, rest = parser().parse_known_args(list(invocation.args))
    if options.model is None and (not rest or rest[0].startswith("-")):
        raise ConfigError(
            "command line: expected either --model FOLDER with --config FILE, or PREDICTIONS of any system. See: "
            "reg2rg audit --help"
        )
    if options.against is not None and not options.resamples:
        raise ConfigError("--against compares by resampling: expected --resamples above 0")
    if options.model is not None:
        return _audit_model(invocation, options, rest)
    if rest[1:]:
        raise ConfigError(f"command line: unexpected {' '.join(rest[1:])}. See: reg2rg audit --help")
    return _audit_text(options, place(rest[0]))


def _audit_model(invocation: Invocation, options: argparse.Namespace, rest: list[str]) -> int:
    if options.out is None:
        raise ConfigError("command line: --out is missing. Fix: name the folder of the audit")
    if options.references is not None:
        raise ConfigError("--references goes with PREDICTIONS; the references of --model are those of its data")

    from rich.console import Console

    from reg2rg.audit.records import AuditFolder
    from reg2rg.audit.report import region_audit
    from reg2rg.cli.evaluate import load_labeler
    from reg2rg.core.progress import progress
    from reg2rg.show.audit_page import print_audit, write_audit

    labeler = load_labeler(options.labeler)
    if labeler is None:
        raise ConfigError("--labeler none: an audit counts findings. Fix: name a labeler")
    if options.against is not None:
        AuditFolder(options.against).facts()  # what is wrong is said before the work
    subject = _subject(invocation, options, rest)
    with progress("audit", len(subject.cases)) as step, subject.model.reporter.llm.merged():
        result = region_audit(
            subject,
            options.out,
            name=Path(options.model).name,
            labeler=labeler,
            interventions=None if options.interventions is None else options.interventions.split(","),
            seed=options.seed,
            batch=options.batch,
            resamples=options.resamples,
            against=options.against,
            step=step,
        )
    print_audit(result, Console())
    for path in write_audit(result, options.out):
        sys.stdout.write(f"written: {path}\n")
    return EXIT_OK


def _subject(invocation: Invocation, options: argparse.Namespace, rest: list[str]) -> ModelSubject:
    from reg2rg.audit.model import ModelSubject
    from reg2rg.cli.section import read_section
    from reg2rg.data.datamodule import RegionReportDataModule
    from reg2rg.inference.generate import load_model

    section = read_section(invocation, rest)
    if section.data.store is None:
        raise ConfigError("data.store: the config names no store. Fix: name a prepared one")
    model = load_model(options.model, options.language_model, options.device, invocation.allow_import)
    plain = RegionReportDataModule(
        section.data.dataset,
        section.data.store,
        model.tokenizer,
        model.token_counts,
        section.task,
        workers=0,
        limit_eval_studies=options.studies,
    )
    return ModelSubject(model.eval(), model.conform(plain), options.split)


def _audit_text(options: argparse.Namespace, predictions: Path) -> int:
    given = {"--interventions": options.interventions, "--studies": options.studies}
    if wrong := [name for name, value in given.items() if value is not None]:
        raise ConfigError(f"{', '.join(wrong)}: goes with --model. Fix: leave it out")

    from rich.console import Console

    from reg2rg.audit.report import text_metrics
    from reg2rg.cli.evaluate import load_labeler
    from reg2rg.core.progress import progress as watch
    from reg2rg.core.regions import load_region_set
    from reg2rg.evaluation.engine import Settings, evaluate
    from reg2rg.evaluation.reading import read_reports
    from reg2rg.show.evaluation_files import write_evaluation
    from reg2rg.show.evaluation_terminal import print_evaluation

    regions = load_region_set(options.regions)
    reports = read_reports(predictions, options.references, regions)
    against = None
    if options.against is not None:
        against = options.against.name, read_reports(options.against, options.references, regions)
        if {p.study for p in against[1].pairs} != {p.study for p in reports.pairs}:
            raise ConfigError(
                f"{options.against}: other studies than {predictions} (expected the same). Fix: complete the files"
            )
    settings = Settings(
        labeler=load_labeler(options.labeler), resamples=options.resamples, seed=options.seed, metrics=text_metrics()
    )
    with watch("audit") as step:
        evaluation = evaluate(
            predictions.name,
            reports,
            settings,
            against=against,
            inputs={"predictions": str(predictions)},
            progress=step,
        )
    print_evaluation(evaluation, Console())
    if options.out is not None:
        for path in write_evaluation(evaluation, options.out):
            sys.stdout.write(f"written: {path}\n")
    return EXIT_OK
