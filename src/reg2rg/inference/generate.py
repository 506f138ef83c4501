"""From a scan, or DICOM of a whole study, and a model's folder to report files: what ``reg2rg report`` does for one."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from reg2rg.config.sources import components
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.progress import Step
from reg2rg.core.task import ReportTask
from reg2rg.core.types import DecodingKind
from reg2rg.inference.exporters import EXPORTERS, Exporter
from reg2rg.inference.pipeline import report_on
from reg2rg.inference.result import ReportResult
from reg2rg.inference.run_record import Request, model_digest, write_record_of
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.find_masks import MaskSource, image_stem
from reg2rg.scans.segmenters import Segmenter
from reg2rg.training.module import Reg2RG

FORMATS = ("JSON", "Page")
"""What is written unless something else is asked for."""


def generate_report(
    scan: str | Path,
    model: Reg2RG | str | Path,
    masks: MaskSource | None = None,
    *,
    segmenter: Segmenter | str | None = None,
    out: str | Path | None = None,
    formats: Sequence[str] = FORMATS,
    read: ReadOptions = ReadOptions(),  # noqa: B008 (frozen)
    language_model: str | Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    decoding: DecodingKind | None = None,
    name: str = "",
    identified: bool = False,
    step: Step | None = None,
) -> ReportResult:
    """Report on one scan and write it down: `report_on` with a model's folder before it and exporters behind it.

    With the files goes a record of the run (`reg2rg.inference.run_record`).

    Args:
        scan: a NIfTI or NRRD file; a folder, zip or DICOMDIR of a DICOM study; an Enhanced DICOM file.
        model: a folder, a checkpoint, a hub id, or a loaded model, which stays on its device.
        masks: as `report_on` takes them.
        segmenter: makes the masks instead; by its name, or one that is built.
        out: folder for the files; ``None`` writes none.
        formats: names of exporters.
        read: how scan and masks are read; HU and clipping are as the model says.
        language_model: where the base language model is, if not where the folder says.
        device: of a model that is loaded here; ``"auto"`` takes a GPU if there is one.
        decoding: of a model that is loaded here: a paragraph for each region (``"constrained"``), under its own name
            (``"forced"``), or whatever the model writes (``"free"``); by default what its config says.
        name: the study's id, after which files are named; by default as `report_on` says.
        identified: keep paths, UIDs and the name of a DICOM folder in files that are no DICOM (`deidentified`).
        step: is told what is being done.

    Raises:
        ConfigError: as `report_on`, and a format that nobody writes, or that this scan cannot be written in.
        DataFault: as `report_on`.
    """
    exporters = [exporter_named(word, identified) for word in formats]
    request = Request(
        model="" if isinstance(model, Reg2RG) or out is None else str(model),
        model_sha256="" if isinstance(model, Reg2RG) or out is None else model_digest(model),
        segmenter=segmenter if isinstance(segmenter, str) else type(segmenter).__name__ if segmenter else "",
        scan=str(scan),
        masks=str(masks) if isinstance(masks, str | Path) else "",
    )
    if not isinstance(model, Reg2RG):
        model = load_model(model, language_model, device, decoding=decoding)
    if out is not None and (reason := refusal(exporters, Path(scan).expanduser(), model.task, read)):
        raise ConfigError(reason)
    result = report_on(
        scan,
        masks,
        model,
        segmenter=segmenter,
        mask_grid=read.mask_grid,
        min_slices=read.min_slices,
        implausible=read.implausible,
        series=read.series,
        kernel=read.kernel,
        tilt=read.tilt,
        uneven=read.uneven,
        name=name or (image_stem(Path(scan).expanduser()) if identified else ""),
        step=step,
    )
    if out is not None:
        export(result, out, exporters, request, identified)
    return result


def export(
    result: ReportResult,
    out: str | Path,
    exporters: Sequence[Exporter],
    request: Request | None = None,
    identified: bool = False,
) -> list[Path]:
    """Write a result in several formats, then the record of the run, and say which files that gave.

    Args:
        result: of `report_on`.
        out: folder for the files.
        exporters: what writes them.
        request: what else the record is to say.
        identified: the record keeps paths and UIDs; exporters have an argument of their own for that.

    Raises:
        ConfigError: some formats could not be written; all others are there, and no record.
    """
    out = Path(out).expanduser()
    written: dict[Path, None] = {}
    failed = []
    for exporter in exporters:
        try:
            written |= dict.fromkeys(exporter.write(result, out))
        except (ConfigError, DataFault) as fault:
            failed.append(str(fault))
    if failed:
        there = f" (written all the same: {', '.join(map(str, written))})" if written else ""
        raise ConfigError("\n  ".join(failed) + there)
    formats = [type(exporter).__name__ for exporter in exporters]
    return [*written, *write_record_of(result, out, list(written), formats, request, identified)]


def refusal(exporters: Sequence[Exporter], scan: Path, task: ReportTask, read: ReadOptions) -> str:
    """Why a scan cannot be written in all of several formats, a line each; ``""`` if it can."""
    regions = task.target == "regions"
    return "\n  ".join(filter(None, (exporter.refusal(scan, regions, read) for exporter in exporters)))


def exporter_named(name: str, identified: bool = False) -> Exporter:
    """An exporter of this package or of a plug-in, with the defaults of its arguments.

    Args:
        name: its class name.
        identified: for exporters that have an argument of that name.

    Raises:
        ConfigError: nobody writes that format.
    """
    if name not in EXPORTERS:
        modules = {found.name: found.module for found in components() if found.kind == EXPORTERS.kind}
        if name not in modules:
            raise ConfigError(f"format '{name}': there is no such exporter. Known: {', '.join(sorted(modules))}.")
        importlib.import_module(modules[name])
    exporter = EXPORTERS.get(name)
    if identified and "identified" in inspect.signature(exporter).parameters:
        return exporter(identified=True)  # type: ignore[call-arg]
    return exporter()


def load_model(
    path: str | Path,
    language_model: str | Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    allow_import: Sequence[str] = (),
    decoding: DecodingKind | None = None,
) -> Reg2RG:
    """A model from its folder, a hub id or a checkpoint.

    Args:
        path: the folder, id or file.
        language_model: where the base language model is, if not where the folder says.
        device: ``"auto"`` takes a GPU if there is one.
        allow_import: packages that the config may name.
        decoding: how it writes reports, if not as its config says.

    Raises:
        ConfigError: see `Reg2RG.from_pretrained` and `Reg2RG.from_checkpoint`.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    changes: dict[str, Any] = {} if decoding is None else {"decoding": decoding}
    path = Path(path).expanduser() if Path(path).expanduser().exists() else path
    if Path(path).is_file():
        model = Reg2RG.from_checkpoint(path, language_model=language_model, allow_import=allow_import, **changes)
        return model.to(device)
    return Reg2RG.from_pretrained(
        path, language_model=language_model, map_location=device, allow_import=allow_import, **changes
    )
