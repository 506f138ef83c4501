"""A result as one JSON file: everything but the voxels.

```
schema      "reg2rg.report/1"; the number rises when a key changes its meaning or goes, not when one is added
study, image, text
decoding    "free", "constrained" or "forced": the names of regions were given to the decoder
paragraphs  [{slot, region, text}] in the order of the text; region "" for a report without regions. Unless decoding was
            free also {referring: name of the region set -> probability, forced, truncated}, see
            `reg2rg.core.report.Written`
order       of paragraphs that were written independently, else null: {tokens, rounding, margin (null where tokens were
            drawn), holds}, see `reg2rg.core.report.OrderCertificate`
others      key -> text of regions that the model was not asked for, and of no region ("other"); empty without a tail
faults      {invalid, duplicate, missing} of the text, see `reg2rg.core.report.Report`
asked       regions in slot order
absent      region -> why the model was not asked for it
regions     region -> {volume_ml, box_mm: [lowest, highest corner in RAS mm], file or
            files, labels (of a label map, else null), measured: see `reg2rg.store.attributes.RegionAttributes`,
            null for a region that was not}
values      "HU", or "not HU": of pictures, MR or features, of which nothing is measured
measured    {body_extent_mm, cardiothoracic_ratio} or null
grid        {stored, ras} -> {shape, affine: voxel indices -> RAS mm}; boxes and volumes are of the masks on "ras";
            null for a report on features, where regions is empty
findings    what the model's head told, or null: {operating_point, cued, omissions: {alpha, caveat} or null, regions:
            region -> {probabilities: label -> share, detected, review: whether the paragraph may leave a finding out
            (null without a calibration), wanting: which}, review: regions to review}
made_by     {versions, model, masks: {name, version, source, for_measurements} or null, options, notes, truncated};
            not for_measurements: volumes and boxes are those of masks for trials
```
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from reg2rg.core.files import write_json
from reg2rg.core.types import Grid, LabelMap, RegionFiles
from reg2rg.evaluation.records import as_facts, told_decoding
from reg2rg.inference.exporters.base import EXPORTERS, Exporter
from reg2rg.inference.identity import deidentified
from reg2rg.inference.result import ReportResult
from reg2rg.scans.intensity import NOT_HU
from reg2rg.store.attributes import Attributes

SCHEMA = "reg2rg.report/1"


@EXPORTERS.register
class JSON(Exporter):
    """One JSON file a study, with everything but the voxels: see `reg2rg.inference.exporters.json_file`.

    Args:
        identified: keep the paths of scan and masks, which may name the patient.
    """

    def __init__(self, identified: bool = False) -> None:
        self.identified = identified

    def write(self, result: ReportResult, out: Path) -> list[Path]:
        """Write ``<study>.json``."""
        path = out / f"{result.study.id}.json"
        write_json(path, as_json(result if self.identified else deidentified(result)))
        return [path]


def as_json(result: ReportResult) -> dict[str, Any]:
    """The file's content."""
    report, measured = result.report, result.attributes
    facts = {one.slot: as_facts(one) for one in result.written}
    return {
        "schema": SCHEMA,
        "study": result.study.id,
        "image": str(result.study.image),
        "text": result.text,
        "decoding": told_decoding(result.written),
        "paragraphs": [asdict(paragraph) | facts.get(paragraph.slot, {}) for paragraph in report.paragraphs],
        "order": None if result.order is None else asdict(result.order) | {"holds": result.order.holds},
        "others": dict(report.others),
        "faults": {name: list(getattr(report, name)) for name in ("invalid", "duplicate", "missing")},
        "asked": list(result.asked),
        "absent": dict(result.absent),
        "regions": {region: _region(result, region) for region in result.masks},
        "values": "HU" if result.made_by.options.measures else NOT_HU,
        "measured": None if measured is None else _without_regions(measured),
        "grid": None if result.source is None else {"stored": _grid(result.stored_grid), "ras": _grid(result.grid)},
        "findings": None if result.findings is None else result.findings.plain(),
        "made_by": asdict(result.made_by),
    }


def _region(result: ReportResult, region: str) -> dict[str, Any]:
    low, high = result.box_mm(region)
    of_all = {} if result.attributes is None else result.attributes.regions
    attributes = asdict(of_all[region]) if region in of_all else None
    measured = {"volume_ml": result.volume_ml(region), "box_mm": [list(low), list(high)], "measured": attributes}
    masks = result.study.masks
    if isinstance(masks, LabelMap):
        return measured | {"file": str(masks.file), "labels": list(masks.labels.get(region, ()))}
    parts = masks.parts().get(region, ()) if isinstance(masks, RegionFiles) else ()
    files = [str(part) for part in parts]
    return measured | {"file": files[0] if len(parts) == 1 else files or None, "labels": None}


def _without_regions(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in asdict(attributes).items() if name != "regions"}


def _grid(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}
