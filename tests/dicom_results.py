"""Results of DICOM studies for tests of what is written from them: a chest on disk, masks and paragraphs at will."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dicom_files import chest, lps, points, save, slices
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.report import Paragraph, Report
from reg2rg.core.types import RegionVolume, Study
from reg2rg.inference.result import Provenance, ReportResult
from reg2rg.models.findings import RegionFindings, StudyFindings
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.boxed import BoxedMasks
from reg2rg.scans.grid import Orientation
from reg2rg.scans.read import read_scan
from reg2rg.scans.segmenters import MadeBy
from reg2rg.store.attributes import measure
from reg2rg.store.crop import crop_to_foreground

SHAPE = (64, 60, 24)
SEGMENTER = MadeBy("TotalSegmentator", "2.18.0")
TEN = load_region_set().names


TOLD = StudyFindings(
    {
        "lung": RegionFindings({"Lung nodule": 0.82, "Emphysema": 0.07}, ("Lung nodule",), True, ("Lung nodule",)),
        "heart": RegionFindings({"Cardiomegaly": 0.31}, (), False),
    },
    cued=True,
    alpha=0.1,
)
"""What a head may tell of two regions: the paragraph on the lung is to be reviewed."""


@dataclass(frozen=True)
class Series:
    """A CT on disk: its data sets by position, and (columns, rows, slices) HU."""

    path: Path
    slices: list[Any]
    hu: np.ndarray


def series(folder: Path, affine: np.ndarray | None = None, shape=SHAPE, **tags: Any) -> Series:
    """Write a chest as slices."""
    affine = lps() if affine is None else affine
    hu = chest(points(shape, affine))
    datasets = slices(hu, affine, **tags)
    return Series(save(datasets, folder), datasets, hu)


def boxes(names=TEN, shape=SHAPE) -> dict[str, np.ndarray]:
    """A box a region, none over another; each leaves slices out, and some have a gap."""
    found = {}
    for place, name in enumerate(names):
        mask = np.zeros(shape, bool)
        mask[6 * place : 6 * place + 5, 10:40, place : place + 9] = True
        mask[:, :, place + 3 : place + 5] &= place % 2 == 0
        mask[6 * place, 11, place + 2] = False
        found[name] = mask
    return found


def result(
    scan: Path,
    masks: Mapping[str, np.ndarray],
    texts: Mapping[str, str] | None = None,
    *,
    made_by: MadeBy | None = SEGMENTER,
    read: ReadOptions = ReadOptions(),  # noqa: B008 (frozen)
    regions: RegionSet | None = None,
    **changes: Any,
) -> ReportResult:
    """A report on a DICOM study.

    Args:
        scan: the study.
        masks: region -> (columns, rows, slices), as the series lies.
        texts: region -> paragraph; a sentence each by default.
        made_by: of the masks.
        read: how the scan is read.
        regions: give the codes.
        changes: to `Provenance`.
    """
    texts = {name: f"The {name} is unremarkable." for name in masks} if texts is None else texts
    found = read_scan(scan, read)
    to_ras = Orientation.of(found.stored.affine).to_ras
    source = RegionVolume(
        found.volume,
        BoxedMasks.of({name: np.asfortranarray(to_ras(mask)) for name, mask in masks.items()}),
        found.notes,
        found.stored,
    )
    regions = load_region_set("radgenome_lobes") if regions is None else regions
    facts = {"versions": {"reg2rg": "0"}, "model": "0123456789abcdef", "options": read} | changes
    return ReportResult(
        study=Study(scan.name, scan.name, "test", scan),
        report=Report(tuple(Paragraph(slot, name, text) for slot, (name, text) in enumerate(texts.items()))),
        source=source,
        asked=tuple(texts),
        absent={"thyroid": "no mask of it"} if "thyroid" not in masks and masks else {},
        made_by=Provenance(masks=made_by if masks else None, **facts),
        attributes=measure(crop_to_foreground(source), regions) if masks else None,
        codes=regions.codes(),
    )
