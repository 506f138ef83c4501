"""Transforms of training studies: scan and masks together, the same wherever and whenever they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchio

from reg2rg.core.errors import ConfigError
from reg2rg.core.task import Views
from reg2rg.core.types import RegionVolume, Volume
from reg2rg.data.augment import Augment, AugmentedStore
from reg2rg.store.store import Store

SHAPE = (20, 18, 16)
TURN = torchio.RandomAffine(scales=(0.9, 1.1), degrees=10, translation=3)


def source() -> RegionVolume:
    """Soft tissue in air, a cube of 500 HU that is a region, and a larger one around it."""
    array = np.full(SHAPE, -1000, np.int16)
    array[3:17, 3:15] = 40
    masks = {name: np.zeros(SHAPE, bool) for name in ("bone", "heart")}
    masks["bone"][8:13, 6:11, 5:11] = True
    masks["heart"][6:15, 5:12, 4:12] = True
    array[masks["bone"]] = 500
    return RegionVolume(Volume(np.asfortranarray(array), np.diag([2.0, 2.0, 3.0, 1.0])), masks, ("a note",))


def same(one: RegionVolume, other: RegionVolume) -> bool:
    masks = all(np.array_equal(one.masks[name], other.masks[name]) for name in one.masks)
    return masks and np.array_equal(one.volume.array, other.volume.array)


def test_seed_epoch_and_study_decide() -> None:
    augment = Augment([TURN, torchio.RandomNoise(std=20)])
    first = augment.of(source(), 1, 2, "s")
    torch.manual_seed(77)
    before = torch.get_rng_state()
    assert same(augment.of(source(), 1, 2, "s"), first)
    assert torch.equal(torch.get_rng_state(), before)  # training draws what it drew
    for other in ((2, 2, "s"), (1, 3, "s"), (1, 2, "t")):
        assert not same(augment.of(source(), *other), first)


def test_masks_go_where_their_voxels_go() -> None:
    moved = Augment([torchio.RandomAffine(scales=(1, 1), degrees=0, translation=(4, 4, 0, 0, 0, 0))]).of(
        source(), 0, 0, "s"
    )
    inside = moved.volume.array[moved.masks["bone"]]
    assert (inside == 500).all()
    assert np.array_equal(np.roll(source().masks["bone"], 2, axis=0), moved.masks["bone"])  # 4 mm are 2 voxels
    assert list(moved.masks) == ["bone", "heart"]
    assert moved.masks["bone"].dtype == bool
    assert moved.volume.array.dtype == np.int16
    assert moved.notes == ("a note",)
    turned = Augment([TURN]).of(source(), 0, 0, "s")
    assert not same(turned, source())
    assert np.mean(turned.volume.array[turned.masks["bone"]] > 250) > 0.9


def test_intensities_leave_masks_alone_and_stay_in_range() -> None:
    moved = Augment([torchio.RandomNoise(std=4000)]).of(source(), 0, 0, "s")
    assert np.array_equal(moved.masks["bone"], source().masks["bone"])
    assert (moved.volume.array.min(), moved.volume.array.max()) == (-1024, 3071)


def test_a_draw_that_loses_a_region_is_not_taken() -> None:
    away = torchio.RandomAffine(scales=(1, 1), degrees=0, translation=(60, 60, 0, 0, 0, 0))
    assert same(Augment([away]).of(source(), 0, 0, "s"), source())
    often = Augment([torchio.OneOf({away: 0.5, TURN: 0.5})])
    kept = [same(often.of(source(), 0, epoch, "s"), source()) for epoch in range(12)]
    assert sum(kept) < 6  # of single draws, half would be lost


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (torchio.RandomFlip(axes=(0,)), r"RandomFlip mirrors the axes \(0,\)"),
        (torchio.RandomFlip(axes=("LR",)), "RandomFlip mirrors"),
        (torchio.Compose([TURN, torchio.OneOf([torchio.RandomFlip(axes=1)])]), "RandomFlip mirrors"),
        (torchio.Flip(axes=(2,)), "Flip mirrors"),
        (torchio.RandomAffine(degrees=(0, 0, 0, 0, -180, 180)), "turns the body by up to 180 degrees"),
    ],
)
def test_what_can_swap_sides_needs_to_be_said(transform: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augment([transform])
    Augment([transform], mirrors=True)


def test_what_is_no_augmentation() -> None:
    with pytest.raises(ConfigError, match="int is no transform"):
        Augment([3])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="became 0 to 1, which is another scale"):
        Augment([torchio.RescaleIntensity((0, 1))]).of(source(), 0, 0, "s")
    with pytest.raises(ConfigError, match="turn the axes from RAS to SAR"):
        Augment([torchio.Transpose()]).of(source(), 0, 0, "s")


def test_views_of_one_region_and_of_all_are_of_the_same_draw(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("s", "key", source())
    views = Views((8, 8, 8))
    augmented = AugmentedStore(store, Augment([TURN]), 0, 3)
    both = augmented.views("s", views, ("bone", "heart"), {"texture", "global", "geometry"})
    one = augmented.views("s", views, ("heart",), {"texture", "global", "geometry"})
    assert np.array_equal(both.global_, one.global_)
    assert np.array_equal(both.texture[1], one.texture[0])
    assert np.array_equal(both.geometry[1], one.geometry[0])
    assert not np.array_equal(store.views("s", views, want={"global"}).global_, both.global_)


def batches(data: Any, loader: str, epoch: int = 0) -> list[Any]:
    data.setup("fit")
    made = getattr(data, loader)()
    made.set_epoch(epoch)
    try:
        return list(made)
    finally:
        data.teardown("fit")


def test_training_alone_and_at_any_number_of_workers(toy: Any) -> None:
    augment = Augment([torchio.RandomNoise(std=30)])
    module = toy.module()
    plain = batches(toy.data(module, workers=0), "train_dataloader", 1)
    none, two = (batches(toy.data(module, workers=w, augment=augment), "train_dataloader", 1) for w in (0, 2))
    for one, other, without in zip(none, two, plain, strict=True):
        assert one.study_ids == other.study_ids == without.study_ids
        assert torch.equal(one.texture, other.texture)
        assert not torch.equal(one.texture, without.texture)
    next_epoch = batches(toy.data(module, workers=0, augment=augment), "train_dataloader", 2)
    by_study = {batch.study_ids: batch.global_ for batch in none}
    assert not any(torch.equal(by_study.get(b.study_ids, b.global_ + 1), b.global_) for b in next_epoch)
    for data in (toy.data(module, workers=0), toy.data(module, workers=0, augment=augment)):
        validation = batches(data, "val_dataloader")
        reference = batches(toy.data(module, workers=0), "val_dataloader")
        assert all(torch.equal(a.global_, b.global_) for a, b in zip(validation, reference, strict=True))


def test_settings_that_contradict_it(toy: Any) -> None:
    module = toy.module()
    augment = Augment([TURN])
    with pytest.raises(ConfigError, match=r"data.cache would keep one epoch's views"):
        toy.data(module, augment=augment, cache=True)
    features = Views((4, 4, 4), features="toy", channels=3)
    with pytest.raises(ConfigError, match=r"data.augment transforms scans, and the task sees features .* \(toy\)"):
        toy.data(module, views=features, augment=augment)
    with pytest.raises(ConfigError, match=r"data.cache keeps views of scans"):
        toy.data(module, views=features, cache=True)
