"""``reg2rg report``: from a scan, a DICOM study or a list of studies to reports, with a trained model."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from reg2rg.cli.help import HelpFormatter
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place, place_or_name
from reg2rg.core.errors import EXIT_OK, EXIT_RUNTIME, ConfigError, DataFault, TooManySkippedError
from reg2rg.core.types import DecodingKind

if TYPE_CHECKING:
    from reg2rg.cli.rerun import Rerun
    from reg2rg.core.regions import RegionSet
    from reg2rg.core.task import ReportTask
    from reg2rg.core.types import PathOrName, Study
    from reg2rg.inference.exporters import Exporter
    from reg2rg.inference.result import ReportResult
    from reg2rg.inference.run_record import Request
    from reg2rg.scans.base import ReadOptions
    from reg2rg.scans.find_masks import MaskSource
    from reg2rg.scans.segmenters import Segmenter
    from reg2rg.training.module import Reg2RG

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class _Job:
    """A scan with its id, which is ``""`` where the pipeline makes one of the DICOM series, and its masks."""

    scan: Path
    name: str
    masks: MaskSource | None


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(
        prog="reg2rg report",
        description="Report on a scan with a trained model, region by region, and write the report down.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        epilog="Masks: a folder with one file a region, a pattern as 'masks/{region}.nii.gz', or one file of labels; "
        "for several studies with {id} in it, unless their table names them. Beside the files of each study lies the "
        "record of its run; a list that is given again goes on where it stopped.",
    )
    add = parser.add_argument
    add(
        "input",
        type=place,
        nargs="?",
        metavar="INPUT",
        help="a NIfTI or NRRD file; a folder, zip or DICOMDIR of a DICOM study; a table or folder of studies; a file "
        "of features, for a model that sees them",
    )
    add("--model", type=place_or_name, metavar="FOLDER", help="model folder, checkpoint or hub id")
    add("-o", "--out", type=place, default=Path("report"), metavar="DIR", help="folder for the report's files")
    add("--masks", type=place_or_name, metavar="PATH", help="where the masks of the regions are")
    add("--segmenter", metavar="NAME", help="makes the masks instead; 'reg2rg list segmenters' has them")
    add(
        "--formats",
        metavar="NAMES",
        help="what is written: JSON,Page, or JSON alone for features; 'reg2rg list exporters' has all",
    )
    add("--name", default="", metavar="ID", help="the study's id, which files are named after; of one scan")
    add("--identified", action="store_true", help="keep paths, UIDs and names of DICOM folders in files and messages")
    add("--rerun", type=place, metavar="FILE", help="a .run.json: the same inputs, model and options again, compared")
    add("--again", action="store_true", help="report anew on studies of a list that are done")
    add("--series", default="", metavar="UID", help="of a DICOM study the series to read, or the end of its UID")
    add("--kernel", default="", metavar="NAME", help="of a DICOM study the ConvolutionKernel to read")
    add("--tilt", choices=("shear", "refuse"), default="shear", help="what becomes of a tilted gantry")
    add("--uneven", choices=("refuse", "resample"), default="refuse", help="what becomes of uneven DICOM slices")
    add("--min_slices", type=whole(1), default=16, help="fewest axial slices")
    add("--mask_grid", choices=("header", "scan", "ras"), default="header", help="what says where masks lie")
    add(
        "--implausible",
        choices=("error", "drop", "note", "ignore"),
        default="error",
        help="masks that cannot be the scan's; drop: leave out regions that are not what they are called",
    )
    add(
        "--decoding",
        choices=get_args(DecodingKind),
        help="constrained: a paragraph for each region, in order, under a name that the model chooses; forced: under "
        "the region's own name; free: whatever the model writes. By default what the model's config says",
    )
    add("--operating-point", metavar="POINT", help="of a model with a head: f1, precision=P or recall=R")
    add("--language_model", type=place_or_name, metavar="PATH", help="where the base language model is now")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    return parser


def run(invocation: Invocation) -> int:
    """Run ``reg2rg report``; see `reg2rg.cli.main`."""
    from reg2rg.cli.rerun import Rerun

    begun = time.monotonic()
    options = parser().parse_args(list(invocation.args))
    rerun = None if options.rerun is None else Rerun.of(options)
    _tell("looking at the input")
    _check(options)
    from reg2rg.scans.segmenters import segmenter_named

    task = task_of(options.model)  # of a folder; else the model says what it needs once it is loaded
    listed = None if task is None else _listed(options, task)
    segmenter = None if options.segmenter is None else segmenter_named(options.segmenter)
    _tell(f"loading {options.model}")

    from reg2rg.inference.calibration import head_of
    from reg2rg.inference.generate import load_model
    from reg2rg.inference.run_record import Request, model_digest
    from reg2rg.models.heads.operating import OperatingPoint
    from reg2rg.training.monitor import peak_memory_gib

    model = load_model(options.model, options.language_model, options.device, invocation.allow_import, options.decoding)
    if options.operating_point is not None:
        head_of(model)
        model.reporter.operating_point = OperatingPoint.of(options.operating_point)
    jobs, exporters, faults = listed or _listed(options, model.task)
    for fault in faults:
        sys.stderr.write(f"error: {fault}\n")
    request = Request(options.model, model_digest(options.model), options.segmenter or "")
    report = _Reporting(options, model, segmenter, exporters, request, rerun)
    several = len(jobs) + len(faults) > 1
    failed = len(faults) + sum(
        not report(job, f"[{number}/{len(jobs)}] " if several else "") for number, job in enumerate(jobs, 1)
    )
    _tell(f"{time.monotonic() - begun:.1f} s, {peak_memory_gib(model.device):.2f} GiB at the peak")
    if failed:
        raise TooManySkippedError(f"{failed} of {len(jobs) + len(faults)} studies have no report, as said above")
    return EXIT_OK if rerun is None or rerun.same else EXIT_RUNTIME


def _listed(options: argparse.Namespace, task: ReportTask) -> tuple[list[_Job], list[Exporter], list[str]]:
    """What is reported on and in which formats, and what is wrong with other studies.

    Raises:
        ConfigError: masks are missing.
    """
    from reg2rg.inference.generate import exporter_named

    jobs, faults = _jobs(options, task.regions)
    _choose_series(options, jobs)
    with_masks = options.segmenter is not None or all(job.masks is not None for job in jobs)
    if task.target == "regions" and not with_masks and not task.views.features:
        raise _without_masks(options)
    formats = options.formats or ("JSON" if task.views.features else "JSON,Page")  # of features nothing can be shown
    exporters = [exporter_named(word, options.identified) for word in formats.split(",") if word]
    return _writable(options, jobs, exporters, task, faults), exporters, faults


def _check(options: argparse.Namespace) -> None:
    if options.input is None or options.model is None:
        what = "INPUT" if options.input is None else "--model"
        rerun = "" if options.rerun is None else f", and {options.rerun} does not name it"
        raise ConfigError(f"command line: {what} is missing{rerun}. Fix: give it; see reg2rg report --help")
    if not options.input.exists():
        raise ConfigError(f"{options.input}: not there (expected a scan, a DICOM study, or a list of studies)")
    if options.masks is not None and options.segmenter is not None:
        raise ConfigError("command line: both --masks and --segmenter are given. Fix: leave one out")


@dataclass(frozen=True, slots=True)
class _Reporting:
    """Reports on one scan after the other."""

    options: argparse.Namespace
    model: Reg2RG
    segmenter: Segmenter | None
    exporters: Sequence[Exporter]
    request: Request
    rerun: Rerun | None

    def __call__(self, job: _Job, count: str) -> bool:
        """Report on one scan; whether that could be done, where there are others."""
        from reg2rg.cli.rerun import done_before, require_same
        from reg2rg.inference.generate import export, generate_report

        options, read = self.options, _read_options(self.options)
        request = replace(self.request, scan=str(job.scan), masks=options.masks or "")
        try:
            if self.rerun is not None:
                require_same(self.rerun, job.scan, job.masks, read, self.model)
            elif count and not options.again:
                study = done_before(options, job.scan, job.masks, read, job.name, self.model, self.exporters, request)
                if study:
                    sys.stdout.write(f"{count}{study} was done before, with the same inputs, model and options\n")
                    return True
            result = generate_report(
                job.scan,
                self.model,
                job.masks,
                segmenter=self.segmenter,
                read=read,
                name=job.name,
                step=lambda what="": _tell(f"{count}{what}"),
            )
            files = export(result, options.out, self.exporters, request, options.identified)
        except (DataFault, ConfigError) as fault:
            if not count:
                raise
            sys.stderr.write(f"{count}error: {fault}\n")
            return False
        sys.stdout.write(f"{_words(result, options.identified)}  written: {', '.join(map(str, files))}\n")
        if self.rerun is not None:
            sys.stdout.write(f"  {self.rerun.compared(options.out, files)}\n")
        sys.stdout.flush()
        return True


def _writable(
    options: argparse.Namespace, jobs: list[_Job], exporters: Sequence[Exporter], task: ReportTask, faults: list[str]
) -> list[_Job]:
    """The scans that can be written in every format; why the others cannot is added to the faults.

    Raises:
        ConfigError: none can.
    """
    from reg2rg.inference.generate import refusal

    reasons = [refusal(exporters, job.scan, task, _read_options(options)) for job in jobs]
    found = [reason for reason in reasons if reason]
    if found and len(found) == len(jobs):
        raise ConfigError(found[0])
    faults += found
    return [job for job, reason in zip(jobs, reasons, strict=True) if not reason]


def _choose_series(options: argparse.Namespace, jobs: Sequence[_Job]) -> None:
    """Print the series of DICOM studies; a single study of which none can be read ends it here."""
    from reg2rg.cli.series import print_series

    faults = print_series([job.scan for job in jobs], _read_options(options), options.identified)
    if faults and len(jobs) == 1:
        raise faults[0]


def _read_options(options: argparse.Namespace) -> ReadOptions:
    from reg2rg.scans.base import ReadOptions

    return ReadOptions(
        options.min_slices,
        mask_grid=options.mask_grid,
        implausible=options.implausible,
        series=options.series,
        kernel=options.kernel,
        tilt=options.tilt,
        uneven=options.uneven,
    )


def _words(result: ReportResult, identified: bool) -> str:
    from reg2rg.inference.identity import deidentified

    result = result if identified else deidentified(result)
    lines = [f"{result.study.id}", *(f"  {line}" for line in result.marked_text.splitlines())]
    lines += [f"  no paragraph on {region}: the model wrote none" for region in result.report.missing]
    for one, given in zip(result.written, result.asked, strict=False):  # of free decoding nothing is known
        if one.region != given:
            named, own = one.referring.get(one.region, 0), one.referring.get(given, 0)
            lines.append(f"  {given} was called {one.region} (referring probability {named:.2f}, of {given} {own:.2f})")
        if one.truncated:
            lines.append(f"  cut short: the paragraph on {one.region}")
    lines += [f"  no report on {region}: {why}" for region, why in result.absent.items()]
    lines += [f"  note: {note}" for note in result.made_by.notes]
    return "\n".join(lines) + "\n"


def _jobs(options: argparse.Namespace, regions: PathOrName | RegionSet) -> tuple[list[_Job], list[str]]:
    """The scans of the input, each with its id and where its masks are, and what is wrong with the others."""
    from reg2rg.datasets import DATASETS
    from reg2rg.datasets.recognise import recognise
    from reg2rg.datasets.scan_folder import ONE
    from reg2rg.scans.dicom.files import is_dicom
    from reg2rg.scans.find_masks import image_stem

    path, masks = options.input, options.masks
    found = recognise(path.absolute()) if path.is_dir() or path.suffix.lower() in _TABLES else None
    if found is None or found.arguments.get("images") == ONE:
        name = image_stem(path)
        named = options.name or (name if options.identified or not is_dicom(path) else "")
        return [_Job(path, named, masks and masks.replace("{id}", name))], []
    if options.name:
        raise ConfigError(
            f"--name {options.name}: {path} holds several studies, each with its own id. Fix: leave it out"
        )
    own = {"regions": regions} if isinstance(regions, str) else {}  # a set that was built in Python has no name
    dataset = DATASETS.get(found.dataset)(**{**found.arguments, **own})
    dataset.needs_masks = options.segmenter is None
    listing = dataset.listing()
    if masks is not None and "{id}" not in masks:
        raise ConfigError(
            f"--masks {masks}: {len(listing.studies)} studies, and {{id}} does not stand in it. Fix: put it there"
        )
    folders = (
        found.dataset == "ScanFolder" and not options.identified
    )  # names of DICOM folders may be those of patients
    jobs = [
        _Job(
            study.image,
            "" if folders and is_dicom(study.image) else study.id,
            _masks_of(study, masks) if options.segmenter is None else None,
        )
        for study in listing.studies
    ]
    return jobs, [skip.message for skip in listing.skipped]


def _masks_of(study: Study, masks: str | None) -> MaskSource | None:
    from reg2rg.core.types import MaskChannels

    assert not isinstance(study.masks, MaskChannels)  # no layout of features is recognised
    return study.masks if masks is None else masks.replace("{id}", study.id)


def task_of(model: str) -> ReportTask | None:
    """What the model of a folder sees and writes; ``None`` for a checkpoint or a hub id, which have to be loaded."""
    from reg2rg.core.documents import read_yaml
    from reg2rg.core.model_folder import CONFIG, is_model_folder, localise
    from reg2rg.core.task import ReportTask

    if not is_model_folder(model):
        return None
    config = read_yaml(Path(model) / CONFIG, "take the whole folder from its source again")
    localise(config, Path(model))
    return ReportTask.of(config.get("task") or {})


def _without_masks(options: argparse.Namespace) -> ConfigError:
    """What can give masks."""
    from reg2rg.config.sources import components

    names = ", ".join(found.name for found in components() if found.kind == "segmenter")
    return ConfigError(
        f"{options.input}: no masks, and {options.model} reports region by region. Fix, one of:\n"
        "  --masks FOLDER               one file a region, or a class of TotalSegmentator\n"
        "  --masks 'DIR/{region}.nii.gz'\n"
        "  --masks FILE                 labels, as TotalSegmentator's --ml writes, DICOM SEG or RTSTRUCT\n"
        f"  --segmenter NAME             makes them: {names}"
    )


def _tell(text: str) -> None:
    sys.stderr.write(f"report: {text}\n")
    sys.stderr.flush()
