"""CT-RATE as it is distributed: one study a scan, HU that are never rescaled twice, splits without a leak."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from layouts import AFFINE, COLUMNS, chest, ct_rate, nifti, write_table
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.types import Rescale
from reg2rg.datasets import CTRate
from reg2rg.datasets.ct_rate import spacing_of
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_study
from reg2rg.store.prepare_study import entry_key


def dataset(root: Path, **options) -> CTRate:
    return CTRate(str(root), **({"val_fraction": 0.0, "max_skip": 1.0} | options))


def skips(found) -> list[tuple[str, str]]:
    return [(skip.study, skip.code) for skip in found.skipped]


def counts(found) -> dict[str, int]:
    return {note.code: note.count for note in found.notes}


def hu(found: CTRate, study: int = 0, **options):
    chosen = found.studies()[study]
    return read_study(chosen, found.regions, ReadOptions(**options), needs_regions=False)


def test_several_reconstructions_are_one_study(tmp_path):
    found = dataset(ct_rate(tmp_path / "data", real=False))
    assert [(s.id, s.patient, s.split) for s in found.studies()] == [
        ("train_1_a_1", "train_1", "train"), ("train_2_a_1", "train_2", "train"), ("valid_1_a_1", "valid_1", "test"),
    ]  # fmt: skip
    one = found.studies()[0]
    assert (one.whole, one.masks, one.findings) == (
        "Findings of train_1_a.", None, {"Cardiomegaly": True, "Lung nodule": False},
    )  # fmt: skip
    assert one.rescale == Rescale(1, -1024, (4.0, 4.0, 5.0), "unknown")
    assert counts(found)["RECONSTRUCTIONS"] == 3
    every = dataset(tmp_path / "data", reconstructions="all").studies()
    assert [s.id for s in every][:2] == ["train_1_a_1", "train_1_a_2"]
    assert {s.patient for s in every[:2]} == {"train_1"}


def test_another_reconstruction_takes_the_place_of_one_that_is_not_there(tmp_path):
    root = ct_rate(tmp_path / "data", real=False)
    (root / "train_fixed" / "train_1" / "train_1_a" / "train_1_a_1.nii.gz").unlink()
    assert [s.id for s in dataset(root).studies()] == ["train_1_a_2", "train_2_a_1", "valid_1_a_1"]
    assert dataset(root).skipped == []


@pytest.mark.parametrize("inter", [-1024, -8192])
@pytest.mark.parametrize("release", ["v1", "v2"])
@pytest.mark.parametrize("said", ["right", "auto"])
def test_both_releases_give_the_same_hu(tmp_path, release, said, inter):
    """Values as stored are rescaled once, values in HU never, whether the release is named or told by the values."""
    root = ct_rate(tmp_path / "data", release, inter=inter)
    read = hu(dataset(root, release=release if said == "right" else "auto"))
    np.testing.assert_array_equal(read.volume.array, chest(1))
    applied = [note for note in read.notes if "of the table are applied" in note]
    assert len(applied) == (release == "v1")


@pytest.mark.parametrize(
    ("there", "said", "message"),
    [
        ("v2", "v1", r"NOT_HU train_1_a_1 .*would be rescaled twice .*Fix: release: v2"),
        ("v1", "v2", r"NOT_HU train_1_a_1 .*stored values, which slope 1 and intercept -1024 make .*Fix: release: v1"),
    ],
)
def test_the_wrong_release_is_named_and_nothing_is_rescaled_twice(tmp_path, there, said, message):
    root = ct_rate(tmp_path / "data", there)
    if there == "v2":
        for split in ("train", "valid"):
            (root / f"{split}_fixed").rename(root / split)
    with pytest.raises(DataFault, match=message):
        hu(dataset(root, release=said))
    trusted = hu(dataset(root, release=said), hu="trust").volume.array
    expected = np.clip(chest(1).astype(int) - 1024, -1024, 3071) if there == "v2" else chest(1) + 1024
    np.testing.assert_array_equal(trusted, expected)  # `trust` takes anybody's word


def test_a_slope_in_the_header_is_not_applied_again(tmp_path):
    """A first release that was converted with its slope and intercept in the header is in HU as it is read."""
    root = ct_rate(tmp_path / "data", "v1")
    file = root / "train" / "train_1" / "train_1_a" / "train_1_a_1.nii.gz"
    image = nib.Nifti1Image((chest(1).astype(np.int32) + 1024).astype(np.int16), AFFINE)
    image.header.set_slope_inter(1, -1024)
    nib.save(image, file)
    assert nib.load(file).header["scl_inter"] == -1024 or nib.load(file).dataobj.inter == -1024
    np.testing.assert_array_equal(hu(dataset(root)).volume.array, chest(1))


def test_a_slope_that_is_not_one(tmp_path):
    root = ct_rate(tmp_path / "data", "v1")
    file = root / "train" / "train_1" / "train_1_a" / "train_1_a_1.nii.gz"
    nifti(file, ((chest(1).astype(np.int32) + 1024) // 2).astype(np.int16))
    write_table(root / "metadata" / "train_metadata.csv", COLUMNS,
                [(f"train_{n}_a_1.nii.gz", -1024, 2, "[4.0, 4.0]", 5.0) for n in (1, 2)])  # fmt: skip
    read = hu(dataset(root))
    np.testing.assert_array_equal(read.volume.array, (chest(1).astype(int) + 1024) // 2 * 2 - 1024)


@pytest.mark.parametrize(
    ("release", "spacing", "counts_"), [("v1", (3.0, 2.0, 5.0), "table"), ("v2", (4, 4, 5), "header")]
)
def test_spacing_of_the_table(tmp_path, release, spacing, counts_):
    """XYSpacing is DICOM's: rows first, which lie along y. A header of HU that was mended counts more."""
    root = ct_rate(tmp_path / "data", release)
    write_table(root / "metadata" / "train_metadata.csv", COLUMNS,
                [(f"train_{n}_a_1.nii.gz", -1024, 1, "[2.0, 3.0]", 5.0) for n in (1, 2)])  # fmt: skip
    read = hu(dataset(root, release=release))
    assert read.volume.spacing == pytest.approx(spacing)
    assert any(f"the {counts_} counts" in note for note in read.notes)


