from __future__ import annotations

import gzip
import itertools
import pickle
import random
import struct
import zipfile

import nibabel as nib
import numpy as np
import pytest

from reg2rg.core.errors import EXIT_USAGE, DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.core.task import Views
from reg2rg.core.types import RegionFiles, Study
from reg2rg.scans.base import READERS, Reader, ReadOptions
from reg2rg.scans.hounsfield import HU_MAX, HU_MIN
from reg2rg.scans.read import files_of, read_image, read_study, read_volume
from reg2rg.store.inputs import digest
from reg2rg.store.prepare_study import entry_key

SPACING = np.diag([2.0, 1.5, 3.0, 1.0])
LOOSE = ReadOptions(min_slices=8)
GOOD = (
    "lidc-idri-0314_CCBY3/ct_1.56x1.56x2mm.nii.gz",
    "totalsegmentator_Apache2/example_ct.nii.gz",
    "totalsegmentator_Apache2/example_ct_sm.nii.gz",
    "totalsegmentator_Apache2/pulmonary_report/ct_cropped.nii.gz",
    "totalsegmentator_Apache2/aorta_report/ct_cropped.nii.gz",
)


def chest(shape=(26, 22, 18), seed=0):
    """Air, a noisy body, two unequal lungs, a bone: asymmetric in every axis."""
    rng = np.random.default_rng(seed)
    hu = np.full(shape, -1000, np.int16)
    i, j, k = np.indices(shape) / np.array(shape).reshape(3, 1, 1, 1)
    body = (i - 0.5) ** 2 + (j - 0.5) ** 2 < 0.2
    hu[body] = rng.normal(40, 15, int(body.sum()))
    hu[body & (i > 0.55) & (i < 0.8) & (k > 0.2)] = -850
    hu[body & (i > 0.25) & (i < 0.45) & (k > 0.35)] = -820
    hu[body & (j < 0.2)] = 700
    return hu


def save(path, array, affine=SPACING, **fields):
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def fault(path, options=LOOSE):
    with pytest.raises(DataFault) as caught:
        read_volume(path, options)
    message = str(caught.value)
    assert str(path) in message
    assert "expected" in message
    assert "Fix: " in message
    assert caught.value.exit_code == EXIT_USAGE
    return caught.value


def patch_header(path, offset, fmt, *values):
    """Rewrite header bytes of a .nii in place."""
    data = bytearray(path.read_bytes())
    struct.pack_into(fmt, data, offset, *values)
    path.write_bytes(bytes(data))
    return path


# Reading


def test_reads_what_nibabel_reads(shared_ct):
    for name in GOOD:
        image = read_image(shared_ct / name)
        reference = nib.load(shared_ct / name)
        np.testing.assert_array_equal(image.values(), np.asarray(reference.dataobj))
        np.testing.assert_allclose(image.affine, reference.affine)


@pytest.mark.parametrize(
    "kind", ["int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64", ">i2", ">f4"]
)
def test_stored_types_give_the_same_hu(tmp_path, kind):
    dtype = np.dtype(kind)
    slope, inter = (16, 500) if kind == "int8" else (1, -1024) if dtype.kind == "u" else (1, 0)
    raw = ((chest() - inter) / slope).round().astype(dtype)
    header = nib.Nifti1Header(endianness=">" if kind.startswith(">") else "<")
    header.set_data_dtype(dtype)
    header.set_data_shape(raw.shape)
    header.set_sform(SPACING, 1)
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, slope, inter
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + raw.tobytes(order="F")))
    volume, _ = read_volume(path, LOOSE)
    assert volume.array.dtype == np.int16
    assert volume.array.flags.f_contiguous
    assert volume.array.flags.writeable
    np.testing.assert_allclose(volume.array, chest(), atol=8 if kind == "int8" else 0)


@pytest.mark.parametrize(("slope", "inter"), [(np.nan, np.nan), (0, 5), (1, np.nan), (1, 0)])
def test_slope_that_means_none(tmp_path, slope, inter):
    path = save(tmp_path / "a.nii", chest())
    patch_header(path, 112, "<2f", slope, inter)
    np.testing.assert_array_equal(read_volume(path, LOOSE)[0].array, chest())


def test_fractional_slope_is_rounded_not_truncated(tmp_path):
    path = save(tmp_path / "a.nii", (chest() * 2 + 1).astype(np.int16))
    patch_header(path, 112, "<2f", 0.5, 0.2)
    np.testing.assert_array_equal(read_volume(path, LOOSE)[0].array, np.rint(chest() + 0.7))


