"""From one scan and its region masks to a report, without a data set or a store."""

from __future__ import annotations

import logging
import platform
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from reg2rg import __version__
from reg2rg.core.errors import ConfigError
from reg2rg.core.progress import Step
from reg2rg.core.report import Paragraph, Report, parse_report
from reg2rg.core.task import Views
from reg2rg.core.types import LabelMap, Study
from reg2rg.data.batch import Batch, collate
from reg2rg.data.prompt import PromptEncoder
from reg2rg.data.samples import Entry, StudySamples
from reg2rg.inference.result import Provenance, ReportResult
from reg2rg.models.reporter import GeneratedReport
from reg2rg.pretrained.contract import InputContract
from reg2rg.pretrained.fingerprint import digest
from reg2rg.scans.base import Implausible, MaskGrid, ReadOptions
from reg2rg.scans.find_masks import MaskSource, find_masks, image_stem
from reg2rg.scans.masks import canonical
from reg2rg.scans.read import read_study
from reg2rg.scans.segmenters import SEGMENTERS, MadeBy, Segmentation, Segmenter, segmenter_named
from reg2rg.store.attributes import measure
from reg2rg.store.crop import Detail, crop_to_foreground
from reg2rg.store.frame import conform
from reg2rg.store.views import ALL_VIEWS, StudyViews, compute_views
from reg2rg.training.module import Reg2RG

log = logging.getLogger(__name__)

_PACKAGES = ("torch", "lightning", "transformers", "numpy", "nibabel", "pynrrd")


def report_on(
    scan: str | Path,
    masks: MaskSource | None,
    model: Reg2RG,
    *,
    segmenter: Segmenter | str | None = None,
    mask_grid: MaskGrid = "header",
    min_slices: int = 16,
    implausible: Implausible = "error",
    series: str = "",
    kernel: str = "",
    tilt: Literal["shear", "refuse"] = "shear",
    uneven: Literal["refuse", "resample"] = "refuse",
    name: str = "",
    step: Step | None = None,
) -> ReportResult:
    """Report on one scan: what ``reg2rg predict`` writes for it, from the files themselves.

    Scan and masks are brought to the model's input contract: orientation, spacing, window and size of views. The order
    of the regions in the prompt follows from the scan's file name, as it does from a study's id.

    Args:
        scan: CT in Hounsfield units, a file of any kind that `reg2rg.scans` has a reader for, or a DICOM study.
        masks: one of: a pattern such as ``"masks/{region}.nii.gz"``; a folder with one file a region; a mapping from
            region to file; one file of labels, such as TotalSegmentator's ``--ml`` writes, as a path or as a `LabelMap`
            with labels of your own. ``None`` for a model that sees the whole scan alone, and with `segmenter`.
        model: from `Reg2RG.from_pretrained` or `Reg2RG.from_checkpoint`.
        segmenter: makes the masks, or knows where they lie, instead of `masks`; one without arguments by its name, such
            as ``"Thresholds"``.
        mask_grid: see `ReadOptions`.
        min_slices: fewest axial slices.
        implausible: what becomes of masks that cannot be this scan's, see `ReadOptions`.
        series: see `ReadOptions`, as the next three.
        kernel: of several DICOM reconstructions.
        tilt: a tilted gantry.
        uneven: uneven DICOM slices.
        name: the study's id, which orders the regions; the scan's file name by default.
        step: is told what is being done.

    Returns:
        the report with the scan's grid, the masks and what was done. The report of a model without regions is a single
        paragraph of region ``""``.

    Raises:
        ConfigError: a model that knows no config, masks that are not there, or regions that the model does not know.
        DataFault: a scan or mask that cannot be read, or is none.
    """
    contract = model.contract
    if contract is None:
        raise ConfigError(
            "report_on: the model knows no input contract (views, window, regions). Fix: load it with "
            "Reg2RG.from_pretrained or from_checkpoint, or tell it with model.describe(config)"
        )
    scan = Path(scan).expanduser()
    options = ReadOptions(
        min_slices, contract.hu, mask_grid, implausible, series=series, kernel=kernel, tilt=tilt, uneven=uneven
    ).for_views(contract.task.views)
    tell = step or (lambda what="": None)
    tell(f"{'looking for the masks of' if segmenter is None else 'segmenting'} {scan}")
    found = _segmentation(scan, masks, segmenter, contract, options)
    name = name or image_stem(scan)
    tell(f"reading {scan}")
    study = Study(name, name, "test", scan, None if found is None else found.masks)
    source = read_study(study, contract.task.region_set, options, needs_regions=found is not None)
    views = contract.task.views
    native, conformed = crop_to_foreground(source), conform(source, views.orientation, views.spacing)
    detail = native if conformed is source else crop_to_foreground(conformed)
    attributes = measure(native, contract.task.region_set) if source.masks else None
    for note in detail.notes:
        log.info("%s: %s", scan, note)
    tell(f"writing the report on {name}")
    weights = digest(model.state_dict())
    with model.reporter.llm.merged():
        [answer] = model.reporter.generate(_batch(model, contract, name, detail), model.decoding)
    if answer.truncated:
        cut = ", ".join(one.region or f"region {one.slot}" for one in answer.written if one.truncated)
        what = f"the paragraphs on {cut} were" if cut else "the report was"
        log.warning("%s: %s stopped by a limit of length or by a loop, not by the model", scan, what)
    if study.masks is not None:
        study = replace(study, masks=canonical(study.masks, contract.task.region_set))
    return ReportResult(
        study=study,
        report=_report(answer, contract),
        source=source,
        asked=answer.regions,
        absent={} if found is None else _absent(detail, contract, found),
        made_by=Provenance(
            versions={"reg2rg": __version__, "python": platform.python_version()}
            | {package: version(package) for package in _PACKAGES},
            model=weights,
            masks=None if found is None else found.made_by,
            options=options,
            notes=detail.notes,
            truncated=answer.truncated,
        ),
        attributes=attributes,
        written=answer.written,
    )


