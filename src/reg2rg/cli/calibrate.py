"""``reg2rg calibrate``: at which rate paragraphs may leave findings out unmarked, from studies of their own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reg2rg.cli.help import HelpFormatter
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place, place_or_name
from reg2rg.core.errors import EXIT_OK, ConfigError


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(
        prog="reg2rg calibrate",
        description="Set the bounds of a model's omission control from studies that it was neither trained on nor "
        "validated on, and write the model's folder with them; or, with --check, test whether studies look like those "
        "that it was calibrated on.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        epilog="Other options, such as --config FILE and --data.store DIR, say where the studies are. What is promised "
        "holds for studies that are exchangeable with these only.",
    )
    add = parser.add_argument
    add("--model", type=place_or_name, required=True, metavar="FOLDER", help="model folder or checkpoint")
    add("--out", type=place, metavar="FOLDER", help="the calibrated model's folder")
    add("--alpha", type=float, default=0.1, help="share of paragraphs with findings that may leave one out unmarked")
    add("--split", choices=("val", "test"), default="test", help="whose studies")
    add("--rest", type=whole(0), default=0, metavar="N", help="without the N that data.limit_eval_studies N reports on")
    add("--check", action="store_true", help="compare the studies with those of the calibration, and write nothing")
    add("--language_model", type=place_or_name, metavar="PATH", help="where the base language model is now")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    return parser


def run(invocation: Invocation) -> int:
    """Run ``reg2rg calibrate``; see `reg2rg.cli.main`."""
    options, rest = parser().parse_known_args(list(invocation.args))
    if options.out is None and not options.check:
        raise ConfigError("command line: --out is missing. Fix: name the folder of the calibrated model")

    from reg2rg.cli.section import read_section
    from reg2rg.core.progress import progress
    from reg2rg.data.datamodule import RegionReportDataModule
    from reg2rg.inference.calibration import calibrate, detect, head_of, measured_of
    from reg2rg.inference.generate import load_model
    from reg2rg.models.findings import CAVEAT
    from reg2rg.training.data_fit import offer_settled

    section = read_section(invocation, rest)
    if section.data.store is None:
        raise ConfigError("data.store: the config names no store. Fix: name a prepared one")
    model = load_model(options.model, options.language_model, options.device, invocation.allow_import)
    head = head_of(model)
    plain = RegionReportDataModule(
        section.data.dataset, section.data.store, model.tokenizer, model.token_counts, section.task, workers=0
    )
    data = model.conform(plain).rest_of(options.split, options.rest)
    names = model.task.region_set.names
    if options.check:
        if not head.omissions.calibrated:
            raise ConfigError(f"{options.model}: was not calibrated. Fix: run reg2rg calibrate without --check first")
        studies = [entry.study for entry in data.entries(options.split)]
        sys.stdout.write(f"{head.omissions.shift(measured_of(data, studies), names)}\n")
        return EXIT_OK
    offer_settled(model, data)
    with progress("calibration") as step:
        found = detect(model, data, options.split, step)
    calibrate(model, found, options.alpha, measured_of(data, found.studies))
    model.save_pretrained(options.out)
    sys.stdout.write(f"{'region':24}{'paragraphs with findings':>26}{'bound':>9}\n")
    for name, used, bound in zip(names, head.omissions.used.tolist(), head.omissions.bound.tolist(), strict=True):
        if used:
            sys.stdout.write(f"{name:24}{used:26.0f}{bound:9.4f}\n")
    sys.stdout.write(
        f"{len(found.studies)} studies; at most {options.alpha:.0%} of the paragraphs with findings of a region leave "
        f"one out without a mark; {CAVEAT}\nwritten: {Path(options.out)}\n"
    )
    return EXIT_OK
