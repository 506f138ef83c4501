"""Regions from DICOM SEG and RTSTRUCT: each frame and each contour on the slice where it lies.

highdicom 0.28.2 wrote the same masks as BINARY, FRACTIONAL and LABELMAP, and rt-utils 1.2.7 wrote squares, single
voxels, rings and islands in holes: all were read as they had been given.
"""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import pytest

from dicom_files import SHAPE, chest, in_ras, lps, points, save, slices
from dicom_regions import rtstruct, seg, write
from reg2rg.core.errors import DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.core.types import Grid, RegionFiles, Study, Volume
from reg2rg.scans.base import ReadOptions, Scan
from reg2rg.scans.dicom.contours import fill
from reg2rg.scans.dicom.reader import DICOM
from reg2rg.scans.dicom.region_file import region_file
from reg2rg.scans.find_masks import find_masks
from reg2rg.scans.read import read_study

REGIONS = load_region_set("radgenome")
LOOSE = ReadOptions(implausible="ignore")


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    return save(slices(), tmp_path_factory.mktemp("ct"))


def masks() -> dict[str, np.ndarray]:
    """A lung with holes and an inner slice without it, and a heart of two slices far apart that overlaps it."""
    random = np.random.default_rng(0)
    lung, heart = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    lung[5:30, 10:40, 3:15] = random.random((25, 30, 12)) > 0.3
    lung[:, :, 9] = False
    heart[20:50, 30:50, 8] = heart[22:40, 33:45, 17] = True
    return {"lung": lung, "heart": heart}


def read(ct, path, options=LOOSE):
    study = Study("a", "a", "test", ct, find_masks(path, REGIONS))
    return read_study(study, REGIONS, options)


def refused(ct, path) -> DataFault:
    with pytest.raises(DataFault) as caught:
        read(ct, path)
    assert "SECRET1" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segmentation(ct, tmp_path, kind) -> None:
    wanted = masks()
    given = wanted
    if kind == "FRACTIONAL":
        random = np.random.default_rng(1)
        high, low = random.uniform(0.5, 1, SHAPE), random.uniform(0, 0.49, SHAPE)
        given = {name: np.where(mask, high, low) for name, mask in wanted.items()}
    if kind == "LABELMAP":
        wanted = {"lung": wanted["lung"] & ~wanted["heart"], "heart": wanted["heart"]}
    found = read(ct, write(seg(given, kind), tmp_path / "seg.dcm"))
    assert found.masks.keys() == wanted.keys()
    for name, mask in wanted.items():
        assert np.array_equal(found.masks[name], in_ras(mask)), name
        assert found.masks[name].flags.f_contiguous
    assert ("masks: fractions from 0.5 on count" in found.notes) == (kind == "FRACTIONAL")


def test_frames_that_begin_in_the_middle_of_a_byte(tmp_path) -> None:
    shape = (31, 29, 24)
    affine = lps((10.0, 8.0, 3.0))
    ct = save(slices(chest(points(shape, affine)), affine), tmp_path / "ct")
    mask = np.random.default_rng(0).random(shape) > 0.5
    found = read(ct, write(seg({"lung": mask}, affine=affine), tmp_path / "seg.dcm"))
    assert np.array_equal(found.masks["lung"], in_ras(mask))


def test_a_file_a_region_and_names_by_class(ct, tmp_path) -> None:
    both = masks()
    folder = tmp_path / "masks"
    folder.mkdir()
    write(seg({"left": both["lung"], "right": both["heart"]}), folder / "lung.dcm")  # a file's segments are its region
    found = read(ct, folder)
    assert np.array_equal(found.masks["lung"], in_ras(both["lung"] | both["heart"]))
    lobes = {"lung_upper_lobe_left": both["lung"], "lung_lower_lobe_left": both["heart"], "Tumour": both["heart"]}
    path = write(seg(lobes), tmp_path / "seg.dcm")
    assert find_masks(path, REGIONS).labels == {"lung": (1, 2)}
    assert np.array_equal(read(ct, path).masks["lung"], in_ras(both["lung"] | both["heart"]))
    with pytest.raises(DataFault, match=r"LABEL_NAMES .*labels named left, right"):
        find_masks(folder / "lung.dcm", REGIONS)


