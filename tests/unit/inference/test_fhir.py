"""FHIR bundles: what stands in them, held against fhir.resources, and what that lets through held by ourselves."""

import base64
import copy
import json
import re
from dataclasses import replace
from decimal import Decimal

import pytest

from dicom_results import TOLD
from reg2rg.core.regions import load_region_set
from reg2rg.core.report import Paragraph, Report
from reg2rg.inference.exporters import FHIR
from reg2rg.inference.exporters.fhir import fhir_id
from reg2rg.inference.exporters.fhir_check import BrokenBundleError, faults, is_snomed, require_sound
from reg2rg.inference.identity import mapped_uid
from reg2rg.inference.inputs import DicomSeries, Inputs
from reg2rg.inference.result import Run
from reg2rg.scans.segmenters import MadeBy
from reg2rg.testing.exporters import sample_result

LUNG = {"coding": [{"system": "http://snomed.info/sct", "code": "39607008", "display": "Lung"}], "text": "lung"}
UID = "1.2.840.113619.2.55.3.604688119.969.1268071029.320"
CT = "1.2.840.10008.5.1.4.1.1.2"


def result(texts=None, **changes):
    """The sample as a DICOM series of two slices, of a study whose id is none of FHIR."""
    made = sample_result()
    series = DicomSeries(UID, f"{UID}.2", "2", "MRN-77", {f"{UID}.2.1": CT, f"{UID}.2.2": CT})
    run = Run(Inputs("ab" * 32, 2, series), "cpu", "lm", "cd", {}, {})
    texts = (
        {"lung": "A nodule of 5 mm. Effusion cannot be excluded, pleural.", "heart": "No cardiomegaly."}
        if texts is None
        else texts
    )
    report = Report(tuple(Paragraph(slot, region, text) for slot, (region, text) in enumerate(texts.items())))
    return replace(made, report=report, run=run, study=replace(made.study, id="sample_1 <a>"), **changes)


def parsed(bundle, version):
    """The bundle as fhir.resources reads it, and what its own writing of it reads as."""
    name = "fhir.resources.R4B.bundle" if version == "R4B" else "fhir.resources.bundle"
    module = pytest.importorskip(name, reason="fhir.resources is not installed (extra 'dev')")
    return json.loads(module.Bundle.model_validate_json(json.dumps(bundle)).model_dump_json(), parse_float=Decimal)


def resources(bundle, kind):
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


@pytest.mark.parametrize("version", ["R4B", "R5"])
def test_probabilities_and_paragraphs_to_review(version, tmp_path) -> None:
    [path] = FHIR(version).write(result(findings=TOLD), tmp_path)
    bundle = json.loads(path.read_text(), parse_float=Decimal)
    assert parsed(json.loads(path.read_text()), version) == bundle
    by_name = {one["code"]["text"]: one for one in resources(bundle, "Observation")}
    found = {
        name: [
            (one["code"]["text"], one["valueQuantity"])
            for one in by_name[name].get("component", ())
            if "valueQuantity" in one
        ]
        for name in ("Lung nodule", "Emphysema", "Cardiomegaly", "Hiatal hernia")
    }
    unit = {"unit": "1", "system": "http://unitsofmeasure.org", "code": "1"}
    assert found == {
        "Lung nodule": [("Probability in lung, by the model", {"value": Decimal("0.82"), **unit})],
        "Emphysema": [("Probability in lung, by the model", {"value": Decimal("0.07"), **unit})],
        "Cardiomegaly": [("Probability in heart, by the model", {"value": Decimal("0.31"), **unit})],
        "Hiatal hernia": [],
    }
    notes = {name: [note["text"] for note in one.get("note", ())] for name, one in by_name.items() if "note" in one}
    assert notes == {"Lung nodule": [f"Review: may be left out of the report on lung. {TOLD.promise}"]}
    [report] = resources(bundle, "DiagnosticReport")
    assert "pleural. <b>Review: may leave out Lung nodule.</b></p>" in report["text"]["div"]
    assert "without the mark. This holds for studies exchangeable" in report["text"]["div"]
    text = base64.b64decode(report["presentedForm"][0]["data"]).decode()
    assert text == result(findings=TOLD).marked_text


