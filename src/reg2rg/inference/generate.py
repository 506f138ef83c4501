"""From a scan, or DICOM of a whole study, and a model's folder to report files: what ``reg2rg report`` does for one."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from reg2rg.config.sources import components
from reg2rg.core.errors import ConfigError
from reg2rg.core.progress import Step
from reg2rg.core.types import DecodingKind
from reg2rg.inference.exporters import EXPORTERS, Exporter
from reg2rg.inference.pipeline import report_on
from reg2rg.inference.result import ReportResult
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.find_masks import MaskSource
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
    step: Step | None = None,
) -> ReportResult:
    """Report on one scan and write it down: `report_on` with a model's folder before it and exporters behind it.

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
        name: the study's id, after which files are named; the scan's file name by default.
        step: is told what is being done.

    Raises:
        ConfigError: as `report_on`, and a format that nobody writes.
        DataFault: as `report_on`.
    """
    exporters = [exporter_named(word) for word in formats]
    if not isinstance(model, Reg2RG):
        model = load_model(model, language_model, device, decoding=decoding)
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
        name=name,
        step=step,
    )
    if out is not None:
        export(result, out, exporters)
    return result


def export(result: ReportResult, out: str | Path, exporters: Sequence[Exporter]) -> list[Path]:
    """Write a result in several formats, and say which files that gave."""
    return [file for exporter in exporters for file in exporter.write(result, Path(out).expanduser())]


def exporter_named(name: str) -> Exporter:
    """An exporter of this package or of a plug-in, with the defaults of its arguments.

    Raises:
        ConfigError: nobody writes that format.
    """
    if name not in EXPORTERS:
        modules = {found.name: found.module for found in components() if found.kind == EXPORTERS.kind}
        if name not in modules:
            raise ConfigError(f"format '{name}': there is no such exporter. Known: {', '.join(sorted(modules))}.")
        importlib.import_module(modules[name])
    return EXPORTERS.get(name)()


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
