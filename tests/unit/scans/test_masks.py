from __future__ import annotations

import itertools

import nibabel as nib
import nrrd
import numpy as np
import pytest

from reg2rg.core.errors import DataFault
from reg2rg.core.regions import Region, RegionSet, load_region_set
from reg2rg.core.types import LabelMap, RegionFiles, Study
from reg2rg.extras.phantom.anatomy import draw
from reg2rg.extras.phantom.grid import Grid
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.find_masks import by_region, find_masks, images_in
from reg2rg.scans.label_names import version_1
from reg2rg.scans.read import read_image, read_study

SPACING = np.diag([2.0, 1.5, 3.0, 1.0])
SPACING[:3, 3] = (-26, -16, -100)
LOOSE = ReadOptions(min_slices=8)
RADGENOME = load_region_set()


def chest(shape=(26, 22, 18)):
    rng = np.random.default_rng(0)
    hu = np.full(shape, -1000, np.int16)
    hu[4:22, 4:18] = rng.normal(40, 15, (18, 14, shape[2]))
    hu[6:10, 6:14, 3:15] = -850
    hu[14:20, 6:14, 5:15] = -820
    return hu


def box(low=(6, 6, 3), high=(10, 14, 15), shape=(26, 22, 18), dtype=np.uint8):
    mask = np.zeros(shape, dtype)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    return mask


def save(path, array, affine=SPACING):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def study(image, masks, id="case_1"):
    return Study(id, "patient", "train", image, masks if isinstance(masks, LabelMap) else RegionFiles(masks))


def load(tmp_path, mask, affine=SPACING, options=LOOSE, image=None, image_affine=SPACING):
    ct = save(tmp_path / "ct.nii.gz", chest() if image is None else image, image_affine)
    return read_study(study(ct, {"lung": save(tmp_path / "m.nii.gz", mask, affine)}), RADGENOME, options)


def fault(code, *args, **kwargs):
    with pytest.raises(DataFault) as caught:
        load(*args, **kwargs)
    message = str(caught.value)
    assert caught.value.code == code
    assert caught.value.study == "case_1"
    for word in ("case_1", "expected", "Fix: "):
        assert word in message
    return message


# One file a region


def test_masks_come_in_the_order_of_the_set_under_its_names(tmp_path):
    ct = save(tmp_path / "ct.nii.gz", chest())
    files = {
        "Trachea/bronchi": save(tmp_path / "t.nii.gz", box((11, 8, 2), (13, 10, 9))),
        "LUNGS": save(tmp_path / "l.nii.gz", box()),
        "heart": save(tmp_path / "h.nii.gz", np.zeros_like(box())),
    }
    result = read_study(study(ct, files), RADGENOME, LOOSE)
    assert list(result.masks) == ["lung", "trachea and bronchie"]
    np.testing.assert_array_equal(result.masks["lung"], box().astype(bool))
    assert result.masks["lung"].dtype == bool
    assert result.masks["lung"].flags.f_contiguous
    assert "heart: the mask is empty" in result.notes


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_stored_types(tmp_path, dtype):
    result = load(tmp_path, box(dtype=dtype))
    np.testing.assert_array_equal(result.masks["lung"], box().astype(bool))


def test_rounding_errors_are_forgiven_and_nothing_else(tmp_path):
    near = np.where(box(), np.float32(0.9999), np.float32(1e-5))
    np.testing.assert_array_equal(load(tmp_path, near).masks["lung"], box().astype(bool))
    for mask in (
        np.where(box(), np.float32(0.9), np.float32(0)),
        np.where(box(), np.float32(np.nan), np.float32(0)),
        np.where(box(), np.float32(-1), np.float32(0)),
        box() * 255,
        box() * 5,
        box(dtype=np.int16) * -1,
        box(dtype=np.int32) * 100_000,
        chest().astype(np.float32) + 0.5,
    ):
        assert "value" in fault("MASK_VALUES", tmp_path, mask)


def test_scaled_integers(tmp_path):
    image = nib.Nifti1Image(box() * 255, SPACING)
    nib.save(image, tmp_path / "x.nii")
    data = bytearray((tmp_path / "x.nii").read_bytes())
    data[112:120] = np.array([1 / 255, 0], "<f4").tobytes()
    (tmp_path / "x.nii").write_bytes(bytes(data))
    ct = save(tmp_path / "ct.nii.gz", chest())
    result = read_study(study(ct, {"lung": tmp_path / "x.nii"}), RADGENOME, LOOSE)
    np.testing.assert_array_equal(result.masks["lung"], box().astype(bool))


def test_no_region(tmp_path):
    message = fault("NO_REGION", tmp_path, np.zeros_like(box()))
    assert "case_1" in message
    with pytest.raises(DataFault, match="NO_REGION case_1"):
        read_study(study(tmp_path / "ct.nii.gz", {}), RADGENOME, LOOSE)


