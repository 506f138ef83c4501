"""From one scan and its region masks to a report, without a data set or a store."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from reg2rg.core.errors import ConfigError
from reg2rg.core.progress import Step
from reg2rg.core.task import Views
from reg2rg.core.types import LabelMap, Study
from reg2rg.inference.features import report_on_features
from reg2rg.inference.identity import pseudonym
from reg2rg.inference.inputs import chosen_series, inputs_of
from reg2rg.inference.one_study import OneStudy, Stages, provenance, run_of, written
from reg2rg.inference.result import ReportResult
from reg2rg.pretrained.contract import InputContract
from reg2rg.scans.base import Implausible, MaskGrid, ReadOptions
from reg2rg.scans.dicom.choose import Candidate
from reg2rg.scans.find_masks import MaskSource, find_masks, image_stem
from reg2rg.scans.masks import canonical
from reg2rg.scans.read import read_study
from reg2rg.scans.segmenters import SEGMENTERS, MadeBy, Segmentation, Segmenter, segmenter_named
from reg2rg.store.attributes import Attributes, measure
from reg2rg.store.crop import Detail, crop_to_foreground
from reg2rg.store.frame import conform
from reg2rg.store.views import StudyViews, compute_views
from reg2rg.training.module import Reg2RG

log = logging.getLogger(__name__)


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
        scan: CT in Hounsfield units, a file of any kind that `reg2rg.scans` has a reader for, or a DICOM study. For a
            model that sees features a file of them, as its ``data.read.grid`` says; `masks` is then their mask file.
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
        name: the study's id, which orders the regions. By default the scan's file name without its suffix; of a DICOM
            study a pseudonym made of the UID of the series that is read.
        step: is told what is being done.

    Returns:
        the report with the scan's grid, the masks and what was done. The report of a model without regions is a single
        paragraph of region ``""``.

    Raises:
        ConfigError: a model that knows no config, masks that are not there, regions that the model does not know, or a
            name that is a path.
        DataFault: a scan or mask that cannot be read, or is none.
    """
    contract = model.contract
    if contract is None:
        raise ConfigError(
            "report_on: the model knows no input contract (views, window, regions). Fix: load it with "
            "Reg2RG.from_pretrained or from_checkpoint, or tell it with model.describe(config)"
        )
    if name != Path(name).name or "\\" in name:
        raise ConfigError(f"name '{name}': files are named by it (expected no path). Fix: leave out the folders")
    scan = Path(scan).expanduser()
    stage = Stages(step)
    if contract.task.views.features:
        if segmenter is not None:
            raise ConfigError("report_on: a segmenter needs a scan, and the model sees features. Fix: give the masks")
        return report_on_features(scan, masks, model, contract, name or scan.name.partition(".")[0], stage)
    options = read_for(
        contract, ReadOptions(min_slices, "check", mask_grid, implausible, "keep", True, series, kernel, tilt, uneven)
    )
    stage("choosing", "looking at the scan")
    chosen = chosen_series(scan, options)
    name = name or name_of(scan, chosen)
    stage("segmenting", f"{'looking for the masks of' if segmenter is None else 'segmenting'} {name}")
    found = _segmentation(scan, masks, segmenter, contract, options)
    stage("reading", f"reading {name}")
    study = Study(name, name, "test", scan, None if found is None else found.masks)
    source = read_study(study, contract.task.region_set, options, needs_regions=found is not None)
    inputs = inputs_of(scan, chosen, None if found is None or segmenter is not None else found.masks)
    stage("measuring")
    views = contract.task.views
    native, conformed = crop_to_foreground(source), conform(source, views.orientation, views.spacing)
    detail = native if conformed is source else crop_to_foreground(conformed)
    attributes = measure(native, contract.task.region_set) if source.masks and options.measures else None
    for note in detail.notes:
        log.info("%s: %s", name, note)
    stage("writing", f"writing the report on {name}")
    answer, report = written(model, contract, name, detail.regions, _OneScan(detail, attributes))
    if found is not None:
        study = replace(study, masks=canonical(found.masks, contract.task.region_set))
    return ReportResult(
        study=study,
        report=report,
        source=source,
        asked=answer.regions,
        absent={} if found is None else _absent(detail, contract, found),
        made_by=provenance(model, None if found is None else found.made_by, options, detail.notes, answer),
        attributes=attributes,
        written=answer.written,
        order=answer.order,
        codes=contract.task.region_set.codes(),
        run=run_of(model, inputs, stage.end()),
        findings=answer.findings,
    )


def read_for(contract: InputContract, options: ReadOptions) -> ReadOptions:
    """How a model reads: HU and clipping are as it was trained, all else as it was asked for."""
    return replace(options, hu=contract.hu).for_views(contract.task.views)


def name_of(scan: Path, chosen: Candidate | None) -> str:
    """The id of a study that nobody named: its file's name, or a pseudonym of a DICOM series."""
    return image_stem(scan) if chosen is None else pseudonym(chosen.series.uid)


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


class _OneScan(OneStudy):
    """Views of one scan."""

    def __init__(self, detail: Detail, measured: Attributes | None) -> None:
        self.detail, self.measured = detail, measured

    def views(self, study: str, views: Views, regions: Sequence[str], want: Collection[str]) -> StudyViews:
        return compute_views(views, self.detail, regions, want)

    def attributes(self, study: str) -> Attributes:
        if self.measured is None:
            return super().attributes(study)
        return self.measured
