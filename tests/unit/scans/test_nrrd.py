"""NRRD files give what NIfTI files of the same scan give, or the fault that they have."""

from __future__ import annotations

import gzip
import random

import nibabel as nib
import nrrd
import numpy as np
import pytest

from reg2rg.core.errors import DataFault
from reg2rg.core.regions import Region, RegionSet
from reg2rg.core.types import LabelMap, RegionFiles, Study
from reg2rg.scans.base import READERS, Reader, ReadOptions, StoredImage
from reg2rg.scans.read import files_of, read_image, read_scan, read_study, read_volume

SHAPE = (18, 16, 14)
LOOSE = ReadOptions(min_slices=8)
# Oblique, of three spacings; columns are the steps of the axes in RAS mm.
AFFINE = np.array([[1.5, -0.3, 0.0, -20.0], [0.3, 1.5, 0.2, 7.0], [0.0, -0.1, 2.5, -90.0], [0, 0, 0, 1]])


def chest():
    hu = np.full(SHAPE, -1000, np.int16)
    hu[3:15, 3:13] = np.random.default_rng(0).normal(40, 15, (12, 10, SHAPE[2]))
    hu[4:8, 5:10, 2:12] = -850
    return hu


def fields(signs=(-1, -1, 1), space="left-posterior-superior", **more):
    ras = np.diag([*signs, 1]) @ AFFINE
    return {"space": space, "space directions": ras[:3, :3].T, "space origin": ras[:3, 3]} | more


def write(path, array=None, header=None, **more):
    nrrd.write(str(path), chest() if array is None else array, (fields() if header is None else header) | more)
    return path


def code_of(path):
    with pytest.raises(DataFault) as caught:
        read_image(path)
    assert str(path.parent) in str(caught.value)
    assert "Fix: " in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "named_wrongly.nii.gz"])
def test_it_is_the_scan_that_nifti_is(tmp_path, encoding, name):
    if name.endswith("gz"):
        write(tmp_path / "b.nrrd", encoding=encoding).rename(tmp_path / name)
    else:
        write(tmp_path / name, encoding=encoding)
    nib.save(nib.Nifti1Image(chest(), AFFINE), tmp_path / "ct.nii.gz")
    ours, theirs = (read_volume(tmp_path / file, LOOSE)[0] for file in (name, "ct.nii.gz"))
    np.testing.assert_array_equal(ours.array, theirs.array)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)


@pytest.mark.parametrize(
    ("signs", "space"),
    [((1, 1, 1), "RAS"), ((-1, 1, 1), "left-anterior-superior"), ((-1, -1, 1), "LPS"), ((-1, -1, 1), "scanner-xyz")],
)
def test_every_space_leads_to_ras(tmp_path, signs, space):
    image = read_image(write(tmp_path / "a.nrrd", header=fields(signs, space)))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-9)
    assert any("on trust" in note for note in image.notes) == (space == "scanner-xyz")


def test_units_become_mm(tmp_path):
    metres = np.diag([1e-3, 1e-3, 1e-3, 1]) @ np.diag([-1, -1, 1, 1]) @ AFFINE
    header = fields() | {"space directions": metres[:3, :3].T, "space origin": metres[:3, 3]}
    image = read_image(write(tmp_path / "a.nrrd", header=header | {"space units": ["m"] * 3}))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-9)
    assert image.notes[0] == "affine converted from m to mm"
    assert code_of(write(tmp_path / "a.nrrd", **{"space units": ["inch"] * 3})) == "HEADER"


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_stored_types(tmp_path, kind, endian):
    array = (chest() > 0).astype(kind)
    image = read_image(write(tmp_path / "a.nrrd", array, endian=endian))
    assert image.stored.dtype == np.dtype(kind)
    np.testing.assert_array_equal(image.values(), array)


def test_without_space_directions_the_spacings_count(tmp_path):
    image = read_image(write(tmp_path / "a.nrrd", header={"spacings": [1.0, 2.0, 3.0]}))
    np.testing.assert_array_equal(image.affine, np.diag([-1.0, -2.0, 3.0, 1.0]))
    assert "the header has no space directions: orientation is taken on trust" in image.notes
    image = read_image(write(tmp_path / "b.nrrd", header={"spacings": [-1.0, 2.0, 3.0]}))
    np.testing.assert_array_equal(image.affine, np.diag([-1.0, -2.0, 3.0, 1.0]))
    assert any("read without signs" in note for note in image.notes)


def test_spacings_beside_other_directions_are_noted(tmp_path):
    lengths = np.linalg.norm(AFFINE[:3, :3], axis=0)
    for spacings, noted in ((lengths, False), (2 * lengths, True)):
        image = read_image(write(tmp_path / "a.nrrd", spacings=spacings))
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
        assert any("the directions are used" in note for note in image.notes) == noted


