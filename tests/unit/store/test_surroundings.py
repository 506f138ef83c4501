"""What lies beside a region and in no mask: counted voxel by voxel, on fine and coarse grids, where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from reg2rg.core.regions import load_region_set
from reg2rg.core.types import RegionVolume, Volume
from reg2rg.store.attributes import AIR_BELOW, VECTOR_NAMES, measure, vector
from reg2rg.store.crop import Detail, crop_to_foreground
from reg2rg.store.surroundings import surroundings

REGIONS = load_region_set()


def scan(array: np.ndarray, masks: dict[str, np.ndarray], spacing: tuple[float, float, float]) -> Detail:
    volume = Volume(np.asfortranarray(array.astype(np.int16)), np.diag([*spacing, 1.0]))
    return crop_to_foreground(RegionVolume(volume, masks))


def blocks(places: dict[str, tuple[slice, slice, slice]], shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    masks = {name: np.zeros(shape, bool) for name in places}
    for name, place in places.items():
        masks[name][place] = True
    return masks


def test_every_voxel_that_is_near_and_in_no_mask_counts_once() -> None:
    shape, spacing = (14, 13, 9), (8.0, 8.0, 10.0)  # reach: 2, 2 and 2 voxels
    random = np.random.default_rng(0)
    array = random.integers(-900, 300, shape)
    masks = blocks(
        {"heart": (slice(4, 7), slice(5, 9), slice(0, 3)), "lung": (slice(8, 12), slice(2, 8), slice(1, 9))}, shape
    )
    masks["heart"][5, 5, 1] = False  # a hole
    found = surroundings(scan(array, masks, spacing), AIR_BELOW)
    claimed = masks["heart"] | masks["lung"]
    voxels = np.argwhere(~claimed)
    for name, mask in masks.items():
        apart = np.abs(voxels[:, None] - np.argwhere(mask)[None]).max(-1).min(-1)
        values = array[tuple(voxels[apart <= 2].T)]
        assert found[name].volume_ml == pytest.approx(len(values) * 0.64)
        assert found[name].air_ml == pytest.approx((values < -500).sum() * 0.64)
        assert (found[name].mean_hu, found[name].sd_hu) == (pytest.approx(values.mean()), pytest.approx(values.std()))


@pytest.mark.parametrize("size", [1.0, 1.5, 2.5])
def test_gas_beside_a_region_is_told_by_its_volume_on_any_grid(size: float) -> None:
    x, y, z = np.meshgrid(*[np.arange(0, 150, size)] * 3, indexing="ij")
    gas = (x - 75) ** 2 + (y - 60) ** 2 + (z - 80) ** 2 < 25**2
    tube = (x - 75) ** 2 + (y - 80) ** 2 < 8**2
    near = np.maximum(0, abs(x - 75) - 20) ** 2 + np.maximum(0, abs(y - 80) - 20) ** 2 < 8**2
    found = surroundings(scan(np.where(gas, -950, 30), {"esophagus": tube}, (size,) * 3), AIR_BELOW)["esophagus"]
    assert found.air_ml == pytest.approx((gas & near & ~tube).sum() * size**3 / 1000, rel=0.15)


def test_it_goes_into_the_vector_and_nothing_is_zero() -> None:
    shape = (10, 10, 10)
    masks = blocks({"heart": (slice(3, 6),) * 3}, shape)
    array = np.full(shape, 30)
    array[6, 3:6, 3:6] = -900
    by_name = dict(zip(VECTOR_NAMES, vector(measure(scan(array, masks, (8.0,) * 3), REGIONS), "heart"), strict=True))
    assert by_name["log of air around it"] == pytest.approx(np.log1p(9 * 0.512) / 3)
    alone = measure(scan(array, {"heart": np.ones(shape, bool)}, (8.0,) * 3), REGIONS)
    assert alone.regions["heart"].around is None
    numbers = dict(zip(VECTOR_NAMES, vector(alone, "heart"), strict=True))
    assert {numbers[name] for name in VECTOR_NAMES if name.endswith("around it")} == {0.0}


def test_a_region_between_the_voxels_that_are_looked_at_has_none() -> None:
    shape = (30, 30, 30)
    masks = blocks({"heart": (slice(8, 13),) * 3, "lung": (slice(6, 9),) * 3}, shape)  # every seventh voxel: 7, 14
    found = surroundings(scan(np.full(shape, 30), masks, (1.0,) * 3), AIR_BELOW)
    assert set(found) == {"lung"}
