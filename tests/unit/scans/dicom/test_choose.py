"""Which series is read, out of what a study's folder, zip or DICOMDIR holds, and what is said of the others."""

from __future__ import annotations

import copy
import shutil
import zipfile

import numpy as np
import pytest

from dicom_files import FileSet, capture, chest, in_ras, localizer, lps, points, save, slices
from reg2rg.core.errors import DataFault
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.dicom.choose import table
from reg2rg.scans.dicom.reader import series_of
from reg2rg.scans.read import files_of, read_scan

THICK = "1.2.3.4.50"


def thick(**tags):
    """The same chest, every 4.5 mm."""
    affine = lps((5.0, 4.0, 4.5))
    return slices(chest(points((64, 60, 16), affine)), affine, uid=THICK, SeriesNumber=3, **tags)


def coronal(**tags):
    affine = lps((5.0, 3.0, 8.0), orientation=((1, 0, 0), (0, 0, -1)))
    kinds = ["DERIVED", "SECONDARY", "REFORMATTED"]
    return slices(np.zeros((64, 24, 20), np.int16), affine, uid="1.2.3.4.60", ImageType=kinds, SeriesNumber=4, **tags)


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    save(slices(), folder / "a" / "b", "IMG")
    save(thick(), folder, "THICK")
    save(coronal(), folder, "COR")
    save([localizer()], folder, "LOC")
    save([capture()], folder, "DOSE")
    (folder / "a" / "readme.txt").write_text("not an image")
    (folder / ".DS_Store").write_bytes(bytes(200))
    return folder


def chosen(path, **options):
    scan = read_scan(path, ReadOptions(**options))
    assert np.array_equal(scan.volume.array, in_ras(chest()))
    return scan


def refused(path, **options) -> DataFault:
    with pytest.raises(DataFault) as caught:
        read_scan(path, ReadOptions(**options))
    return caught.value


def test_a_whole_study(study) -> None:
    [note] = chosen(study).notes
    assert note.startswith("series 2 1.2.3.4.5 (24 slices every 3 mm) taken of 5; not taken: ")
    for said in (
        "1 1.2.3.4.7: localizer",
        "2 1.2.3.4.8: pictures, no CT slices",
        "3 1.2.3.4.50: thicker: every 4.5 mm",
        "4 1.2.3.4.60: not axial",
    ):
        assert said in note, said


def test_the_table(study) -> None:
    _, judged, _ = series_of(study, ReadOptions())
    lines = table(judged).splitlines()
    assert lines[0].split() == ["no.", "UID", "kind", "slices", "step", "kernel", "verdict"]
    [taken] = [line.split() for line in lines if line.endswith("taken")]
    assert taken == ["2", "1.2.3.4.5", "CT", "24", "3", "mm", "B30f", "taken"]
    assert len(lines) == 6
    assert table(series_of(study, ReadOptions(kernel="B99"))[1]).count("kernel B30f, not B99") == 2
    assert not any(secret in table(judged) for secret in ("Doe", "SECRET1"))


def test_the_one_that_is_asked_for(study) -> None:
    scan = read_scan(study, ReadOptions(series=THICK))
    assert scan.volume.spacing[2] == pytest.approx(4.5)
    assert "1.2.3.4.5: another series was asked for" in scan.notes[0]
    assert read_scan(study, ReadOptions(series="4.50")).volume.spacing[2] == pytest.approx(4.5)
    fault = refused(study, series="9.9.9")
    assert fault.code == "SERIES_UNKNOWN"
    assert "1.2.3.4.5" in str(fault)
    assert "fewer" not in str(refused(study, series="1.2.3.4.7"))


