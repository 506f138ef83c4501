"""What is measured of regions: known shapes, turned, oblique and re-spaced copies, and its place in the store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from reg2rg.core.errors import DataFault
from reg2rg.core.regions import Region, RegionSet, load_region_set
from reg2rg.core.types import RegionFiles, RegionVolume, Study, Volume
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_study
from reg2rg.store import attributes as module
from reg2rg.store.attributes import Attributes, RegionAttributes, measure
from reg2rg.store.crop import crop_to_foreground
from reg2rg.store.prepare import prepare
from reg2rg.store.store import Store

REGIONS = load_region_set()
SPACING = np.array([1.0, 1.25, 1.5])
ORIGIN = np.array([-90.0, -70.0, -100.0])  # mm; the body's centre is at 0
BALLS = {  # centre, radius in mm, HU
    "heart": ((20.0, 15.0, -10.0), 28.0, 45),
    "lung": ((0.0, 0.0, 5.0), 55.0, -850),
    "bone": ((-30.0, -20.0, 30.0), 12.0, 500),
}
REAL = RegionSet("two", (Region("aorta"), Region("vertebrae_T12")))
TOLERANCES = {"volume_ml": 0.01, "mean_hu": 0.07, "air": 0.01, "calcium": 0.02, "extent_mm": 2.25, "centroid_mm": 0.5}
"""Between a CT of 1.5 mm and a copy on another grid: parts of volume and mean HU, whose rim
interpolation blurs; shares; mm (of extents: one and a half voxels)."""


def grid(spacing: np.ndarray = SPACING) -> tuple[np.ndarray, np.ndarray]:
    shape = np.round(-2 * ORIGIN / spacing).astype(int) + 1
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = ORIGIN
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing + ORIGIN
    return points, affine


def balls() -> RegionVolume:
    """Balls in a cylinder, whose masks are exact."""
    points, affine = grid()
    body = (points[..., 0] / 85) ** 2 + (points[..., 1] / 65) ** 2 < 1
    array = np.where(body, np.int16(30), np.int16(-1010))
    masks = {}
    for name, (centre, radius, hu) in {"lung": BALLS["lung"], **BALLS}.items():
        masks[name] = ((points - centre) ** 2).sum(-1) < radius**2
        array[masks[name]] = hu
    masks["lung"] &= ~masks["heart"] & ~masks["bone"]
    return RegionVolume(Volume(np.asfortranarray(array), affine), masks)


def known_centre() -> np.ndarray:
    """Centre of the cylinder's tissue, without the lung."""
    tissue = balls().volume.array > -300
    points, _ = grid()
    return points[tissue].mean(0)


@pytest.fixture(scope="module")
def known() -> Attributes:
    return measure(crop_to_foreground(balls()), REGIONS)


@pytest.mark.parametrize("name", ["heart", "bone"])
def test_shapes_of_known_size_place_and_density(known: Attributes, name: str) -> None:
    centre, radius, hu = BALLS[name]
    found = known.regions[name]
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.01)
    assert (found.mean_hu, found.sd_hu, found.percentiles_hu) == (hu, 0.0, (hu,) * 5)
    assert (found.air, found.calcium, found.cut) == (0.0, 1.0 if hu >= 130 else 0.0, False)
    np.testing.assert_allclose(found.extent_mm, 2 * radius, atol=SPACING.max())
    np.testing.assert_allclose(found.centroid_mm, np.array(centre) - known_centre(), atol=0.5)


def test_shares_spread_and_percentiles_of_a_mixture() -> None:
    array = np.full((20, 20, 20), 0, np.int16)
    values = np.repeat([-900, -100, 50, 130, 400], [10, 20, 40, 20, 10])
    mask = np.zeros(array.shape, bool)
    mask[5:10, 5:10, 5:9] = True
    array[mask] = np.random.default_rng(0).permutation(values)
    found = measure(crop_to_foreground(RegionVolume(Volume(array, np.eye(4)), {"heart": mask})), REGIONS).regions[
        "heart"
    ]
    assert (found.air, found.calcium) == (0.1, 0.3)
    assert (found.mean_hu, found.sd_hu) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    assert found.percentiles_hu == tuple(np.percentile(values, (5, 25, 50, 75, 95), method="inverted_cdf"))
    assert found.volume_ml == pytest.approx(0.1)
    assert found.extent_mm == (5.0, 5.0, 4.0)


