"""Scans brought to another orientation and voxel size: nothing lost where nothing need be."""

import itertools

import numpy as np
import pytest

from reg2rg.core.errors import DataFault
from reg2rg.core.task import Views
from reg2rg.core.types import RegionVolume, Volume
from reg2rg.store.frame import conform
from reg2rg.store.views import compute_views, views_key

ORIENTATIONS = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*order)
]


def ramp(shape=(14, 11, 9), affine=None):
    """HU that grow linearly along all three patient axes, and a mask that is a half of the patient."""
    affine = np.diag([1.5, 2.0, 3.0, 1.0]) if affine is None else affine
    affine = np.array(affine, np.float64)
    affine[:3, 3] = -20, 7, 3
    return RegionVolume(Volume(hu(shape, affine), affine), {"heart": world(shape, affine)[0] > -10}, ("a note",))


def world(shape, affine):
    """(3, H, W, D) patient coordinates of every voxel."""
    indices = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), 0)
    return np.einsum("ij,jhwd->ihwd", affine[:3, :3], indices) + affine[:3, 3, None, None, None]


def hu(shape, affine):
    x, y, z = world(shape, affine)
    return np.asfortranarray(np.rint(10 * x - 7 * y + 5 * z).astype(np.int16))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_keeps_every_voxel_in_its_place(orientation):
    import nibabel as nib

    given = ramp()
    turned = conform(given, orientation)
    assert "".join(nib.orientations.aff2axcodes(turned.volume.affine)) == orientation
    assert np.array_equal(turned.volume.array, hu(turned.volume.array.shape, turned.volume.affine))
    assert np.array_equal(turned.masks["heart"], world(turned.volume.array.shape, turned.volume.affine)[0] > -10)
    back = conform(turned, "RAS")
    assert np.array_equal(back.volume.array, given.volume.array)
    assert np.allclose(back.volume.affine, given.volume.affine)
    assert turned.notes == ("a note",)


def test_the_same_orientation_copies_nothing():
    given = ramp()
    assert np.shares_memory(conform(given, "RAS").volume.array, given.volume.array)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 2.5, 1.2), (0.7, 4.0, 3.0), (1.5, 2.0, 6.0)])
def test_another_spacing_keeps_the_place_and_the_values(spacing):
    given = ramp()
    found = conform(given, "RAS", spacing)
    shape, affine = found.volume.array.shape, found.volume.affine
    assert np.allclose(found.volume.spacing, spacing)
    assert np.allclose(np.array(shape) * spacing, np.array(given.volume.array.shape) * given.volume.spacing, atol=4)
    # A linear field is what linear interpolation gives back, except beyond the outermost old voxels.
    x, y, z = coordinates = world(shape, affine)
    low, high = given.volume.affine[:3, 3], (given.volume.affine @ [*(np.array(given.volume.array.shape) - 1), 1])[:3]
    inside = np.all([(c >= a) & (c <= b) for c, a, b in zip(coordinates, low, high, strict=True)], axis=0)
    assert inside.mean() > 0.4
    assert np.abs(found.volume.array - (10 * x - 7 * y + 5 * z))[inside].max() <= 1.5  # rounded after each axis
    wrong = found.masks["heart"] != (x > -10)
    assert not wrong[np.abs(x + 10) > 0.75].any()
    assert found.notes[-1] == f"resampled from 1.5 x 2 x 3 to {' x '.join(f'{mm:g}' for mm in spacing)} mm"


def test_almost_the_same_spacing_is_left_alone():
    given = ramp()
    assert np.shares_memory(conform(given, "RAS", (1.51, 1.99, 3.02)).volume.array, given.volume.array)
    assert conform(given, "RAS", (1.53, 2, 3)).volume.array.shape == (14, 11, 9)  # as many voxels, another size


def test_oblique_scans_stay_oblique():
    turn = np.eye(4)
    turn[:3, :3] = [[0.98, -0.2, 0], [0.2, 0.98, 0], [0, 0, 1]]
    given = ramp(affine=turn @ np.diag([1.5, 1.5, 3, 1]))
    found = conform(given, "LPS", (3, 3, 3))
    assert np.allclose(found.volume.spacing, 3, atol=1e-6)
    x, y, z = world(found.volume.array.shape, found.volume.affine)
    middle = (slice(1, -1),) * 3
    assert np.abs(found.volume.array - (10 * x - 7 * y + 5 * z))[middle].max() <= 2.5


def test_absurd_sizes_are_refused():
    with pytest.raises(DataFault, match="TOO_LARGE"):
        conform(ramp(), "RAS", (1e-3, 1e-3, 1e-3))


def test_views_in_another_frame_are_those_of_the_conformed_scan():
    given = ramp((30, 28, 20))
    plain = Views((8, 8, 4), (-200, 200))
    views = Views((8, 8, 4), (-200, 200), orientation="LPS", spacing=(3, 3, 3))
    assert views_key(views) != views_key(plain)  # baked views of the unconformed scan are not taken for these
    found, wanted = compute_views(views, given), compute_views(plain, conform(given, "LPS", (3, 3, 3)))
    for name in ("texture", "geometry", "global_"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))
        assert not np.array_equal(getattr(found, name), getattr(compute_views(plain, given), name))


def test_settings_that_came_later_leave_the_keys_of_baked_views_as_they_were():
    """The digest that the first form of the settings had, which knew no frame."""
    assert views_key(Views()) == "1c81c3b934527a2c"
    assert views_key(Views(spacing=(1, 1, 1))) != views_key(Views()) != views_key(Views(orientation="LPS"))


def test_a_region_that_vanishes_at_the_spacing_is_a_fault():
    given = ramp((30, 28, 20))
    masks = {"heart": given.masks["heart"], "thyroid": np.zeros(given.volume.array.shape, bool)}
    masks["thyroid"][4, 4, 4] = True
    views = Views((8, 8, 4), spacing=(9, 9, 9))
    with pytest.raises(DataFault, match=r"NO_REGION.*thyroid lost every voxel"):
        compute_views(views, RegionVolume(given.volume, masks), ["thyroid"])
