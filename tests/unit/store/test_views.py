from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.task import Views
from reg2rg.core.types import RegionVolume, Volume
from reg2rg.data.scaling import fraction, to_input
from reg2rg.store.crop import crop_to_foreground
from reg2rg.store.resize import Windows, area_pool
from reg2rg.store.views import StudyViews, compute_views

TOLERANCE = 1e-4  # in the scaled unit


def phantom(shape=(75, 66, 41), seed=0, pad=6) -> RegionVolume:
    """Noise in a body that ends `pad` voxels before the border, with an air-filled, a small and a flat region."""
    rng = np.random.default_rng(seed)
    hu = np.full(shape, -1024, dtype=np.int16)
    inner = tuple(slice(pad, n - pad // 2) for n in shape)
    hu[inner] = rng.normal(-100, 300, hu[inner].shape).clip(-1400, 2500)
    grid = np.ogrid[: shape[0], : shape[1], : shape[2]]
    ball = sum(((g - n / 2) / (n / 3)) ** 2 for g, n in zip(grid, shape, strict=True)) < 1
    air = np.zeros(shape, dtype=bool)
    air[10:30, 12:40, 9:30] = True
    hu[air] = rng.integers(-1024, -999, int(air.sum()))  # few voxels above -1000: cropped inside its mask
    hu[15:20, 20:33, 12:17] = -950
    small = np.zeros(shape, dtype=bool)
    small[50:53, 40:42, 20:21] = True
    border = np.zeros(shape, dtype=bool)
    border[:, :, :12] = True  # reaches outside the foreground
    masks = {"ball": ball, "air": air, "small": small, "border": border}
    return RegionVolume(Volume(np.asfortranarray(hu), np.diag([0.7, 0.8, 2.5, 1.0])), masks)


def published(rv: RegionVolume, size) -> dict[str, np.ndarray]:
    """The published preprocessing composed from MONAI's own transforms (scaled unit, one channel)."""
    from monai.transforms import CropForeground, CropForegroundd, Resize, Resized

    def scale(x):
        return (np.clip(np.asarray(x), -1000, 200) + 400) / 600

    hu = rv.volume.array.astype(np.float64)
    texture = []
    for mask in rv.masks.values():
        image = hu * mask
        image[~mask] = -1024
        crop = CropForeground(select_fn=lambda x: x > -1000, margin=0, allow_smaller=True)(torch.as_tensor(image)[None])
        texture.append(scale(Resize(size, mode="area")(crop)[0]))
    keys = ["image", *rv.masks]
    data = {"image": torch.as_tensor(hu)[None]} | {
        k: torch.as_tensor(m.astype(np.float64))[None] for k, m in rv.masks.items()
    }
    data = CropForegroundd(keys, "image", select_fn=lambda x: x > -1000, margin=0, allow_smaller=True)(data)
    data = Resized(keys, size, mode="area")(data)
    return {
        "texture": np.stack(texture),
        "geometry": np.stack([np.asarray(data[k][0]) for k in rv.masks]),
        "global": scale(data["image"][0]),
    }


def scaled(views: StudyViews, window=(-1000, 200)) -> dict[str, np.ndarray]:
    return {
        "texture": to_input(torch.from_numpy(views.texture), window).numpy(),
        "geometry": fraction(torch.from_numpy(views.geometry)).numpy(),
        "global": to_input(torch.from_numpy(views.global_), window).numpy(),
    }


def assert_equal(ours, theirs):
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape, name
        assert np.abs(ours[name] - expected).max() <= TOLERANCE, name


@pytest.mark.parametrize(
    "size",
    [(32, 32, 16), (37, 29, 11), (75, 66, 41), (96, 100, 64), (1, 1, 1), (8, 200, 3)],
    ids=lambda s: "x".join(map(str, s)),
)
def test_views_equal_monai_on_phantom(size):
    rv = phantom()
    assert_equal(scaled(compute_views(Views(size=size), rv)), published(rv, size))


def test_views_equal_monai_at_full_size_on_small_scan():
    rv = phantom((90, 80, 50), seed=3)
    assert_equal(scaled(compute_views(Views(), rv)), published(rv, (256, 256, 64)))


def test_views_equal_monai_on_real_ct(shared_ct):
    folder = shared_ct / "lidc-idri-0314_CCBY3"
    image = nib.as_closest_canonical(nib.load(folder / "ct_1.56x1.56x2mm.nii.gz"))
    masks = {
        name: np.asarray(nib.as_closest_canonical(nib.load(folder / "masks_derived" / f"{name}.nii.gz")).dataobj) > 0
        for name in ("lung_right", "trachea", "bone_over220HU")
    }
    hu = np.asarray(image.dataobj).astype(np.int16)  # flipped axes: negative strides, as a reader may hand them on
    rv = RegionVolume(Volume(hu, image.affine), masks)
    assert_equal(scaled(compute_views(Views(), rv)), published(rv, (256, 256, 64)))


def test_coupled_view_is_masked_scan_in_global_frame():
    rv, size = phantom(), (32, 30, 16)
    detail = crop_to_foreground(rv)
    views = compute_views(Views(size=size, coupled=True), rv, ["ball"], {"texture"})
    masked = np.where(detail.mask("ball"), detail.array, -1024).astype(np.float32)
    expected = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(masked)[None], size)[0].clamp(-1000, 200)
    assert np.abs(views.texture[0] / 16 - expected.numpy()).max() <= 1 / 32 + 1e-3
    assert views.geometry is None
    assert views.global_ is None


def test_region_of_air_only_is_background():
    hu = np.full((20, 20, 20), 40, dtype=np.int16)
    hu[5:10, 5:10, 5:10] = -1010
    mask = np.zeros(hu.shape, dtype=bool)
    mask[5:10, 5:10, 5:10] = True
    views = compute_views(Views(size=(8, 8, 8)), RegionVolume(Volume(hu, np.eye(4)), {"air": mask}))
    assert (to_input(torch.from_numpy(views.texture)) == -1).all()
    assert views.geometry.max() > 0


def test_regions_are_chosen_and_ordered():
    rv = phantom()
    views = compute_views(Views(size=(16, 16, 8)), rv)
    chosen = compute_views(Views(size=(16, 16, 8)), rv, ["small", "ball"], {"geometry"})
    assert chosen.regions == ("small", "ball")
    np.testing.assert_array_equal(chosen.geometry[0], views.geometry[views.regions.index("small")])
    np.testing.assert_array_equal(chosen.geometry[1], views.geometry[views.regions.index("ball")])


def test_high_density_does_not_overflow():
    rv = phantom()
    hu = rv.volume.array.copy(order="F")
    hu[30:60, 30:50, 10:30] = 32767
    rv = RegionVolume(Volume(hu, rv.volume.affine), rv.masks)
    assert_equal(scaled(compute_views(Views(size=(20, 20, 8)), rv)), published(rv, (20, 20, 8)))


def test_window_is_generalised():
    view = torch.tensor([-1024 * 16, -160 * 16, 40 * 16, 240 * 16, 500 * 16], dtype=torch.int16)
    np.testing.assert_allclose(to_input(view, (-160, 240)), [-1, -1, 0, 1, 1], atol=1e-6)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"views\.window"):
        Views(window=(200, -1000))
    with pytest.raises(ConfigError, match=r"views\.size"):
        Views(size=(256, 0, 64))
    with pytest.raises(ConfigError, match="unknown views"):
        compute_views(Views(size=(4, 4, 4)), phantom(), want={"texure"})
    with pytest.raises(ConfigError, match="not in this study"):
        compute_views(Views(size=(4, 4, 4)), phantom(), ["heart"])


