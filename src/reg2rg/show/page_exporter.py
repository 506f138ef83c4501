"""A result as one HTML page to look at: slices with the regions outlined, each paragraph tied to its own."""

from __future__ import annotations

from pathlib import Path

from reg2rg.inference.exporters.base import EXPORTERS, Exporter
from reg2rg.inference.result import ReportResult
from reg2rg.scans.segmenters import MadeBy
from reg2rg.show.case_page import PageStudy, write_page, written_notes
from reg2rg.show.slices import draw_study
from reg2rg.show.table import Column, Table, make_table
from reg2rg.store.attributes import Attributes


@EXPORTERS.register
class Page(Exporter):
    """One self-contained HTML page a study, which asks for nothing from the network.

    Args:
        max_pixels: larger slices are thinned to at most this many pixels a side.
    """

    def __init__(self, max_pixels: int = 320) -> None:
        self.max_pixels = max_pixels

    def write(self, result: ReportResult, out: Path) -> list[Path]:
        """Write ``<study>.html``."""
        path = out / f"{result.study.id}.html"
        images = draw_study(result.source, self.max_pixels)
        made_by = result.made_by
        facts = {"scan": str(result.study.image), "model": made_by.model, **made_by.versions}
        if made_by.masks is not None:
            facts["masks"] = str(made_by.masks)
        notes = [_made_by(made_by.masks)] if made_by.masks is not None and not made_by.masks.for_measurements else []
        notes += [f"Not reported on: {region}. {reason}." for region, reason in result.absent.items()]
        notes += written_notes(result.written)
        facts |= {f"note {number}": note for number, note in enumerate(made_by.notes, 1)}
        facts.pop("reg2rg", None)  # the page says it
        # A report without regions is one paragraph of the region without a name.
        study = PageStudy(result.study.id, result.asked or ("",), result.report, {}, images, written=result.written)
        tables = [] if result.attributes is None else [measured_table(result.attributes, made_by.masks)]
        write_page(
            path,
            title=f"Report on {result.study.id}",
            studies=[study],
            tables=tables,
            curves="",
            facts=facts,
            notes=notes,
            tabs=("Report", "Measured", "How it was made"),
        )
        return [path]


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