def test_infinite_slope_is_refused(tmp_path):
    path = patch_header(save(tmp_path / "a.nii", chest()), 112, "<2f", np.inf, 0)
    assert fault(path).code == "HEADER"


def test_nifti_2(tmp_path):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti2Image(chest(), SPACING), path)
    np.testing.assert_array_equal(read_volume(path, LOOSE)[0].array, chest())


def test_name_and_content_may_differ(tmp_path):
    plain = save(tmp_path / "a.nii", chest())
    misnamed = tmp_path / "b.nii.gz"
    misnamed.write_bytes(plain.read_bytes())
    zipped = tmp_path / "c.nii"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    for path, word in ((misnamed, "not gzipped"), (zipped, "gzipped")):
        volume, notes = read_volume(path, LOOSE)
        np.testing.assert_array_equal(volume.array, chest())
        assert any(word in note for note in notes)


def test_trailing_singleton_axes_are_dropped(tmp_path):
    path = save(tmp_path / "a.nii.gz", chest()[..., None, None])
    np.testing.assert_array_equal(read_volume(path, LOOSE)[0].array, chest())


def test_members_and_padding_of_gzip(tmp_path):
    data = save(tmp_path / "a.nii", chest()).read_bytes()
    path = tmp_path / "b.nii.gz"
    cut = len(data) // 3
    members = b"".join(gzip.compress(part) for part in (data[:100], data[100:cut], b"", data[cut:]))
    for tail in (b"", b"\0" * 512):
        path.write_bytes(members + tail)
        np.testing.assert_array_equal(read_volume(path, LOOSE)[0].array, chest())
    for tail in (b"garbage", b"\0\0x", gzip.compress(b"more")):
        path.write_bytes(members + tail)
        assert fault(path).code in {"CORRUPT", "SIZE_MISMATCH"}


# Damage


def flip(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << (bit % 8)
    return bytes(damaged)


@pytest.mark.parametrize(
    ("name", "flips", "cuts"), [(GOOD[2], 200, 100), (GOOD[0], 10, 14)], ids=["small", "whole chest"]
)
def test_every_damaged_file_is_refused_and_named(shared_ct, tmp_path, name, flips, cuts):
    data = (shared_ct / name).read_bytes()
    assert data[3] in (0, 8)
    start = 10 + (data.index(0, 10) - 9 if data[3] == 8 else 0)  # after the gzip header, whose bytes carry no voxels
    rng = random.Random(0)
    damaged = [flip(data, rng.randrange(start * 8, len(data) * 8)) for _ in range(flips)]
    damaged += [data[: rng.randrange(1, len(data))] for _ in range(cuts - 10)]
    damaged += [data[:-size] for size in range(1, 11)]
    path = tmp_path / "ct.nii.gz"
    codes = set()
    for content in damaged:
        path.write_bytes(content)
        codes.add(fault(path, ReadOptions()).code)
    assert codes <= {"TRUNCATED", "CORRUPT", "NOT_NIFTI"}


def test_truncated_plain_nifti(tmp_path):
    data = save(tmp_path / "a.nii", chest()).read_bytes()
    rng = random.Random(0)
    path = tmp_path / "b.nii"
    for size in [rng.randrange(1, len(data)) for _ in range(48)] + [len(data) - 1, 352]:
        path.write_bytes(data[:size])
        assert fault(path).code in {"TRUNCATED", "NOT_NIFTI"}
    path.write_bytes(data + b"\0")
    assert fault(path).code == "SIZE_MISMATCH"


def test_small_file_cannot_fill_memory(tmp_path):
    """A header that declares little with gigabytes behind it: inflated in pieces, then refused."""
    data = save(tmp_path / "a.nii", chest()).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(data) + gzip.compress(bytes(1 << 24), 9) * 10)
    assert fault(path).code == "SIZE_MISMATCH"


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (b"", "EMPTY_FILE", "0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "LFS_POINTER", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML_PAGE", "web page"),
        (b"\n  <html>", "HTML_PAGE", "web page"),
        (b'<?xml version="1.0"?><Error/>', "HTML_PAGE", "XML"),
        (b'{"error": "gated"}', "NOT_NIFTI", "JSON"),
        (b"PK\x03\x04" + bytes(400), "NOT_NIFTI", "zip"),
        (b"NRRD0004\n" + bytes(400), "HEADER", "NRRD header"),
        (b"\x93NUMPY" + bytes(400), "NOT_NIFTI", "NumPy"),
        (bytes(1000), "NOT_NIFTI", "header"),
        (b"\x5c\x01\x00\x00" + bytes(600), "NOT_NIFTI", "ANALYZE"),
        (bytes(range(256)) * 4, "NOT_NIFTI", "header"),
        (b"\x1f\x8b", "TRUNCATED", "again"),
        (gzip.compress(b"<html>no</html>", mtime=0), "HTML_PAGE", "web page"),
        (gzip.compress(gzip.compress(bytes(400), mtime=0), mtime=0), "NOT_NIFTI", "gzip inside gzip"),
        (gzip.compress(b"", mtime=0), "NOT_NIFTI", "header"),
    ],
)
def test_wrong_content(tmp_path, content, code, word):
    for name in ("a.nii", "a.nii.gz"):
        path = tmp_path / name
        path.write_bytes(content)
        found = fault(path)
        assert found.code == code
        assert word in str(found)


