"""Every registered reader, segmenter and exporter keeps its contract. A new one needs a line in its table."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from PIL import Image

import segmenter_fakes
from reg2rg.core.regions import load_region_set
from reg2rg.extras.phantom.anatomy import draw
from reg2rg.extras.phantom.grid import Grid
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.inference.exporters import EXPORTERS
from reg2rg.inference.result import ReportResult
from reg2rg.scans.read import READERS
from reg2rg.scans.segmenters import SEGMENTERS
from reg2rg.show.page_exporter import Page
from reg2rg.testing import check_exporter, check_reader, check_segmenter

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
REGIONS = load_region_set()


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (20, 18, 16)).astype(np.int16)


def nifti(folder: Path, name: str = "a.nii.gz", array: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(image() if array is None else array, AFFINE), folder / name)
    return folder / name


def nrrd_file(folder: Path) -> Path:
    nrrd.write(str(folder / "a.nrrd"), image(), {"space": "RAS", "space directions": AFFINE[:3, :3]})
    return folder / "a.nrrd"


def sat_folder(folder: Path) -> tuple[Path, dict[str, str]]:
    (folder / "seg_a").mkdir()
    for name in ("lungs", "liver segment 4", "heart"):
        nifti(folder / "seg_a", f"{name}.nii.gz", (image() > 0).astype(np.uint8))
    return nifti(folder), {"root": str(folder)}


def dicom_file(folder: Path) -> Path:
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra 'dicom')")
    from dicom_files import enhanced, save, slices

    [file] = save([enhanced(slices())], folder).iterdir()
    return file


def npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", (image() / 1000).astype(np.float32).transpose(2, 1, 0))
    return folder / "a.npz"


def pictures(folder: Path) -> Path:
    (folder / "a").mkdir()
    for number, pixels in enumerate(image().astype(np.uint8).transpose(2, 1, 0)):
        Image.fromarray(pixels).save(folder / "a" / f"{number:03}.png")
    return folder / "a"


def phantom(folder: Path) -> tuple[Path, dict[str, str]]:
    grid = Grid((64, 64, 48))
    array, _ = draw(draw_patient(77, 2), grid)
    nib.save(nib.Nifti1Image(array, grid.affine), folder / "a.nii.gz")
    return folder / "a.nii.gz", {"kept": str(folder / "kept")}


def of_dicom(folder: Path) -> list[ReportResult]:
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra 'dicom')")
    from dicom_results import boxes, result, series

    scan = series(folder / "case").path
    return [result(scan, boxes(("lung", "heart"))), result(scan, {}, {"": "All is well."})]


FILES = {"NIfTI": nifti, "NRRD": nrrd_file, "DICOM": dicom_file, "NPZ": npz, "Pictures": pictures}
FOLDERS = {"LungMask": phantom, "SATFolder": sat_folder, "Thresholds": phantom, "TotalSegmentator": phantom}
DICOM_OBJECTS = ("MeasurementSR", "PDF", "SEG", "TextSR")
ARGUMENTS = {"FHIR": {"version": "R5"}, "JSON": {}, Page.__name__: {"max_pixels": 64}}
ARGUMENTS |= {name: {} for name in DICOM_OBJECTS}


@pytest.mark.parametrize(("registry", "table"), [(READERS, FILES), (SEGMENTERS, FOLDERS), (EXPORTERS, ARGUMENTS)])
def test_every_one_is_checked(registry, table) -> None:
    built_in = [name for name in registry if registry.get(name).__module__.startswith("reg2rg.")]
    assert sorted(built_in) == sorted(table), (
        f"give each {registry.kind} a line in tests/contract/{Path(__file__).name}"
    )


@pytest.mark.parametrize("name", FILES)
def test_reader(name, tmp_path) -> None:
    check_reader(READERS.get(name), FILES[name](tmp_path))


@pytest.mark.parametrize("name", FOLDERS)
def test_segmenter(name, tmp_path, monkeypatch) -> None:
    segmenter_fakes.lungmask(monkeypatch)
    segmenter_fakes.totalsegmentator(monkeypatch)
    scan, arguments = FOLDERS[name](tmp_path)
    check_segmenter(lambda: SEGMENTERS.get(name)(**arguments), scan, REGIONS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_exporter(name, tmp_path) -> None:
    check_exporter(lambda: EXPORTERS.get(name)(**ARGUMENTS[name]), of_dicom(tmp_path) if name in DICOM_OBJECTS else ())
