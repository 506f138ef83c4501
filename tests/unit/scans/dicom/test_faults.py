"""Twelve faults planted in a sound series: each has one verdict, and a volume is the right one or none."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from dicom_files import AXIAL, ORIGIN, SPACING, chest, enhanced, in_ras, localizer, lps, points, save, slices, store
from reg2rg.core.errors import DataFault
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_scan

TRUTH = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps()


def right(path, options=None):
    """The scan, whose HU and place are those of the phantom."""
    scan = read_scan(path, options or ReadOptions())
    assert np.array_equal(scan.volume.array, in_ras(chest()))
    assert np.allclose(scan.stored.affine, TRUTH, atol=1e-4)
    return scan


def refused(path, **options) -> DataFault:
    with pytest.raises(DataFault) as caught:
        read_scan(path, ReadOptions(**options))
    for secret in ("Doe", "SECRET1", "1970"):
        assert secret not in str(caught.value)
    return caught.value


def test_a_sound_series(tmp_path) -> None:
    assert right(save(slices(), tmp_path)).notes == ()


def test_missing_slice(tmp_path) -> None:
    series = slices()
    del series[10:12], series[4]
    fault = refused(save(series, tmp_path))
    assert fault.code == "MISSING_SLICE"
    assert "3 slices missing between 109.0 to 115.0 mm; 127.0 to 136.0 mm" in str(fault)
    assert "the step is 3 mm" in str(fault)


def test_a_file_whose_header_cannot_be_read_is_named(tmp_path) -> None:
    folder = save(slices(), tmp_path)
    file = next(file for file in folder.iterdir() if b"124.0" in file.read_bytes()[:2000])
    file.write_bytes(file.read_bytes()[:128] + b"DICM" + b"\xff" * 2000)
    fault = refused(folder)
    assert fault.code == "MISSING_SLICE"
    assert str(fault).endswith(f"(1 DICOM file cannot be read: {file.name})")


def test_identical_copy(tmp_path) -> None:
    series = slices()
    twin = copy.deepcopy(series[7])
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    assert right(save([*series, twin], tmp_path)).notes == ("1 identical copy of slices: dropped",)


def test_every_file_twice(tmp_path) -> None:
    save(slices(), tmp_path / "a")
    save(slices(), tmp_path / "b")
    assert right(tmp_path).notes == ("24 identical copies of slices: dropped",)


def test_copy_with_other_pixels(tmp_path) -> None:
    series = slices()
    twin = copy.deepcopy(series[7])
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    store(twin, chest()[:, :, 7] + 1)
    fault = refused(save([*series, twin], tmp_path))
    assert fault.code == "DUPLICATE_SLICE"
    assert "1 place with slices of different pixels (at 121.0 mm along the normal)" in str(fault)


def test_two_reconstructions_under_one_uid(tmp_path) -> None:
    hard = slices(chest() + 5, ConvolutionKernel="B70f")
    for one in hard:
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID + ".7"
    save(slices(), tmp_path, "A")
    save(hard, tmp_path, "HARD")
    fault = refused(tmp_path)
    assert fault.code == "SERIES_CHOICE"
    assert "ConvolutionKernel B30f" in str(fault)
    assert "ConvolutionKernel B70f" in str(fault)
    assert "not taken: 2 1.2.3.4.5 ConvolutionKernel B70f: kernel B70f, not b30f" in "".join(
        right(tmp_path, ReadOptions(kernel="b30f")).notes
    )
    assert read_scan(tmp_path, ReadOptions(kernel="B70f")).volume.array[0, 0, 0] == in_ras(chest())[0, 0, 0] + 5


def test_two_reconstructions_that_nothing_tells_apart(tmp_path) -> None:
    other = slices(chest() + 5)
    for one in other:
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID + ".7"
    save(slices(), tmp_path, "A")
    save(other, tmp_path, "HARD")
    fault = refused(tmp_path)
    assert fault.code == "DUPLICATE_SLICE"
    assert "24 places" in str(fault)


def test_localizer_in_the_series(tmp_path) -> None:
    assert right(save([*slices(), localizer("1.2.3.4.5")], tmp_path)).notes == (
        "1 localizer among the slices: dropped",
    )


def test_mixed_orientation(tmp_path) -> None:
    series = slices()
    series[3].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    fault = refused(save(series, tmp_path))
    assert fault.code == "MIXED_ORIENTATION"
    assert "23 with normal (0, 0, 1), 1 with normal (0, 1, 0)" in str(fault)


@pytest.mark.parametrize(
    ("jitter", "said"), [(1e-7, ()), (2e-5, ("orientations differ by up to 2e-05: taken as one",))]
)
def test_orientation_jitter(tmp_path, jitter, said) -> None:
    series = slices()
    series[3].ImageOrientationPatient = [1, jitter, 0, 0, 1, 0]
    assert right(save(series, tmp_path)).notes == said


def tilted(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """HU on slices of a tilted gantry that steps along the table, and their affine in LPS."""
    angle = np.radians(degrees)
    affine = lps(orientation=((1, 0, 0), (0, np.cos(angle), -np.sin(angle))), step=(0, 0, SPACING[2]))
    affine[2, 3] += 20
    return chest(points((64, 60, 34), affine)), affine


def centre_of_lesion(scan) -> np.ndarray:
    """RAS mm of the lesion's centre of gravity."""
    place = points(scan.volume.array.shape, scan.volume.affine)
    near = sum((p - c) ** 2 for p, c in zip(place, (60, 20, 136), strict=True)) < 40**2
    weight = np.where(near, np.clip(scan.volume.array + 800.0, 0, None), 0)
    return np.array([np.average(p, weights=weight) for p in place])