def test_a_segmentation_on_other_slices_or_pixels(ct, tmp_path) -> None:
    shifted = lps()
    shifted[2, 3] += 1.2
    fault = refused(ct, write(seg(masks(), affine=shifted), tmp_path / "a.dcm"))
    assert fault.code == "MASK_SLICE"
    assert "of slices 0 to 23 (expected planes that each lie on a slice)" in str(fault)
    beyond = lps()
    beyond[2, 3] += 30
    assert "a plane at slice" in str(refused(ct, write(seg(masks(), affine=beyond), tmp_path / "b.dcm")))
    coarse = seg(masks(), affine=lps((5.1, 4.0, 3.0)))
    assert "pixels of another size or direction" in str(refused(ct, write(coarse, tmp_path / "c.dcm")))
    aside = lps()
    aside[0, 3] += 2.5
    assert "pixels between the scan's" in str(refused(ct, write(seg(masks(), affine=aside), tmp_path / "d.dcm")))


def test_what_lies_outside_the_frame_is_counted(ct, tmp_path) -> None:
    moved = lps()
    moved[0, 3] -= 10 * 5  # ten columns: five of the lung's are cut
    found = read(ct, write(seg({"lung": masks()["lung"]}, affine=moved), tmp_path / "a.dcm"))
    wanted = np.zeros(SHAPE, bool)
    wanted[:20] = masks()["lung"][10:30]
    assert np.array_equal(found.masks["lung"], in_ras(wanted))
    lost = np.count_nonzero(masks()["lung"][:10])
    assert f"masks: {lost} pixels lie outside the scan" in found.notes


def test_flipped_and_turned_pixels(ct, tmp_path) -> None:
    mask = masks()["lung"]
    turned = lps()[:, [1, 0, 2, 3]]  # rows and columns exchanged
    turned[:3, 0] *= -1
    turned[:3, 3] = lps()[:3] @ (0, SHAPE[1] - 1, 0, 1)
    found = read(ct, write(seg({"lung": mask.transpose(1, 0, 2)[::-1]}, affine=turned), tmp_path / "a.dcm"))
    assert np.array_equal(found.masks["lung"], in_ras(mask))


def square(low, high, step=1.0):
    """Corners of a square, in an order that goes around it."""
    return [(low, low), (high, low), (high, high), (low, high)]


def test_contours_along_edges_through_centres_with_holes_and_keyholes(ct, tmp_path) -> None:
    solid, ring = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    solid[10:30, 10:30, 4:6] = ring[10:30, 10:30, 4:6] = True
    ring[15:20, 15:20, 4:6] = False
    edges, centres = square(9.5, 29.5), square(10, 29)
    hole_edges, hole_centres = square(14.5, 19.5), square(14, 20)
    keyhole = [*edges, edges[0], *hole_edges[::-1][3:], *hole_edges[::-1][:3], hole_edges[0], edges[0]]
    for outer, inner, wanted in (
        (edges, None, solid),
        (centres, None, solid),
        (edges, hole_edges, ring),
        (centres, hole_centres, ring),  # as rt-utils traces both, through the voxels that are set
        (keyhole, None, ring),
    ):
        contours = [(place, line) for place in (4, 5) for line in (outer, inner) if line is not None]
        found = read(ct, write(rtstruct({"lung": contours}), tmp_path / "rt.dcm"))
        assert np.array_equal(found.masks["lung"], in_ras(wanted)), (outer, inner)


def test_small_contours(ct, tmp_path) -> None:
    wanted = np.zeros(SHAPE, bool)
    wanted[7, 9, 3] = wanted[20:24, 30, 3] = wanted[40:42, 40:42, 3] = True
    lines = [[(7, 9)], [(20, 30), (23, 30)], square(40, 41)]
    found = read(ct, write(rtstruct({"heart": [(3, line) for line in lines]}), tmp_path / "rt.dcm"))
    assert np.array_equal(found.masks["heart"], in_ras(wanted))