def test_faults_of_either_file_name_study_and_file(tmp_path):
    ct = save(tmp_path / "ct.nii.gz", chest())
    with pytest.raises(DataFault, match=r"MISSING_FILE case_1 .*none.nii.gz"):
        read_study(study(ct, {"lung": tmp_path / "none.nii.gz"}), RADGENOME, LOOSE)
    good = save(tmp_path / "m.nii.gz", box())
    good.write_bytes(good.read_bytes()[:-5])
    with pytest.raises(DataFault, match=r"TRUNCATED case_1 .*m.nii.gz"):
        read_study(study(ct, {"lung": good}), RADGENOME, LOOSE)
    ct.write_bytes(ct.read_bytes()[:-5])
    with pytest.raises(DataFault, match=r"TRUNCATED case_1 .*ct.nii.gz"):
        read_study(study(ct, {"lung": good}), RADGENOME, LOOSE)


def test_names_outside_the_set(tmp_path):
    ct, mask = save(tmp_path / "ct.nii.gz", chest()), save(tmp_path / "m.nii.gz", box())
    with pytest.raises(DataFault, match=r"UNKNOWN_REGION case_1.*Did you mean 'lung'"):
        read_study(study(ct, {"lunng": mask}), RADGENOME, LOOSE)
    with pytest.raises(DataFault, match=r"UNKNOWN_REGION case_1.*two masks for region 'lung'"):
        read_study(study(ct, {"lung": mask, "Lungs": mask}), RADGENOME, LOOSE)


# One multilabel file


def labels():
    result = np.zeros((26, 22, 18), np.uint8)
    result[6:10, 6:14, 3:15] = 1
    result[14:20, 6:14, 5:15] = 2
    result[11:13, 8:10, 2:9] = 7
    result[4, 4, 0] = 99
    return result


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_label_map(tmp_path, dtype):
    ct = save(tmp_path / "ct.nii.gz", chest())
    stored = labels().astype(dtype)
    if dtype == "uint16":
        stored[stored == 99] = 40000
    source = LabelMap(
        save(tmp_path / "l.nii.gz", stored), {"lung": (1, 2), "heart": (51,), "Trachea": (7, 8), "bone": ()}
    )
    result = read_study(study(ct, source), RADGENOME, LOOSE)
    assert list(result.masks) == ["lung", "trachea and bronchie"]
    np.testing.assert_array_equal(result.masks["lung"], np.isin(labels(), (1, 2)))
    np.testing.assert_array_equal(result.masks["trachea and bronchie"], labels() == 7)
    assert f"labels of no region: {stored.max():g}" in result.notes
    for name in ("heart", "bone"):
        assert f"{name}: the label map has no voxel of it" in result.notes


def test_regions_may_share_labels(tmp_path):
    ct = save(tmp_path / "ct.nii.gz", chest())
    regions = RegionSet("own", (Region("left"), Region("both")))
    source = LabelMap(save(tmp_path / "l.nii.gz", labels()), {"both": (1, 2), "left": (1,)})
    result = read_study(study(ct, source), regions, LOOSE)
    assert list(result.masks) == ["left", "both"]
    assert (result.masks["both"] >= result.masks["left"]).all()


def test_empty_and_broken_label_maps(tmp_path):
    ct = save(tmp_path / "ct.nii.gz", chest())
    for array, code in ((np.zeros_like(labels()), "NO_REGION"), (labels() + np.float32(0.3), "MASK_VALUES")):
        source = LabelMap(save(tmp_path / "l.nii.gz", array), {"lung": (1, 2)})
        with pytest.raises(DataFault, match=f"{code} case_1"):
            read_study(study(ct, source), RADGENOME, LOOSE)


# Grids


def stored_as(array, affine, axes, flips):
    image = nib.Nifti1Image(array, affine)
    ornt = np.array([[axis, -1 if flipped else 1] for axis, flipped in zip(axes, flips, strict=True)])
    return image.as_reoriented(ornt)


ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))