def test_a_region_without_a_paragraph_is_marked_too(tmp_path) -> None:
    made = result(findings=TOLD)
    rest = tuple(part for part in made.report.paragraphs if part.region != "lung")
    made = replace(made, report=replace(made.report, paragraphs=rest, missing=("lung",)))
    [path] = FHIR().write(made, tmp_path)
    [report] = resources(json.loads(path.read_text()), "DiagnosticReport")
    assert "<p><b>lung</b>: no paragraph. <b>Review: may leave out Lung nodule.</b></p>" in report["text"]["div"]


@pytest.mark.parametrize("version", ["R4B", "R5"])
def test_a_bundle_of_a_dicom_scan(version, tmp_path) -> None:
    [path] = FHIR(version).write(result(), tmp_path)
    assert path.name == "sample_1 <a>.fhir.json"
    bundle = json.loads(path.read_text(), parse_float=Decimal)
    assert parsed(json.loads(path.read_text()), version) == bundle  # nothing is lost, no digit is another
    assert re.search(r"Doe|MRN|604688119|19[0-9]{2}-|[dD]ate", path.read_text()) is None

    [report] = resources(bundle, "DiagnosticReport")
    assert report["status"] == "preliminary"
    [study] = resources(bundle, "ImagingStudy")
    assert study["identifier"] == [{"system": "urn:dicom:uid", "value": f"urn:oid:{mapped_uid(UID)}"}]
    assert [one["uid"] for one in study["series"]] == [mapped_uid(f"{UID}.2")]
    assert {one["uid"] for one in study["series"][0]["instance"]} == {mapped_uid(f"{UID}.2.{k}") for k in (1, 2)}
    url = {entry["resource"]["id"]: entry["fullUrl"] for entry in bundle["entry"]}[study["id"]]
    assert [one["reference"] for one in report["imagingStudy" if version == "R4B" else "study"]] == [url]
    assert base64.b64decode(report["presentedForm"][0]["data"]).decode() == result().text
    assert "heart</b>: No cardiomegaly." in report["text"]["div"]
    assert "thyroid</b>: no report. no mask of it" in report["text"]["div"]
    assert len(report["result"]) == 18 + 2
    for entry in bundle["entry"]:
        assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", entry["resource"]["id"])

    [own] = FHIR(version, identified=True).write(result(), tmp_path)
    study, patient = (resources(json.loads(own.read_text()), kind)[0] for kind in ("ImagingStudy", "Patient"))
    assert study["series"][0]["instance"] == [
        {"uid": f"{UID}.2.{k}", "sopClass": {"system": "urn:ietf:rfc3986", "code": f"urn:oid:{CT}"}} for k in (1, 2)
    ]
    assert patient["identifier"] == [{"value": "MRN-77"}]


def test_findings_are_what_the_text_says_whole_and_by_region() -> None:
    found = {one["code"]["text"]: one for one in resources(FHIR().bundle(result()), "Observation")}
    present, absent = ({"coding": [{"system": "http://snomed.info/sct", "code": code, "display": name}]}
                       for code, name in (("52101004", "Present"), ("2667000", "Absent")))  # fmt: skip
    assert found["Lung nodule"]["valueCodeableConcept"] == present
    assert found["Lung nodule"]["component"] == [{"code": LUNG, "valueCodeableConcept": present}]
    assert found["Cardiomegaly"]["valueCodeableConcept"] == absent
    assert found["Pleural effusion"]["valueCodeableConcept"] == {"text": "mentioned with doubt"}
    silent = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}]}
    assert found["Emphysema"]["dataAbsentReason"] == silent
    assert "component" not in found["Emphysema"]
    assert "keyword rules" in found["Emphysema"]["method"]["text"]
    chinese = resources(FHIR().bundle(result({"lung": "右肺上叶见结节。"})), "Observation")
    assert {one["dataAbsentReason"]["coding"][0]["code"] for one in chinese[:18]} == {"unsupported"}


