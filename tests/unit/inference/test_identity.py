"""Whose scan it is: planted wherever DICOM and paths have room for it, looked for in all that is written and said."""

import io
import json
import logging
import re
import zipfile

import pydicom
import pytest
from pydicom.datadict import DicomDictionary

from dicom_files import save, slices
from dicom_results import boxes, result
from reg2rg.core.types import LabelMap, RegionFiles
from reg2rg.inference.exporters import EXPORTERS
from reg2rg.inference.generate import export, exporter_named
from reg2rg.inference.identity import deidentified, mapped_uid, pseudonym
from reg2rg.inference.inputs import chosen_series, inputs_of
from reg2rg.inference.result import Run
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.segmenters import MadeBy
from reg2rg.show.page_exporter import Page

NAME, NUMBER, DAY = "Planted", "77007700", "19570813"
STUDY, SERIES = "1.2.826.0.1.3680043.7700.1", "1.2.826.0.1.3680043.7700.2"
PLANTED = (NAME, NUMBER, DAY, "1957-08-13", "1957-08", STUDY, SERIES, STUDY[-12:], SERIES[-12:])
_READ = {"ConvolutionKernel", "ImageType", "Modality", "SpecificCharacterSet"}
DICOM = ("SEG", "TextSR", "MeasurementSR", "PDF")