def test_missing_file_and_folder(tmp_path):
    assert fault(tmp_path / "none.nii.gz").code == "MISSING_FILE"
    assert fault(tmp_path).code == "UNREADABLE"
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    assert fault(tmp_path / "loop.nii").code == "UNREADABLE"
    assert fault(tmp_path / "null\0.nii").code == "UNREADABLE"


def test_links_into_a_store_of_blobs(tmp_path):
    """The link has the suffix, its target has none; a link whose target was never fetched says so."""
    blob = tmp_path / "blobs" / ("0f" * 32)
    blob.parent.mkdir()
    save(tmp_path / "a.nii.gz", chest()).rename(blob)
    link = tmp_path / "ct.nii.gz"
    link.symlink_to(f"blobs/{blob.name}")
    for path in (link, blob):
        np.testing.assert_array_equal(read_image(path).values(), chest())
    blob.unlink()
    found = fault(link)
    assert found.code == "MISSING_FILE"
    assert f"a link to blobs/{blob.name}, which is not there" in str(found)
    link.unlink()
    link.write_text("/annex/objects/SHA256E-s9--0f.nii.gz\n")
    assert "git annex get" in str(fault(link))


def test_a_null_character_in_a_name(tmp_path):
    """Also with a reader that opens files in its own way, which need not know that such a name raises ValueError."""

    class Zipped(Reader):
        suffixes = (".zip",)

        def matches(self, path):
            return zipfile.is_zipfile(path)

        def read(self, path):
            raise AssertionError(path)

    READERS.register(Zipped)
    try:
        for name in ("a\0.zip", "a\0b", "\0.nii.gz", "a\0.nhdr"):
            path = tmp_path / name
            assert fault(path).code == "UNREADABLE"
            assert files_of(path) == (path,)
            study = Study("s", "s", "test", path, RegionFiles({"lung": path}))
            with pytest.raises(DataFault, match="UNREADABLE s "):
                read_study(study, load_region_set())
            assert entry_key(study, load_region_set(), LOOSE, lambda file: digest(file, {}, {}))
    finally:
        READERS._classes.pop("Zipped")


def test_pair_of_header_and_image(tmp_path):
    nib.save(nib.Nifti1Pair(chest(), SPACING), tmp_path / "a.img")
    assert "pair" in str(fault(tmp_path / "a.hdr"))


def test_fault_survives_pickling(tmp_path):
    found = fault(tmp_path / "none.nii.gz")
    again = pickle.loads(pickle.dumps(found))
    assert (again.code, again.path, str(again)) == (found.code, found.path, str(found))


# Header