def test_gantry_tilt(tmp_path) -> None:
    hu, affine = tilted(15)
    save(slices(hu, affine), tmp_path)
    scan = read_scan(tmp_path, ReadOptions())
    directions = scan.volume.affine[:3, :3] / scan.volume.spacing
    assert np.allclose(directions, np.eye(3), atol=1e-6)
    assert np.allclose(scan.volume.spacing, (5, 4 * np.cos(np.radians(15)), 3), atol=1e-6)
    assert any("gantry tilted by 15.0 degrees: sheared onto an upright grid" in note for note in scan.notes)
    # The same phantom, sampled on the result's own grid: rows that lie between slices are interpolated, no voxel moves.
    x, y, z = points(scan.volume.array.shape, scan.volume.affine)
    truth = chest((-x, -y, z))
    inside = scan.volume.array != -1024
    off = np.abs(scan.volume.array.astype(int) - truth)[inside]
    assert np.median(off) <= 1
    assert np.mean(off > 100) < 0.06  # edges of organs, half a slice wide
    exact = scan.volume.array.shape[1] - 1  # the row that the shear leaves where it is
    assert np.array_equal(scan.volume.array[:, exact][inside[:, exact]], truth[:, exact][inside[:, exact]])
    assert np.abs(centre_of_lesion(scan) - (60, 20, 136)).max() < 0.6
    fault = refused(tmp_path, tilt="refuse")
    assert fault.code == "GANTRY_TILT"
    assert "15.0 degrees" in str(fault)


def test_uneven_spacing(tmp_path) -> None:
    places = np.cumsum([0, *([3, 3, 3.5] * 7), 3, 3])
    series = []
    for k, place in enumerate(places):
        affine = lps(origin=(*ORIGIN[:2], ORIGIN[2] + place))
        [one] = slices(chest(points((*(64, 60), 1), affine)), affine)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.5.{k + 1}"
        series.append(one)
    save(series, tmp_path)
    fault = refused(tmp_path)
    assert fault.code == "UNEVEN_SPACING"
    assert "slices 3 to 3.5 mm apart" in str(fault)
    scan = read_scan(tmp_path, ReadOptions(uneven="resample"))
    assert scan.notes == ("slices 3 to 3.5 mm apart: interpolated every 3 mm",)
    assert np.allclose(scan.volume.spacing, SPACING)
    x, y, z = points(scan.volume.array.shape, scan.volume.affine)
    truth = chest((-x, -y, z))
    assert np.array_equal(scan.volume.array[:, :, :3], truth[:, :, :3])  # the first steps are even
    assert np.median(np.abs(scan.volume.array.astype(int) - truth)) <= 1
    assert np.abs(centre_of_lesion(scan) - (60, 20, 136)).max() < 0.6


