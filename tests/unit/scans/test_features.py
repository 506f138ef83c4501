"""Grids of features: the published forms are read to right values, and every fault is named."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import Region, RegionSet
from reg2rg.core.task import Views
from reg2rg.core.types import MaskChannels, Study
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.features import read_features, row_digest
from reg2rg.scans.grid_layout import GridLayout

REGIONS = RegionSet("two", (Region("lung"), Region("heart"), Region("gland")))
CELLS, CHANNELS = (4, 3, 2), 5
LAYOUT = GridLayout("toy", CELLS, CHANNELS, organs=("lung", "heart", "gland"))


def grid(seed: int = 0) -> np.ndarray:
    """(X, Y, Z, C) in RAS."""
    return np.random.default_rng(seed).normal(size=(*CELLS, CHANNELS)).astype(np.float16)


def shares() -> np.ndarray:
    """(organs, X, Y, Z) in RAS: half of the body is lung, the heart fills two cells, the gland half a cell."""
    found = np.zeros((3, *CELLS), np.float16)
    found[0, 2:] = 1
    found[1, 0, 0] = 1
    found[2, 1, 1, 1] = 0.5
    return found


def study(tmp_path: Path, features: np.ndarray, masks: Any = None, row: int | None = None) -> Study:
    np.save(tmp_path / "s.npy", features)
    if masks is not None:
        np.savez_compressed(tmp_path / "s.npz", masks=masks)
    where = None if masks is None else MaskChannels(tmp_path / "s.npz")
    return Study("s", "s", "train", tmp_path / "s.npy", where, row=row)


def read(one: Study, layout: GridLayout = LAYOUT, needs_regions: bool = True) -> Any:
    return read_features(one, REGIONS, ReadOptions(grid=layout), needs_regions)


def test_channels_last_as_published(tmp_path: Path) -> None:
    found = read(study(tmp_path, grid(), shares()))
    assert np.array_equal(found.features, grid())
    assert found.features.dtype == np.float16
    assert list(found.weights) == ["lung", "heart", "gland"]
    assert np.array_equal(found.weights["lung"], shares()[0])
    assert found.notes == (
        "gland: below one cell of the grid (0.50): its features are mostly those of what lies around",
    )


@pytest.mark.parametrize(
    ("axes", "stored"),
    [
        ("CRAS", lambda g: np.moveaxis(g, 3, 0)),
        ("CRAS", lambda g: np.moveaxis(g, 3, 0)[None]),  # as the model itself gives them
        ("SARC", lambda g: g.transpose(2, 1, 0, 3)),
        ("LPIC", lambda g: g[::-1, ::-1, ::-1]),
        ("IRCA", lambda g: g.transpose(2, 0, 3, 1)[::-1]),
        ("RASC", lambda g: g.reshape(-1, CHANNELS)),
        ("SARC", lambda g: g.transpose(2, 1, 0, 3).reshape(-1, CHANNELS)),
    ],
)
def test_axes_are_brought_to_ras(tmp_path: Path, axes: str, stored: Any) -> None:
    one = study(tmp_path, np.ascontiguousarray(stored(grid())), shares())
    assert np.array_equal(read(one, dataclasses.replace(LAYOUT, axes=axes)).features, grid())


def test_masks_are_brought_to_ras_and_averaged_over_cells(tmp_path: Path) -> None:
    fine = shares().repeat(3, 1).repeat(2, 2).repeat(4, 3)
    fine[1, 0, 0, 0] = 0  # one of the 24 voxels of a cell
    stored = np.ascontiguousarray(fine.transpose(3, 2, 1, 0)[:, ::-1])  # S, P, R, C
    found = read(study(tmp_path, grid(), stored), dataclasses.replace(LAYOUT, mask_axes="SPRC"))
    assert np.array_equal(found.weights["lung"], shares()[0])
    assert found.weights["heart"][0, 0] == pytest.approx([23 / 24, 1])


def test_a_region_is_the_union_of_its_organs(tmp_path: Path) -> None:
    layout = dataclasses.replace(LAYOUT, regions={"Heart": ["heart", "gland", "lung"], "lung": ["lung"]})
    masks = shares()
    masks[2, 3, 0, 0] = 0.5  # over a cell that is lung altogether
    found = read(study(tmp_path, grid(), masks), layout)
    assert list(found.weights) == ["lung", "heart"]
    assert np.array_equal(found.weights["heart"], np.minimum(masks.sum(0), 1))
    assert found.weights["heart"].max() == 1


def test_a_region_without_weight_is_named_and_left_out(tmp_path: Path) -> None:
    masks = shares()
    masks[1] = 0
    found = read(study(tmp_path, grid(), masks))
    assert list(found.weights) == ["lung", "gland"]
    assert "heart: no cell of the grid has weight, so that nothing is known of it" in found.notes
    with pytest.raises(DataFault, match=r"NO_REGION s .*masks without weight"):
        read(study(tmp_path, grid(), masks * 0))


def test_one_vector_without_masks(tmp_path: Path) -> None:
    layout = GridLayout("merlin", (1, 1, 1), 2048)
    vector = np.random.default_rng(0).normal(size=2048).astype(np.float32)
    found = read(study(tmp_path, vector), layout, needs_regions=False)
    assert found.features.shape == (1, 1, 1, 2048)
    assert np.array_equal(found.features.ravel(), vector)


def test_a_row_of_a_stacked_array(tmp_path: Path) -> None:
    stacked = np.stack([grid(seed).reshape(-1, CHANNELS) for seed in range(3)])
    assert np.array_equal(read(study(tmp_path, stacked, shares(), row=2)).features, grid(2))
    digests = [row_digest(tmp_path / "s.npy", row) for row in range(4)]
    assert len(set(digests)) == 4
    assert digests[3] is None
    with pytest.raises(DataFault, match=r"FEATURE_SHAPE s .*no row 3"):
        read(study(tmp_path, stacked, shares(), row=3))


def other(**changes: Any) -> dict[str, Any]:
    return {"features": grid(), "masks": shares()} | changes


def with_nan() -> np.ndarray:
    found = grid()
    found[1, 1, 1, 1] = np.nan
    return found


PLANTED = {
    "wrong channels": (other(features=grid()[..., :4]), "FEATURE_SHAPE"),
    "wrong cells": (other(features=grid()[:3]), "FEATURE_SHAPE"),
    "axes swapped": (other(features=grid().transpose(2, 1, 0, 3)), "FEATURE_SHAPE"),
    "NaN": (other(features=with_nan()), "NON_FINITE"),
    "zeros": (other(features=grid() * 0), "CONSTANT"),
    "float64": (other(features=grid().astype(np.float64)), "FEATURE_DTYPE"),
    "int8": (other(features=grid().astype(np.int8)), "FEATURE_DTYPE"),
    "objects": (other(features=grid().astype(object)), "PICKLED"),
    "mask of another grid": (other(masks=shares()[:, :3]), "MASK_GRID"),
    "mask coarser": (other(masks=shares()[:, ::2]), "MASK_GRID"),
    "mask lacks an organ": (other(masks=shares()[:2]), "MASK_GRID"),
    "labels in place of masks": (other(masks=shares() * 4), "MASK_VALUES"),
    "mask NaN": (other(masks=shares() * np.float16(np.nan)), "MASK_VALUES"),
    "mask of objects": (other(masks=shares().astype(object)), "PICKLED"),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named(tmp_path: Path, name: str) -> None:
    arrays, code = PLANTED[name]
    with pytest.raises(DataFault) as fault:
        read(study(tmp_path, **arrays))
    assert (fault.value.code, fault.value.study) == (code, "s")
    assert "Fix: " in str(fault.value)
    assert str(tmp_path) in str(fault.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    one = study(tmp_path, grid(), shares())
    whole = one.image.read_bytes()
    for content, code in ((whole[:-9], "UNREADABLE"), (b"", "UNREADABLE"), (pickle.dumps([1]), "PICKLED")):
        one.image.write_bytes(content)
        with pytest.raises(DataFault) as fault:
            read(one)
        assert fault.value.code == code
    one.image.unlink()
    with pytest.raises(DataFault, match="MISSING_FILE"):
        read(one)
    np.save(one.image, grid())
    np.savez(tmp_path / "s.npz", organs=shares())
    with pytest.raises(DataFault, match=r"NO_KEY .*the arrays organs .*'masks'.*mask_key"):
        read(one)
    packed = (tmp_path / "s.npz").read_bytes()
    (tmp_path / "s.npz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataFault, match="UNREADABLE"):
        read(one)


def test_npz_features_by_their_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", arr=grid()[None])  # CT-CHAT's form
    found = read(Study("s", "s", "train", tmp_path / "s.npz"), needs_regions=False)
    assert np.array_equal(found.features, grid())


ORDER = dataclasses.replace(LAYOUT, order=[("heart", "L", "lung"), ("gland", "S", "heart")])


def test_organs_lie_where_they_lie_in_everybody(tmp_path: Path) -> None:
    assert not [note for note in read(study(tmp_path, grid(), shares()), ORDER).notes if "swapped" in note]
    with pytest.raises(DataFault, match=r"AXES s .*gland does not lie further S than heart"):
        read(study(tmp_path, grid(), np.ascontiguousarray(shares()[..., ::-1])), ORDER)
    mirrored = read(study(tmp_path, grid(), np.ascontiguousarray(shares()[:, ::-1])), ORDER)
    assert any("heart does not lie further L than lung: left and right may be swapped" in n for n in mirrored.notes)


def body(cells: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Features and masks of organs that lie nowhere twice."""
    masks = np.zeros((3, cells, cells, cells), np.float16)
    masks[0, 1:5, 2:9, 5:11] = masks[1, 6:9, 6:10, 2:6] = masks[2, 9:11, 1:4, 8:11] = 1
    random = np.random.default_rng(1)
    features = random.normal(size=(cells, cells, cells, CHANNELS)) + 3 * np.einsum(
        "oxyz,oc->xyzc", masks, random.normal(size=(3, CHANNELS))
    )
    return features.astype(np.float16), masks