@pytest.mark.parametrize("text", ["0.34, 0.34", "[0.34]", "[0.34, 'x']", "[[1], 2]", "[0, 0.3]", "__import__('os')"])
def test_spacing_that_is_no_list_of_two(text):
    with pytest.raises(ValueError, match="pacing"):
        spacing_of({"XYSpacing": text, "ZSpacing": "1"})


def test_spacing_digits_and_absence():
    assert spacing_of({"XYSpacing": "[0.751953, 0.751954]", "ZSpacing": "1.5"}) == (0.751954, 0.751953, 1.5)
    assert spacing_of({"XYSpacing": "", "ZSpacing": "1"}) is None
    assert spacing_of({}) is None


def test_a_changed_table_changes_the_key_of_the_store(tmp_path):
    root = ct_rate(tmp_path / "data", real=False)
    one = dataset(root).studies()[0]
    keys = {entry_key(one, dataset(root).regions, ReadOptions(), lambda file: "x")}
    path = root / "metadata" / "train_metadata.csv"
    path.write_text(path.read_text().replace("-1024", "-1000"))
    other = dataset(root).studies()[0]
    assert entry_key(other, dataset(root).regions, ReadOptions(), lambda file: "x") not in keys


def test_a_volume_of_another_split_is_a_leak(tmp_path):
    root = ct_rate(tmp_path / "data", real=False)
    shutil.copytree(root / "valid_fixed" / "valid_1", root / "train_fixed" / "valid_1")
    with pytest.raises(DataFault, match=r"PATIENT_LEAK .*2 volumes or reports in the split train .*valid_1_a_1"):
        dataset(root).studies()


def test_a_report_of_another_split_is_a_leak(tmp_path):
    root = ct_rate(tmp_path / "data", real=False)
    path = root / "radiology_text_reports" / "train_reports.csv"
    path.write_text(path.read_text() + '"valid_1_a_1.nii.gz","","Findings.",""\n')
    with pytest.raises(DataFault, match=r"PATIENT_LEAK .*train_reports\.csv line 6"):
        dataset(root).studies()


def test_all_missing_volumes_are_listed_at_once(tmp_path):
    root = ct_rate(tmp_path / "data", real=False)
    shutil.rmtree(root / "train_fixed" / "train_1")
    shutil.rmtree(root / "valid_fixed" / "valid_1")
    found = dataset(root)
    assert skips(found) == [("train_1_a_1", "VOLUME_MISSING"), ("valid_1_a_1", "VOLUME_MISSING")]
    assert "validation_reports.csv line 2 describes it" in found.skipped[1].message
    partial = dataset(root, partial=True)
    assert (skips(partial), counts(partial)["NOT_IN_PART"]) == ([], 2)