def planted() -> list:
    """Slices with a name, a number or a date in every element of the standard that has room for one."""
    both = f"{NAME} {NUMBER}"
    values = {"PN": f"{NAME}^Jane", "DA": DAY, "DT": f"{DAY}120000", "AS": "077Y", "SH": f"{NAME}7", "UC": NAME}
    values |= dict.fromkeys(("LO", "LT", "ST", "UT"), both)
    found = slices(uid=SERIES, study=STUDY)
    for one in found:
        for tag, (vr, many, _, retired, keyword) in DicomDictionary.items():
            group = tag >> 16
            if (
                vr in values
                and not retired
                and keyword not in _READ
                and group in (0x8, 0x10, 0x18, 0x20, 0x32, 0x38, 0x40)
            ):
                one.add_new(tag, vr, values[vr] if many.startswith("1") else [values[vr]] * 2)
        one.PatientID = NUMBER
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A DICOM study with file names, folders and headers that name the patient, and the result of a run on it."""
    root = tmp_path_factory.mktemp("out") / f"{NAME}_Jane" / DAY
    made = planted()
    assert len(made[0]) > 300
    folder = save(made, root / f"{NAME}_{NUMBER}", prefix=f"{NAME}_{DAY}_")
    (folder / f"{NAME}.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\x00\x05\x00CS\xff\xff" + b"\xff" * 40)
    chosen = chosen_series(folder, ReadOptions())
    masks = RegionFiles({name: root / f"{NAME}_{name}.nii.gz" for name in ("lung", "heart")})
    for path in masks.files.values():
        path.write_bytes(b"mask")
    run = Run(inputs_of(folder, chosen, masks), "cpu", "lm", "ab", {}, {}, {"reading": 1.5})
    whole = result(folder, boxes(("lung", "heart")), made_by=MadeBy("files", source=str(root)),
                   notes=(f"series 2 ...{SERIES[-12:]} taken of 2; not taken: 1 {STUDY}: {root}/{NAME}_lung.nii.gz",
                          f"2 DICOM files cannot be read: {NAME}.dcm, {NAME}_2.dcm"))  # fmt: skip
    from dataclasses import replace

    named = replace(whole.study, id=pseudonym(chosen.series.uid), patient=NUMBER, masks=masks)
    return replace(whole, study=named, run=run, absent={"bone": f"{root}/{NAME}_bone.nii.gz: no such file"})


def texts(folder):
    """Everything that the files of a folder say, compressed parts too."""
    for file in sorted(folder.rglob("*")):
        content = file.read_bytes()
        if content.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content += b"".join(archive.read(name) for name in archive.namelist())
        yield file, content


def test_no_file_that_is_no_dicom_says_whose_scan_it_is(study, tmp_path, caplog) -> None:
    known = [name for name in EXPORTERS if EXPORTERS.get(name).__module__.startswith("reg2rg.")]
    assert {"JSON", "FHIR", Page.__name__, *DICOM} <= set(known)
    caplog.set_level(logging.DEBUG)
    written = export(study, tmp_path, [exporter_named(name) for name in known])
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in written}
    for file, content in texts(tmp_path):
        assert not [word for word in PLANTED if word in file.name]
        of_dicom = content[128:132] == b"DICM"
        told = [word for word in PLANTED if word.encode() in content]
        assert of_dicom or not told, f"{file.name} says {told}"
        if of_dicom:  # it is the patient's study that these belong to
            assert pydicom.dcmread(file).StudyInstanceUID == STUDY
    assert not [word for word in PLANTED if word in caplog.text]
    record = json.loads((tmp_path / f"{study.study.id}.run.json").read_text())
    assert record["input"]["dicom"]["study"] == mapped_uid(STUDY)
    assert record["repaired"] == ["series 2 ... taken of 2; not taken: 1 ...: ...", "2 DICOM files cannot be read"]
    assert record["refused"] == {"bone": "...: no such file"}
    assert set(record["files"]) == {file.name for file in written} - {f"{study.study.id}.run.json"}


def test_who_asks_for_it_gets_all(study, tmp_path) -> None:
    names = ("JSON", "FHIR", "Page")
    export(study, tmp_path, [exporter_named(name, identified=True) for name in names], identified=True)
    said = {
        file.suffixes[-2] + file.suffix if file.stem.count(".") else file.suffix: content.decode()
        for file, content in texts(tmp_path)
    }
    assert str(study.study.image) in said[".json"]
    assert str(study.study.image) in said[".html"]
    assert f"urn:oid:{STUDY}" in said[".fhir.json"]
    assert json.loads(said[".run.json"])["input"]["scan"] == str(study.study.image)
    assert json.loads(said[".run.json"])["input"]["dicom"]["series"] == SERIES


def test_pseudonyms() -> None:
    assert re.fullmatch(r"2\.25\.[1-9]\d{30,38}", mapped_uid(SERIES))
    assert mapped_uid(SERIES) == mapped_uid(str(SERIES)) != mapped_uid(STUDY)
    assert re.fullmatch(r"ct-[0-9a-f]{12}", pseudonym(SERIES))


def test_masks_and_segmenters(study) -> None:
    from dataclasses import replace

    labels = replace(
        study, study=replace(study.study, masks=LabelMap(study.study.image / f"{NAME}.nii.gz", {"lung": (1,)}))
    )
    assert str(deidentified(labels).study.masks.file) == "masks.nii.gz"
    several = RegionFiles({"lung": tuple(study.study.image / f"{NAME}_{side}.nrrd" for side in "lr")})
    found = deidentified(replace(study, study=replace(study.study, masks=several))).study.masks
    assert [str(file) for file in found.files["lung"]] == ["lung.nrrd", "lung_1.nrrd"]
    for source, kept in (("weights R231", "weights R231"), (f"/data/{NAME}", "")):
        made_by = replace(study.made_by, masks=MadeBy("LungMask", "1", source))
        assert deidentified(replace(study, made_by=made_by)).made_by.masks == MadeBy("LungMask", "1", kept)
    asked = replace(study.made_by, options=replace(study.made_by.options, series=SERIES[-5:]))
    assert deidentified(replace(study, made_by=asked)).made_by.options.series == "given"


def test_digests_know_no_names_and_no_order(study, tmp_path) -> None:
    other = save(planted(), tmp_path / "other", prefix="x")
    chosen = chosen_series(other, ReadOptions())
    again = inputs_of(other, chosen, None)
    assert again.scan == study.run.inputs.scan
    assert again.files == 24
    assert again.dicom.instances == study.run.inputs.dicom.instances
    assert set(again.dicom.instances.values()) == {"1.2.840.10008.5.1.4.1.1.2"}
    first = sorted(other.iterdir())[0]
    first.write_bytes(first.read_bytes()[:-1] + b"\x07")
    assert inputs_of(other, chosen, None).scan != again.scan
