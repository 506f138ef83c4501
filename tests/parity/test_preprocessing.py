"""From a file to the numbers that encoders see: ours against the published way, where scans are not plain.

Padding and metal beyond the range of a CT, HU that are no whole numbers, arrays that are not stored in RAS.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from parity.preprocessing import published_views
from reg2rg.core.errors import DataFault
from reg2rg.core.regions import Region, RegionSet
from reg2rg.core.task import Views
from reg2rg.core.types import RegionFiles, Study
from reg2rg.data.scaling import fraction, to_input
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_study
from reg2rg.store.prepare import prepare
from reg2rg.store.store import Store
from reg2rg.store.views import StudyViews, compute_views

SHAPE, SIZE = (41, 37, 30), (12, 10, 8)
AFFINE = np.diag([1.5, 1.5, 2.0, 1.0])
REGIONS = RegionSet("one", (Region("lung"),))
FIXED_POINT = 1e-4  # 1/16 HU and 1/32767, as views travel
FIRST, LAST = Views(size=SIZE), Views(size=SIZE, clip="last")


def chest() -> tuple[np.ndarray, np.ndarray]:
    """Air, a body and its lung: whole HU, asymmetric along every axis."""
    rng = np.random.default_rng(0)
    i, j, k = (np.indices(SHAPE) + 0.5) / np.array(SHAPE).reshape(3, 1, 1, 1)
    hu = np.full(SHAPE, -1010.0)
    body = (i - 0.5) ** 2 + (j - 0.5) ** 2 < 0.2
    lung = (i - 0.62) ** 2 + (j - 0.45) ** 2 + (k - 0.4) ** 2 < 0.05
    hu[body] = rng.normal(40, 60, int(body.sum())).round()
    hu[lung] = rng.normal(-850, 60, int(lung.sum())).round()
    hu[body & (j < 0.15)] = 700
    return hu.clip(-1020), lung


def outside_the_circle() -> np.ndarray:
    i, j, _ = (np.indices(SHAPE) + 0.5) / np.array(SHAPE).reshape(3, 1, 1, 1)
    return (i - 0.5) ** 2 + (j - 0.5) ** 2 > 0.4**2


def metal() -> np.ndarray:
    rods = np.zeros(SHAPE, bool)
    rods[14:16, 10:12] = rods[24:26, 10:12] = True
    return rods


def study(folder: Path, hu: np.ndarray, mask: np.ndarray, affine: np.ndarray = AFFINE, kind: str = "<f4") -> Study:
    """The files of one scan; `hu` in the type that is asked for."""
    folder.mkdir(exist_ok=True)
    image = nib.Nifti1Image(hu.astype(kind), affine)
    nib.save(image, folder / "ct.nii.gz")
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), folder / "lung.nii.gz")
    return Study("s", "s", "test", folder / "ct.nii.gz", RegionFiles({"lung": folder / "lung.nii.gz"}))


def ours(one: Study, views: Views) -> dict[str, np.ndarray]:
    return as_input(compute_views(views, read_study(one, REGIONS, ReadOptions(hu="trust").for_views(views))))


def as_input(views: StudyViews) -> dict[str, np.ndarray]:
    assert views.texture is not None
    return {
        "global": to_input(torch.from_numpy(views.global_)).numpy(),
        "texture": to_input(torch.from_numpy(views.texture[0])).numpy(),
        "geometry": fraction(torch.from_numpy(views.geometry[0])).numpy(),
    }


def difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    assert {name: view.shape for name, view in found.items()} == {name: view.shape for name, view in expected.items()}
    return {name: float(np.abs(found[name] - expected[name]).max()) for name in expected}


def worst(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    return max(difference(found, expected).values())


@pytest.mark.parametrize("kind", ["<i2", "<f4", ">f8"])
def test_plain_scans_are_the_same_in_either_order(tmp_path: Path, kind: str) -> None:
    hu, lung = chest()
    one = study(tmp_path, hu, lung, kind=kind)
    for views in (FIRST, LAST):
        assert worst(ours(one, views), published_views(hu, lung, SIZE)) < FIXED_POINT


@pytest.mark.parametrize(
    ("name", "where", "value"),
    [("padding", outside_the_circle(), -3024), ("padding", outside_the_circle(), -2000), ("metal", metal(), 20000)],
)
def test_clipping_after_averaging_is_the_published_order(
    tmp_path: Path, name: str, where: np.ndarray, value: int
) -> None:
    """`task.views.clip`: clipped first, padding and metal weigh what air and bone do, which moves views by a third
    of their range and more."""
    hu, lung = chest()
    hu[where] = value
    one = study(tmp_path, hu, lung, kind="<i2")
    expected = published_views(hu, lung, SIZE)
    assert worst(ours(one, LAST), expected) < FIXED_POINT
    assert difference(ours(one, FIRST), expected)["global"] > 0.6
    brought = np.clip(hu, -1024, 3071)
    assert worst(ours(one, FIRST), published_views(brought, lung, SIZE)) < FIXED_POINT


@pytest.mark.parametrize("spacing", [None, (3.0, 3.0, 4.0)])
def test_one_store_serves_both_orders_or_says_that_it_cannot(
    tmp_path: Path, spacing: tuple[float, float, float] | None
) -> None:
    hu, lung = chest()
    hu[outside_the_circle()], hu[metal()] = -3024, 20000
    one = study(tmp_path, hu, lung, kind="<i2")
    first, last = (Views(size=SIZE, spacing=spacing, clip=clip) for clip in ("first", "last"))
    options = ReadOptions(hu="trust")
    prepare([one], tmp_path / "wide", REGIONS, options.for_views(last), workers=0)
    prepare([one], tmp_path / "clipped", REGIONS, options, workers=0)
    wide, clipped = Store(tmp_path / "wide"), Store(tmp_path / "clipped")
    assert worst(as_input(wide.views("s", first)), as_input(clipped.views("s", first))) == 0
    assert worst(as_input(wide.views("s", last)), as_input(wide.views("s", first))) > 0.3
    with pytest.raises(DataFault, match=r"CLIPPED .*clipped \d+ voxels .*task\.views\.clip: last") as caught:
        clipped.views("s", last)
    assert caught.value.code == "CLIPPED"
    prepare([one], tmp_path / "baked", REGIONS, options, bake=last, workers=0, native=False)
    assert worst(as_input(Store(tmp_path / "baked").views("s", last)), as_input(wide.views("s", last))) == 0


def test_whole_scans_need_no_second_store(tmp_path: Path) -> None:
    """What nothing was clipped of is the same in both orders, so a store that was read with clipping serves."""
    hu, lung = chest()
    prepare([study(tmp_path, hu, lung)], tmp_path / "store", REGIONS, ReadOptions(hu="trust"), workers=0)
    store = Store(tmp_path / "store")
    assert worst(as_input(store.views("s", LAST)), as_input(store.views("s", FIRST))) == 0


def test_fractional_hu_are_rounded(tmp_path: Path) -> None:
    """Half a HU at most, 8.3e-4 of the scaled unit, and far less where a view averages many voxels."""
    hu, lung = chest()
    hu[hu > -1000] += np.random.default_rng(1).uniform(-0.5, 0.5, int((hu > -1000).sum()))
    found = difference(ours(study(tmp_path, hu, lung), LAST), published_views(hu, lung, SIZE))
    assert FIXED_POINT < max(found["global"], found["texture"]) <= 0.5 / 600 + FIXED_POINT
    assert found["geometry"] < FIXED_POINT
    whole = difference(ours(study(tmp_path, hu.round(), lung), LAST), published_views(hu.round(), lung, SIZE))
    assert max(whole.values()) < FIXED_POINT


@pytest.mark.parametrize(
    ("orientation", "affine"),
    [
        ("LPS", np.diag([-1.5, -1.5, 2.0, 1.0])),
        ("LAS", np.diag([-1.5, 1.5, 2.0, 1.0])),
        ("PSR", np.array([[0, 0, 1.5, 0], [-1.5, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])),
    ],
)
def test_arrays_that_are_not_stored_in_ras(tmp_path: Path, orientation: str, affine: np.ndarray) -> None:
    """The published code keeps the axes of the file: `task.views.orientation` gives its views, RAS shows the patient
    in the same way whatever the file's axes are."""
    hu, lung = chest()
    one = study(tmp_path, hu, lung, affine)
    expected = published_views(hu, lung, SIZE)
    assert worst(ours(one, Views(size=SIZE, orientation=orientation, clip="last")), expected) < FIXED_POINT
    axes = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(tuple(orientation)), nib.orientations.axcodes2ornt(("R", "A", "S"))
    )
    turned = [nib.orientations.apply_orientation(array, axes) for array in (hu, lung)]
    in_ras = ours(one, LAST)
    assert worst(in_ras, published_views(turned[0], turned[1].astype(bool), SIZE)) < FIXED_POINT
    assert worst(in_ras, expected) > 0.3
    again = ours(study(tmp_path / "ras", turned[0], turned[1], AFFINE), LAST)
    assert worst(in_ras, again) < FIXED_POINT