@pytest.mark.parametrize(
    ("offset", "fmt", "values", "code"),
    [
        (40, "<h", (0,), "HEADER"),
        (40, "<h", (9,), "HEADER"),
        (42, "<h", (-5,), "HEADER"),
        (42, "<h", (4096,), "HEADER"),
        (42, "<h", (25,), "SIZE_MISMATCH"),
        (42, "<h", (27,), "TRUNCATED"),
        (70, "<h", (1,), "DATATYPE"),
        (70, "<h", (32,), "DATATYPE"),
        (70, "<h", (1536,), "DATATYPE"),
        (70, "<h", (128,), "COLOUR"),
        (70, "<h", (2304,), "COLOUR"),
        (70, "<h", (16,), "HEADER"),
        (72, "<h", (32,), "HEADER"),
        (108, "<f", (100.0,), "HEADER"),
        (108, "<f", (np.nan,), "HEADER"),
        (108, "<f", (400.0,), "TRUNCATED"),
        (280, "<f", (np.nan,), "AFFINE"),
        (280, "<f", (0.0,), "AFFINE"),
        (280, "<f", (0.01,), "SPACING"),
        (280, "<f", (50.0,), "SPACING"),
        (292, "<f", (30.0,), "FORM_CONFLICT"),
        (268, "<f", (400.0,), "FORM_CONFLICT"),
        (123, "<B", (1,), "SPACING"),
        (123, "<B", (3,), "SPACING"),
    ],
)
def test_damaged_header(tmp_path, offset, fmt, values, code):
    image = nib.Nifti1Image(chest(), SPACING)
    image.set_qform(SPACING, 1)
    image.set_sform(SPACING, 1)
    nib.save(image, tmp_path / "a.nii")
    path = patch_header(tmp_path / "a.nii", offset, fmt, *values)
    if code in {"AFFINE", "SPACING"} and offset == 280:
        patch_header(path, 252, "<h", 0)  # sform alone
    assert fault(path).code == code


def test_units_are_honoured(tmp_path):
    for unit, factor in ((1, 1000.0), (3, 0.001)):
        affine = SPACING.copy()
        affine[:3] /= factor
        path = patch_header(save(tmp_path / "a.nii", chest(), affine), 123, "<B", unit)
        volume, notes = read_volume(path, LOOSE)
        np.testing.assert_allclose(volume.spacing, (2.0, 1.5, 3.0), rtol=1e-6)
        assert any("converted" in note for note in notes)


def test_affine_from_qform_and_from_neither(tmp_path):
    affine = np.array([[0, -2, 0, 10], [-1.5, 0, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(chest(), affine)
    image.set_qform(affine, 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_image(tmp_path / "a.nii").affine, affine, atol=1e-5)
    patch_header(tmp_path / "a.nii", 252, "<2h", 0, 0)
    _, notes = read_volume(tmp_path / "a.nii", LOOSE)
    assert any("neither" in note for note in notes)


def test_broken_qform(tmp_path):
    image = nib.Nifti1Image(chest(), SPACING)
    image.set_qform(SPACING, 1)
    nib.save(image, tmp_path / "a.nii")
    patch_header(tmp_path / "a.nii", 256, "<3f", 1.0, 1.0, 1.0)  # no rotation has this quaternion
    read_volume(tmp_path / "a.nii", LOOSE)  # the sform decides
    patch_header(tmp_path / "a.nii", 254, "<h", 0)
    assert fault(tmp_path / "a.nii").code == "AFFINE"


def test_oddities_are_noted(tmp_path):
    thick = save(tmp_path / "a.nii", chest(), np.diag([1, 1, 6.0, 1]))
    assert any("6.0 mm apart" in note for note in read_volume(thick, LOOSE)[1])
    tilted = SPACING.copy()
    tilted[1, 2] = 0.5
    assert any("right angles" in note for note in read_volume(save(tmp_path / "b.nii", chest(), tilted), LOOSE)[1])
    assert any("identity" in note for note in read_volume(save(tmp_path / "c.nii", chest(), np.eye(4)), LOOSE)[1])


def test_shapes_that_are_no_volume(tmp_path):
    cases = (
        (np.stack([chest()] * 3, -1), "NOT_3D"),
        (np.stack([chest()] * 3), "NOT_3D"),
        (chest()[:, :, 0], "FEW_SLICES"),
        (chest()[:, :, :1], "FEW_SLICES"),
        (chest()[:, :, :3], "FEW_SLICES"),
    )
    for array, code in cases:
        assert fault(save(tmp_path / "a.nii.gz", array)).code == code


def test_min_slices_counts_axial_slices(tmp_path):
    """The axis that runs from foot to head counts, wherever it is stored."""
    affine = np.array([[0, 2, 0, 0], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]])
    path = save(tmp_path / "a.nii", np.moveaxis(chest(), 2, 0), affine)
    assert read_volume(path, ReadOptions(min_slices=18))[0].array.shape == (26, 22, 18)
    assert "18 axial slices" in str(fault(path, ReadOptions(min_slices=19)))


@pytest.mark.filterwarnings("error")
def test_any_header_is_read_or_refused(tmp_path):
    """Bytes of the header at random: a volume of the declared shape or a fault, never another error."""
    image = nib.Nifti1Image(chest(), SPACING)
    image.set_qform(SPACING, 1)
    nib.save(image, tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    rng = random.Random(0)
    fields = [*range(40, 56), *range(68, 124), *range(252, 328)]
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.choice(fields)] = rng.choice((0, 127, 128, 255, rng.randrange(256)))
        (tmp_path / "b.nii").write_bytes(damaged)
        try:
            volume, _ = read_volume(tmp_path / "b.nii", LOOSE)
        except DataFault as error:
            refused += str(tmp_path / "b.nii") in str(error)
        else:
            assert sorted(volume.array.shape) == [18, 22, 26]
            assert volume.array.min() >= HU_MIN
    assert refused > 100


def test_intercept_beyond_any_integer(tmp_path):
    for inter in (-5.5e11, 1e30, 2.0**31):
        path = patch_header(save(tmp_path / "a.nii", chest()), 112, "<2f", 1, inter)
        assert fault(path).code in {"NOT_HU", "CONSTANT", "UINT16_WRAP"}


# Orientation


def stored_as(array, affine, axes, flips):
    """The same volume with its axes permuted and reversed, and the affine that says so."""
    moved = array.transpose(axes)
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, old in enumerate(axes):
        change[old, new] = 1
    for axis, flipped in enumerate(flips):
        if flipped:
            moved = np.flip(moved, axis)
            change[:, 3] += change[:, axis] * (moved.shape[axis] - 1)
            change[:, axis] *= -1
    return np.ascontiguousarray(moved), affine @ change


ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))


