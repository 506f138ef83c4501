"""What is written as DICOM, read by programs of other people."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed (extra 'dicom')")

import dicom_readers as readers
from dicom_files import lps
from dicom_results import TEN, TOLD, boxes, result, series
from reg2rg.inference.exporters import PDF, SEG, MeasurementSR, TextSR

OBLIQUE = lps(orientation=((0.9961946981, 0.0871557427, 0), (-0.0858316512, 0.9810602, 0.1736481777)))
LONG = "The lungs are clear, without a nodule or an effusion. " * 1297
TEXTS = {
    "one": {"lung": 'Clear & "quiet" <both> \\ sides.'},
    "ten": {name: f"The {name} is unremarkable.\nNo change of it." for name in TEN},
    "empty": {},
    "latin": {"lung": "Vergrößert: 12 mm²."},
    "turkish": {"lung": "Akciğerler doğal, ışıklı; şüpheli lezyon yok.", "heart": "Kalp boyutu normal."},
    "chinese": {"lung": "双肺清晰，未见结节。", "heart": "心影不大。"},
    "long": {"lung": LONG[:70_000].rstrip()},
    "reviewed": {"lung": "Clear.", "heart": "Normal."},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, tuple]:
    """Name -> result, report for people, report for programs, SEGs, PDF."""
    folder = tmp_path_factory.mktemp("written")
    scan = series(folder / "case").path
    found = {}
    for name, texts in TEXTS.items():
        made = result(scan, boxes(tuple(texts) or ("lung",)), texts)
        made = replace(made, findings=TOLD) if name == "reviewed" else made
        out = folder / name
        [people] = TextSR().write(made, out)
        programs, *segs = MeasurementSR().write(made, out)
        found[name] = (made, people, programs, segs, PDF().write(made, out)[0] if name in ("one", "reviewed") else None)
    return found


@pytest.fixture(scope="module")
def segmented(tmp_path_factory) -> dict[str, tuple]:
    """Name -> series, masks, SEGs: ten regions, one of them over another; one on an oblique grid; two odd frames."""
    folder = tmp_path_factory.mktemp("segmented")
    masks = boxes()
    masks["mediastinum"] = masks["heart"] | np.roll(masks["heart"], 2, 1)
    corner = np.zeros((410, 410, 16), bool)
    corner[100:200, 101:202, 5:7] = corner[409, 409, 5:7] = corner[0, 0, 5] = corner[7, 11, 6] = True
    cases = {
        "ten": (None, (64, 60, 24), masks),
        "oblique": (OBLIQUE, (64, 60, 24), boxes(("lung",))),
        "410": (lps((0.75, 0.75, 3)), (410, 410, 16), {"lung": corner}),
    }
    found = {}
    for name, (affine, shape, of_case) in cases.items():
        scan = series(folder / name, affine, shape)
        found[name] = (scan, of_case, SEG().write(result(scan.path, of_case), folder / f"{name}_out"))
    assert {name: len(segs) for name, (_, _, segs) in found.items()} == {"ten": 2, "oblique": 1, "410": 1}
    return found


@pytest.mark.parametrize("case", ["ten", "oblique", "410"])
@pytest.mark.parametrize("reader", ["highdicom", "dcmqi", "cornerstone"])
def test_masks_are_read_back_voxel_by_voxel(segmented, tmp_path, reader, case):
    scan, masks, segs = segmented[case]
    found: dict[str, np.ndarray] = {}
    if reader == "cornerstone":
        found = readers.by_cornerstone(segs, scan.slices, scan.path)
    for number, seg in enumerate(segs if reader != "cornerstone" else ()):
        if reader == "highdicom":
            found |= readers.by_highdicom(seg, scan.slices)
        else:
            found |= readers.by_dcmqi(seg, scan.slices, tmp_path / str(number))
    assert {name: readers.dice(found[name], mask) for name, mask in masks.items()} == dict.fromkeys(masks, 1.0)


def test_dciodvfy_finds_no_error(written, segmented):
    program = readers.need("dciodvfy")
    of_results = [file for _, *files in written.values() for file in files]
    flat = [file for each in of_results for file in (each if isinstance(each, list) else [each]) if file is not None]
    flat += [seg for _, _, segs in segmented.values() for seg in segs]
    assert len(flat) == 8 * 3 + 2 + 4
    said = {file: readers.errors_of(program, file) for file in flat}
    assert {file.name: lines for file, lines in said.items() if lines} == {}


def test_dicom_validator_finds_no_error(written, segmented):
    files = [file for _, people, programs, segs, pdf in written.values() for file in (people, programs, *segs, pdf)]
    files += [seg for _, _, segs in segmented.values() for seg in segs]
    said = readers.by_dicom_validator([file for file in files if file is not None])
    assert said.count("SOP class is") == 8 * 3 + 2 + 4
    assert re.findall(r'^ *(?:Module "|Tag |Unknown|Not a).*', said, re.M) == []


def test_dsrdump_prints_every_paragraph(written):
    program = readers.need("dsrdump")
    for name, (made, people, programs, _, _) in written.items():
        texts = [paragraph.text for paragraph in made.report.paragraphs]
        for file, concept in ((people, "Finding"), (programs, "Comment")):
            said = readers.run(program, "+Pl", "+U8", file)
            for word in ("UNVERIFIED", "PRELIMINARY", f"Patient             : {'Doe^Jane'}"):
                assert word in said, name
            found = re.findall(rf'<contains TEXT:\(,,"{concept}"\)="(.*)">\n', said)
            assert [unescaped(text) for text in found] == texts, name


def unescaped(text: str) -> str:
    return text.replace("\\n", "\n")


def test_tid1500reader_gives_our_numbers_and_comments(written, tmp_path):
    program = readers.need("tid1500reader")
    for name, (made, _, programs, _, _) in written.items():
        readers.run(program, "--inputDICOM", programs, "--outputMetadata", tmp_path / "m.json")
        groups = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))["Measurements"]
        assert [group["TrackingIdentifier"] for group in groups] == list(made.masks), name
        texts = made.report.by_region()
        for group in groups:
            region = group["TrackingIdentifier"]
            measured = made.attributes.regions[region]
            wanted = [measured.volume_ml, measured.mean_hu, measured.sd_hu, measured.percentiles_hu[2]]
            assert [float(one["value"]) for one in group["measurementItems"]] == pytest.approx(wanted, rel=1e-12)
            assert group["FindingSite"]["CodeValue"] == made.code(region).value
            assert group["ReferencedSegment"] >= 1
            comments = [one["conceptValue"] for one in group.get("qualitativeEvaluations", ())]
            review = [f"{made.mark(region)} {TOLD.promise}"] if made.mark(region) else []
            assert comments == [*([texts[region]] if region in texts else []), *review], name


def test_ohif_lists_and_shows_both_reports(written):
    names = [name for name, (_, people, *_) in written.items()]
    files = [file for _, people, programs, *_ in written.values() for file in (people, programs)]
    shown = readers.node("sr.cjs", *files)
    assert len(shown) == 2 * len(names)
    for name, people, programs in zip(names, shown[::2], shown[1::2], strict=True):
        texts = [paragraph.text for paragraph in written[name][0].report.paragraphs]
        assert (people["label"], programs["label"]) == ("Report, preliminary", "Measurements, preliminary")
        for page, tag in ((people["html"], "pre"), (programs["html"], "span")):
            page = html.unescape(page)
            for text in texts:
                # dcmjs reads text in sequences of a file as Latin-1, whatever the file says; DICOMweb has no such step.
                file_is_latin = text.isascii() or (name == "latin" and tag == "pre")
                seen = text if file_is_latin else text.encode().decode("latin-1")
                for part in seen.split("\\"):  # at which dcmjs parts any text
                    assert part in page, (name, tag)
        assert "Written by a program and not verified by a physician." in people["html"]


def test_the_pdf_is_taken_out_by_dcmtk(written, tmp_path):
    program = readers.need("dcm2pdf")
    for name, (*_, pdf) in written.items():
        if pdf is not None:
            readers.run(program, pdf, tmp_path / f"{name}.pdf")
            assert (tmp_path / f"{name}.pdf").read_bytes() == pdf_of(pdf)


def pdf_of(path: Path) -> bytes:
    import pydicom

    found = pydicom.dcmread(path)
    return bytes(found.EncapsulatedDocument[: found.EncapsulatedDocumentLength])
