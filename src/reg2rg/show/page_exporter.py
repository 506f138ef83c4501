"""A result as one HTML page to look at: the scan with its regions, each paragraph tied to its own."""

from __future__ import annotations

import re
from pathlib import Path

from reg2rg.core.errors import ConfigError
from reg2rg.core.files import json_text
from reg2rg.core.types import PositiveFloat, PositiveInt
from reg2rg.inference.exporters.base import EXPORTERS, Exporter
from reg2rg.inference.exporters.json_file import as_json
from reg2rg.inference.identity import deidentified
from reg2rg.inference.result import ReportResult
from reg2rg.scans.intensity import NOT_HU
from reg2rg.scans.segmenters import MadeBy
from reg2rg.show.case_page import (
    Around,
    PageStudy,
    RegionRow,
    head_notes,
    room_for_volumes,
    write_page,
    written_notes,
)
from reg2rg.show.slices import draw_study
from reg2rg.show.table import Column, Table, make_table
from reg2rg.show.volume import draw_volume
from reg2rg.store.attributes import Attributes

_IMPLAUSIBLE = "masks look implausible: "


@EXPORTERS.register
class Page(Exporter):
    """One self-contained HTML page a study, which asks for nothing from the network.

    The scan is shown in three planes by a viewer that the page carries, thinned as far as the page's size wants; slices
    as plain pictures stand in for it where a browser has no WebGL 2, and on paper.

    Args:
        max_pixels: of the plain pictures, larger slices are thinned to at most this many pixels a side.
        max_mb: the page has about this many megabytes (10^6 bytes) at most.
        viewer: whether the page carries scan and viewer; without them it has the plain pictures alone.
        identified: keep the paths of scan and masks, which may name the patient.
    """

    def __init__(
        self, max_pixels: PositiveInt = 320, max_mb: PositiveFloat = 10.0, viewer: bool = True, identified: bool = False
    ) -> None:
        self.max_pixels, self.max_mb, self.viewer, self.identified = max_pixels, max_mb, viewer, identified

    def write(self, result: ReportResult, out: Path) -> list[Path]:
        """Write ``<study>.html``."""
        source = result.source
        if source is None:
            raise ConfigError(
                f"{result.study.id}: the format Page shows slices of a scan, and the report is on features. Fix: "
                "--formats JSON"
            )
        result = result if self.identified else deidentified(result)
        path = out / f"{result.study.id}.html"
        made_by = result.made_by
        images = draw_study(source, self.max_pixels, hu=made_by.options.measures)
        facts = {"scan": str(result.study.image), "model": made_by.model, **made_by.versions}
        if made_by.masks is not None:
            facts["masks"] = str(made_by.masks)
        notes = [_made_by(made_by.masks)] if made_by.masks is not None and not made_by.masks.for_measurements else []
        if not made_by.options.measures:
            notes.append(
                f"The scan's values are {NOT_HU}: nothing is measured in them, and windows of CT mean nothing."
            )
        for reason in dict.fromkeys(result.absent.values()):
            regions = [region for region, why in result.absent.items() if why == reason]
            notes.append(f"Not reported on: {', '.join(regions)}. {reason[:1].upper()}{reason[1:]}.")
        notes += [*written_notes(result.written), *head_notes([result.findings])]
        facts |= {f"note {number}": note for number, note in enumerate(made_by.notes, 1)}
        facts.pop("reg2rg", None)  # the page says it
        study = PageStudy(
            study=result.study.id,
            given=result.asked or ("",),  # a report without regions is one paragraph of the region without a name
            predicted=result.report,
            reference={},
            images=images,
            volume=draw_volume(source, room_for_volumes(1e6 * self.max_mb, [images])) if self.viewer else None,
            regions=region_rows(result),
            written=result.written,
            files={"json": json_text(as_json(result)), "txt": f"{result.marked_text}\n"},
            told=result.findings,
        )
        tables = [] if result.attributes is None else [measured_table(result.attributes, made_by.masks)]
        around = Around(tables=tables, facts=facts, notes=notes, tabs=("Report", "Measured", "How it was made"))
        write_page(path, title=f"Report on {result.study.id}", studies=[study], around=around)
        return [path]


def region_rows(result: ReportResult) -> tuple[RegionRow, ...]:
    """All regions of the model's set that have a mask or a reason for none: where the mask comes from, what is odd."""
    made = result.made_by.masks
    origin = "given" if made is None or made.name == "files" else f"made by {made.name}"
    measured = {} if result.attributes is None else result.attributes.regions
    rows = []
    for name in result.masks:
        doubts = [
            note for note in result.made_by.notes if note.startswith(_IMPLAUSIBLE) and _concerns(note, name, result)
        ]
        if name in measured and measured[name].cut:
            doubts.append("cut by an end of the scan")
        status = f"{origin}, implausible" if doubts and doubts[0].startswith(_IMPLAUSIBLE) else origin
        found = measured.get(name)
        rows.append(
            RegionRow(
                name=name,
                status=status,
                why="; ".join(doubt.removeprefix(_IMPLAUSIBLE) for doubt in doubts),
                volume_ml=result.volume_ml(name) if found is None else found.volume_ml,
                mean_hu=None if found is None else found.mean_hu,
                sd_hu=None if found is None else found.sd_hu,
            )
        )
    return (*rows, *(RegionRow(name, "absent", why, there=False) for name, why in result.absent.items()))


def _concerns(note: str, name: str, result: ReportResult) -> bool:
    """Whether a note on masks is about a region: those that it names, or all where it names none."""
    named = [region for region in result.masks if re.search(rf"\b{re.escape(region)}\b", note)]
    return not named or name in named


def _made_by(masks: MadeBy) -> str:
    return f"Not for measurements: the masks were made by {masks.name}."


def measured_table(attributes: Attributes, masks: MadeBy | None) -> Table:
    """What is measured of the regions, and whether it may be taken for measurements."""
    notes = []
    if masks is not None and not masks.for_measurements:
        notes.append(_made_by(masks))
    if attributes.cardiothoracic_ratio is not None:
        notes.append(f"Cardiothoracic ratio: {attributes.cardiothoracic_ratio:.2f}.")
    notes.append(
        "Air: below -500 HU. Calcium: 130 HU and more, contrast too. Sizes: left-right x back-front x bottom-top."
    )
    notes.append("Cut: the scan ends in the region, so that volume and size may be those of a part.")
    rows = [
        (
            region,
            found.volume_ml,
            found.mean_hu,
            found.sd_hu,
            found.percentiles_hu[2],
            f"{found.air:.1%}",
            f"{found.calcium:.1%}",
            " x ".join(f"{size:.0f}" for size in found.extent_mm),
            found.cut,
        )
        for region, found in attributes.regions.items()
    ]
    heads = ("region", "ml", "mean HU", "sd", "median", "air", "calcium", Column("size, mm", "words"), "cut")
    return make_table("measured", "Measured under the masks", heads, rows, notes)