def rotation(degrees, axis):
    angle = np.radians(degrees)
    matrix = np.eye(4)
    first, second = [other for other in range(3) if other != axis]
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


@pytest.mark.parametrize("oblique", [False, True])
def test_all_48_orientations_give_the_same_volume(tmp_path, oblique):
    array, affine = chest(), SPACING.copy()
    affine[:3, 3] = (-40, 25, -300)
    if oblique:
        affine = rotation(20, 2) @ rotation(-12, 0) @ affine
    for axes, flips in ORIENTATIONS:
        moved, moved_affine = stored_as(array, affine, axes, flips)
        volume, notes = read_volume(save(tmp_path / "a.nii", moved, moved_affine), LOOSE)
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
        assert volume.array.flags.f_contiguous
        assert notes == ()


def test_real_volumes_agree_with_nibabels_canonical_form(shared_ct):
    for name in GOOD:
        volume, _ = read_volume(shared_ct / name)
        reference = nib.as_closest_canonical(nib.load(shared_ct / name))
        assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
        np.testing.assert_allclose(volume.affine, reference.affine, atol=1e-4)
        np.testing.assert_array_equal(volume.array, np.clip(np.asarray(reference.dataobj), HU_MIN, HU_MAX))


def test_front_and_back_swapped_in_the_header_are_noted(shared_ct, tmp_path):
    for name in GOOD:
        _, notes = read_volume(shared_ct / name)
        assert not any("in front of" in note for note in notes)
        image = nib.load(shared_ct / name)
        affine = image.affine.copy()
        affine[:, 1] *= -1
        path = save(tmp_path / "a.nii", np.asarray(image.dataobj), affine)
        swapped = any("in front of" in note for note in read_volume(path)[1])
        assert swapped or "cropped" in name  # contrast in the heart hides the spine of a narrow crop
    path = save(tmp_path / "b.nii", chest()[:, ::-1], SPACING)
    assert any("in front of" in note for note in read_volume(path, LOOSE)[1])


# Intensities


def test_good_scans_pass_the_gate(shared_ct):
    for name in GOOD:
        volume, _ = read_volume(shared_ct / name)
        assert volume.array.min() >= HU_MIN
        assert volume.array.max() <= HU_MAX