def test_sizes_are_those_that_were_measured_digit_by_digit(tmp_path) -> None:
    made = result()
    odd = replace(made.attributes.regions["lung"], volume_ml=1234.5678901234567, mean_hu=-812.1, cut=True)
    made = replace(made, attributes=replace(made.attributes, regions={"lung": odd}),
                   made_by=replace(made.made_by, masks=MadeBy("Thresholds", for_measurements=False)))  # fmt: skip
    [path] = FHIR().write(made, tmp_path)
    [volume] = [one for one in resources(json.loads(path.read_text(), parse_float=Decimal), "Observation")
                if one["code"]["text"] == "Volume of lung under its mask"]  # fmt: skip
    ucum = "http://unitsofmeasure.org"
    assert volume["valueQuantity"] == {
        "value": Decimal(repr(1234.5678901234567)),
        "unit": "mL",
        "system": ucum,
        "code": "mL",
    }
    assert volume["component"][0]["valueQuantity"] == {
        "value": Decimal("-812.1"), "unit": "HU", "system": ucum, "code": "[hnsf'U]"
    }  # fmt: skip
    extents = [one["valueQuantity"] for one in volume["component"] if one["code"]["text"].startswith("Extent")]
    assert [one["value"] for one in extents] == [Decimal(str(size)) for size in odd.extent_mm]
    assert [note["text"] for note in volume["note"]] == [
        "The masks were made by Thresholds: not for measurements.",
        "The scan ends in the region: sizes are those of a part.",
    ]


@pytest.mark.parametrize("version", ["R4B", "R5"])
def test_a_report_without_regions_or_dicom_has_no_study(version) -> None:
    bundle = FHIR(version).bundle(sample_result(regions=False))
    parsed(bundle, version)
    assert faults(bundle, version) == []
    assert not resources(bundle, "ImagingStudy")
    [report] = resources(bundle, "DiagnosticReport")
    assert not {"imagingStudy", "study"} & set(report)


@pytest.mark.parametrize("text", ["", "A bell \x07 & <half> \ud800.", "右肺", "x" * 70_000])
def test_texts_that_a_model_may_write(text, tmp_path) -> None:
    [path] = FHIR().write(result({"lung": text} if text else {}), tmp_path)
    bundle = json.loads(path.read_text())
    parsed(bundle, "R4B")
    [report] = resources(bundle, "DiagnosticReport")
    assert ("presentedForm" in report) is bool(text)
    if text:
        shown = base64.b64decode(report["presentedForm"][0]["data"]).decode()
        assert shown == "lung: " + text.replace("\x07", "").replace("\ud800", "\ufffd")


def test_check_digits_of_snomed() -> None:
    codes = ("52101004", "2667000", *(code.value for code in load_region_set().codes().values()))
    assert len(codes) == 12
    for code in codes:
        assert is_snomed(code)
        for wrong in (str(int(code) + 1), code[:-2] + code[-1] + code[-2], code[1:]):
            assert not is_snomed(wrong) or wrong == code
    assert not is_snomed("12345")
    assert not is_snomed("٥٢١٠١٠٠٤")


def test_ids() -> None:
    assert fhir_id("ct-0123456789ab") == "ct-0123456789ab"
    assert fhir_id("sample_1") != fhir_id("sample 1")
    assert re.fullmatch(r"id-[0-9a-f]{32}", fhir_id("x" * 65))


def entry_of(bundle, kind):
    return [entry for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind][-1]  # of a region


