"""A result as a FHIR bundle: a preliminary DiagnosticReport with what it rests on, in the form of R4B or of R5.

```
Patient           an identifier alone: PatientID where the exporter is `identified`, else the study's id
Device            reg2rg and its version
ImagingStudy      of a DICOM scan: study, the series that was read, its instances; UIDs mapped unless `identified`
Observation       one a finding: what the keyword rules read in the whole text, and, as components, region by region;
                  with a head also its probability in each region, and a note where a paragraph may leave it out
Observation       one a region: volume; as components HU, shares of air and calcium, extent
DiagnosticReport  preliminary; the paragraphs as narrative and as plain text
```

A finding is present, absent (the text denies it) or in doubt; one that the text does not mention has no value, for the
reason ``unknown``. Numbers are those of the JSON file, digit by digit. Nothing in it is a date. The bundle is a
transaction of PUTs with ids made of the study's id: sent twice it changes nothing, a corrected report replaces the
first.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from reg2rg.core.files import write_json
from reg2rg.core.text import MOSTLY_FOREIGN, TextGate, foreign_share
from reg2rg.evaluation.labelers.keywords import Mention
from reg2rg.evaluation.labelers.rules import RuleLabeler
from reg2rg.inference.exporters.base import EXPORTERS, Exporter
from reg2rg.inference.exporters.fhir_check import (
    ABSENT_REASON,
    CATEGORY,
    DCM,
    LOINC,
    OBSERVATION_CATEGORY,
    SNOMED,
    UCUM,
    URI,
    require_sound,
)
from reg2rg.inference.identity import deidentified
from reg2rg.inference.inputs import DicomSeries
from reg2rg.inference.result import ReportResult
from reg2rg.store.attributes import AIR_BELOW, CALCIUM_FROM, RegionAttributes

Resource = dict[str, Any]

_ID = re.compile(r"[A-Za-z0-9\-.]{1,44}")
_VALUES = {"present": ("52101004", "Present"), "absent": ("2667000", "Absent")}
_AXES = ("left to right", "back to front", "bottom to top")


@EXPORTERS.register
class FHIR(Exporter):
    """A FHIR bundle a study: DiagnosticReport, ImagingStudy, Observations; see `reg2rg.inference.exporters.fhir`.

    Args:
        version: of FHIR.
        identified: the UIDs and the PatientID of the scan, for the hospital's own server; otherwise pseudonyms.
    """

    def __init__(self, version: Literal["R4B", "R5"] = "R4B", identified: bool = False) -> None:
        self.version, self.identified = version, identified

    def write(self, result: ReportResult, out: Path) -> list[Path]:
        """Write ``<study>.fhir.json``."""
        path = out / f"{result.study.id}.fhir.json"
        bundle = self.bundle(result)
        require_sound(bundle, self.version)
        write_json(path, bundle)
        return [path]

    def bundle(self, result: ReportResult) -> Resource:
        """The file's content."""
        shown = result if self.identified else deidentified(result)
        made = _Resources(fhir_id(shown.study.id), self.version)
        series = None if shown.run is None else shown.run.inputs.dicom
        patient = (series.patient if series is not None else "") or shown.study.id
        about = {"subject": made.add("Patient", "patient", {"identifier": [{"value": patient}]})}
        device = made.add("Device", "device", made.device(shown.made_by.versions.get("reg2rg", "")))
        study = None if series is None else made.add("ImagingStudy", "study", about | made.study(series))
        base = about | {"device": device} | ({} if study is None else {"derivedFrom": [study]})
        results = [made.add("Observation", *one) for one in _findings(shown, base)]
        results += [made.add("Observation", *one) for one in _measured(shown, base)]
        made.add("DiagnosticReport", "report", about | made.report(shown, study, results))
        return {"resourceType": "Bundle", "type": "transaction", "entry": made.entries}


def fhir_id(name: str) -> str:
    """A name as an id of FHIR: itself if it may be one, else ``id-`` and digits of its hash."""
    return name if _ID.fullmatch(name) else f"id-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