def test_contours_that_are_refused_or_noted(ct, tmp_path) -> None:
    between = refused(ct, write(rtstruct({"lung": [(4.5, square(9.5, 29.5))]}), tmp_path / "a.dcm"))
    assert between.code == "MASK_SLICE"
    assert "a plane at slice 4.50" in str(between)
    one = rtstruct({"lung": [(4, square(9.5, 29.5)), (7, square(9.5, 29.5))]})
    assert (
        "lung: no contour on 2 slices between its first and its last" in read(ct, write(one, tmp_path / "b.dcm")).notes
    )
    leaning = rtstruct({"lung": [(4, square(9.5, 29.5))]})
    values = leaning.ROIContourSequence[0].ContourSequence[0].ContourData
    values[2] = float(values[2]) + 30
    assert "leans across slices" in str(refused(ct, write(leaning, tmp_path / "c.dcm")))
    open_ = rtstruct({"lung": [(4, square(9.5, 29.5))]}, ContourGeometricType="OPEN_PLANAR")
    study = Study("a", "a", "test", ct, find_masks(write(open_, tmp_path / "d.dcm"), REGIONS))
    found = read_study(study, REGIONS, LOOSE, needs_regions=False)
    assert "lung: 1 contours that are not closed are left out" in found.notes
    assert not found.masks


def test_an_ellipse_is_that_of_a_fine_grid() -> None:
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    polygon = np.stack([30.2 + 20 * np.cos(angle), 28.4 + 14 * np.sin(angle)], -1)
    x, y = np.mgrid[:60, :60]
    away = ((x - 30.2) / 20) ** 2 + ((y - 28.4) / 14) ** 2
    sure = np.abs(away - 1) > 0.005  # no centre on the line
    assert np.array_equal(fill([polygon], (60, 60))[sure], away[sure] < 1)
    assert sure.mean() > 0.99
    assert not fill([polygon - 100], (60, 60)).any()
    assert fill([polygon * 100 - (3000, 2800)], (60, 60)).all()
    cut = fill([polygon - (25, 20)], (60, 60))
    assert np.array_equal(cut[:35, :40], fill([polygon], (60, 60))[25:, 20:])


def test_masks_of_one_study_in_several_kinds_of_file(ct, tmp_path) -> None:
    both = masks()
    files = {
        "lung": write(seg({"x": both["lung"]}), tmp_path / "a.dcm"),
        "heart": write(rtstruct({"y": [(4, square(9.5, 29.5))]}), tmp_path / "b.dcm"),
    }
    found = read_study(Study("a", "a", "test", ct, RegionFiles(files)), REGIONS, LOOSE)
    assert np.array_equal(found.masks["lung"], in_ras(both["lung"]))
    assert found.masks["heart"].sum() == 400


def test_damaged(ct, tmp_path) -> None:
    path = write(seg(masks()), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-2000])
    assert refused(ct, path).code == "CORRUPT"
    placeless = seg(masks())
    del placeless.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    assert "frame 4 without a place" in str(refused(ct, write(placeless, tmp_path / "b.dcm")))


def test_real_segmentations(shared_ct) -> None:
    folder = shared_ct / "dcmqi_BSD3"
    image = DICOM().read_scan(folder / "ct-3slice", ReadOptions(min_slices=1))
    shape = image.stored.shape
    scan = Scan(Volume(np.zeros(shape, np.int16), image.affine), Grid(shape, image.affine), ())
    found, _ = region_file(folder / "liver.dcm").masks({"liver": (1,)}, scan)
    truth, header = nrrd.read(str(folder / "liver_seg.nrrd"))
    assert np.allclose(header["space origin"], (np.diag([-1, -1, 1, 1]) @ image.affine)[:3, 3], atol=1e-2)
    assert np.array_equal(found["liver"], in_ras(truth > 0))
    overlaps = region_file(folder / "partial_overlaps.dcm")
    found, _ = overlaps.masks({name: (number,) for number, name in overlaps.names.items()}, scan)
    # What highdicom 0.28.2 reads of each segment, and on which slices.
    assert {name: int(mask.sum()) for name, mask in found.items()} == {
        "GREEN": 9602, "ORANGE": 11888, "PURPLE": 10743, "LIGHT_BLUE": 6693, "DARK_BLUE": 4713,
    }  # fmt: skip
    assert found["LIGHT_BLUE"].any((0, 1)).tolist() == [True, False, False]
    assert found["PURPLE"].any((0, 1)).all()