def test_all_48_orientations_of_a_real_scan_and_its_masks(shared_ct, tmp_path):
    folder = shared_ct / "lidc-idri-0314_CCBY3"
    files = {"image": folder / "ct_1.56x1.56x2mm.nii.gz"}
    files |= {name: folder / f"masks_derived/{name}.nii.gz" for name in ("lung_left", "trachea")}
    arrays = {name: nib.load(path) for name, path in files.items()}
    affine = arrays["image"].affine @ np.diag([3, 3, 2, 1])
    small = {name: np.asarray(image.dataobj)[::3, ::3, ::2] for name, image in arrays.items()}
    expected = None
    for place, (axes, flips) in enumerate(ORIENTATIONS):
        paths = {}
        for name, array in small.items():
            # Scan and masks need not be stored the same way.
            turn = ORIENTATIONS[-place] if name == "trachea" else (axes, flips)
            paths[name] = tmp_path / f"{name}.nii"
            nib.save(stored_as(array, affine, *turn), paths[name])
        masks = {"lung": paths["lung_left"], "trachea": paths["trachea"]}
        result = read_study(study(paths["image"], masks), RADGENOME)
        assert result.notes == ()
        expected = expected or result
        np.testing.assert_array_equal(result.volume.array, expected.volume.array)
        np.testing.assert_allclose(result.volume.affine, expected.volume.affine, atol=1e-4)
        assert list(result.masks) == list(expected.masks) == ["lung", "trachea and bronchie"]
        for name, mask in result.masks.items():
            np.testing.assert_array_equal(mask, expected.masks[name])
            assert mask.flags.f_contiguous


def test_header_noise_is_not_a_mismatch(tmp_path):
    noisy = SPACING + np.random.default_rng(0).normal(0, 1e-5, (4, 4)) * [[1], [1], [1], [0]]
    noisy[:3, 3] += 0.4  # a third of a voxel
    assert load(tmp_path, box(), noisy).notes == ()


@pytest.mark.parametrize("shift", [1, 2, 5, 10, 20])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shifted_origin(tmp_path, shift, axis):
    affine = SPACING.copy()
    affine[axis, 3] += shift
    if shift < SPACING[axis, axis] / 2:
        assert load(tmp_path, box(), affine).notes == ()
        return
    assert "mask_grid=scan" in fault("MASK_OFFSET", tmp_path, box(), affine)
    result = load(tmp_path, box(), affine, ReadOptions(min_slices=8, mask_grid="scan"))
    np.testing.assert_array_equal(result.masks["lung"], box().astype(bool))


def test_cropped_mask(tmp_path):
    """A mask saved on a part of the scan's grid returns to its place."""
    affine = SPACING.copy()
    affine[:3, 3] = (SPACING @ [5, 4, 2, 1])[:3]
    result = load(tmp_path, box()[5:13, 4:16, 2:17], affine)
    np.testing.assert_array_equal(result.masks["lung"], box().astype(bool))
    assert any("resampled from 8 x 12 x 15" in note for note in result.notes)


def test_finer_and_coarser_masks(tmp_path):
    coarse_grid = SPACING @ np.diag([2, 2, 2, 1])
    coarse_grid[:3, 3] = (SPACING @ [0.5, 0.5, 0.5, 1])[:3]  # the corners of the frames coincide
    low, high = (6, 6, 4), (10, 14, 14)
    coarse = box((3, 3, 2), (5, 7, 7), (13, 11, 9))
    np.testing.assert_array_equal(load(tmp_path, coarse, coarse_grid).masks["lung"], box(low, high).astype(bool))
    fine_grid = SPACING @ np.diag([0.5, 0.5, 0.5, 1])
    fine_grid[:3, 3] = (SPACING @ [-0.25, -0.25, -0.25, 1])[:3]
    fine = np.kron(box(low, high), np.ones((2, 2, 2), np.uint8))
    np.testing.assert_array_equal(load(tmp_path, fine, fine_grid).masks["lung"], box(low, high).astype(bool))


def test_ninety_slices_against_ninety_one(tmp_path):
    mask = np.concatenate([box(), np.zeros((26, 22, 1), np.uint8)], 2)
    np.testing.assert_array_equal(load(tmp_path, mask).masks["lung"], box().astype(bool))


def test_oblique_mask_on_a_straight_scan(tmp_path):
    """A ball stays where it is when its mask comes on a turned grid."""
    angle = np.radians(25)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -(affine[:3, :3] @ [40, 40, 40]) + [0, 0, -75]
    centre = np.array([3.0, 2.0, -70.0])

    def ball(grid, shape):
        points = grid[:3, :3] @ np.indices(shape).reshape(3, -1) + grid[:3, 3:]
        return (np.linalg.norm(points - centre[:, None], axis=0) < 12).reshape(shape).astype(np.uint8)

    result = load(tmp_path, ball(affine, (81, 81, 81)), affine)
    found, expected = result.masks["lung"], ball(SPACING, chest().shape).astype(bool)
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.95


def test_thin_structures_survive_coarse_scans(tmp_path):
    """One fine voxel that no centre of the scan's voxels hits."""
    affine = SPACING @ np.diag([0.2, 0.2, 0.2, 1])
    mask = np.zeros((130, 110, 90), np.uint8)
    mask[51, 52, 42] = 1
    result = load(tmp_path, mask, affine)
    assert np.argwhere(result.masks["lung"]).tolist() == [[10, 10, 8]]


