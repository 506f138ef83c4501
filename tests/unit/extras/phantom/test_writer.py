"""Synthetic studies on disk: layout, bytes, resuming."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest

from reg2rg.core.errors import ConfigError
from reg2rg.core.labels import FINDINGS
from reg2rg.core.regions import load_region_set
from reg2rg.datasets.radgenome import RadGenome
from reg2rg.extras.phantom.nifti import read_description, write_nifti
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.extras.phantom.sentences import labels
from reg2rg.extras.phantom.writer import plan, write_phantoms
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_study

SIZE = (48, 48, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms")
    write_phantoms(out, studies=10, seed=3, size=SIZE, workers=0)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_layout_is_that_of_radgenome(folder):
    assert (folder / "train_preprocessed/train_1/train_1a/train_1_a_1.nii.gz").is_file()
    assert (folder / "valid_preprocessed/valid_10/valid_10a/valid_10_a_1.nii.gz").is_file()
    assert (folder / "train_region_mask/seg_train_1_a_1/trachea and bronchie.nii.gz").is_file()
    with open(folder / "radgenome_files/validation_region_report.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["Volumename", "Anatomy", "Sentence"]
    assert rows[0]["Anatomy"] == ""
    assert any("/" in row["Anatomy"] for row in rows)


def test_the_loader_reads_them(folder):
    dataset = RadGenome(str(folder), labels="multi_abnormality_labels")
    studies = dataset.studies()
    assert len(studies) == 10
    assert not dataset.skipped
    assert sum(study.split == "test" for study in studies) == 2
    regions = load_region_set("radgenome")
    for study in studies[:3]:
        number = int(study.id.split("_")[1]) - 1
        patient = draw_patient(3, number)
        assert set(study.reports) == patient.regions
        assert {label for label, present in study.findings.items() if present} == labels(patient)
        loaded = read_study(study, regions, ReadOptions())
        assert set(loaded.masks) == patient.regions
        assert loaded.volume.array.shape == SIZE


def test_labels_have_the_columns_of_ct_rate(folder):
    with open(folder / "multi_abnormality_labels/valid_labels.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["VolumeName", *FINDINGS]
    assert len(rows) == 3
    assert set(rows[1][1:]) <= {"0", "1"}


def test_bytes_do_not_depend_on_workers(folder, tmp_path):
    write_phantoms(tmp_path, studies=10, seed=3, size=SIZE, workers=2)
    assert contents(tmp_path) == contents(folder)


def test_a_stopped_run_goes_on(folder, tmp_path):
    write_phantoms(tmp_path, studies=3, seed=3, size=SIZE, workers=0)
    image = tmp_path / "train_preprocessed/train_1/train_1a/train_1_a_1.nii.gz"
    other = tmp_path / "train_preprocessed/train_2/train_2a/train_2_a_1.nii.gz"
    whole, stamp = image.read_bytes(), other.stat().st_mtime_ns
    image.write_bytes(whole[:200])
    (tmp_path / "train_region_mask/seg_train_1_a_1/lung.nii.gz").unlink()
    write_phantoms(tmp_path, studies=3, seed=3, size=SIZE, workers=0)
    assert image.read_bytes() == whole == contents(folder)[str(image.relative_to(tmp_path))]
    assert other.stat().st_mtime_ns == stamp


def test_another_seed_or_size_is_drawn_anew(tmp_path):
    for seed, size in ((0, (32, 32, 24)), (1, (32, 32, 24)), (1, (32, 32, 20))):
        write_phantoms(tmp_path, studies=1, seed=seed, size=size, workers=0)
        job = plan(tmp_path, 1, seed, size)[0]
        assert read_description(job.image) == job.stamp
        assert nibabel.load(job.image).shape == size


def test_a_study_depends_on_its_number_alone(folder, tmp_path):
    write_phantoms(tmp_path, studies=2, seed=3, size=SIZE, workers=0, first=4)
    name = "train_preprocessed/train_5/train_5a/train_5_a_1.nii.gz"
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_headers_are_read_by_nibabel(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    affine = np.diag([3.6, 3.6, 5.0, 1.0])
    affine[:3, 3] = [-10, -20, 30]
    write_nifti(tmp_path / "a.nii.gz", array, affine, "somebody")
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), array)
    np.testing.assert_allclose(image.affine, affine, rtol=1e-6)
    np.testing.assert_allclose(image.get_qform(), affine, rtol=1e-6)
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_zooms() == pytest.approx((3.6, 3.6, 5.0))
    assert read_description(tmp_path / "a.nii.gz") == "somebody"
    assert read_description(tmp_path / "none.nii.gz") == ""


@pytest.mark.parametrize("wrong", [{"studies": 0}, {"size": (96, 96)}, {"size": (8, 96, 64)}, {"first": -1}])
def test_impossible_requests_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match="expected"):
        write_phantoms(tmp_path, **{"studies": 1, "workers": 0, **wrong})
