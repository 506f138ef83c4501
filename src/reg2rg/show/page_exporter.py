"""A result as one HTML page to look at: slices with the regions outlined, each paragraph tied to its own."""

from __future__ import annotations

from pathlib import Path

from reg2rg.inference.exporters.base import EXPORTERS, Exporter
from reg2rg.inference.result import ReportResult
from reg2rg.show.case_page import PageStudy, write_page
from reg2rg.show.slices import draw_study


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
        facts |= {f"no mask of {region}": reason for region, reason in result.absent.items()}
        facts |= {f"note {number}": note for number, note in enumerate(made_by.notes, 1)}
        facts.pop("reg2rg", None)  # the page says it
        # A report without regions is one paragraph of the region without a name.
        study = PageStudy(result.study.id, result.asked or ("",), result.report, {}, images)
        write_page(path, title=f"Report on {result.study.id}", studies=[study], tables=[], curves="", facts=facts)
        return [path]