def test_mask_of_another_place(tmp_path):
    affine = SPACING.copy()
    affine[:3, 3] += 500
    message = fault("NO_OVERLAP", tmp_path, box()[:20], affine)
    assert "shares 0%" in message


def test_voxels_outside_the_scan(tmp_path):
    affine = SPACING.copy()
    affine[2, 3] -= 6 * 3.0
    mask = np.zeros((26, 22, 20), np.uint8)
    mask[6:10, 6:14, :5] = 1  # all below the first slice of the scan
    message = fault("NO_REGION", tmp_path, mask, affine)
    assert "case_1" in message


def test_identity_affines(tmp_path):
    lies = load(tmp_path, box(), np.eye(4))  # the scan is stored in RAS: there is one place
    np.testing.assert_array_equal(lies.masks["lung"], box().astype(bool))
    assert "masks without an affine: taken as lying on the scan's grid, which is in RAS" in lies.notes
    assert "mask_grid" not in fault("IDENTITY_AFFINE", tmp_path, box()[:20], np.eye(4))
    scan = ReadOptions(min_slices=8, mask_grid="scan")
    np.testing.assert_array_equal(load(tmp_path, box(), np.eye(4), scan).masks["lung"], box().astype(bool))
    fault("MASK_SHAPE", tmp_path, box()[:20], np.eye(4), scan)
    both = load(tmp_path, box(), np.eye(4), LOOSE, image_affine=np.eye(4))
    np.testing.assert_array_equal(both.masks["lung"], box().astype(bool))


def test_identity_affine_follows_the_stored_grid_of_the_scan(tmp_path):
    """SAT's masks lie on the array that was read, which for an LPS file is not the RAS one."""
    lps = stored_as(chest(), SPACING, (0, 1, 2), (True, True, False))
    mask = stored_as(box(), SPACING, (0, 1, 2), (True, True, False))
    options = ReadOptions(min_slices=8, mask_grid="scan")
    result = load(tmp_path, np.asarray(mask.dataobj), np.eye(4), options, np.asarray(lps.dataobj), lps.affine)
    np.testing.assert_array_equal(result.masks["lung"], box().astype(bool))
    np.testing.assert_array_equal(result.volume.array, chest())


def phantom(number=3, size=(64, 64, 40)):
    """A scan in RAS with the masks of its regions, and the scan's affine."""
    grid = Grid(size)
    hu, masks = draw(draw_patient(4057, number), grid)
    return hu, {name: mask for name, mask in masks.items() if mask.any()}, grid.affine


def dice(first, second):
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


@pytest.mark.parametrize("lies_in", ["ras", "scan"])
def test_masks_without_an_affine_go_where_they_fit_the_voxels(tmp_path, lies_in):
    hu, masks, affine = phantom()
    lps = stored_as(hu, affine, (0, 1, 2), (True, True, False))
    ct = save(tmp_path / "ct.nii.gz", np.asarray(lps.dataobj), lps.affine)
    files = {}
    for name in ("lung", "heart", "esophagus", "bone"):
        array = masks[name].astype(np.uint8)
        files[name] = save(tmp_path / f"{name}.nii.gz", array if lies_in == "ras" else array[::-1, ::-1], np.eye(4))
    for grid in ("header", lies_in):
        found = read_study(study(ct, files), RADGENOME, ReadOptions(mask_grid=grid))
        for name in files:
            assert dice(found.masks[name], masks[name]) == 1, (grid, name)
        said = [note for note in found.notes if note.startswith("masks without an affine")]
        assert len(said) == (grid == "header")
        assert all(f"mask_grid={lies_in}" in note for note in said)
    labels = np.zeros(hu.shape, np.uint8)
    for number, name in enumerate(files, 1):
        labels[masks[name]] = number
    names = {name: (number,) for number, name in enumerate(files, 1)}
    one = save(tmp_path / "all.nii.gz", labels if lies_in == "ras" else labels[::-1, ::-1], np.eye(4))
    found = read_study(study(ct, LabelMap(one, names)), RADGENOME)
    assert dice(found.masks["lung"], labels == 1) == 1


def without_codes(sizes):
    def write(path, array):
        image = nib.Nifti1Image(array, None)
        image.header.set_zooms(sizes)
        nib.save(image, path)
        assert nib.load(path).header["sform_code"] == nib.load(path).header["qform_code"] == 0

    return write


SAYS_NOTHING = {
    "identity": (".nii.gz", lambda path, array: save(path, array, np.eye(4))),
    "identity of ITK": (".nii.gz", lambda path, array: save(path, array, np.diag([-1.0, -1.0, 1.0, 1.0]))),
    "neither sform nor qform": (".nii.gz", without_codes((1, 1, 1))),
    "voxel sizes alone": (".nii.gz", without_codes((5.4, 5.4, 8.0))),
    "no space directions": (".nrrd", lambda path, array: nrrd.write(str(path), array, {"spacings": [1, 1, 1]})),
}


