"""``reg2rg listen``: a DICOM node that reports on every study that it is sent."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from reg2rg.cli.help import HelpFormatter
from reg2rg.cli.main import Invocation, exit_of
from reg2rg.cli.numbers import above_zero, whole
from reg2rg.cli.paths import place, place_or_name
from reg2rg.cli.report import task_of
from reg2rg.core.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from reg2rg.inference.listen.settings import ListenSettings
    from reg2rg.inference.listen.worker import Report

_MB, _GB = 1_000_000, 1_000_000_000


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(
        prog="reg2rg listen",
        description="Receive CT studies by DICOM C-STORE, report on each when it is complete, and write the results "
        "into a folder or send them on.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        epilog="A study is complete when no association that brought slices of it is open and none came for --quiet "
        "seconds. Slices that come later make a new report. What is no CT starts nothing.",
    )
    add = parser.add_argument
    add("--model", type=place_or_name, required=True, metavar="FOLDER", help="model folder, checkpoint or hub id")
    add("-o", "--out", type=place, default=Path("reports"), metavar="DIR", help="folder for a folder a study")
    add("--spool", type=place, metavar="DIR", help="where studies and the queue are kept; by default DIR/.spool of -o")
    add("--host", default="127.0.0.1", help="address to listen at; another than this machine's own needs --calling")
    add("--port", type=whole(0), default=11112, help="0 for a free one")
    add("--ae", default="REG2RG", help="AE title of this node")
    add("--calling", default="", metavar="AE,AE", help="AE titles that may send; empty for all of this machine")
    add("--send_to", default="", metavar="AE@HOST:PORT", help="node that DICOM results are sent to")
    add("--segmenter", metavar="NAME", help="makes the masks; 'reg2rg list segmenters' has them")
    add("--formats", default="JSON,Page", metavar="NAMES", help="what is written; 'reg2rg list exporters' has all")
    add("--identified", action="store_true", help="keep UIDs and PatientID in files that are no DICOM")
    add("--kernel", default="", metavar="NAME", help="the ConvolutionKernel to read of several")
    add("--min_slices", type=whole(1), default=16, help="fewest axial slices")
    add("--implausible", choices=("error", "drop", "note", "ignore"), default="error", help="see reg2rg report")
    add("--language_model", type=place_or_name, metavar="PATH", help="where the base language model is now")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    add("--quiet", type=above_zero, default=30.0, metavar="SECONDS", help="without a new slice, then it is complete")
    add("--study_seconds", type=above_zero, default=3600.0, help="longest time for one report")
    add("--keep_hours", type=above_zero, default=24.0, help="slices of a study that is done are kept so long")
    add("--instance_mb", type=above_zero, default=2000.0, help="largest object")
    add("--study_mb", type=above_zero, default=8000.0, help="largest study")
    add("--free_gb", type=above_zero, default=2.0, help="with less free disk everything is refused")
    add("--associations", type=whole(1), default=16, help="most at once")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser


def run(invocation: Invocation) -> int:
    """Run ``reg2rg listen``; see `reg2rg.cli.main`."""
    options = parser().parse_args(list(invocation.args))
    settings = _settings(options)
    if options.worker:
        from reg2rg.inference.listen.spool import Spool
        from reg2rg.inference.listen.worker import work

        work(Spool(settings.spool), settings, _report(options, invocation), _tell)
        return EXIT_OK
    from reg2rg.inference.listen.receiver import pynetdicom
    from reg2rg.inference.listen.service import listen, own_command, told_to_end

    pynetdicom()
    settings.check()
    _check(options)
    allow = ["--allow-import", ",".join(invocation.allow_import)] if invocation.allow_import else []
    with told_to_end() as got:
        listen(settings, own_command([*allow, "listen", *invocation.args, "--worker"]), _tell, lambda: bool(got))
    _tell("ended; what was received waits in the spool")
    return exit_of(got[0])


def _settings(options: argparse.Namespace) -> ListenSettings:
    from reg2rg.inference.listen.settings import ListenSettings, Node

    return ListenSettings(
        spool=(options.spool or options.out / ".spool").absolute(),
        out=options.out.absolute(),
        host=options.host,
        port=options.port,
        ae=options.ae,
        calling=tuple(name.strip() for name in options.calling.split(",") if name.strip()),
        node=Node.of(options.send_to) if options.send_to else None,
        quiet_seconds=options.quiet,
        study_seconds=options.study_seconds,
        keep_hours=options.keep_hours,
        most_instance_bytes=int(options.instance_mb * _MB),
        most_study_bytes=int(options.study_mb * _MB),
        least_free_bytes=int(options.free_gb * _GB),
        associations=options.associations,
    )


def _check(options: argparse.Namespace) -> None:
    """What is wrong with a folder, format or segmenter is said before anything is received."""
    from reg2rg.core.model_folder import is_model_folder
    from reg2rg.inference.generate import exporter_named
    from reg2rg.scans.segmenters import segmenter_named

    if Path(options.model).is_dir() and not is_model_folder(options.model):
        raise ConfigError(
            f"--model {options.model}: no model's folder. Fix: give one of `reg2rg export`, or a checkpoint"
        )
    for word in options.formats.split(","):
        exporter_named(word)
    if options.segmenter is not None:
        segmenter_named(options.segmenter)
        return
    task = task_of(options.model)  # of a checkpoint or a hub id the first report tells
    if task is not None and task.target == "regions":
        raise ConfigError(
            f"{options.model} reports region by region, and nothing makes masks. Fix: --segmenter NAME; 'reg2rg list "
            "segmenters' has them"
        )


def _report(options: argparse.Namespace, invocation: Invocation) -> Report:
    """The pipeline with its model loaded: `generate_report`, as ``reg2rg report`` calls it."""
    from reg2rg.inference.generate import export, exporter_named, generate_report, load_model
    from reg2rg.inference.run_record import Request, model_digest
    from reg2rg.scans.base import ReadOptions
    from reg2rg.scans.segmenters import segmenter_named

    model = load_model(options.model, options.language_model, options.device, invocation.allow_import)
    exporters = [exporter_named(word, options.identified) for word in options.formats.split(",") if word]
    segmenter = None if options.segmenter is None else segmenter_named(options.segmenter)
    request = Request(options.model, model_digest(options.model), options.segmenter or "")
    read = ReadOptions(options.min_slices, implausible=options.implausible, kernel=options.kernel)

    def report(scan: Path, out: Path) -> None:
        export(
            generate_report(scan, model, segmenter=segmenter, read=read), out, exporters, request, options.identified
        )

    return report


def _tell(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} listen: {text}\n")
    sys.stderr.flush()