def test_the_heart_beside_the_lungs(known: Attributes) -> None:
    assert known.cardiothoracic_ratio == pytest.approx(28 / 55, abs=0.02)
    left, right = Region("left", totalsegmentator=(10, 11)), Region("right", totalsegmentator=(12, 13, 14))
    lobes = RegionSet("parts", (left, right, Region("cor", totalsegmentator=(51,))))
    source = balls()
    x = np.arange(source.volume.array.shape[0])[:, None, None]
    lung = source.masks["lung"]
    masks = {"left": lung & (x < 90), "right": lung & (x >= 90), "cor": source.masks["heart"]}
    found = measure(crop_to_foreground(replace(source, masks=masks)), lobes)
    assert found.cardiothoracic_ratio == known.cardiothoracic_ratio
    half = measure(crop_to_foreground(replace(source, masks={k: masks[k] for k in ("left", "cor")})), lobes)
    assert half.cardiothoracic_ratio is None
    volume = Volume(np.asfortranarray(source.volume.array[:, :, 40:70]), source.volume.affine)
    cut = {name: mask[:, :, 40:70] for name, mask in masks.items()}
    part = measure(crop_to_foreground(RegionVolume(volume, cut)), lobes)
    assert part.regions["cor"].cut
    assert part.cardiothoracic_ratio is None


def same(one: Attributes, other: Attributes, exact: bool = False) -> None:
    for name, attributes in one.regions.items():
        for field, tolerance in TOLERANCES.items():
            first, second = getattr(attributes, field), getattr(other.regions[name], field)
            limits = {"rel": tolerance} if field in ("volume_ml", "mean_hu") else {"abs": tolerance}
            assert first == pytest.approx(second, **({"abs": 1e-6} if exact else limits)), (name, field)


def test_axes_turned_about_give_the_same(known: Attributes, tmp_path: Path) -> None:
    source = balls()
    turned = np.flip(source.volume.array.transpose(2, 0, 1), (0, 2))
    affine = source.volume.affine[:, [2, 0, 1, 3]] @ np.diag([-1.0, 1, -1, 1])
    affine[:3, 3] = (
        source.volume.affine[:3, 3] - affine[:3, 0] * (turned.shape[0] - 1) - affine[:3, 2] * (turned.shape[2] - 1)
    )
    nib.save(nib.Nifti1Image(turned, affine), tmp_path / "ct.nii.gz")
    for name, mask in source.masks.items():
        other = np.flip(mask.transpose(2, 0, 1), (0, 2)).astype(np.uint8)
        nib.save(nib.Nifti1Image(other, affine), tmp_path / f"{name}.nii.gz")
    files = RegionFiles({name: tmp_path / f"{name}.nii.gz" for name in source.masks})
    options = ReadOptions(implausible="ignore", hu="trust")
    read = read_study(Study("a", "a", "test", tmp_path / "ct.nii.gz", files), REGIONS, options)
    same(known, measure(crop_to_foreground(read), REGIONS), exact=True)


# A real CT


@pytest.fixture(scope="module")
def real(shared_ct: Path) -> RegionVolume:
    folder = shared_ct / "totalsegmentator_Apache2" / "aorta_report"
    files = {name: folder / f"{name}.nii.gz" for name in REAL.names}
    return read_study(
        Study("a", "a", "test", folder / "ct_cropped.nii.gz", RegionFiles(files)), REAL, ReadOptions(min_slices=8)
    )


def on_grid(source: RegionVolume, affine: np.ndarray, shape: tuple[int, int, int]) -> RegionVolume:
    """On another grid: HU linearly, masks nearest."""
    mapping = np.linalg.inv(source.volume.affine) @ affine
    at = {"matrix": mapping[:3, :3], "offset": mapping[:3, 3], "output_shape": shape}
    masks = {
        name: ndimage.affine_transform(mask.astype(np.uint8), order=0, mode="grid-constant", **at).astype(bool)
        for name, mask in {"": np.ones(source.volume.array.shape, bool), **source.masks}.items()
    }
    array = ndimage.affine_transform(source.volume.array, order=1, mode="nearest", **at)
    array[~masks.pop("")] = -1024  # outside the frame
    return RegionVolume(Volume(np.asfortranarray(array), affine), masks)