def test_zip(study, tmp_path) -> None:
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in study.rglob("*"):
            archive.write(file, file.relative_to(study))
        archive.writestr("__MACOSX/._IM0001", bytes(200))
    assert "taken of 5" in chosen(path).notes[0]
    assert files_of(path) == (path,)
    path.write_bytes(path.read_bytes()[:-2000])
    assert refused(path).code in ("NOT_NIFTI", "CORRUPT")


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_with_a_damaged_byte(tmp_path, packing) -> None:
    path = tmp_path / "a.zip"
    folder = save(slices(), tmp_path / "a")
    with zipfile.ZipFile(path, "w", packing) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        last = archive.infolist()[-1]
    data = bytearray(path.read_bytes())
    for place in (last.header_offset + 60, last.header_offset + last.compress_size // 2):
        damaged = data.copy()
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        assert refused(path).code in ("CORRUPT", "MISSING_SLICE")
    path.write_bytes(data)
    chosen(path)


def test_dicomdir(study, tmp_path) -> None:
    files = FileSet()
    for file in study.rglob("*"):
        if file.is_file() and file.suffix != ".txt" and not file.name.startswith("."):
            files.add(file)
    medium = tmp_path / "medium"
    files.write(medium)
    for path in (medium / "DICOMDIR", medium):
        assert "taken of 5" in chosen(path).notes[0]
    assert len(files_of(medium / "DICOMDIR")) == 1 + 24 + 16 + 20 + 2
    lower = tmp_path / "lower"
    shutil.copytree(medium, lower)
    for file in [*lower.rglob("*")][::-1]:
        file.rename(file.with_name(file.name.lower()))
    assert "taken of 5" in chosen(lower / "dicomdir").notes[0]
    next(file for file in medium.rglob("*") if file.is_file() and file.name != "DICOMDIR").unlink()
    fault = refused(medium / "DICOMDIR")
    assert fault.code == "MISSING_FILE"
    assert "names 62 files, 1 of which are not there" in str(fault)


def test_two_kernels_as_two_series(tmp_path) -> None:
    save(slices(), tmp_path, "A")
    save(slices(chest() + 5, uid="1.2.3.4.6", ConvolutionKernel="B70f"), tmp_path, "B7")
    fault = refused(tmp_path)
    assert fault.code == "SERIES_CHOICE"
    assert "2 1.2.3.4.5, kernel B30f; 2 1.2.3.4.6, kernel B70f" in str(fault)
    assert "series (the end of its UID), or kernel" in str(fault)
    chosen(tmp_path, kernel="B30f")
    assert read_scan(tmp_path, ReadOptions(kernel="b70f")).volume.array[0, 0, 0] == in_ras(chest())[0, 0, 0] + 5
    assert refused(tmp_path, kernel="B99").code == "NO_SERIES"


def test_reconstructions_of_unequal_length_under_one_uid(tmp_path) -> None:
    hard = slices(chest() + 5, ConvolutionKernel="B70f")[:-2]
    for one in hard:
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID + ".7"
    save(slices(), tmp_path, "A")
    save(hard, tmp_path, "HARD")
    assert "covers" not in str(chosen(tmp_path, kernel="B30f").notes)
    assert read_scan(tmp_path, ReadOptions(kernel="B70f")).volume.array.shape[2] == 22


def test_two_acquisitions_that_meet_in_a_slice_are_one_series(tmp_path) -> None:
    series = slices()
    for k, one in enumerate(series):
        one.AcquisitionNumber = 1 + (k > 12)
    seam = copy.deepcopy(series[12])
    seam.AcquisitionNumber = 2
    seam.SOPInstanceUID = seam.file_meta.MediaStorageSOPInstanceUID = "1.2.3.98"
    assert chosen(save([*series, seam], tmp_path)).notes == ("1 identical copy of slices: dropped",)


def test_original_before_reformatted_and_long_before_thin(tmp_path) -> None:
    save(slices(), tmp_path, "A")
    kinds = ["DERIVED", "PRIMARY", "AXIAL"]
    save(slices(chest() + 5, uid="1.2.3.4.6", ImageType=kinds), tmp_path, "REF")
    affine = lps((5.0, 4.0, 1.0))
    short = slices(chest(points((64, 60, 20), affine)), affine, uid="1.2.3.4.9")
    save(short, tmp_path, "SHORT")
    [note] = chosen(tmp_path).notes
    assert "1.2.3.4.6: reformatted, an original is there" in note
    assert "1.2.3.4.9: covers 19 mm of 69 mm" in note
    notes = read_scan(tmp_path, ReadOptions(series="1.2.3.4.6")).notes
    assert "a reformat: ImageType DERIVED, PRIMARY, AXIAL" in notes


def test_several_patients(tmp_path) -> None:
    save(slices(), tmp_path, "A")
    save(slices(uid="1.2.9.5", study="1.2.9", PatientID="SECRET2"), tmp_path, "B2")
    fault = refused(tmp_path)
    assert fault.code == "SERIES_CHOICE"
    assert "series of several patients" in str(fault)
    assert "SECRET" not in str(fault)
    chosen(tmp_path, series="1.2.9.5")


def test_several_studies(tmp_path) -> None:
    save(slices(), tmp_path, "A")
    save(slices(uid="1.2.9.5", study="1.2.9"), tmp_path, "B2")
    assert "series of several studies that fit alike" in str(refused(tmp_path))


def test_nothing_there(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "absent").code == "MISSING_FILE"
    assert "error" not in str(refused(tmp_path / "empty")).lower()
    save([localizer()], tmp_path / "loc")
    assert refused(tmp_path / "loc").code in ("LOCALIZER", "NO_SERIES")
    save([capture()], tmp_path / "dose")
    assert "pictures, no CT slices" in str(refused(tmp_path / "dose"))