def test_reconstructions_with_different_reports(tmp_path):
    root = ct_rate(tmp_path / "data", real=False)
    path = root / "radiology_text_reports" / "train_reports.csv"
    path.write_text(path.read_text().replace("Findings of train_1_a", "Something else", 1))
    assert skips(dataset(root)) == [("train_1_a_1", "REPORTS_DIFFER")]


def test_sections_and_empty_reports(tmp_path):
    root = ct_rate(tmp_path / "data", real=False)
    both = dataset(root, sections=["Findings_EN", "Impressions_EN"]).studies()[0]
    assert both.whole == "Findings of train_1_a. Normal."
    path = root / "radiology_text_reports" / "train_reports.csv"
    path.write_text(path.read_text().replace("Findings of train_1_a.", "Not given."))
    assert skips(dataset(root)) == [("train_1_a_1", "NO_REPORT")]


def test_metadata_that_is_broken_or_missing(tmp_path):
    root = ct_rate(tmp_path / "data", "v1", real=False)
    path = root / "metadata" / "train_metadata.csv"
    rows = [("train_1_a_1.nii.gz", "nan", 1, "[4.0, 4.0]", 5.0)]
    write_table(path, COLUMNS, rows)
    assert skips(dataset(root, release="v1")) == [("train_1_a_1", "METADATA"), ("train_2_a_1", "METADATA")]
    messages = [skip.message for skip in dataset(root, release="v1").skipped]
    assert "RescaleIntercept is 'nan'" in messages[0]
    assert "no row of the volume" in messages[1]
    assert counts(dataset(root))["NO_METADATA"] == 1
    write_table(path, COLUMNS, [("train_1_a_1.nii.gz", 0, 0, "", "")])
    assert "RescaleSlope is 0" in dataset(root, release="v1").skipped[0].message
    path.unlink()
    with pytest.raises(DataFault, match=r"TABLE_MISSING .*train_metadata\.csv"):
        dataset(root, release="v1").studies()
    assert len(dataset(root, partial=True).studies()) == 3  # the values tell


def test_masks_and_region_texts_of_ones_own(tmp_path):
    root = ct_rate(tmp_path / "data", real=False)
    for study in ("train_1_a_1", "valid_1_a_1"):
        (root / "masks" / f"seg_{study}").mkdir(parents=True)
        (root / "masks" / f"seg_{study}" / "lung.nii.gz").touch()
    write_table(root / "texts.csv", ("Volumename", "Anatomy", "Sentence"),
                [("train_1_a_1.nii.gz", "lung", "Clear."), ("train_1_a_1.nii.gz", "heart", "Large.")])  # fmt: skip
    found = dataset(root, masks="masks/seg_{id}/{region}.nii.gz", region_texts="texts.csv")
    assert skips(found) == [("train_2_a_1", "NO_MASK")]
    one = found.studies()[0]
    assert (list(one.masks.files), dict(one.reports)) == (["lung"], {"heart": "Large.", "lung": "Clear."})
    assert counts(found)["TEXT_WITHOUT_MASK"] == 1
    assert found.scans()[0].masks is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train": None, "test": None}, "both null"),
        ({"release": "v3"}, "release is 'v3': v1 or v2 or auto"),
        ({"reconstructions": "last"}, "reconstructions is 'last'"),
        ({"masks": "masks/{region}.nii.gz"}, r"\{id\} must stand in it"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        dataset(tmp_path, **options)


def test_no_such_folder(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        dataset(tmp_path / "no").studies()
    (tmp_path / "train").mkdir()
    with pytest.raises(ConfigError, match=r"no folder for each of: train, valid_fixed\. Folders there: train"):
        dataset(tmp_path).studies()
    with pytest.raises(DataFault, match="TABLE_MISSING"):
        dataset(tmp_path, test=None).studies()


def test_names_that_are_none(tmp_path):
    root = ct_rate(tmp_path / "data", real=False)
    folder = root / "train_fixed" / "train_1" / "train_1_a"
    (folder / "scan.nii.gz").touch()
    (folder / ".hidden.nii.gz").touch()
    assert skips(dataset(root)) == [("scan", "BAD_ID")]
