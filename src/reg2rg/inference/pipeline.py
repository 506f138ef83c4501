"""From one scan and its region masks to a report, without a data set or a store."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.report import Paragraph, Report, parse_report
from reg2rg.core.types import LabelMap, RegionFiles, RegionVolume, Study
from reg2rg.data.batch import Batch, collate
from reg2rg.data.prompt import PromptEncoder
from reg2rg.data.samples import Entry, StudySamples
from reg2rg.pretrained.contract import InputContract
from reg2rg.pretrained.input_adapter import conform
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_study, read_volume
from reg2rg.store.crop import Detail, crop_to_foreground
from reg2rg.store.views import ALL_VIEWS, StudyViews, Views
from reg2rg.training.module import Reg2RG

log = logging.getLogger(__name__)

Masks = str | Path | Mapping[str, str | Path] | LabelMap
_NIFTI = (".nii.gz", ".nii")
_ALL = "scan"


def report_on(
    scan: str | Path,
    masks: Masks | None,
    model: Reg2RG,
    *,
    mask_grid: Literal["header", "scan"] = "header",
    min_slices: int = 16,
) -> Report:
    """Report on one scan: what ``reg2rg predict`` writes for it, from the files themselves.

    Scan and masks are brought to the model's input contract: orientation, spacing, window and size of views. The order
    of the regions in the prompt follows from the scan's file name, as it does from a study's id.

    Args:
        scan: CT in Hounsfield units, NIfTI.
        masks: one of: a pattern such as ``"masks/{region}.nii.gz"``; a folder with one file a region; a mapping from
            region to file; one file of labels, such as TotalSegmentator's ``--ml`` writes, as a path or as a `LabelMap`
            with labels of your own. ``None`` for a model that sees the whole scan alone.
        model: from `Reg2RG.from_pretrained` or `Reg2RG.from_checkpoint`.
        mask_grid: see `ReadOptions`.
        min_slices: fewest axial slices.

    Returns:
        the report. One of a model without regions is a single paragraph of region ``""``.

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
    options = ReadOptions(min_slices=min_slices, hu=contract.hu, mask_grid=mask_grid)
    if contract.target == "regions":
        if masks is None:
            raise ConfigError("report_on: the model reports region by region, and masks is None. Fix: give the masks")
        name = _stem(scan)
        study = Study(name, name, "test", scan, _located(masks, contract.regions))
        source = read_study(study, contract.regions, options)
    else:
        volume, notes = read_volume(scan, options)
        source = RegionVolume(volume, {_ALL: np.ones(volume.array.shape, dtype=bool, order="F")}, notes)
    for note in source.notes:
        log.info("%s: %s", scan, note)
    batch = _batch(model, contract, _stem(scan), source)
    with model.reporter.llm.merged():
        [answer] = model.reporter.generate(batch, model.decoding)
    if answer.truncated:
        log.warning("%s: the report was stopped by its length or by a loop, not by its own end", scan)
    if contract.target != "regions":
        return Report((Paragraph(0, "", answer.text),))
    return parse_report(answer.text, answer.regions, contract.identity)


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
        return views.compute(self.detail, regions, want)


def _batch(model: Reg2RG, contract: InputContract, study: str, source: RegionVolume) -> Batch:
    """A batch of one study, scaled, on the model's device."""
    conformed = conform(source, contract.orientation, contract.spacing)
    for note in conformed.notes[len(source.notes) :]:
        log.info("%s: %s", study, note)
    detail = crop_to_foreground(conformed)
    names = detail.regions if contract.target == "regions" else ()
    settings = (model.run_config or {}).get("data", {})
    counts = model.token_counts
    encoder = PromptEncoder(
        model.tokenizer, counts, contract.identity, settings.get("max_length", 2048), contract.instruction
    )
    samples = StudySamples(
        [Entry(study, names, ("",) * max(1, len(names)))],
        _OneScan(study, detail),
        contract.view_settings,
        encoder,
        shuffled=settings.get("order", "shuffled") == "shuffled",
        with_target=False,
    )
    batch = collate([samples.sample(0, 0)], counts, encoder.pad_id)
    return batch.to(model.device).scaled(contract.window)


def _located(masks: Masks, regions: RegionSet) -> RegionFiles | LabelMap:
    """Where the masks are.

    Raises:
        ConfigError: nothing there, or files of no region of the model.
    """
    if isinstance(masks, LabelMap):
        return masks
    if isinstance(masks, Mapping):
        return RegionFiles({name: Path(path).expanduser() for name, path in masks.items()})
    text, path = str(masks), Path(masks).expanduser()
    if "{region}" in text:
        return RegionFiles(_by_pattern(str(path), regions))
    if path.is_dir():
        return RegionFiles(_in_folder(path, regions))
    if not path.is_file():
        raise ConfigError(
            f"masks {path}: not there (expected a folder, a file of labels, or a pattern as "
            '"masks/{region}.nii.gz"). Fix: the path'
        )
    labels = regions.from_totalsegmentator()
    if not labels:
        raise ConfigError(
            f"masks {path}: one file of labels, but region set '{regions.name}' says no label for any of its regions. "
            "Fix: give a LabelMap with the file and region -> labels, or a file a region"
        )
    if without := regions.without_source():
        log.info("%s: TotalSegmentator has no labels for %s; they are left out", path, ", ".join(without))
    return LabelMap(path, labels)


def _by_pattern(pattern: str, regions: RegionSet) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for region in regions:
        files = [Path(pattern.replace("{region}", word)) for word in (region.name, *region.aliases)]
        if there := [file for file in files if file.is_file()]:
            found[region.name] = there[0]
    if not found:
        raise ConfigError(
            f"masks {pattern}: no file for any region. Looked for: {', '.join(regions.names)}. Fix: the pattern, or "
            "give a mapping from region to file"
        )
    return found


def _in_folder(folder: Path, regions: RegionSet) -> dict[str, Path]:
    files = {_stem(file): file for file in sorted(folder.iterdir()) if file.name.endswith(_NIFTI)}
    unknown = [name for name in files if name not in regions]
    if unknown or not files:
        held = f"{', '.join(unknown[:6])}{', ...' if len(unknown) > 6 else ''}" if unknown else "no NIfTI file"
        raise ConfigError(
            f"masks {folder}: holds {held}, which the model does not know as regions "
            f"(it knows {', '.join(regions.names)}). "
            'Fix: give a pattern as "folder/{region}.nii.gz", or a mapping from region to file'
        )
    return files


def _stem(path: Path) -> str:
    return next((path.name.removesuffix(end) for end in _NIFTI if path.name.endswith(end)), path.stem)