def at(kind, *path):
    """Sets a value inside the last resource of a kind."""

    def change(bundle, value):
        place = entry_of(bundle, kind)["resource"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


# What is changed, to what, what our check says, and whether fhir.resources lets it through.
BROKEN = [
    (at("DiagnosticReport", "status"), "prelim", "status 'prelim', expected 'preliminary'", True),
    (at("DiagnosticReport", "status"), "final", "status 'final'", True),
    (at("Observation", "status"), "done", "status 'done'", True),
    (at("DiagnosticReport", "result", 0, "reference"), "Observation/none", "leads to nothing", True),
    (at("Observation", "device"), {"reference": "SUBJECT"}, "refers to Patient, expected Device", True),
    (at("DiagnosticReport", "code", "coding", 0, "code"), "24627-3", "'24627-3' is none of those", True),
    (at("DiagnosticReport", "code", "coding", 0, "system"), "http://loinc.com", "which nobody knows", True),
    (at("ImagingStudy", "identifier", 0, "value"), "urn:oid:1.02.3", "is no urn:oid", True),
    (at("ImagingStudy", "series", 0, "instance", 0, "uid"), "1.2.x", "is no UID", True),
    (at("ImagingStudy", "series", 0, "instance", 0, "uid"), "1." * 33 + "1", "is no UID", True),
    (at("Observation", "bodySite", "coding", 0, "code"), "39607009", "its check digit is wrong", True),
    (at("Observation", "id"), "a_b", "id is none", False),
    (at("Observation", "id"), "sample", "request", True),
    (at("DiagnosticReport", "presentedForm", 0, "data"), "abc", "no base64", False),
    (at("DiagnosticReport", "text", "div"), "<div>a & b</div>", "no XML", True),
    (at("DiagnosticReport", "text", "div"), "<p>a</p>", "expected {http://www.w3.org/1999/xhtml}div", True),
    (at("Observation", "dataAbsentReason"), {"text": "none"}, "a reason why there is no value", True),
    (at("Observation", "valueString"), "five", "or two values", False),
    (at("DiagnosticReport", "imagingStudy"), [], "empty list", True),
    (at("Observation", "valueQuantity", "code"), "ml.", "'ml.' is none of those of http://unitsofmeasure.org", True),
    (at("Observation", "valueQuantity", "system"), "urn:ucum", "unit of 'urn:ucum'", True),
    (at("Observation", "component", 0, "valueQuantity"), {"value": 5, "code": "mL"}, "of the system None", True),
]  # fmt: skip


@pytest.mark.parametrize(("change", "value", "said", "let_through"), BROKEN)
def test_what_is_broken_is_caught_whether_fhir_resources_does_or_not(change, value, said, let_through) -> None:
    bundle = FHIR().bundle(result())
    assert faults(bundle, "R4B") == []
    broken = copy.deepcopy(bundle)
    if isinstance(value, dict) and value.get("reference") == "SUBJECT":
        value = {"reference": entry_of(bundle, "Patient")["fullUrl"]}
    change(broken, value)
    assert said in "\n".join(faults(broken, "R4B"))
    with pytest.raises(BrokenBundleError, match="was not written"):
        require_sound(broken, "R4B")
    try:
        parsed(broken, "R4B")
    except ValueError:
        assert not let_through
    else:
        assert let_through


def test_what_is_broken_among_entries() -> None:
    bundle = FHIR("R5").bundle(result())
    assert "imagingStudy is no element of R5" in "\n".join(faults(FHIR().bundle(result()), "R5"))
    bundle["entry"].append(copy.deepcopy(bundle["entry"][-1]))
    bundle["type"] = "batch"
    said = faults(bundle, "R5")
    assert said[0] == "type 'batch', expected 'transaction'"
    assert said[1].endswith("given 2 times")
    parsed(bundle, "R5")  # lets it through
    bundle = FHIR().bundle(result())
    next(one for one in resources(bundle, "Observation") if "valueQuantity" in one)["valueQuantity"]["value"] = float(
        "nan"
    )
    assert "no finite number" in faults(bundle, "R4B")[0]
