"""Volumes without a place: arrays and folders of slice images; what is damaged, missing or coloured is named."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image

from layouts import SHAPE, as_picture, as_slices, chest, slices
from reg2rg.core.errors import DataFault
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.npz import NPZ
from reg2rg.scans.pictures import Pictures
from reg2rg.scans.read import files_of, read_image, reader_of

PLANES = as_picture(as_slices(chest()))


def test_slices_are_read_by_their_numbers(tmp_path):
    """10 comes after 9, and the first picture is the top of the chest."""
    folder = slices(tmp_path / "7", PLANES)
    image = read_image(folder)
    assert isinstance(reader_of(folder), Pictures)
    np.testing.assert_array_equal(image.stored[::-1, ::-1, ::-1], as_picture(chest()))
    assert np.diag(image.affine).tolist() == [-1, -1, -1, 1]
    assert not image.placed
    assert len(files_of(folder)) == SHAPE[2]
    up = Pictures().read_scan(folder, ReadOptions(first_slice="feet"))
    assert np.diag(up.affine).tolist() == [-1, -1, 1, 1]


@pytest.mark.parametrize("mode", ["RGB", "I;16", "P", "L"])
def test_grey_in_other_modes(tmp_path, mode):
    folder = tmp_path / "7"
    folder.mkdir()
    for number, plane in enumerate(PLANES):
        picture = Image.fromarray(plane.astype(np.uint16) * 100) if mode == "I;16" else Image.fromarray(plane)
        (picture if mode == "I;16" else picture.convert(mode)).save(folder / f"slice_{number:03}.png")
    stored = read_image(folder).stored
    assert stored.max() == (25500 if mode == "I;16" else 255)


def test_what_is_no_folder_of_slices(tmp_path):
    folder = slices(tmp_path / "7", PLANES[:2])
    (folder / "notes.txt").write_text("x")
    assert not Pictures().matches(folder)
    assert not Pictures().matches(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    assert not Pictures().matches(tmp_path / "empty")


@pytest.mark.parametrize(
    ("plant", "code", "said"),
    [
        (lambda f: (f / "5.png").unlink(), "SLICE_GAP", "none of number 5"),
        (lambda f: (f / "a5.png").write_bytes((f / "5.png").read_bytes()),
         "SLICE_GAP", "two slices of one number"),
        (lambda f: (f / "5.png").rename(f / "five.png"), "SLICE_GAP", "names without a number"),
        (lambda f: Image.fromarray(PLANES[0][:9]).save(f / "5.png"), "SLICE_SIZE", "5.png is 24 x 9, 1.png 24 x 26"),
        (lambda f: Image.new("RGB", (24, 26), (255, 0, 0)).save(f / "5.png"), "COLOUR", "5.png"),
        (lambda f: (f / "5.png").write_bytes((f / "5.png").read_bytes()[:90]), "CORRUPT", "5.png"),
        (lambda f: (f / "5.png").write_bytes(b""), "CORRUPT", "5.png"),
    ],
)  # fmt: skip
def test_faulty_slices(tmp_path, plant, code, said):
    folder = slices(tmp_path / "7", PLANES)
    plant(folder)
    with pytest.raises(DataFault, match=rf"{code} .*{said}"):
        read_image(folder)


def arrays(path, **named):
    np.savez_compressed(path, **named)
    return path


def test_an_array_and_its_checks(tmp_path):
    path = arrays(tmp_path / "7.npz", arr_0=as_slices(chest()) / 1000)
    assert isinstance(reader_of(path), NPZ)
    np.testing.assert_array_equal(np.rint(read_image(path).values())[::-1, ::-1, ::-1], chest())
    fortran = arrays(tmp_path / "8.npz", arr_0=np.asfortranarray(as_slices(chest()) / 1000))
    np.testing.assert_array_equal(read_image(fortran).stored, read_image(path).stored)


def shortened(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, {"shape": SHAPE, "fortran_order": False, "descr": "<f4"})
        stream.write(bytes(100))


def damaged(path):
    arrays(path, arr_0=as_slices(chest()) / 1000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("plant", "code", "said"),
    [
        (lambda p: arrays(p, ct=chest()), "ARRAY_KEY", "keys ct .*a volume under arr_0"),
        (lambda p: arrays(p, arr_0=chest()[0]), "NOT_3D", "26 x 20"),
        (lambda p: arrays(p, arr_0=chest()), "NOT_HU", "look like HU already .*divide by 1000"),
        (lambda p: arrays(p, arr_0=np.array([[[{}]]], dtype=object)), "DATATYPE", "array of object"),
        (lambda p: arrays(p, arr_0=np.array([[["a"]]])), "DATATYPE", "array of"),
        (shortened, "TRUNCATED", "100 bytes"),
        (damaged, "CORRUPT", "7.npz"),
        (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(90)), "CORRUPT", "7.npz"),
        (lambda p: p.write_bytes(b""), "EMPTY_FILE", "7.npz"),
    ],
)
def test_faulty_arrays(tmp_path, plant, code, said):
    path = tmp_path / "7.npz"
    plant(path)
    with pytest.raises(DataFault, match=rf"{code} .*{said}"):
        read_image(path)