@pytest.mark.parametrize("lies_in", ["ras", "scan"])
@pytest.mark.parametrize("form", SAYS_NOTHING)
def test_every_way_to_say_nothing_of_the_place_is_one(tmp_path, form, lies_in):
    hu, masks, affine = phantom()
    affine = affine.copy()
    affine[:3, 3] = (-170.3, -140.2, 22.5)  # no frame that is its own mirror image
    lps = stored_as(hu, affine, (0, 1, 2), (True, True, False))
    ct = save(tmp_path / "ct.nii.gz", np.asarray(lps.dataobj), lps.affine)
    suffix, write = SAYS_NOTHING[form]
    files = {}
    for name in ("lung", "heart", "bone"):
        array = masks[name].astype(np.uint8)
        files[name] = tmp_path / f"{name}{suffix}"
        write(files[name], np.ascontiguousarray(array if lies_in == "ras" else array[::-1, ::-1]))
    found = read_study(study(ct, files), RADGENOME)
    for name in files:
        assert dice(found.masks[name], masks[name]) == 1
    assert sum(note.startswith("masks without an affine") and lies_in in note for note in found.notes) == 1


def test_scan_and_mask_that_say_nothing_are_on_one_grid(tmp_path):
    write = without_codes((2, 1.5, 3))
    write(tmp_path / "ct.nii.gz", chest())
    write(tmp_path / "m.nii.gz", box())
    found = read_study(study(tmp_path / "ct.nii.gz", {"lung": tmp_path / "m.nii.gz"}), RADGENOME, LOOSE)
    np.testing.assert_array_equal(found.masks["lung"], box().astype(bool)[::-1])  # the format's default: left first
    without_codes((4, 3, 6))(tmp_path / "m.nii.gz", box((3, 3, 2), (5, 7, 7), (13, 11, 9)))
    found = read_study(study(tmp_path / "ct.nii.gz", {"lung": tmp_path / "m.nii.gz"}), RADGENOME, LOOSE)
    np.testing.assert_array_equal(found.masks["lung"], box((6, 6, 4), (10, 14, 14)).astype(bool)[::-1])
    assert not any(note.startswith("masks without an affine") for note in found.notes)


def test_masks_without_an_affine_that_fit_both_ways_are_refused(tmp_path):
    hu, masks, affine = phantom()
    lps = stored_as(hu, affine, (0, 1, 2), (True, True, False))
    ct = save(tmp_path / "ct.nii.gz", np.asarray(lps.dataobj), lps.affine)
    mirrored = masks["trachea and bronchie"] & masks["trachea and bronchie"][::-1, ::-1]
    file = save(tmp_path / "t.nii.gz", mirrored.astype(np.uint8), np.eye(4))
    with pytest.raises(DataFault, match=r"IDENTITY_AFFINE case_1.* alike .*mask_grid=scan or mask_grid=ras"):
        read_study(study(ct, {"trachea": file}), RADGENOME)


def test_axes_in_another_order_under_the_scans_affine_are_named(tmp_path):
    message = fault("MASK_AXES", tmp_path, box().transpose(2, 1, 0))
    assert "the scan's axes in the order k, j, i" in message
    assert "transpose(2, 1, 0)" in message
    square = chest((22, 22, 18))
    mask = box(shape=(22, 22, 18)).transpose(2, 1, 0)
    assert "in the order k, i, j or k, j, i" in fault("MASK_AXES", tmp_path, mask, image=square)


@pytest.mark.parametrize(("signs", "axes"), [((-1, -1, 1), "x and y"), ((-1, 1, 1), "x"), ((1, 1, -1), "z")])
def test_lost_signs_are_named(tmp_path, signs, axes):
    message = fault("MASK_SIGNS", tmp_path, box(), np.diag([*signs, 1]) @ SPACING)
    assert f"the signs of {axes} changed" in message
    again = load(tmp_path, box(), np.diag([*signs, 1]) @ SPACING, ReadOptions(min_slices=8, mask_grid="scan"))
    np.testing.assert_array_equal(again.masks["lung"], box().astype(bool))


@pytest.mark.parametrize(
    ("columns", "part"), [(slice(3), "in its directions, not its origin"), (slice(3, 4), "in its origin alone")]
)
@pytest.mark.parametrize(("signs", "axes"), [((-1, -1, 1), "x and y"), ((1, 1, -1), "z")])
def test_signs_lost_in_a_part_of_the_affine_are_named(tmp_path, signs, axes, columns, part):
    affine = SPACING.copy()
    affine[:, columns] = (np.diag([*signs, 1]) @ affine)[:, columns]
    assert f"the signs of {axes} changed {part}" in fault("MASK_SIGNS", tmp_path, box(), affine)