WRONG = {
    "raw, intercept -1024": (lambda hu: hu + 1024, {"NOT_HU"}),
    "raw, intercept -1000": (lambda hu: hu + 1000, {"NOT_HU"}),
    "raw, padded with -2000": (lambda hu: np.where(np.abs(hu + 1000) < 8, -2000, hu + 1024), {"NOT_HU"}),
    "rescaled twice": (lambda hu: hu - 1024, {"NOT_HU"}),
    "intercept -8192": (lambda hu: hu - 8192, {"NOT_HU"}),
    "to 0..1": (lambda hu: (np.clip(hu, -1000, 1000) + 1000) / 2000, {"NOT_HU"}),
    "to -1..1": (lambda hu: np.clip(hu, -1000, 1000) / 1000, {"NOT_HU"}),
    "to 0..255": (lambda hu: np.rint((np.clip(hu, -1000, 1000) + 1000) / 2000 * 255), {"NOT_HU"}),
    "z scores": (lambda hu: (hu - hu.mean()) / hu.std(), {"NOT_HU"}),
    "as uint16": (lambda hu: hu.astype(np.int16).astype(np.uint16), {"UINT16_WRAP"}),
    "as uint8": (lambda hu: hu.astype(np.int16).astype(np.uint8), {"NOT_HU"}),
    "raw as uint16": (lambda hu: (hu + 1024).clip(0).astype(np.uint16), {"NOT_HU"}),
}


@pytest.mark.parametrize("kind", WRONG)
def test_values_that_are_not_hu(shared_ct, tmp_path, kind):
    change, codes = WRONG[kind]
    for name in GOOD:
        image = nib.load(shared_ct / name)
        hu = np.asarray(image.dataobj).astype(np.float32)
        values = change(hu)
        values = values if values.dtype.kind == "u" else values.astype(np.float32)
        path = save(tmp_path / "a.nii", values, image.affine)
        found = fault(path)
        assert found.code in codes, (name, found)
        assert "values " in str(found)  # names the range
        assert ("rescaled twice" in str(found)) == (kind in ("rescaled twice", "intercept -8192")), (name, found)


def test_phantoms_pass_and_trust_lets_anything_through(tmp_path):
    assert read_volume(save(tmp_path / "a.nii", chest()), LOOSE)
    raw = save(tmp_path / "b.nii", chest() + np.int16(1024))
    assert fault(raw).code == "NOT_HU"
    volume, _ = read_volume(raw, ReadOptions(min_slices=8, hu="trust"))
    np.testing.assert_array_equal(volume.array, chest() + 1024)


def test_non_finite_voxels(tmp_path):
    hu = chest().astype(np.float32)
    few, many = hu.copy(), hu.copy()
    few.flat[[5, 77, 900]] = np.nan, np.inf, -np.inf
    many.flat[: hu.size // 500] = np.nan
    volume, notes = read_volume(save(tmp_path / "a.nii.gz", few), LOOSE)
    assert volume.array.ravel()[[5, 77, 900]].tolist() == [HU_MIN] * 3
    assert any(note.startswith("3 NaN") for note in notes)
    assert fault(save(tmp_path / "b.nii.gz", many)).code == "NON_FINITE"


def test_clipping_is_counted(tmp_path):
    hu = chest().astype(np.int32)
    hu[0, 0, :3] = 30000, -3024, -32768
    volume, notes = read_volume(save(tmp_path / "a.nii.gz", hu), LOOSE)
    assert volume.array[0, 0, :3].tolist() == [HU_MAX, HU_MIN, HU_MIN]
    assert any("clipped 3 voxels" in note and "2 below, 1 above" in note for note in notes)
    wide = ReadOptions(min_slices=8, clip=False)
    volume, notes = read_volume(tmp_path / "a.nii.gz", wide)
    assert volume.array[0, 0, :3].tolist() == [30000, -3024, -32768]
    assert any("3 voxels beyond [-1024, 3071] HU are kept (2 below" in note for note in notes)
    hu[0, 0, :2] = 70000, -70000
    volume, _ = read_volume(save(tmp_path / "b.nii.gz", hu), wide)
    assert volume.array[0, 0, :2].tolist() == [32767, -32768]
    assert LOOSE.for_views(Views(clip="last")) == wide
    assert LOOSE.for_views(Views()) == LOOSE


def test_constant_volume(tmp_path):
    for value in (0, -1000, 40):
        path = save(tmp_path / "a.nii.gz", np.full((20, 20, 20), value, np.int16))
        assert fault(path).code == "CONSTANT"
        assert fault(path, ReadOptions(hu="trust")).code == "CONSTANT"


def test_accepts_text_paths_and_defaults(tmp_path):
    save(tmp_path / "a.nii.gz", chest())
    volume, _ = read_volume(str(tmp_path / "a.nii.gz"))
    assert volume.spacing == (2.0, 1.5, 3.0)
