"""The report for people: a heading a region with its paragraph, flat, which every reader shows (TID 2000)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reg2rg.inference.exporters.base import EXPORTERS, Exporter
from reg2rg.inference.exporters.dicom.content import (
    FINDING_SITE,
    REVIEW,
    TITLE,
    code,
    container,
    dcm,
    document,
    observer,
    remarks,
    text,
)
from reg2rg.inference.exporters.dicom.objects import clean, finish, write
from reg2rg.inference.exporters.dicom.source import SourceSeries, refusal, source_series
from reg2rg.inference.result import ReportResult
from reg2rg.scans.base import ReadOptions

_ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
_FINDINGS, _FINDING = dcm("121070", "Findings"), dcm("121071", "Finding")
_PROCEDURE, _DESCRIPTION = dcm("121064", "Current Procedure Descriptions"), dcm("121065", "Procedure Description")


@EXPORTERS.register
class TextSR(Exporter):
    """A DICOM structured report for people: the paragraphs under their regions, and how they came about."""

    def refusal(self, scan: Path, regions: bool, read: ReadOptions) -> str:
        """No DICOM."""
        return refusal(scan, read, "TextSR", on_grid=False)

    def write(self, result: ReportResult, out: Path) -> list[Path]:
        """Write ``<study>.text.dcm``.

        Raises:
            ConfigError: see `refusal`.
            DataFault: the series cannot be read any more.
        """
        source = source_series(result, "TextSR", on_grid=False)
        return [write(text_report(result, source), out / f"{result.study.id}.text.dcm")]


def text_report(result: ReportResult, source: SourceSeries) -> Any:
    """The data set."""
    sections = [container(_PROCEDURE, [text(_DESCRIPTION, line) for line in remarks(result)])]
    for paragraph in result.report.paragraphs:
        if said := clean(paragraph.text):
            site = [code(FINDING_SITE, result.code(paragraph.region))] if paragraph.region else []
            mark = result.mark(paragraph.region)
            review = [text(REVIEW, clean(mark))] if mark else []
            sections.append(container(_FINDINGS, [*site, text(_FINDING, said), *review]))
    root = container(TITLE, [*observer(result), *sections], template="2000")
    return finish(document(result, source, _ENHANCED_SR, "Report, preliminary", 8011, root))