@pytest.mark.parametrize("copy", ["oblique", "finer slices", "coarser"])
def test_a_copy_on_another_grid_gives_the_same(real: RegionVolume, copy: str) -> None:
    old, shape = real.volume.affine, np.array(real.volume.array.shape)
    turn, sizes = np.eye(3), np.array([1.5, 1.5, 1.5])
    if copy == "oblique":
        (c, s), (d, t) = ((np.cos(a), np.sin(a)) for a in np.deg2rad((12.0, 7.0)))
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])
    else:
        sizes = np.array([1.5, 1.5, 1.0]) if copy == "finer slices" else np.array([1.8, 1.8, 1.5])
    new = np.ceil(shape * 1.5 * (1.2 if copy == "oblique" else 1.0) / sizes).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = turn * sizes
    middle = old[:3, :3] @ ((shape - 1) / 2) + old[:3, 3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((new - 1) / 2)
    moved = on_grid(real, affine, (int(new[0]), int(new[1]), int(new[2])))
    first, second = (measure(crop_to_foreground(source), REGIONS) for source in (real, moved))
    assert first.regions["aorta"].volume_ml == pytest.approx(245.7, abs=0.1)
    same(first, second)


# In the store


@pytest.fixture
def study(tmp_path: Path) -> Study:
    source = balls()
    for name, array in {"ct": source.volume.array, **source.masks}.items():
        stored = np.ascontiguousarray(array[::2, ::2, ::2])
        affine = source.volume.affine @ np.diag([2.0, 2, 2, 1])
        nib.save(
            nib.Nifti1Image(stored.astype(np.int16 if name == "ct" else np.uint8), affine), tmp_path / f"{name}.nii.gz"
        )
    files = {name: tmp_path / f"{name}.nii.gz" for name in source.masks}
    return Study("a.b", "a", "test", tmp_path / "ct.nii.gz", RegionFiles(files))


def run(study: Study, root: Path, **options: object):
    return prepare([study], root, options=ReadOptions(implausible="ignore", hu="trust"), workers=0, **options)


def test_prepare_measures_and_keeps_it(study: Study, tmp_path: Path) -> None:
    root = tmp_path / "store"
    assert run(study, root).built == 1
    found = Store(root).attributes("a.b")
    assert list(found.regions) == ["bone", "heart", "lung"]
    assert isinstance(found.regions["heart"], RegionAttributes)
    assert found == measure(Store(root).read("a.b").detail, REGIONS)
    assert run(study, root).kept == 1


@pytest.mark.parametrize("what", ["absent", "older", "damaged"])
def test_a_store_without_them_stays_valid_and_gets_them_alone(study, tmp_path: Path, what: str, monkeypatch) -> None:
    root = tmp_path / "store"
    run(study, root)
    before = Store(root).attributes("a.b")
    path, native = Store(root).attributes_path("a.b"), Store(root).native_path("a.b")
    if what == "absent":
        path.unlink()
    elif what == "older":
        monkeypatch.setattr(module, "ATTRIBUTES_FORMAT", 0)
        module.write_attributes(path, "a.b", Store(root).read("a.b").key, before)
        monkeypatch.undo()
    else:
        path.write_text(path.read_text().replace('"cut": false', '"cut": true', 1))
    assert Store(root).read("a.b").detail.regions == ("bone", "heart", "lung")
    with pytest.raises(DataFault, match=r"NOT_PREPARED a\.b .*a\.b\.json: no attributes of this entry"):
        Store(root).attributes("a.b")
    stamp = native.stat().st_mtime_ns
    summary = run(study, root)
    assert (summary.measured, summary.ready) == (1, 1)
    assert "1 given attributes" in summary.describe()
    assert Store(root).attributes("a.b") == before
    assert native.stat().st_mtime_ns == stamp


def test_views_alone_have_them_too_and_they_go_with_the_entry(study, tmp_path: Path) -> None:
    from reg2rg.core.task import Views

    root, views = tmp_path / "store", Views(size=(16, 16, 8))
    run(study, root, bake=views, native=False)
    assert Store(root).attributes("a.b").regions["lung"].air == 1.0
    Store(root).attributes_path("a.b").unlink()
    assert run(study, root, bake=views, native=False).kept == 1  # an older store of views stays as it is
    run(study, root)
    assert json.loads(Store(root).attributes_path("a.b").read_text())["id"] == "a.b"
    Store(root).remove("a.b")
    assert not Store(root).attributes_path("a.b").exists()
    with pytest.raises(DataFault, match=r"NOT_PREPARED a\.b: no entry in the store"):
        Store(root).attributes("a.b")
