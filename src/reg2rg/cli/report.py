"""``reg2rg report``: from a scan, a DICOM study or a list of studies to reports, with a trained model."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place, place_or_name
from reg2rg.core.errors import EXIT_OK, ConfigError, DataFault, TooManySkippedError

if TYPE_CHECKING:
    from reg2rg.inference.result import ReportResult
    from reg2rg.scans.base import ReadOptions
    from reg2rg.scans.find_masks import MaskSource
    from reg2rg.scans.segmenters import Segmenter

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class _Job:
    scan: Path
    name: str
    masks: MaskSource | None


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(
        prog="reg2rg report",
        description="Report on a scan with a trained model, region by region, and write the report down.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Masks: a folder with one file a region, a pattern as 'masks/{region}.nii.gz', or one file of labels; "
        "for several studies with {id} in it, unless their table names them.",
    )
    add = parser.add_argument
    add(
        "input",
        type=place,
        metavar="INPUT",
        help="a NIfTI or NRRD file; a folder, zip or DICOMDIR of a DICOM study; a table or folder of studies",
    )
    add("--model", type=place_or_name, required=True, metavar="FOLDER", help="model folder, checkpoint or hub id")
    add("-o", "--out", type=place, default=Path("report"), metavar="DIR", help="folder for the report's files")
    add("--masks", type=place_or_name, metavar="PATH", help="where the masks of the regions are")
    add("--segmenter", metavar="NAME", help="makes the masks instead; 'reg2rg list segmenters' has them")
    add("--formats", default="JSON,Page", metavar="NAMES", help="what is written; 'reg2rg list exporters' has all")
    add("--series", default="", metavar="UID", help="of a DICOM study the series to read, or the end of its UID")
    add("--kernel", default="", metavar="NAME", help="of a DICOM study the ConvolutionKernel to read")
    add("--tilt", choices=("shear", "refuse"), default="shear", help="what becomes of a tilted gantry")
    add("--uneven", choices=("refuse", "resample"), default="refuse", help="what becomes of uneven DICOM slices")
    add("--min_slices", type=whole(1), default=16, help="fewest axial slices")
    add("--mask_grid", choices=("header", "scan", "ras"), default="header", help="what says where masks lie")
    add("--implausible", choices=("error", "note", "ignore"), default="error", help="masks that cannot be the scan's")
    add("--language_model", type=place_or_name, metavar="PATH", help="where the base language model is now")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    return parser


def run(invocation: Invocation) -> int:
    """Run ``reg2rg report``; see `reg2rg.cli.main`."""
    begun = time.monotonic()
    options = parser().parse_args(list(invocation.args))
    _tell(f"looking at {options.input}")
    from reg2rg.cli.series import print_series

    read = _read_options(options)
    jobs, faults = _jobs(options.input, options.masks)
    listed = len(jobs) + len(faults)
    _refuse_without_masks(options, jobs)
    print_series([job.scan for job in jobs], read)
    segmenter = _segmenter(options.segmenter)
    _tell(f"loading {options.model}")

    from reg2rg.inference.generate import export, exporter_named, generate_report, load_model
    from reg2rg.training.monitor import peak_memory_gib

    exporters = [exporter_named(word) for word in options.formats.split(",") if word]
    model = load_model(options.model, options.language_model, options.device, invocation.allow_import)
    for fault in faults:
        sys.stderr.write(f"error: {fault}\n")
    for number, job in enumerate(jobs, 1):
        count = f"[{number}/{len(jobs)}] " if len(jobs) > 1 else ""

        def step(what: str = "", count: str = count) -> None:
            _tell(f"{count}{what}")

        try:
            result = generate_report(
                job.scan, model, job.masks, segmenter=segmenter, read=read, name=job.name, step=step
            )
        except (DataFault, ConfigError) as fault:
            if len(jobs) == 1:
                raise
            sys.stderr.write(f"{count}error: {fault}\n")
            faults.append(str(fault))
            continue
        files = export(result, options.out, exporters)
        sys.stdout.write(f"{_words(result)}  written: {', '.join(map(str, files))}\n")
    _tell(f"{time.monotonic() - begun:.1f} s, {peak_memory_gib(model.device):.2f} GiB at the peak")
    if faults:
        raise TooManySkippedError(f"{len(faults)} of {listed} studies have no report, as said above")
    return EXIT_OK


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


def _words(result: ReportResult) -> str:
    lines = [f"{result.study.id}", *(f"  {line}" for line in result.text.splitlines())]
    lines += [f"  no paragraph on {region}: the model wrote none" for region in result.report.missing]
    lines += [f"  no report on {region}: {why}" for region, why in result.absent.items()]
    lines += [f"  note: {note}" for note in result.made_by.notes]
    return "\n".join(lines) + "\n"


def _jobs(path: Path, masks: str | None) -> tuple[list[_Job], list[str]]:
    """The scans of the input, each with its id and where its masks are, and what is wrong with the others."""
    from reg2rg.datasets import DATASETS
    from reg2rg.datasets.recognise import recognise
    from reg2rg.datasets.scan_folder import ONE
    from reg2rg.scans.find_masks import image_stem

    if not path.exists():
        raise ConfigError(f"{path}: not there (expected a scan, a DICOM study, or a list of studies). Fix: the path")
    found = recognise(path.absolute()) if path.is_dir() or path.suffix.lower() in _TABLES else None
    if found is None or found.arguments.get("images") == ONE:
        return [_Job(path, image_stem(path), masks)], []
    listing = DATASETS.get(found.dataset)(**found.arguments).listing()
    if masks is not None and "{id}" not in masks:
        raise ConfigError(
            f"--masks {masks}: {len(listing.studies)} studies, and {{id}} does not stand in it. Fix: put it there"
        )
    jobs = [
        _Job(study.image, study.id, study.masks if masks is None else masks.replace("{id}", study.id))
        for study in listing.studies
    ]
    return jobs, [skip.message for skip in listing.skipped]


def _refuse_without_masks(options: argparse.Namespace, jobs: Sequence[_Job]) -> None:
    """Say what can give masks, before a model is loaded that needs some."""
    from reg2rg.config.sources import components
    from reg2rg.core.documents import read_yaml
    from reg2rg.core.model_folder import CONFIG, is_model_folder
    from reg2rg.core.task import with_task

    if options.masks is not None and options.segmenter is not None:
        raise ConfigError("command line: both --masks and --segmenter are given. Fix: leave one out")
    if options.segmenter is not None or all(job.masks is not None for job in jobs):
        return
    if not is_model_folder(options.model):
        return  # the model itself says whether it needs masks
    fix = "take the whole folder from its source again"
    config = read_yaml(Path(options.model) / CONFIG, fix)
    if with_task(config)["task"].get("target", "regions") == "regions":
        names = ", ".join(found.name for found in components() if found.kind == "segmenter")
        raise ConfigError(
            f"{options.input}: no masks, and {options.model} reports region by region. Fix, one of:\n"
            "  --masks FOLDER               one file a region, or a class of TotalSegmentator\n"
            "  --masks 'DIR/{region}.nii.gz'\n"
            "  --masks FILE                 one file of labels, as TotalSegmentator's --ml writes\n"
            f"  --segmenter NAME             makes them: {names}"
        )


def _segmenter(name: str | None) -> Segmenter | None:
    """A segmenter by its name, with the defaults of its arguments."""
    from reg2rg.core.registry import load_plugins
    from reg2rg.scans.segmenters import SEGMENTERS

    if name is None:
        return None
    if name not in SEGMENTERS:
        load_plugins()
    component = SEGMENTERS.get(name)
    try:
        return component()
    except TypeError as error:
        raise ConfigError(f"--segmenter {name}: it needs arguments ({error}). Fix: use it from Python") from None


def _tell(text: str) -> None:
    sys.stderr.write(f"report: {text}\n")
    sys.stderr.flush()