class _Resources:
    """Resources with their ids and addresses, in the form of one version."""

    def __init__(self, name: str, version: str) -> None:
        self.name, self.version = name, version
        self.entries: list[Resource] = []

    def add(self, kind: str, role: str, content: Resource) -> Resource:
        """Add a resource, and give a reference to it."""
        known = f"{self.name}-{role}"
        url = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'reg2rg/{kind}/{known}')}"
        resource = {"resourceType": kind, "id": known, **content}
        request = {"method": "PUT", "url": f"{kind}/{known}"}
        self.entries.append({"fullUrl": url, "resource": resource, "request": request})
        return {"reference": url, "type": kind}

    def device(self, version: str) -> Resource:
        """The program."""
        name = {"type": "user-friendly-name"}
        named = (
            {"deviceName": [{"name": "reg2rg", **name}]}
            if self.version == "R4B"
            else {"name": [{"value": "reg2rg", **name}]}
        )
        return named | {"version": [{"value": version or "unknown"}]}

    def study(self, series: DicomSeries) -> Resource:
        """The scan."""
        coding = _coding(DCM, "CT", "Computed Tomography")
        modality = coding if self.version == "R4B" else {"coding": [coding]}
        read = {
            "uid": series.series,
            "modality": modality,
            "numberOfInstances": len(series.instances),
            "instance": [
                {"uid": uid, "sopClass": _coding(URI, f"urn:oid:{kind}")} for uid, kind in series.instances.items()
            ],
        }
        if series.number.isdigit():
            read["number"] = int(series.number)
        return {
            "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{series.study}"}],
            "status": "available",
            "modality": [modality],
            "series": [read],
        }

    def report(self, result: ReportResult, study: Resource | None, results: list[Resource]) -> Resource:
        """The report itself."""
        scan = {} if study is None else {"imagingStudy" if self.version == "R4B" else "study": [study]}
        text = base64.b64encode(TextGate()(result.marked_text).encode()).decode()
        form = {"presentedForm": [{"contentType": "text/plain; charset=utf-8", "data": text}]} if text else {}
        return {
            "text": {"status": "generated", "div": _narrative(result)},
            "status": "preliminary",
            "category": [{"coding": [_coding(CATEGORY, "RAD", "Radiology")]}],
            "code": {"coding": [_coding(LOINC, "24627-2", "CT Chest")], "text": "CT of the chest"},
            **scan,
            **({"result": results} if results else {}),
            **form,
        }


def _narrative(result: ReportResult) -> str:
    parts = [
        f"<p>{f'<b>{html.escape(one.region)}</b>: ' if one.region else ''}{html.escape(one.text)}"
        f"{_mark(result, one.region)}</p>"
        for one in result.report.paragraphs
    ]
    parts += [
        f"<p><b>{html.escape(region)}</b>: no paragraph.{mark}</p>"
        for region in result.report.missing
        if (mark := _mark(result, region))
    ]
    parts += [
        f"<p><b>{html.escape(region)}</b>: no report. {html.escape(why)}</p>" for region, why in result.absent.items()
    ]
    head = "<p>Preliminary: written by a program, not verified by a physician.</p>"
    if result.findings is not None and result.findings.promise:
        head += f"<p>{html.escape(result.findings.promise)}</p>"
    said = TextGate()("".join(parts))  # XML has no control characters
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{head}{said}</div>'


def _mark(result: ReportResult, region: str) -> str:
    mark = result.mark(region)
    return f" <b>{html.escape(mark)}</b>" if mark else ""


def _findings(result: ReportResult, base: Resource) -> Iterable[tuple[str, Resource]]:
    """An Observation for each finding, with what each paragraph says of it."""
    labeler = RuleLabeler()
    texts = {one.region: one.text for one in result.report.paragraphs}
    read = foreign_share("".join(texts.values())) <= MOSTLY_FOREIGN
    by_region = {region: labeler.reader.explain(text) for region, text in texts.items()} if read else {}
    whole = labeler.reader.explain("\n".join(texts.values())) if read else dict.fromkeys(labeler.labels)
    for finding in labeler.labels:
        said = {region: found[finding] for region, found in by_region.items() if region and found[finding] is not None}
        components = [{"code": _site(result, region), **_value(mention)} for region, mention in said.items()]
        components += _probabilities(result, finding)
        yield (
            f"finding-{labeler.labels.index(finding) + 1}",
            {
                **_observation(base, finding),
                **_value(whole[finding], "unknown" if read else "unsupported"),
                "method": {"text": labeler.definition},
                **({"component": components} if components else {}),
                **({"note": [{"text": note}]} if (note := _left_out(result, finding)) else {}),
            },
        )