def _report(answer: GeneratedReport, contract: InputContract) -> Report:
    if contract.task.target != "regions":
        return Report((Paragraph(0, "", answer.text),))
    return parse_report(answer.text, answer.regions, contract.task.identity)


def _segmentation(
    scan: Path,
    masks: MaskSource | None,
    segmenter: Segmenter | str | None,
    contract: InputContract,
    options: ReadOptions,
) -> Segmentation | None:
    """Where the masks are, ``None`` for a model that needs none."""
    if masks is not None and segmenter is not None:
        raise ConfigError("report_on: both masks and a segmenter are given. Fix: leave one out")
    if contract.task.target != "regions":
        return None
    if segmenter is not None:
        segmenter = segmenter_named(segmenter) if isinstance(segmenter, str) else segmenter
        return segmenter.segment(scan, contract.task.region_set, options)
    if masks is None:
        raise ConfigError(
            "report_on: the model reports region by region, and masks is None. Fix: give the masks (a folder with a "
            "file a region, a pattern with {region}, a mapping, one file of labels), or a segmenter "
            f"({', '.join(SEGMENTERS)})"
        )
    found = find_masks(masks, contract.task.region_set)
    if isinstance(masks, str | Path):
        where = str(masks)
    elif isinstance(found, LabelMap):
        where = str(found.file)
    else:
        where = ", ".join(str(path) for paths in found.parts().values() for path in paths)
    return Segmentation(found, MadeBy("files", source=where))


def _absent(detail: Detail, contract: InputContract, found: Segmentation) -> dict[str, str]:
    """Region that was not asked for -> why: what was noted last of it."""
    absent = {}
    for name in contract.task.region_set.names:
        if name not in detail.masks:
            notes = [note.removeprefix(f"{name}: ") for note in detail.notes if note.startswith(f"{name}: ")]
            why = found.absent.get(name, f"no mask of it from {found.made_by.name}")
            absent[name] = notes[-1] if notes else why
    return absent


class _OneScan:
    """Views of one scan, for `StudySamples`."""

    def __init__(self, study: str, detail: Detail) -> None:
        self.study, self.detail = study, detail

    def studies(self) -> list[str]:
        return [self.study]

    def regions(self, study: str) -> tuple[str, ...]:
        return self.detail.regions

    def views(
        self,
        study: str,
        views: Views,
        regions: Sequence[str] | None = None,
        want: Collection[str] = ALL_VIEWS,
    ) -> StudyViews:
        return compute_views(views, self.detail, regions, want)


def _batch(model: Reg2RG, contract: InputContract, study: str, detail: Detail) -> Batch:
    """A batch of one study, scaled, on the model's device."""
    task = contract.task
    names = detail.regions if task.target == "regions" else ()
    counts = model.token_counts
    encoder = PromptEncoder(model.tokenizer, counts, task.identity, task.max_length, task.instruction_text)
    samples = StudySamples(
        [Entry(study, names, ("",) * max(1, len(names)))],
        _OneScan(study, detail),
        task.views,
        encoder,
        shuffled=task.order == "shuffled",
        with_target=False,
    )
    batch = collate([samples.sample(0, 0)], counts, encoder.pad_id)
    return batch.to(model.device).scaled(task.views.window)