def test_a_frame_that_is_its_own_mirror_image_has_no_lost_signs(tmp_path):
    """A mask stored the other way round on a scan that is centred on the origin has the signs of another convention."""
    affine = np.diag([2.0, 1.5, 3.0, 1.0])
    affine[:3, 3] = [-(size - 1) / 2 * step for size, step in zip((26, 22, 18), (2, 1.5, 3), strict=True)]
    turned = stored_as(box(), affine, (0, 1, 2), (True, True, False))
    np.testing.assert_allclose(turned.affine, np.diag([-1, -1, 1, 1]) @ affine)
    found = load(tmp_path, np.asarray(turned.dataobj), turned.affine, image_affine=affine)
    np.testing.assert_array_equal(found.masks["lung"], box().astype(bool))


# Names of labels


def named_labels(path, labels, names, affine=SPACING):
    """A label map with a table of names as TotalSegmentator writes it."""
    rows = "".join(
        f'<Label Key="{k}" Red="1" Green="1" Blue="1" Alpha="1"><![CDATA[{v}]]></Label>' for k, v in names.items()
    )
    xml = f'<?xml version="1.0"?><CaretExtension><VolumeInformation Index="0"><LabelTable>{rows}</LabelTable>'
    image = nib.Nifti1Image(labels, affine)
    image.header.extensions.append(
        nib.nifti1.Nifti1Extension(0, f"{xml}</VolumeInformation></CaretExtension>".encode())
    )
    nib.save(image, path)
    return path


def two_labels(first, second):
    labels = np.zeros((26, 22, 18), np.uint8)
    labels[6:10, 6:14, 3:15] = first
    labels[14:20, 6:14, 5:15] = second
    return labels


def by_labels(tmp_path, file, labels):
    return read_study(study(save(tmp_path / "ct.nii.gz", chest()), LabelMap(file, labels)), RADGENOME, LOOSE)


@pytest.mark.parametrize(
    ("numbers", "names", "regions"),
    [
        ((13, 45), {13: "lung_upper_lobe_left", 45: "heart_atrium_left"}, ("lung", "heart")),  # version 1
        (
            (2, 4),
            {1: "abdominal_cavity", 2: "thoracic_cavity", 3: "pericardium", 4: "mediastinum"},
            (None, "mediastinum"),
        ),
        ((10, 51), {10: "lung_upper_lobe_left", 51: "heart"}, ("lung", "heart")),  # as the numbers say
        ((1, 2), {1: "Lungs", 2: "thyroid_gland"}, ("lung", "thyroid")),
    ],
)
def test_names_in_the_file_win_over_totalsegmentators_numbers(tmp_path, numbers, names, regions):
    labels = two_labels(*numbers)
    file = named_labels(tmp_path / "seg.nii.gz", labels, names)
    found = by_labels(tmp_path, file, RADGENOME.from_totalsegmentator())
    assert set(found.masks) == {name for name in regions if name}
    for number, name in zip(numbers, regions, strict=True):
        if name:
            np.testing.assert_array_equal(found.masks[name], labels == number)
    said = [note for note in found.notes if note.startswith("labels: read by the names in the file")]
    assert len(said) == (numbers != (10, 51))


def test_names_that_contradict_a_label_map_are_refused(tmp_path):
    file = named_labels(tmp_path / "seg.nii.gz", two_labels(1, 2), {1: "liver", 2: "Segment_2"})
    with pytest.raises(DataFault, match=r"LABEL_NAMES case_1 .*label 1, .* gives to 'lung', is named 'liver'"):
        by_labels(tmp_path, file, {"lung": (1,), "heart": (2,)})
    found = by_labels(tmp_path, file, {"abdomen": (1,), "heart": (2,)})  # a name that nobody knows contradicts nothing
    assert set(found.masks) == {"abdomen", "heart"}
    file = named_labels(tmp_path / "seg.nii.gz", two_labels(1, 2), {1: "Segment_1", 2: "Segment_2"})
    with pytest.raises(DataFault, match=r"LABEL_NAMES case_1 .*labels named Segment_1, Segment_2 .*label_map"):
        by_labels(tmp_path, file, RADGENOME.from_totalsegmentator())


def test_names_of_segments_in_nrrd(tmp_path):
    header = {"space": "RAS", "space directions": SPACING[:3, :3], "space origin": SPACING[:3, 3]}
    for place, (name, label) in enumerate({"lung": 7, "liver": 9}.items()):
        header |= {f"Segment{place}_Name": name, f"Segment{place}_LabelValue": str(label), f"Segment{place}_Layer": "0"}
    labels = two_labels(7, 9)
    nrrd.write(str(tmp_path / "seg.seg.nrrd"), labels, header)
    assert read_image(tmp_path / "seg.seg.nrrd").names == {7: "lung", 9: "liver"}
    found = by_labels(tmp_path, tmp_path / "seg.seg.nrrd", RADGENOME.from_totalsegmentator())
    np.testing.assert_array_equal(found.masks["lung"], labels == 7)
    np.testing.assert_array_equal(found.masks["abdomen"], labels == 9)