def test_rescale_of_each_slice(tmp_path) -> None:
    series = slices()
    for k, one in enumerate(series):
        store(one, chest()[:, :, k], slope=0.5 if k >= 12 else 1, inter=-1024.0 if k % 2 else -2000)
    right(save(series, tmp_path))


def test_rescale_of_each_frame_of_enhanced_ct(tmp_path) -> None:
    series = slices()
    for k, one in enumerate(series):
        store(one, chest()[:, :, k], slope=1, inter=-1024.0 if k % 2 else 0, signed=True)
    order = np.random.default_rng(1).permutation(len(series))
    folder = save([enhanced(series, order)], tmp_path)
    right(folder)
    [file] = folder.iterdir()
    right(file)


@pytest.mark.parametrize("numbers", [lambda k: 1, lambda k: 24 - k, lambda k: (k * 7) % 24])
def test_instance_numbers(tmp_path, numbers) -> None:
    series = slices()
    for k, one in enumerate(series):
        one.InstanceNumber = numbers(k)
    assert right(save(series, tmp_path)).notes == ()


def test_positions_written_with_one_decimal(tmp_path) -> None:
    affine = lps((*SPACING[:2], 1.25))
    series = slices(affine=affine)
    for one in series:
        one.ImagePositionPatient = [*ORIGIN[:2], round(float(one.ImagePositionPatient[2]) - 0.001, 1)]
    scan = read_scan(save(series, tmp_path), ReadOptions())
    assert np.isclose(scan.volume.spacing[2], 1.25, atol=5e-3)
    assert any("off an even step" in note for note in scan.notes)


def test_slices_of_two_sizes(tmp_path) -> None:
    series = slices()
    store(series[5], chest()[:50, :, 5])
    fault = refused(save(series, tmp_path))
    assert fault.code == "MIXED_SIZE"
    assert "23 of 60 x 64 (5 x 4 mm), 1 of 60 x 50" in str(fault)


def test_a_header_that_claims_too_much_fills_no_memory(tmp_path) -> None:
    series = slices()
    for one in series:
        one.Rows = one.Columns = 40000
    fault = refused(save(series, tmp_path))
    assert fault.code == "HEADER"
    assert "1 to 2048 voxels an axis" in str(fault)


def test_slices_beside_each_other(tmp_path) -> None:
    series = slices()
    series[5].ImagePositionPatient = [ORIGIN[0] + 12, ORIGIN[1], series[5].ImagePositionPatient[2]]
    fault = refused(save(series, tmp_path))
    assert fault.code == "SIDE_STEP"
    assert "12.0 mm" in str(fault)


def test_one_place(tmp_path) -> None:
    series = slices()
    for one in series:
        one.ImagePositionPatient = list(ORIGIN)
    assert refused(save(series, tmp_path)).code == "ONE_PLACE"


def test_axes_that_are_none(tmp_path) -> None:
    assert refused(save(slices(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), tmp_path)).code == "AFFINE"


def test_oblique_series_keeps_its_place(tmp_path) -> None:
    angle = np.radians(20)
    turned = ((np.cos(angle), np.sin(angle), 0), (-np.sin(angle), np.cos(angle), 0))
    assert np.allclose(np.cross(*turned), np.cross(*AXIAL))
    affine = lps(orientation=turned)
    scan = read_scan(save(slices(chest(points(affine=affine)), affine), tmp_path), ReadOptions())
    assert np.allclose(scan.stored.affine, np.diag([-1, -1, 1, 1]) @ affine, atol=1e-4)