@pytest.mark.parametrize(
    ("stored", "axes"),
    [
        (lambda f: f, ""),
        (lambda f: f.transpose(2, 1, 0, 3), "SARC"),
        (lambda f: f[:, :, ::-1], "RAIC"),
        (lambda f: f.transpose(1, 2, 0, 3)[::-1], "PSRC"),
    ],
)
def test_features_on_other_axes_than_said_are_noted(tmp_path: Path, stored: Any, axes: str) -> None:
    features, masks = body()
    layout = dataclasses.replace(LAYOUT, cells=(12, 12, 12))
    one = study(tmp_path, np.ascontiguousarray(stored(features)), masks)
    notes = read(one, layout).notes
    assert [f"with {axes}: look at data.read.grid.axes" in note for note in notes] == ([True] if axes else [])
    if axes:
        assert read(one, dataclasses.replace(layout, axes=axes)).notes == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": "RAS"}, "axes is 'RAS'"),
        ({"axes": "RALC"}, "axes is 'RALC'"),
        ({"mask_axes": "ORAS"}, "mask_axes is 'ORAS'"),
        ({"organs": ("lung", "lung")}, "'lung' twice"),
        ({"regions": {"lung": ["lnug"]}}, "the organ 'lnug', which is no channel .* Did you mean 'lung'"),
        ({"order": [("lung", "S", "liver")]}, "the organ 'liver'"),
        ({"order": [("lung", "up", "heart")]}, "direction 'up'"),
    ],
)
def test_a_layout_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(LAYOUT, **changes)


def test_a_layout_fits_views_and_regions() -> None:
    views = Views(CELLS, features="toy", channels=CHANNELS)
    LAYOUT.check(views)
    for changes, message in (
        ({"features": "merlin"}, r"encoder is 'toy', but task.views.features is 'merlin'"),
        ({"size": (4, 3, 3)}, r"cells is \(4, 3, 2\), but task.views.size"),
        ({"channels": 6}, r"channels is 5, but task.views.channels is 6"),
    ):
        with pytest.raises(ConfigError, match=message):
            ReadOptions(grid=LAYOUT).for_views(dataclasses.replace(views, **changes))
    with pytest.raises(ConfigError, match=r"data.read.grid does not say"):
        ReadOptions().for_views(views)
    with pytest.raises(ConfigError, match="Unknown region 'liver'"):
        dataclasses.replace(LAYOUT, regions={"liver": ["lung"]}).channels_of(REGIONS)
    with pytest.raises(ConfigError, match="none of the organs a, b is a region"):
        dataclasses.replace(LAYOUT, organs=("a", "b")).channels_of(REGIONS)
    assert GridLayout.of({**dataclasses.asdict(LAYOUT), "cells": list(CELLS), "organs": list(LAYOUT.organs)}) == LAYOUT