@pytest.mark.parametrize(
    ("array", "header", "code"),
    [
        (np.zeros((3, *SHAPE), np.uint8), {"kinds": ["RGB-color", *["domain"] * 3]}, "COLOUR"),
        (np.zeros((3, *SHAPE), np.uint8), {"kinds": ["list", *["domain"] * 3]}, "NOT_3D"),
        (np.zeros((3, *SHAPE), np.uint8), {}, "NOT_3D"),
        (np.zeros(SHAPE[:2], np.uint8), {}, "NOT_3D"),
        (np.zeros(SHAPE, np.uint8), {"spacings": [1, 1, 90]}, "SPACING"),
        (np.zeros(SHAPE, np.uint8), {"spacings": [1, 1, 1], "encoding": "bzip2"}, "DATATYPE"),
    ],
)
def test_what_is_no_volume(tmp_path, array, header, code):
    assert code_of(write(tmp_path / "a.nrrd", array, header)) == code


def test_an_axis_of_one_time_is_dropped(tmp_path):
    header = fields() | {"space directions": np.vstack([[np.nan] * 3, fields()["space directions"]])}
    image = read_image(write(tmp_path / "a.nrrd", chest()[None], header))
    np.testing.assert_array_equal(image.stored, chest())
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-9)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_damage_is_found_to_the_last_byte(tmp_path, encoding):
    noise = np.random.default_rng(0).normal(0, 300, SHAPE).astype(np.int16)  # no repeats that damage could swap
    data = write(tmp_path / "a.nrrd", noise, encoding=encoding).read_bytes()
    start, rng = data.index(b"\n\n") + 2, random.Random(0)
    path = tmp_path / "b.nrrd"
    for size in [rng.randrange(start, len(data)) for _ in range(20)] + [len(data) - 1]:
        path.write_bytes(data[:size])
        assert code_of(path) == "TRUNCATED"
    path.write_bytes(data + b"x")
    assert code_of(path) == ("SIZE_MISMATCH" if encoding == "raw" else "CORRUPT")
    if encoding == "gzip":  # where it hits the voxels; bytes such as the time in gzip's own header say nothing
        for place in (rng.randrange(start + 20, len(data)) for _ in range(40)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
            assert code_of(path) in {"CORRUPT", "TRUNCATED", "SIZE_MISMATCH"}


def test_a_header_of_any_bytes_is_a_fault_and_never_a_crash(tmp_path):
    data, rng = write(tmp_path / "a.nrrd", encoding="raw").read_bytes(), random.Random(0)
    start, path = data.index(b"\n\n"), tmp_path / "b.nrrd"
    for _ in range(300):
        place = rng.randrange(4, start)
        path.write_bytes(data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :])
        try:
            image = read_image(path)
        except DataFault:
            continue
        assert np.isfinite(image.affine).all()


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"encoding: raw", b"encoding: hex", "DATATYPE"),
        (b"type: int16", b"type: block", "DATATYPE"),
        (b"endian: little\n", b"", "DATATYPE"),
        (b"sizes: 18 16 14", b"sizes: 18 16", "HEADER"),
        (b"NRRD000", b"NRRD009", "HEADER"),
        (b"\n\n", b"\nbyte skip: -3\n\n", "HEADER"),
        (b"\n\n", b"\nline skip: many\n\n", "HEADER"),
        (b"\n\n", b"\nline skip: 1000000000000\n\n", "HEADER"),
        (b"\n\n", b"\nbyte skip: 1000000000000000000000000000000\n\n", "HEADER"),
        (b"\n\n", b"\nline skip: 100000\n\n", "TRUNCATED"),
    ],
)
def test_headers_that_cannot_be(tmp_path, old, new, code):
    path = write(tmp_path / "a.nrrd", encoding="raw")
    data = path.read_bytes()
    assert old in data or old == b"type: int16"
    path.write_bytes(
        data.replace(old, new, 1).replace(b"type: short", new if old == b"type: int16" else b"type: short")
    )
    assert code_of(path) == code


def test_voxels_beside_the_header(tmp_path):
    path = write(tmp_path / "a.nhdr", encoding="gzip")
    [voxels] = [file for file in tmp_path.iterdir() if file != path]
    assert files_of(path) == (path, voxels)
    header = path.read_bytes()
    for name in (b"../" + voxels.name.encode(), b"/etc/passwd", b"LIST", b"a%03d.raw 1 3 1"):
        path.write_bytes(header.replace(voxels.name.encode(), name))
        assert code_of(path) == "HEADER"
    path.write_bytes(header)
    voxels.unlink()
    assert code_of(path) == "MISSING_FILE"


def test_bytes_and_lines_to_skip(tmp_path):
    data = write(tmp_path / "a.nrrd", encoding="raw").read_bytes()
    head, _, voxels = data.partition(b"\n\n")
    path = tmp_path / "b.nrrd"
    zipped = head.replace(b"encoding: raw", b"encoding: gzip")
    for content in (
        head + b"\nbyte skip: 5\n\n" + b"12345" + voxels,
        head + b"\nbyteskip: -1\n\n" + b"of any length" + voxels,
        head + b"\nline skip: 2\n\n" + b"one\ntwo\n" + voxels,
        zipped + b"\nbyte skip: 5\n\n" + gzip.compress(b"12345" + voxels),
        head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + voxels,
    ):
        path.write_bytes(content)
        np.testing.assert_array_equal(read_image(path).stored, chest())


