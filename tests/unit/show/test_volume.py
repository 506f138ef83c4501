import gzip

import nibabel as nib
import numpy as np
import pytest

from reg2rg.core.types import RegionVolume, Volume
from reg2rg.show.volume import draw_volume

AFFINE = np.array([[2.0, 0, 0, -30], [0, 2.0, 0, 10], [0, 0, 3.0, 100], [0, 0, 0, 1]])


def scan(affine=AFFINE, noise=0):
    """A body of 24 x 20 voxels, with a mediastinum, the heart in it, and a thyroid of a single voxel."""
    array = np.full((40, 36, 24), -1000, np.int16, order="F")
    array[8:32, 8:28] = 40
    if noise:
        array += np.random.default_rng(0).normal(0, noise, array.shape).astype(np.int16)
    masks = {name: np.zeros(array.shape, bool, order="F") for name in ("mediastinum", "heart", "thyroid")}
    masks["mediastinum"][16:24, 10:26, 4:20] = True
    masks["heart"][17:22, 11:17, 5:11] = True
    masks["thyroid"][20, 12, 22] = True
    return RegionVolume(Volume(array, affine), masks)


def opened(content):
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


@pytest.mark.parametrize("name", ["ct", "labels"])
def test_files_have_the_one_form_that_viewers_read_alike(name):
    content = getattr(draw_volume(scan(), 10**6), name)
    raw = gzip.decompress(content)
    assert raw[:4] == (348).to_bytes(4, "little")
    assert raw[344:348] == b"n+1\0"
    assert np.frombuffer(raw[112:120], "<f4").tolist() == [1.0, 0.0]  # slope and intercept
    assert raw[123] & 7 == 2  # mm
    header = opened(content).header
    assert header.get_data_dtype() == {"ct": np.int16, "labels": np.uint8}[name]
    assert int(header["sform_code"]) == int(header["qform_code"]) == 1
    assert np.allclose(header.get_sform(), header.get_qform())
    assert np.allclose(header["pixdim"][1:4], np.linalg.norm(header.get_sform()[:3, :3], axis=0))
    assert np.count_nonzero(header.get_sform()[:3, :3]) == 3
    [member] = [gzip.decompress(content)]
    assert len(gzip.compress(member, 6, mtime=0)) == len(content)  # one member, nothing after it


def test_what_fits_is_not_thinned():
    study = scan()
    drawn = draw_volume(study, 10**6)
    assert (drawn.step, drawn.hu_step, drawn.thinned) == ((1, 1, 1), 1, "")
    # The body's box with 10 mm around it; all slices.
    assert (drawn.first, drawn.shape) == ((3, 3, 0), (34, 30, 24))
    ct = opened(drawn.ct)
    assert np.array_equal(np.asarray(ct.dataobj), study.volume.array[3:37, 3:33])
    assert ct.affine[:3, 3].tolist() == [-24.0, 16.0, 100.0]


def test_regions_that_lie_over_each_other_are_all_kept():
    study = scan()
    drawn = draw_volume(study, 10**6)
    labels = np.asarray(opened(drawn.labels).dataobj)
    assert drawn.sets == ((), ("mediastinum",), ("mediastinum", "heart"), ("thyroid",))
    for name, mask in study.masks.items():
        held = [index for index, names in enumerate(drawn.sets) if name in names]
        assert np.array_equal(np.isin(labels, held), mask[3:37, 3:33])


def test_thinned_to_the_budget_as_means():
    study = scan(noise=100)
    whole, budget = draw_volume(study, 10**6), 4_500
    drawn = draw_volume(study, budget)
    assert len(whole.ct) > budget >= len(drawn.ct) + len(drawn.labels)
    assert drawn.step == (2, 2, 2)
    assert drawn.hu_step == 8
    part = study.volume.array[3:37, 3:33].reshape(17, 2, 15, 2, 12, 2).mean((1, 3, 5))
    ct = opened(drawn.ct)
    assert np.abs(np.asarray(ct.dataobj) - part.clip(-1024)).max() <= 4
    assert ct.affine[:3, 3].tolist() == [-23.0, 17.0, 101.5]  # the middle of eight voxels
    assert drawn.thinned == (
        "The picture is thinned to fit into this file: means over voxels of 4 x 4 x 6 mm, rounded to 8 HU."
    )
    assert set().union(*drawn.sets) == set(study.masks)  # the thyroid's only voxel too


def test_a_budget_of_nothing_gives_the_coarsest():
    drawn = draw_volume(scan(), 0)
    assert max(drawn.step) == 32
    assert set(drawn.focus) == {"mediastinum", "heart", "thyroid"}


@pytest.mark.parametrize("budget", [10**6, 9_000])
def test_the_focus_lies_in_its_region(budget):
    study = scan(noise=100)
    drawn = draw_volume(study, budget)
    labels = np.asarray(opened(drawn.labels).dataobj)
    for name, voxel in drawn.focus.items():
        assert name in drawn.sets[labels[voxel]]
    if budget == 10**6:
        at = np.add(drawn.first, drawn.focus["heart"])
        assert study.masks["heart"][tuple(at)]
        assert at[0] in (19, 20)
        assert at[1] in (13, 14)


def test_a_tilted_scan_is_handed_over_along_its_axes():
    c, s = np.cos(0.3), np.sin(0.3)
    turned = np.eye(4)
    turned[:2, :2] = [[c, -s], [s, c]]
    affine = turned @ AFFINE
    drawn = draw_volume(scan(affine), 10**6)
    found = opened(drawn.ct).affine
    assert np.allclose(found[:3, :3], np.diag([2, 2, 3]))
    assert np.allclose(found[:3, 3], (affine @ [3, 3, 0, 1])[:3])
    assert np.array_equal(drawn.affine, affine)


def test_a_scan_without_regions_or_body():
    drawn = draw_volume(RegionVolume(Volume(np.full((8, 8, 4), -1000, np.int16), np.eye(4)), {}), 10**6)
    assert (drawn.shape, drawn.sets, drawn.focus) == ((8, 8, 4), ((),), {})


def test_more_overlaps_than_labels_keep_the_commonest():
    random = np.random.default_rng(0)
    masks = {f"r{i}": random.random((16, 16, 16)) < 0.5 for i in range(9)}  # 512 sets
    drawn = draw_volume(RegionVolume(Volume(np.full((16, 16, 16), 40, np.int16), np.eye(4)), masks), 10**6)
    assert len(drawn.sets) == 256
    labels = np.asarray(opened(drawn.labels).dataobj)
    assert labels.dtype == np.uint8
    for name, mask in masks.items():
        told = np.isin(labels, [index for index, names in enumerate(drawn.sets) if name in names])
        assert not (told & ~mask).any()
        assert told.sum() > 0.6 * mask.sum()
