"""The report for programs: volume, HU and segment of each region, its paragraph as comment (TID 1500, 1411)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reg2rg import __version__
from reg2rg.core.codes import Code
from reg2rg.inference.exporters.base import EXPORTERS
from reg2rg.inference.exporters.dicom.content import (
    COMMENT,
    FINDING_SITE,
    REVIEW,
    TITLE,
    code,
    container,
    dcm,
    document,
    number,
    observer,
    segment,
    text,
    uid_reference,
)
from reg2rg.inference.exporters.dicom.objects import MADE_BY, clean, finish, write
from reg2rg.inference.exporters.dicom.segmentation import (
    NOT_FOR_MEASUREMENTS,
    OnPixels,
    segmentations,
    segments_of,
    write_segmentations,
)
from reg2rg.inference.exporters.dicom.source import SourceSeries
from reg2rg.inference.result import ReportResult

_COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
_PROCEDURE = Code("77477000", "Computed tomography")
_ANATOMY = Code("91723000", "Anatomical Structure")
_CUBIC, _HOUNSFIELD = Code("cm3", "cubic centimeter", "UCUM"), Code("[hnsf'U]", "Hounsfield unit", "UCUM")
_VOLUME, _ATTENUATION = Code("118565006", "Volume"), dcm("112031", "Attenuation Coefficient")
_MEAN, _DEVIATION = Code("373098007", "Mean"), Code("386136009", "Standard Deviation")
_MEDIAN = Code("373099004", "Median")


@EXPORTERS.register
class MeasurementSR(OnPixels):
    """A DICOM structured report for programs: volume, HU and segment of each region, with the SEG it points into."""

    def write(self, result: ReportResult, out: Path) -> list[Path]:
        """Write ``<study>.measurements.dcm``, and the files of `SEG`.

        Raises:
            ConfigError: see `refusal`.
            DataFault: the series cannot be read any more.
        """
        source = self.source(result)
        found = segmentations(result, source)
        path = write(measurement_report(result, source, found), out / f"{result.study.id}.measurements.dcm")
        return [path, *write_segmentations(found, result, out)]


def measurement_report(result: ReportResult, source: SourceSeries, segmented: list[Any]) -> Any:
    """The data set.

    Args:
        result: with a region at least.
        source: the CT.
        segmented: its data sets of `segmentations`.
    """
    said = {paragraph.region: clean(paragraph.text) for paragraph in result.report.paragraphs}
    groups = [
        _group(result, source, region, place, said.get(region, "")) for region, place in segments_of(segmented).items()
    ]
    items = [
        *observer(result),
        code(dcm("121058", "Procedure reported"), _PROCEDURE, "HAS CONCEPT MOD"),
        container(dcm("126010", "Imaging Measurements"), groups),
    ]
    root = container(TITLE, items, template="1500")
    made_by = result.made_by.masks
    what = "Measurements, preliminary" if made_by is None or made_by.for_measurements else NOT_FOR_MEASUREMENTS
    return finish(document(result, source, _COMPREHENSIVE_SR, what, 8012, root, segmented), unicode=True)


def _group(result: ReportResult, source: SourceSeries, region: str, place: tuple[Any, int, str], said: str) -> Any:
    """One region (TID 1411)."""
    segmentation, segment_number, tracked = place
    items = [
        text(dcm("112039", "Tracking Identifier"), region, "HAS OBS CONTEXT"),
        uid_reference(dcm("112040", "Tracking Unique Identifier"), tracked, "HAS OBS CONTEXT"),
        code(dcm("121071", "Finding"), _ANATOMY),
        segment(dcm("121191", "Referenced Segment"), segmentation, segment_number),
        uid_reference(dcm("121232", "Source series for segmentation"), source.header.SeriesInstanceUID),
        code(FINDING_SITE, result.code(region)),
        text(dcm("111001", "Algorithm Name"), MADE_BY, "HAS CONCEPT MOD"),
        text(dcm("111003", "Algorithm Version"), __version__, "HAS CONCEPT MOD"),
    ]
    if (masks := result.made_by.masks) is not None:  # one text: tid1500reader keeps one
        how = f"masks made by {masks.name} {masks.version}".rstrip()
        how = how if masks.for_measurements else f"{NOT_FOR_MEASUREMENTS}; {how}"
        items.append(text(dcm("111002", "Algorithm Parameters"), how, "HAS CONCEPT MOD"))
    found = None if result.attributes is None else result.attributes.regions.get(region)
    items.append(number(_VOLUME, result.volume_ml(region) if found is None else found.volume_ml, _CUBIC))
    if found is not None:
        values = {_MEAN: found.mean_hu, _DEVIATION: found.sd_hu, _MEDIAN: float(found.percentiles_hu[2])}
        items += [number(_ATTENUATION, value, _HOUNSFIELD, derivation) for derivation, value in values.items()]
    if said:
        items.append(text(COMMENT, said))
    if result.findings is not None and (mark := result.mark(region)):
        items.append(text(REVIEW, clean(f"{mark} {result.findings.promise}")))
    return container(dcm("125007", "Measurement Group"), items, template="1411")
