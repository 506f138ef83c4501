"""DICOM objects of a result, read with pydicom and with our own reader. Other readers: tests/integration."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra 'dicom')")

from dicom_files import enhanced, localizer, lps, save, slices  # noqa: E402
from dicom_results import SEGMENTER, SHAPE, TOLD, boxes, result, series  # noqa: E402
from reg2rg.core.errors import ConfigError  # noqa: E402
from reg2rg.core.regions import Region, RegionSet, load_region_set  # noqa: E402
from reg2rg.core.types import Study  # noqa: E402
from reg2rg.inference.exporters import PDF, SEG, MeasurementSR, TextSR  # noqa: E402
from reg2rg.inference.exporters.dicom import pdf as module  # noqa: E402
from reg2rg.inference.exporters.dicom.content import _decimal  # noqa: E402
from reg2rg.inference.exporters.dicom.objects import clean, uid  # noqa: E402
from reg2rg.inference.exporters.dicom.pdf import pdf  # noqa: E402
from reg2rg.models.findings import StudyFindings  # noqa: E402
from reg2rg.scans.base import ReadOptions  # noqa: E402
from reg2rg.scans.find_masks import find_masks  # noqa: E402
from reg2rg.scans.read import read_study  # noqa: E402
from reg2rg.scans.segmenters import MadeBy  # noqa: E402
from reg2rg.testing import sample_result  # noqa: E402

ALL = (SEG, TextSR, MeasurementSR, PDF)
OBLIQUE = lps(orientation=((0.9961946981, 0.0871557427, 0), (-0.0858316512, 0.9810602, 0.1736481777)))


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    return series(tmp_path_factory.mktemp("ct") / "case", OBLIQUE)


def items(found, name=None, kind=None) -> list:
    """Content items in their order, of one name or kind."""
    below = [one for item in found.get("ContentSequence", ()) for one in (item, *items(item))]
    return [
        one
        for one in below
        if name in (None, one.ConceptNameCodeSequence[0].CodeMeaning) and kind in (None, one.ValueType)
    ]


def test_masks_come_back_through_our_own_reader_from_several_files(ct, tmp_path):
    masks = boxes(("lung", "heart", "bone"))
    masks["mediastinum"] = masks["heart"] | np.roll(masks["heart"], 1, 0)  # over the heart, so a file of its own
    written = SEG().write(result(ct.path, masks), tmp_path)
    assert [path.name for path in written] == ["case.seg.dcm", "case.seg2.dcm"]
    back = {}
    for path, names in zip(written, (("lung", "bone", "heart"), ("mediastinum",)), strict=True):
        found = pydicom.dcmread(path)
        assert {str(one.SegmentLabel) for one in found.SegmentSequence} == set(names)
        assert found.SegmentsOverlap == "NO"
        study = Study("x", "x", "test", ct.path, find_masks(path, load_region_set()))
        back |= read_study(study, load_region_set(), ReadOptions(implausible="ignore")).masks
    whole = result(ct.path, masks)
    assert {name: int((back[name] != whole.masks[name]).sum()) for name in masks} == dict.fromkeys(masks, 0)

    assert len(SEG().write(result(ct.path, boxes(("lung",))), tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["case.seg.dcm"]  # none is left of the run before


def test_a_frame_says_digit_by_digit_where_the_ct_has_it(ct, tmp_path):
    [path] = SEG().write(result(ct.path, boxes(("lung", "heart"))), tmp_path)
    found = pydicom.dcmread(path)
    source = {one.SOPInstanceUID: one for one in ct.slices}
    first = ct.slices[0]
    shared = found.SharedFunctionalGroupsSequence[0]

    def written(element) -> list[str]:
        return [str(value) for value in element]

    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert written(orientation) == written(first.ImageOrientationPatient)
    assert written(orientation)[0] == "0.9961946981"
    assert written(shared.PixelMeasuresSequence[0].PixelSpacing) == written(first.PixelSpacing)
    assert found.FrameOfReferenceUID == first.FrameOfReferenceUID
    used = set()
    for frame in found.PerFrameFunctionalGroupsSequence:
        one = source[frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert written(frame.PlanePositionSequence[0].ImagePositionPatient) == written(one.ImagePositionPatient)
        used.add((frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber, one.SOPInstanceUID))
    assert len(used) == found.NumberOfFrames == 7 + 9  # the gap is left out
    assert found.SegmentationType == "BINARY"
    assert len(found.PixelData) == 16 * SHAPE[0] * SHAPE[1] // 8


def test_frames_of_an_odd_size_have_a_byte_a_pixel(tmp_path):
    shape = (61, 59, 18)
    odd = series(tmp_path / "case", shape=shape)
    mask = np.zeros(shape, bool)
    mask[3:50, 4:41, 5:7] = True
    [path] = SEG().write(result(odd.path, {"lung": mask}), tmp_path)
    found = pydicom.dcmread(path)
    assert (found.SegmentationType, found.BitsAllocated, found.MaximumFractionalValue) == ("FRACTIONAL", 8, 255)
    assert np.array_equal(found.pixel_array, 255 * mask[:, :, 5:7].transpose(2, 1, 0).astype(np.uint8))


@pytest.mark.parametrize("exporter", ALL)
def test_the_same_content_has_the_same_bytes_and_uids_and_other_content_others(ct, tmp_path, exporter):
    masks = boxes(("lung", "heart"))
    texts = {"lung": "Clear.", "heart": "Normal."}
    first = exporter().write(result(ct.path, masks, texts), tmp_path / "1")
    again = exporter().write(result(ct.path, masks, texts), tmp_path / "2")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    other = exporter().write(result(ct.path, masks, texts | {"heart": "Large."}), tmp_path / "3")
    pairs = [(pydicom.dcmread(one), pydicom.dcmread(two)) for one, two in zip(first, other, strict=True)]
    for one, two in pairs:
        same = one.Modality == "SEG"  # which knows nothing of the text
        assert (one.SOPInstanceUID == two.SOPInstanceUID) == same
        assert (one.SeriesInstanceUID == two.SeriesInstanceUID) == same
        assert re.fullmatch(r"2\.25\.\d{30,39}", one.SOPInstanceUID)
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
    if exporter in (SEG, MeasurementSR):
        masks["heart"] = masks["heart"].copy()
        masks["heart"][20, 20, 20] = True
        changed = exporter().write(result(ct.path, masks, texts), tmp_path / "4")
        assert pydicom.dcmread(changed[-1]).SOPInstanceUID != pairs[-1][0].SOPInstanceUID


def test_uids_are_uuids_of_version_8():
    bits = int(uid("a", "b").removeprefix("2.25."))
    assert bits >> 76 & 0xF == 8
    assert bits >> 62 & 0x3 == 2
    assert uid("a", "b") != uid("ab", "")
    assert len(uid("a")) <= 64


def test_patient_study_and_dates_are_the_cts(ct, tmp_path):
    for exporter in ALL:
        for path in exporter().write(result(ct.path, boxes(("lung",))), tmp_path):
            found = pydicom.dcmread(path)
            for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "StudyID"):
                assert found[name].value == ct.slices[0][name].value, name
            assert (found.ContentDate, found.ContentTime) == ("20200102", "030405")
            assert found.DeviceSerialNumber == "0123456789abcdef"


def test_segments_are_coded_and_say_who_made_them(ct, tmp_path):
    own = RegionSet("own", (Region("x" * 80), Region("lung")))
    masks = dict(zip(("x" * 80, "lung"), boxes(("lung", "heart")).values(), strict=True))
    [path] = SEG().write(result(ct.path, masks, regions=own), tmp_path)
    first, second = pydicom.dcmread(path).SegmentSequence
    assert first.SegmentLabel == "x" * 64
    assert first.TrackingID == "x" * 80
    assert second.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99REG2RG"
    assert first.TrackingUID != second.TrackingUID
    assert (first.SegmentAlgorithmType, first.SegmentAlgorithmName) == ("AUTOMATIC", "TotalSegmentator")
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("TotalSegmentator", "2.18.0")

    trial = MadeBy("Thresholds", for_measurements=False)
    found = pydicom.dcmread(SEG().write(result(ct.path, boxes(("lung",)), made_by=trial), tmp_path)[0])
    assert found.SeriesDescription == found.SegmentSequence[0].SegmentDescription
    assert found.SeriesDescription == "Masks for trials: not for measurements"
    [lung] = found.SegmentSequence
    assert lung.SegmentedPropertyTypeCodeSequence[0].CodeValue == "39607008"

    given = pydicom.dcmread(SEG().write(result(ct.path, boxes(("lung",)), made_by=MadeBy("files")), tmp_path)[0])
    assert given.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert "SegmentationAlgorithmIdentificationSequence" not in given.SegmentSequence[0]


def test_the_report_for_people(ct, tmp_path):
    texts = {
        "lung": "Clear.\r\nNo nodule. \t ",
        "heart": "\x00Large\x1b & wide.",
        "bone": " \n",
        "left upper lobe": "Scar.",
    }
    made = result(ct.path, boxes(tuple(texts)), texts, truncated=True)
    [path] = TextSR().write(made, tmp_path)
    found = pydicom.dcmread(path)
    assert (found.CompletionFlag, found.VerificationFlag, found.PreliminaryFlag) == (
        "PARTIAL", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    assert [one.TextValue for one in items(found, "Finding")] == ["Clear.\r\nNo nodule.", "Large & wide.", "Scar."]
    sites = [one.ConceptCodeSequence[0].CodeMeaning for one in items(found, "Finding Site")]
    assert sites == ["Lung", "Heart", "Upper lobe of left lung"]
    assert [one.TextValue for one in items(found, "Procedure Description")] == [
        "Written by a program and not verified by a physician.",
        "The report was stopped by its length or by a loop, not by its own end.",
        "Not reported on: thyroid (no mask of it).",
    ]
    [study] = found.CurrentRequestedProcedureEvidenceSequence
    [evidence] = study.ReferencedSeriesSequence
    assert evidence.SeriesInstanceUID == ct.slices[0].SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in evidence.ReferencedSOPSequence} == {
        one.SOPInstanceUID for one in ct.slices
    }


def test_paragraphs_to_review_are_marked_in_every_report(ct, tmp_path):
    made = replace(result(ct.path, boxes(("lung", "heart")), {"lung": "Clear.", "heart": "Normal."}), findings=TOLD)
    mark = "Review: may leave out Lung nodule."
    assert made.marked_text == f"lung: Clear. [{mark}]\nheart: Normal.\n{TOLD.promise}"
    assert made.text == "lung: Clear.\nheart: Normal."
    assert "At most 10 % of" in TOLD.promise
    assert TOLD.promise.endswith("This holds for studies exchangeable with those of the calibration only.")
    people = pydicom.dcmread(TextSR().write(made, tmp_path)[0])
    [lung, heart] = items(people, "Findings")
    assert [one.TextValue for one in items(lung, "Review")] == [mark]
    assert items(heart, "Review") == []
    assert TOLD.promise in [one.TextValue for one in items(people, "Procedure Description")]
    programs = pydicom.dcmread(MeasurementSR().write(made, tmp_path)[0])
    [lung, heart] = items(programs, "Measurement Group")
    assert [one.TextValue for one in items(lung, "Review")] == [f"{mark} {TOLD.promise}"]
    assert items(heart, "Review") == []
    lines = [text for _, text in module._lines(made)]
    assert lines[lines.index("Clear.") + 1] == mark
    assert TOLD.promise in lines

    uncalibrated = replace(made, findings=StudyFindings({"lung": replace(TOLD.regions["lung"], review=None)}))
    assert uncalibrated.marked_text == made.text
    for exporter in (TextSR, MeasurementSR):
        assert items(pydicom.dcmread(exporter().write(uncalibrated, tmp_path)[0]), "Review") == []


def test_a_region_without_a_paragraph_or_text_is_marked_too(ct, tmp_path):
    mark = "Review: may leave out Lung nodule."
    made = replace(result(ct.path, boxes(("lung", "heart")), {"heart": "Normal."}), findings=TOLD)
    made = replace(made, report=replace(made.report, missing=("lung",)))
    assert made.marked_text == f"heart: Normal.\nlung: no paragraph [{mark}]\n{TOLD.promise}"
    empty = replace(result(ct.path, boxes(("lung", "heart")), {"lung": "", "heart": "Normal."}), findings=TOLD)
    for one, said in (
        (made, "No paragraph on lung: the model wrote none."),
        (empty, "No text on lung: the model wrote none."),
    ):
        people = pydicom.dcmread(TextSR().write(one, tmp_path)[0])
        assert f"{said} {mark}" in [item.TextValue for item in items(people, "Procedure Description")]
        assert f"{said} {mark}" in [text for _, text in module._lines(one)]


def test_a_report_without_regions_and_one_without_text(ct, tmp_path):
    found = pydicom.dcmread(TextSR().write(result(ct.path, {}, {"": "All is well."}), tmp_path)[0])
    assert [one.TextValue for one in items(found, "Finding")] == ["All is well."]
    assert not items(found, "Finding Site")
    found = pydicom.dcmread(TextSR().write(result(ct.path, boxes(("lung",)), {}), tmp_path)[0])
    assert not items(found, "Finding")
    assert "The model wrote no text." in [one.TextValue for one in items(found, "Procedure Description")]


def test_the_report_for_programs(ct, tmp_path):
    masks = boxes(("lung", "heart", "bone"))
    masks["heart"] = masks["lung"] | masks["heart"]
    made = result(
        ct.path, masks, {"heart": "Large.", "lung": "Clear."}, made_by=MadeBy("T", "1", for_measurements=False)
    )
    path, *segs = MeasurementSR().write(made, tmp_path)
    found, by_uid = pydicom.dcmread(path), {one.SOPInstanceUID: one for one in map(pydicom.dcmread, segs)}
    groups = items(found, "Measurement Group")
    assert len(groups) == 3
    for group in groups:
        region = items(group, "Tracking Identifier")[0].TextValue
        [reference] = items(group, "Referenced Segment")[0].ReferencedSOPSequence
        seg = by_uid[reference.ReferencedSOPInstanceUID]
        segment = seg.SegmentSequence[reference.ReferencedSegmentNumber - 1]
        assert segment.TrackingUID == items(group, "Tracking Unique Identifier")[0].UID
        assert segment.SegmentLabel == region
        measured = made.attributes.regions[region]
        numbers = [one.MeasuredValueSequence[0] for one in items(group, kind="NUM")]
        wanted = [measured.volume_ml, measured.mean_hu, measured.sd_hu, measured.percentiles_hu[2]]
        assert [one.FloatingPointValue for one in numbers] == wanted
        assert [float(one.NumericValue) for one in numbers] == pytest.approx(wanted, rel=1e-13)
        said = {"lung": ["Clear."], "heart": ["Large."], "bone": []}[region]
        assert [one.TextValue for one in items(group, "Comment")] == said
        [how] = items(group, "Algorithm Parameters")
        assert how.TextValue == "Masks for trials: not for measurements; masks made by T 1"
    [study] = found.CurrentRequestedProcedureEvidenceSequence
    referenced = {
        one.ReferencedSOPInstanceUID for each in study.ReferencedSeriesSequence for one in each.ReferencedSOPSequence
    }
    assert referenced == set(by_uid) | {one.SOPInstanceUID for one in ct.slices}


@pytest.mark.parametrize(
    ("text", "person", "program"),
    [
        ("Plain.", "ISO_IR 100", "ISO_IR 100"),
        ("Vergrößert.", "ISO_IR 100", "ISO_IR 192"),
        ("Akciğer doğal, ışıklı.", "ISO_IR 192", "ISO_IR 192"),
        ("双肺清晰。", "ISO_IR 192", "ISO_IR 192"),
        ("x" * 70_000, "ISO_IR 100", "ISO_IR 100"),
    ],
)
def test_text_of_any_language_and_length(ct, tmp_path, text, person, program):
    made = result(ct.path, boxes(("lung",)), {"lung": text})
    for exporter, name, character_set in ((TextSR, "Finding", person), (MeasurementSR, "Comment", program)):
        found = pydicom.dcmread(exporter().write(made, tmp_path)[0])
        assert found.SpecificCharacterSet == character_set
        assert [one.TextValue for one in items(found, name) if one.ValueType == "TEXT"] == [text]


def test_names_of_patients_are_encoded_anew(tmp_path):
    greek = series(tmp_path / "case", SpecificCharacterSet="ISO_IR 126", PatientName="Διονυσιος^Α")
    made = result(greek.path, boxes(("lung",)), {"lung": "Clear."})
    for exporter in ALL:
        for path in exporter().write(made, tmp_path):
            found = pydicom.dcmread(path)
            assert (str(found.PatientName), found.SpecificCharacterSet) == ("Διονυσιος^Α", "ISO_IR 192")


def test_headers_without_names_frame_or_uids(tmp_path):
    bare = slices(ReferringPhysicianName="Παπαδόπουλος^Α", SpecificCharacterSet="ISO_IR 126")
    for one in bare:
        for name in ("PatientName", "PatientBirthDate", "FrameOfReferenceUID", "StudyDate", "StudyTime"):
            delattr(one, name)
    scan = save(bare, tmp_path / "case")
    found = pydicom.dcmread(SEG().write(result(scan, boxes(("lung",))), tmp_path)[0])
    assert (str(found.PatientName), found.PatientBirthDate, found.StudyDate) == ("", "", "")
    assert str(found.ReferringPhysicianName) == "Παπαδόπουλος^Α"
    assert (found.ContentDate, found.ContentTime) == ("19700101", "000000")
    assert found.FrameOfReferenceUID.startswith("2.25.")
    shutil.rmtree(scan)
    bare = slices()
    del bare[3].SOPInstanceUID
    scan.mkdir()
    for k, one in enumerate(bare):
        one.preamble = bytes(128)
        one.save_as(scan / f"{k}")
    for exporter in ALL:
        assert "files without UID of study, series or instance" in exporter().refusal(scan, True, ReadOptions())


def test_an_enhanced_ct_and_a_zip(tmp_path):
    whole = enhanced(slices(), order=np.random.default_rng(1).permutation(SHAPE[2]))
    masks = boxes(("lung",))
    [path] = SEG().write(result(save([whole], tmp_path / "case"), masks), tmp_path)
    found = pydicom.dcmread(path)
    positions = [group.PlanePositionSequence[0] for group in whole.PerFrameFunctionalGroupsSequence]
    for frame in found.PerFrameFunctionalGroupsSequence:
        [image] = frame.DerivationImageSequence[0].SourceImageSequence
        there = positions[image.ReferencedFrameNumber - 1].ImagePositionPatient
        assert list(map(str, frame.PlanePositionSequence[0].ImagePositionPatient)) == list(map(str, there))
    [only] = found.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert only.ReferencedSOPInstanceUID == whole.SOPInstanceUID

    folder = save([*slices(), localizer()], tmp_path / "files")
    archive = Path(shutil.make_archive(str(tmp_path / "case2"), "zip", folder))
    [zipped] = SEG().write(result(archive, masks), tmp_path)
    [plain] = SEG().write(result(folder, masks), tmp_path)
    assert zipped.read_bytes() == plain.read_bytes()


def test_what_cannot_be_written_is_said_before_and_when_it_is_tried(ct, tmp_path):
    plain = sample_result()
    for exporter in ALL:
        said = exporter().refusal(plain.study.image, True, ReadOptions())
        assert said.startswith(f"{plain.study.image}: no DICOM, and {exporter.__name__} takes patient, study and grid")
        assert f"Fix: give the DICOM study, or leave {exporter.__name__} out" in said
        assert exporter().refusal(ct.path, True, ReadOptions()) == ""
    step = np.array([0, np.sin(0.3), np.cos(0.3)]) * 3
    tilted = save(slices(affine=lps(step=step)), tmp_path / "tilted")
    places = lps()
    uneven = slices()
    for k, one in enumerate(uneven):
        one.ImagePositionPatient = [*places[:2, 3], 100 + 3 * k + (k > 12)]
    uneven_folder, resample = save(uneven, tmp_path / "uneven"), ReadOptions(uneven="resample")
    for scan, read, what in (
        (tilted, ReadOptions(), "slices of a tilted gantry are resampled"),
        (uneven_folder, resample, "uneven slices are resampled"),
    ):
        for exporter in (SEG, MeasurementSR):
            said = exporter().refusal(scan, True, read)
            assert what in said
            assert "TextSR and PDF can be written" in said
            made = result(scan, {"lung": boxes()["lung"]} if scan is uneven_folder else {}, read=read)
            with pytest.raises(ConfigError, match=r"resampled|holds regions"):
                exporter().write(made, tmp_path / "none")
        assert TextSR().write(result(scan, {}, {"": "All is well."}, read=read), tmp_path)[0].is_file()
    assert "holds regions, and the report has none" in SEG().refusal(ct.path, False, ReadOptions())
    assert "holds regions, and the report has none" in MeasurementSR().refusal(ct.path, False, ReadOptions())
    assert SEG().refusal(tmp_path / "gone", True, ReadOptions())
    assert not (tmp_path / "none").exists()


def test_masks_of_another_grid_are_refused(tmp_path):
    once = series(tmp_path / "case")
    made = result(once.path, boxes(("lung",)))
    shutil.rmtree(once.path)
    save(slices(affine=lps(origin=(-160.0, -130.0, 101.0))), once.path)
    with pytest.raises(ConfigError, match=r"do not lie on the voxels.*Fix: report on the series as it is"):
        SEG().write(made, tmp_path)


def test_the_pdf_can_be_read(ct, tmp_path, monkeypatch):
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed (extra 'dev')")
    texts = {"lung": "Akciğer doğal, $x_1$. " * 40 + "\nEnd of it.", "heart": "W" * 200}
    made = result(ct.path, boxes(("lung", "heart")), texts, made_by=SEGMENTER)
    found = pydicom.dcmread(PDF().write(made, tmp_path)[0])
    document = found.EncapsulatedDocument[: found.EncapsulatedDocumentLength]
    assert document.startswith(b"%PDF")
    assert document.rstrip().endswith(b"%%EOF")
    assert (found.MIMETypeOfEncapsulatedDocument, found.BurnedInAnnotation) == ("application/pdf", "NO")
    said = "\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(document)).pages)
    folded = " ".join(said.split())
    assert " ".join(texts["lung"].split()) in folded
    assert said.replace("\n", "").count("W" * 200) == 1
    assert "Not reported on: thyroid (no mask of it)." in said
    assert f"lung: {made.attributes.regions['lung'].volume_ml:.1f} ml" in said
    assert "Doe" not in said
    pages = pypdf.PdfReader(io.BytesIO(pdf(result(ct.path, {}, {"": "Line.\n" * 200})))).pages
    assert len(pages) == 5
    monkeypatch.setattr(module.fontManager, "ttflist", [])
    with pytest.raises(ConfigError, match=r"no font of this machine has 双 \(U\+53CC\).*TextSR holds any text"):
        pdf(result(ct.path, {}, {"": "双"}))


def test_numbers_and_texts_as_dicom_holds_them():
    for value in (0.0, 1582.56, -939.970389748257, 1 / 3, 1e-9 / 3, 123456789012.5, -997.0):
        assert len(_decimal(value)) <= 16
        assert float(_decimal(value)) == pytest.approx(value, rel=1e-8)
    assert _decimal(-997.0) == "-997"
    assert _decimal(1582.56) == "1582.56"
    assert clean("a\x00b\x85c\ud800\td \n ") == "abc\td"