def _probabilities(result: ReportResult, finding: str) -> list[Resource]:
    """What the model's head thinks of a finding, region by region."""
    told = {} if result.findings is None else result.findings.regions
    return [
        {
            "code": {"text": f"Probability in {region}, by the model"},
            "valueQuantity": _quantity(round(found.probabilities[finding], 6), "1"),
        }
        for region, found in told.items()
        if finding in found.probabilities
    ]


def _left_out(result: ReportResult, finding: str) -> str:
    """Which paragraphs may leave a finding out, and what that rests on."""
    if result.findings is None:
        return ""
    where = [region for region, found in result.findings.regions.items() if found.review and finding in found.wanting]
    return f"Review: may be left out of the report on {', '.join(where)}. {result.findings.promise}" if where else ""


def _site(result: ReportResult, region: str) -> Resource:
    """A region by the code that its set has for it, and in words."""
    code = result.code(region)
    coded = {"coding": [_coding(SNOMED, code.value, code.meaning)]} if code.scheme == "SCT" else {}
    return coded | {"text": region}


def _value(mention: Mention | None, reason: str = "unknown") -> Resource:
    if mention is None:
        return {"dataAbsentReason": {"coding": [_coding(ABSENT_REASON, reason)]}}
    if mention.status not in _VALUES:
        return {"valueCodeableConcept": {"text": "mentioned with doubt"}}
    return {"valueCodeableConcept": {"coding": [_coding(SNOMED, *_VALUES[mention.status])]}}


def _measured(result: ReportResult, base: Resource) -> Iterable[tuple[str, Resource]]:
    """An Observation for each region that was measured."""
    masks = result.made_by.masks
    notes = (
        [f"The masks were made by {masks.name}: not for measurements."] if masks and not masks.for_measurements else []
    )
    for number, (region, found) in enumerate((result.attributes.regions if result.attributes else {}).items(), 1):
        said = [*notes, *(["The scan ends in the region: sizes are those of a part."] if found.cut else [])]
        yield (
            f"region-{number}",
            {
                **_observation(base, f"Volume of {region} under its mask"),
                "valueQuantity": _quantity(found.volume_ml, "mL"),
                "bodySite": _site(result, region),
                "component": [
                    {"code": {"text": name}, "valueQuantity": value} for name, value in _numbers(found).items()
                ],
                **({"note": [{"text": text} for text in said]} if said else {}),
            },
        )


def _numbers(found: RegionAttributes) -> Mapping[str, Resource]:
    numbers = {
        "Mean attenuation": _quantity(found.mean_hu, "[hnsf'U]"),
        "Standard deviation of the attenuation": _quantity(found.sd_hu, "[hnsf'U]"),
        f"Share of voxels below {AIR_BELOW} HU": _quantity(found.air, "1"),
        f"Share of voxels of {CALCIUM_FROM} HU and more": _quantity(found.calcium, "1"),
    }
    return numbers | {
        f"Extent, {axis}": _quantity(size, "mm") for axis, size in zip(_AXES, found.extent_mm, strict=True)
    }


def _observation(base: Resource, text: str) -> Resource:
    category = [{"coding": [_coding(OBSERVATION_CATEGORY, "imaging", "Imaging")]}]
    return {"status": "preliminary", "category": category, "code": {"text": text}, **base}


def _quantity(value: float, unit: str) -> Resource:
    return {"value": float(value), "unit": "HU" if unit == "[hnsf'U]" else unit, "system": UCUM, "code": unit}


def _coding(system: str, code: str, display: str = "") -> Resource:
    return {"system": system, "code": code} | ({"display": display} if display else {})