def test_version_1_without_names(tmp_path):
    labels = two_labels(14, 45)
    found = by_labels(tmp_path, save(tmp_path / "seg.nii.gz", labels), version_1(RADGENOME))
    np.testing.assert_array_equal(found.masks["lung"], labels == 14)
    np.testing.assert_array_equal(found.masks["heart"], labels == 45)


def test_a_mask_of_a_few_slices_is_placed(tmp_path):
    affine = SPACING.copy()
    affine[:3, 3] += affine[:3, 2] * 6
    found = load(tmp_path, box()[:, :, 6:9], affine)
    expected = np.zeros((26, 22, 18), bool)
    expected[6:10, 6:14, 6:9] = True
    np.testing.assert_array_equal(found.masks["lung"], expected)
    with pytest.raises(DataFault, match="FEW_SLICES"):
        read_study(study(save(tmp_path / "few.nii.gz", chest()[:, :, :7]), {}), RADGENOME, ReadOptions(min_slices=1))


# Files by the names of regions and classes


def test_a_region_is_the_union_of_its_classes(tmp_path):
    """TotalSegmentator's default folder has one file a class; lungs are five, and most are of no region."""
    ct = save(tmp_path / "ct.nii.gz", chest())
    folder = tmp_path / "seg"
    folder.mkdir()
    lower, upper = box((6, 6, 3), (10, 14, 9)), box((6, 6, 9), (10, 14, 15))
    other = box((14, 6, 5), (20, 14, 15))
    for name, mask in {
        "lung_lower_lobe_left": lower,
        "lung_upper_lobe_left": upper,
        "heart": other,
        "atrial_appendage_left": box((14, 6, 3), (15, 7, 4)),
        "aorta": other,
        "thyroid_gland": np.zeros_like(other),
        "spinal_cord": other,
        "notes_of_mine": other,
    }.items():
        save(folder / f"{name}.nii.gz", mask)
    for masks in (folder, f"{folder}/{{region}}.nii.gz"):
        found = read_study(study(ct, find_masks(masks, RADGENOME).files), RADGENOME, LOOSE)
        assert list(found.masks) == ["heart", "lung"]
        np.testing.assert_array_equal(found.masks["lung"], (lower | upper) > 0)
        assert found.masks["heart"].sum() == other.sum() + 1
    _, unknown = by_region(images_in(folder), RADGENOME)
    assert unknown == ("notes_of_mine",)
    save(folder / "lungs.nii.gz", lower)  # a file of the region's own goes before those of its classes
    found = read_study(study(ct, find_masks(folder, RADGENOME).files), RADGENOME, LOOSE)
    np.testing.assert_array_equal(found.masks["lung"], lower > 0)


# Real files


def test_lidc_masks(shared_ct):
    folder = shared_ct / "lidc-idri-0314_CCBY3"
    masks = {
        name: folder / "masks_derived" / f"{file}.nii.gz"
        for name, file in {"lung": "lung_left", "bone": "bone_over220HU", "trachea": "trachea"}.items()
    }
    result = read_study(study(folder / "ct_1.56x1.56x2mm.nii.gz", masks), RADGENOME)
    assert list(result.masks) == ["bone", "lung", "trachea and bronchie"]
    assert result.notes == ()
    hu = result.volume.array
    assert hu[result.masks["lung"]].mean() < -700
    assert hu[result.masks["bone"]].min() >= 220
    # The file is LPS: in RAS the left lung has the lower first index.
    assert np.argwhere(result.masks["lung"])[:, 0].mean() < hu.shape[0] / 2


def test_union_of_left_and_right_lung(shared_ct, tmp_path):
    folder = shared_ct / "lidc-idri-0314_CCBY3"
    sides = [nib.load(folder / f"masks_derived/lung_{side}.nii.gz") for side in ("left", "right")]
    union = sum(np.asarray(side.dataobj) for side in sides)
    lung = save(tmp_path / "lung.nii.gz", union.astype(np.uint8), sides[0].affine)
    result = read_study(study(folder / "ct_1.56x1.56x2mm.nii.gz", {"lung": lung}), RADGENOME)
    millilitres = result.masks["lung"].sum() * np.prod(result.volume.spacing) / 1000
    assert millilitres == pytest.approx(1912 + 919, rel=0.01)


