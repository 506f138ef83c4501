"""Content items of structured reports, and what both of our reports begin with: who speaks, of what, how sure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reg2rg import __version__
from reg2rg.core.codes import Code
from reg2rg.inference.exporters.dicom.objects import MADE_BY, clean, coded, item, references, sequence, start, uid
from reg2rg.inference.exporters.dicom.source import SourceSeries
from reg2rg.inference.result import ReportResult

TITLE = Code("18748-4", "Diagnostic Imaging Report", "LN")
"""Of both reports. Those of TID 1500 are only examples; OHIF takes 126000 for what it drew itself and shows no text."""
FINDING_SITE = Code("363698007", "Finding Site")
COMMENT = Code("121106", "Comment", "DCM")
REVIEW = Code.private("Review")
_DEVICE = Code("121007", "Device", "DCM")
_LONGEST_DS = 16


def dcm(value: str, meaning: str) -> Code:
    """A code of DICOM's own."""
    return Code(value, meaning, "DCM")


def container(name: Code, items: Iterable[Any], template: str = "", relationship: str = "CONTAINS") -> Any:
    """A heading with what stands under it."""
    found = _item("CONTAINER", name, relationship, ContinuityOfContent="SEPARATE", ContentSequence=sequence(items))
    if template:
        found.ContentTemplateSequence = sequence([item(MappingResource="DCMR", TemplateIdentifier=template)])
    return found


def text(name: Code, value: str, relationship: str = "CONTAINS") -> Any:
    """A text of any length."""
    return _item("TEXT", name, relationship, TextValue=value)


def code(name: Code, value: Code, relationship: str = "CONTAINS") -> Any:
    """A coded value."""
    return _item("CODE", name, relationship, ConceptCodeSequence=coded(value))


def uid_reference(name: Code, value: str, relationship: str = "CONTAINS") -> Any:
    """A UID."""
    return _item("UIDREF", name, relationship, UID=value)


def number(name: Code, value: float, unit: Code, derivation: Code | None = None) -> Any:
    """A measured value, as text of 16 characters and exactly."""
    measured = item(NumericValue=_decimal(value), FloatingPointValue=value, MeasurementUnitsCodeSequence=coded(unit))
    found = _item("NUM", name, "CONTAINS", MeasuredValueSequence=sequence([measured]))
    if derivation is not None:
        how = _item("CODE", dcm("121401", "Derivation"), "HAS CONCEPT MOD", ConceptCodeSequence=coded(derivation))
        found.ContentSequence = sequence([how])
    return found


def segment(name: Code, segmentation: Any, segment_number: int) -> Any:
    """A segment of a SEG."""
    image = item(
        ReferencedSOPClassUID=segmentation.SOPClassUID,
        ReferencedSOPInstanceUID=segmentation.SOPInstanceUID,
        ReferencedSegmentNumber=segment_number,
    )
    return _item("IMAGE", name, "CONTAINS", ReferencedSOPSequence=sequence([image]))


def observer(result: ReportResult) -> list[Any]:
    """Who speaks: a program, by its name, its version and its model (TID 1001, 1004)."""
    model = result.made_by.model
    said = {
        dcm("121013", "Device Observer Name"): MADE_BY,
        dcm("121014", "Device Observer Manufacturer"): MADE_BY,
        dcm("121015", "Device Observer Model Name"): f"{MADE_BY} {__version__}",
        dcm("121016", "Device Observer Serial Number"): model,
    }
    return [
        code(dcm("121005", "Observer Type"), _DEVICE, "HAS OBS CONTEXT"),
        uid_reference(dcm("121012", "Device Observer UID"), uid("device", __version__, model), "HAS OBS CONTEXT"),
        *(text(name, value, "HAS OBS CONTEXT") for name, value in said.items() if value),
    ]


def document(
    result: ReportResult,
    source: SourceSeries,
    sop_class: str,
    what: str,
    number_: int,
    root: Any,
    further: Sequence[Any] = (),
) -> Any:
    """A structured report: unverified, preliminary, and partial where the model was stopped or left a region out.

    Args:
        result: what is written.
        source: the CT, which is evidence.
        sop_class: UID.
        what: SeriesDescription.
        number_: SeriesNumber.
        root: the container of all content.
        further: data sets that the content refers to.
    """
    found = start(result, source, sop_class, "SR", what, number_)
    whole = not (result.made_by.truncated or result.report.missing)
    found.CompletionFlag, found.VerificationFlag = "COMPLETE" if whole else "PARTIAL", "UNVERIFIED"
    found.PreliminaryFlag = "PRELIMINARY"
    found.ReferencedPerformedProcedureStepSequence = found.PerformedProcedureCodeSequence = sequence([])
    evidence = [_evidence(source.header.SeriesInstanceUID, references(source.slices))]
    for one in further:
        self_reference = item(ReferencedSOPClassUID=one.SOPClassUID, ReferencedSOPInstanceUID=one.SOPInstanceUID)
        evidence.append(_evidence(one.SeriesInstanceUID, sequence([self_reference])))
    study = item(StudyInstanceUID=found.StudyInstanceUID, ReferencedSeriesSequence=sequence(evidence))
    found.CurrentRequestedProcedureEvidenceSequence = sequence([study])
    for element in root:
        if element.keyword != "RelationshipType":
            found.add(element)
    return found


def remarks(result: ReportResult) -> list[str]:
    """What whoever reads the report has to know of how it came about."""
    made_by = result.made_by
    said = ["Written by a program and not verified by a physician."]
    if made_by.masks is not None and not made_by.masks.for_measurements:
        said.append(f"Volumes and HU are not for measurements: the masks were made by {made_by.masks.name}.")
    if made_by.truncated:
        said.append("The report was stopped by its length or by a loop, not by its own end.")
    if not any(clean(paragraph.text) for paragraph in result.report.paragraphs):
        said.append("The model wrote no text.")
    if result.findings is not None:
        said += [result.findings.promise] if result.findings.promise else []
    said += [
        f"No paragraph on {region}: the model wrote none. {result.mark(region)}".rstrip()
        for region in result.report.missing
    ]
    empty = [part.region for part in result.report.paragraphs if not clean(part.text)]
    said += [f"No text on {region}: the model wrote none. {mark}" for region in empty if (mark := result.mark(region))]
    said += [f"Not reported on: {region} ({why})." for region, why in result.absent.items()]
    return [clean(line) for line in said]


def _evidence(series: str, instances: Any) -> Any:
    return item(SeriesInstanceUID=series, ReferencedSOPSequence=instances)


def _item(kind: str, name: Code, relationship: str, **values: Any) -> Any:
    return item(RelationshipType=relationship, ValueType=kind, ConceptNameCodeSequence=coded(name), **values)


def _decimal(value: float) -> str:
    """A DS: the shortest form that is the same number, or the closest one of 16 characters."""
    digits = (f"{value:.{count}g}" for count in (17, 16, 15, 14, 13, 12, 11, 10, 9, 8))
    short = repr(float(value)).removesuffix(".0")
    return short if len(short) <= _LONGEST_DS else next(form for form in digits if len(form) <= _LONGEST_DS)