def test_a_label_map_and_masks_in_nrrd(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:8, 5:10, 2:12] = 2
    files = [write(tmp_path / "ct.nrrd"), write(tmp_path / "seg.nrrd", labels), write(tmp_path / "m.nrrd", labels // 2)]
    regions = RegionSet("one", (Region("lung"),))
    for masks in (LabelMap(files[1], {"lung": (2,)}), RegionFiles({"lung": files[2]})):
        found = read_study(Study("a", "a", "test", files[0], masks), regions, LOOSE)
        assert found.volume.array[found.masks["lung"]].tolist() == [-850] * int((labels > 0).sum())


def test_no_reader_is_an_error_that_lists_the_kinds(tmp_path):
    path = tmp_path / "scan.xyz"
    path.write_bytes(b"something else")
    with pytest.raises(
        DataFault, match=r"NOT_NIFTI .*no known kind \(expected a DICOM, NIfTI, NPZ, NRRD or Pictures file\)"
    ):
        read_image(path)


def test_a_plug_in_reads_what_no_reader_knew(tmp_path, monkeypatch):
    class Plain(Reader):
        suffixes = (".plain",)

        def matches(self, path):
            return path.is_file() and path.read_bytes()[:5] == b"PLAIN"

        def read(self, path):
            return StoredImage(path, chest(), 1.0, 0.0, AFFINE)

    path = tmp_path / "scan.plain"
    path.write_bytes(b"PLAIN")
    monkeypatch.setattr("reg2rg.scans.read.load_plugins", lambda: READERS.register(Plain))
    try:
        np.testing.assert_array_equal(read_image(path).stored, chest())
    finally:
        READERS._classes.pop("Plain")


# Real files


def test_reads_what_simpleitk_reads(shared_ct):
    import SimpleITK as sitk

    folder = shared_ct / "chestimagingplatform_BSDstyle"
    for name in ("ct-64", "lm-64", "crop_ct_partialLungLabelMap", "crop_ct_interactiveLobeSegmentation"):
        path = folder / f"{name}.nrrd"
        image, theirs = read_image(path), sitk.ReadImage(str(path))
        np.testing.assert_array_equal(image.stored, sitk.GetArrayFromImage(theirs).T)
        corner = [size - 1 for size in theirs.GetSize()]
        for index in ([0, 0, 0], corner):
            lps = np.array(theirs.TransformIndexToPhysicalPoint(index))
            np.testing.assert_allclose((image.affine @ [*index, 1])[:3], lps * [-1, -1, 1], atol=1e-6)
    with pytest.raises(DataFault, match="FEW_SLICES"):
        read_volume(folder / "crop_ct_2slices.nrrd")
    few = read_image(shared_ct / "dcmqi_BSD3" / "heart_seg.nrrd")  # a mask may be smaller than a scan
    assert few.stored.shape[2] == 3


def test_a_chest_ct_with_its_lungs(shared_ct):
    folder = shared_ct / "chestimagingplatform_BSDstyle"
    # The low byte of these labels is the region, thirds of the left lung (9 to 11) and of the right one (12 to 14).
    stored = read_image(folder / "lm-64.nrrd").stored
    sides = {"left": range(9, 12), "right": range(12, 15)}
    labels = {side: tuple(int(v) for v in np.unique(stored) if v % 256 in low) for side, low in sides.items()}
    regions = RegionSet("lungs", (Region("left"), Region("right")))
    study = Study("cip", "cip", "test", folder / "ct-64.nrrd", LabelMap(folder / "lm-64.nrrd", labels))
    found = read_study(study, regions)
    middles = {side: np.argwhere(mask)[:, 0].mean() for side, mask in found.masks.items()}
    assert middles["left"] < middles["right"]  # the first axis of RAS runs to the patient's right
    for mask in found.masks.values():
        assert found.volume.array[mask].mean() < -600
        assert 1.0 < mask.sum() * np.prod(found.volume.spacing) / 1e6 < 4.0  # litres


def test_an_array_written_without_a_header_is_a_mask_but_no_scan(tmp_path):
    nrrd.write(str(tmp_path / "plain.nrrd"), np.ones(SHAPE, np.uint8))
    image = read_image(tmp_path / "plain.nrrd")
    assert not image.placed
    assert "the header has no spacings: voxels are taken as 1 mm" in image.notes
    with pytest.raises(DataFault, match=r"neither space directions nor spacings.*nrrd\.write") as caught:
        read_scan(tmp_path / "plain.nrrd", ReadOptions())
    assert caught.value.code == "AFFINE"