@pytest.mark.parametrize("name", ["example_seg_fast_force_split", "example_seg"])
def test_totalsegmentator_output(shared_ct, name):
    folder = shared_ct / "totalsegmentator_Apache2"
    ct = folder / ("example_ct.nii.gz" if "split" in name else "example_ct_sm.nii.gz")
    source = LabelMap(folder / f"{name}.nii.gz", RADGENOME.from_totalsegmentator())
    result = read_study(study(ct, source), RADGENOME)
    assert list(result.masks) == ["abdomen", "bone", "lung"]
    stored = np.asarray(nib.load(source.file).dataobj)
    for region in result.masks:
        reference = np.isin(stored, RADGENOME.from_totalsegmentator()[region])
        np.testing.assert_array_equal(result.masks[region], reference)  # both files are stored in RAS
    for region in ("heart", "esophagus", "thyroid", "trachea and bronchie"):
        assert f"{region}: the label map has no voxel of it" in result.notes


def test_lobes_from_totalsegmentator(shared_ct):
    folder = shared_ct / "totalsegmentator_Apache2"
    lobes = load_region_set("lobes")
    source = LabelMap(folder / "example_seg_fast_force_split.nii.gz", lobes.from_totalsegmentator())
    result = read_study(study(folder / "example_ct.nii.gz", source), lobes)
    assert list(result.masks) == ["left upper lobe", "left lower lobe", "right lower lobe"]  # the lung's bases
    left, right = (np.argwhere(result.masks[f"{side} lower lobe"])[:, 0].mean() for side in ("left", "right"))
    assert left < right  # RAS: the patient's left has lower indices


def test_label_map_of_fewer_slices(shared_ct):
    """TotalSegmentator's small example, 30 of 112 slices, was cut from the top of the scan but kept its affine."""
    folder = shared_ct / "totalsegmentator_Apache2"
    source = LabelMap(folder / "example_seg.nii.gz", {"lung": (10, 11, 12, 13, 14)})
    with pytest.raises(DataFault, match=r"MASK_IMPLAUSIBLE case_1"):
        read_study(study(folder / "example_ct.nii.gz", source), RADGENOME)
    result = read_study(study(folder / "example_ct.nii.gz", source), RADGENOME, ReadOptions(implausible="ignore"))
    stored = np.asarray(nib.load(source.file).dataobj)
    np.testing.assert_array_equal(result.masks["lung"][:, :, :30], np.isin(stored, range(10, 15)))
    assert not result.masks["lung"][:, :, 30:].any()


def test_real_mismatch_is_resampled(shared_ct):
    """heart.nii.gz is 233 x 167 x 191 beside a scan of 122 x 102 x 112: a larger frame around it."""
    folder = shared_ct / "totalsegmentator_Apache2/pulmonary_report"
    files = {"heart": folder / "heart.nii.gz", "mediastinum": folder / "pulmonary_artery.nii.gz"}
    result = read_study(study(folder / "ct_cropped.nii.gz", files), RADGENOME)
    assert list(result.masks) == ["heart", "mediastinum"]
    assert any("heart: resampled from 233 x 167 x 191" in note for note in result.notes)
    stored = nib.load(files["heart"])
    ct = nib.load(folder / "ct_cropped.nii.gz")
    offset = np.rint(np.linalg.solve(stored.affine, ct.affine)[:3, 3]).astype(int)
    reference = np.asarray(stored.dataobj)[tuple(slice(o, o + n) for o, n in zip(offset, ct.shape, strict=True))]
    np.testing.assert_array_equal(result.masks["heart"], reference[::-1, ::-1].astype(bool))  # LPS -> RAS
    assert result.volume.array[result.masks["heart"]].mean() > 0


def test_real_empty_mask(shared_ct):
    folder = shared_ct / "totalsegmentator_Apache2/aorta_report"
    files = {"heart": folder / "renal_arteries.nii.gz", "bone": folder / "vertebrae_T12.nii.gz"}
    result = read_study(study(folder / "ct_cropped.nii.gz", files), RADGENOME)
    assert list(result.masks) == ["bone"]
    assert "heart: the mask is empty" in result.notes
    with pytest.raises(DataFault, match="NO_REGION case_1"):
        read_study(study(folder / "ct_cropped.nii.gz", {"heart": files["heart"]}), RADGENOME)


def test_masks_of_another_patient_or_kind(shared_ct):
    lidc = shared_ct / "lidc-idri-0314_CCBY3/ct_1.56x1.56x2mm.nii.gz"
    other = shared_ct / "totalsegmentator_Apache2"
    with pytest.raises(DataFault, match="NO_OVERLAP"):
        read_study(study(lidc, {"heart": other / "aorta_report/aorta.nii.gz"}), RADGENOME)
    with pytest.raises(DataFault, match=r"MASK_VALUES .*label map"):
        read_study(study(other / "example_ct_sm.nii.gz", {"lung": other / "example_seg.nii.gz"}), RADGENOME)