def test_empty_scan_and_masks_are_faults():
    air = Volume(np.full((9, 9, 9), -1000, dtype=np.int16), np.eye(4))
    mask = np.ones((9, 9, 9), dtype=bool)
    with pytest.raises(DataFault, match="NO_FOREGROUND"):
        crop_to_foreground(RegionVolume(air, {"a": mask}))
    hu = air.array.copy()
    hu[5:, 5:, 5:] = 0
    corner = np.zeros_like(mask)
    corner[0, 0, 0] = True
    with pytest.raises(DataFault, match="NO_REGION"):
        crop_to_foreground(RegionVolume(Volume(hu, np.eye(4)), {"a": corner}))
    detail = crop_to_foreground(RegionVolume(Volume(hu, np.eye(4)), {"a": corner, "b": mask}))
    assert detail.regions == ("b",)
    assert "a: " in detail.notes[0]


def test_detail_keeps_the_frame():
    rv = phantom()
    detail = crop_to_foreground(rv)
    assert detail.spacing == pytest.approx((0.7, 0.8, 2.5))
    assert detail.origin == (6, 6, 6)
    assert detail.shape == rv.volume.array.shape
    np.testing.assert_allclose(detail.affine[:3, 3], [0.7 * 6, 0.8 * 6, 2.5 * 6])
    crop = tuple(slice(o, o + n) for o, n in zip(detail.origin, detail.array.shape, strict=True))
    np.testing.assert_array_equal(detail.array, rv.volume.array[crop])
    for name, mask in detail.to_region_volume().masks.items():
        np.testing.assert_array_equal(mask, rv.masks[name][crop])


@pytest.mark.parametrize(("n", "m"), [(7, 3), (3, 7), (512, 256), (1, 5), (300, 64), (64, 64)])
def test_windows_touching(n, m):
    windows = Windows.of(n, m)
    for low in range(0, n, max(1, n // 7)):
        for high in range(low + 1, n + 1, max(1, n // 5)):
            expected = [i for i in range(m) if windows.start[i] < high and windows.stop[i] > low]
            assert (expected[0], expected[-1] + 1) == windows.touching(low, high)


def test_area_pool_equals_torch():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(23, 31, 17)).astype(np.float32)
    slices = np.ascontiguousarray(x.transpose(2, 1, 0))
    got = area_pool(lambda a, b: slices[a:b].sum(axis=0), (23, 31, 17), (40, 12, 9))
    expected = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(x)[None], (40, 12, 9))[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)
