"""The report as a PDF in a DICOM file, for archives whose viewers show nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.ft2font import FT2Font, LoadFlags

from reg2rg import __version__
from reg2rg.core.errors import ConfigError
from reg2rg.inference.exporters.base import EXPORTERS, Exporter
from reg2rg.inference.exporters.dicom.content import TITLE, remarks
from reg2rg.inference.exporters.dicom.objects import MADE_BY, clean, coded, finish, references, start, write
from reg2rg.inference.exporters.dicom.source import SourceSeries, refusal, source_series
from reg2rg.inference.result import ReportResult
from reg2rg.scans.base import ReadOptions

_ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_PAGE, _MARGIN = (595.0, 842.0), 56.0  # points: A4, 2 cm
_PLACEHOLDER = "Last Resort"  # boxes with the numbers of letters
_LEADING = 1.45  # of the size
_HEAD, _REGION, _TEXT, _SMALL, _REVIEW = (17.0, True), (11.0, True), (10.0, False), (8.0, False), (9.0, True)
Style = tuple[float, bool]
"""Size in points; bold."""


@EXPORTERS.register
class PDF(Exporter):
    """The report as a PDF in a DICOM file: paragraphs, measured values, how it came about."""

    def refusal(self, scan: Path, regions: bool, read: ReadOptions) -> str:
        """No DICOM."""
        return refusal(scan, read, "PDF", on_grid=False)

    def write(self, result: ReportResult, out: Path) -> list[Path]:
        """Write ``<study>.pdf.dcm``.

        Raises:
            ConfigError: see `refusal`; and where no font of this machine has the letters of the text.
            DataFault: the series cannot be read any more.
        """
        source = source_series(result, "PDF", on_grid=False)
        return [write(encapsulated(result, source), out / f"{result.study.id}.pdf.dcm")]


def encapsulated(result: ReportResult, source: SourceSeries) -> Any:
    """The data set."""
    document = pdf(result)
    found = start(result, source, _ENCAPSULATED_PDF, "DOC", "Report, preliminary (PDF)", 8013)
    found.ConversionType, found.AcquisitionDateTime, found.BurnedInAnnotation = "WSD", "", "NO"
    found.DocumentTitle, found.ConceptNameCodeSequence, found.VerificationFlag = "Report", coded(TITLE), "UNVERIFIED"
    found.SourceInstanceSequence = references(source.slices)
    found.MIMETypeOfEncapsulatedDocument = "application/pdf"
    found.EncapsulatedDocumentLength = len(document)  # without the byte that makes it even
    found.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    return finish(found)


def pdf(result: ReportResult) -> bytes:
    """The report on pages of A4, without the patient's name. The same result gives the same bytes.

    Raises:
        ConfigError: no font has the letters.
    """
    lines = list(_lines(result))
    families = _families("".join(text for _, text in lines))
    pages: list[list[tuple[float, Style, str]]] = [[]]
    height = _PAGE[1] - _MARGIN
    for style, text in lines:
        for part in _wrapped(text, style, families):
            height -= style[0] * _LEADING
            if height < _MARGIN:
                pages.append([])
                height = _PAGE[1] - _MARGIN - style[0] * _LEADING
            pages[-1].append((height, style, part))
    stream = io.BytesIO()
    settings = {"Creator": f"{MADE_BY} {__version__}", "Producer": "matplotlib", "CreationDate": None}
    with _rc_fonts(), PdfPages(stream, metadata=settings) as file:
        for page in pages:
            file.savefig(_drawn(page, families))
    return stream.getvalue()


def _lines(result: ReportResult) -> Iterator[tuple[Style, str]]:
    """Everything that is written, line by line before they are wrapped."""
    yield _HEAD, "Report, preliminary"
    for line in remarks(result):
        yield _SMALL, line
    for paragraph in result.report.paragraphs:
        if said := clean(paragraph.text):
            yield _SMALL, ""
            if paragraph.region:
                yield _REGION, paragraph.region[0].upper() + paragraph.region[1:]
            for line in said.splitlines():
                yield _TEXT, line
            if mark := result.mark(paragraph.region):
                yield _REVIEW, clean(mark)
    if result.attributes is not None:
        yield _SMALL, ""
        yield _REGION, "Measured"
        for region, found in result.attributes.regions.items():
            cut = "; the scan ends in it" if found.cut else ""
            hu = f"{found.mean_hu:.0f} HU (sd {found.sd_hu:.0f})"
            yield _TEXT, f"{region}: {found.volume_ml:.1f} ml, {hu}{cut}"
    yield _SMALL, ""
    made_by = result.made_by
    yield _SMALL, f"{MADE_BY} {__version__}, model {made_by.model}"
    if made_by.masks is not None:
        yield _SMALL, f"Masks: {made_by.masks.name} {made_by.masks.version}".rstrip()


def _rc_fonts() -> Any:
    """Fonts as outlines with their letters, so that the text can be searched and copied."""
    from matplotlib import rc_context

    return rc_context({"pdf.fonttype": 42, "text.parse_math": False})


def _drawn(page: Sequence[tuple[float, Style, str]], families: tuple[str, ...]) -> Figure:
    figure = Figure(figsize=(_PAGE[0] / 72, _PAGE[1] / 72))
    for height, (size, bold), text in page:
        weight = "bold" if bold else "normal"
        place = _MARGIN / _PAGE[0], height / _PAGE[1]
        figure.text(*place, text, size=size, weight=weight, family=list(families), parse_math=False)
    return figure


def _families(text: str) -> tuple[str, ...]:
    """Fonts that together have all letters: matplotlib's own, and the first one installed that has the rest."""
    own = "DejaVu Sans"
    missing = {letter for letter in text if letter.isprintable()} - _letters(own)
    if not missing:
        return (own,)
    for name in sorted({entry.name for entry in fontManager.ttflist if not entry.name.startswith(_PLACEHOLDER)}):
        if missing <= _letters(name):
            return own, name
    shown = ", ".join(f"{letter} (U+{ord(letter):04X})" for letter in sorted(missing)[:3])
    raise ConfigError(
        f"PDF: no font of this machine has {shown}. Fix: install one, such as Noto Sans CJK, or leave PDF out of the "
        "formats; TextSR holds any text"
    )


@cache
def _letters(family: str) -> frozenset[str]:
    return frozenset(map(chr, _font(family).get_charmap()))


@cache
def _font(family: str, bold: bool = False) -> FT2Font:
    return get_font(findfont(FontProperties(family=family, weight="bold" if bold else "normal")))


@cache
def _advance(letter: str, families: tuple[str, ...], bold: bool) -> float:
    """Width of a letter, in its size."""
    family = next((name for name in families if letter in _letters(name)), families[0])
    font = _font(family, bold)
    font.set_size(100, 72)
    return float(font.load_char(ord(letter), flags=LoadFlags.NO_HINTING).linearHoriAdvance) / 65536 / 100


def _wrapped(text: str, style: Style, families: tuple[str, ...]) -> Iterator[str]:
    """Lines that fit the page, broken behind a blank, or anywhere where there is none."""
    size, bold = style
    room, width, start, blank = (_PAGE[0] - 2 * _MARGIN) / size, 0.0, 0, 0
    text = text.replace("\t", "    ")
    for place, letter in enumerate(text):
        width += _advance(letter, families, bold)
        if letter == " ":
            blank = place + 1
        elif width > room and place > start:
            end = blank if blank > start else place
            yield text[start:end].rstrip()
            start = end
            width = sum(_advance(one, families, bold) for one in text[start : place + 1])
    yield text[start:]
