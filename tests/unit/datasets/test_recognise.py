"""Folders by their layout alone, and scans without reports."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from layouts import ct_rate, ctrg, radgenome
from reg2rg.core.errors import ConfigError
from reg2rg.core.types import LabelMap, RegionFiles
from reg2rg.datasets import DATASETS, ScanFolder
from reg2rg.datasets.recognise import KNOWN, Recognised, recognise
from reg2rg.extras.phantom.writer import write_phantoms
from reg2rg.testing import check_dataset

JSON_LINE = '{"id": "a", "image": "a.nii.gz", "masks": {"lung": "m.nii.gz"}, "reports": {"lung": "Clear."}}\n'


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def built(found: Recognised) -> list[tuple[str, str, str]]:
    """The studies that a layout gives: id, split, kind of masks."""
    dataset = DATASETS.get(found.dataset)(**found.arguments, max_skip=1.0)
    kinds = {RegionFiles: "files", LabelMap: "labels", type(None): "none"}
    return [(study.id, study.split, kinds[type(study.masks)]) for study in dataset.listing().studies]


@pytest.mark.parametrize("below", ["", "dataset"])
def test_radgenome(tmp_path: Path, below: str) -> None:
    write_phantoms(tmp_path / below, studies=3, size=(32, 32, 24), workers=0)
    found = recognise(tmp_path)
    assert "splits: train, valid" in found.what
    assert sorted(split for _, split, _ in built(found)) == ["test", "train", "val"]
    assert found.arguments["labels"] == "multi_abnormality_labels"


def test_one_split_of_radgenome(tmp_path: Path) -> None:
    touch(tmp_path, "valid_preprocessed/a/b/valid_1_a_1.nii.gz", "valid_region_mask/seg_valid_1_a_1/lung.nii.gz")
    found = recognise(tmp_path)
    assert (found.arguments["train"], found.arguments["test"]) == (None, "valid")
    assert built(found) == [("valid_1_a_1", "test", "files")]


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("studies.csv", "id,image,mask:lung,report:lung\na,a.nii.gz,m.nii.gz,Clear.\n", "files"),
        ("x.tsv", "id\timage\tmask\treport:lung\na\ta.nii.gz\tm.nii.gz\tClear.\n", "labels"),
        ("x.csv", "id;image;report\na;a.nii.gz;Clear.\n", "none"),
        ("x.jsonl", JSON_LINE, "files"),
    ],
)  # fmt: skip
def test_a_table(tmp_path: Path, name: str, text: str, kind: str) -> None:
    touch(tmp_path, "a.nii.gz", "m.nii.gz", "readme.txt")
    (tmp_path / "scores.csv").write_text("model,score\na,1\n")
    (tmp_path / name).write_text(text)
    for path in (tmp_path, tmp_path / name):
        found = recognise(path)
        assert built(found) == [("a", "train", kind)]
        assert found.regions == (kind != "none")
    (tmp_path / "z.csv").write_text(text if name.endswith("csv") else "id,image\na,a.nii.gz\n")
    with pytest.raises(ConfigError, match=r"could each be the table of the studies\. Fix: name one, such as .*/"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["images/a.nii.gz", "images/b.nrrd", "masks/a/lung.nii", "masks/b.nrrd"], [("a", "files"), ("b", "labels")]),
        (["ct/a.nii.gz", "segmentations/seg_a/heart.nii.gz"], [("a", "files")]),
        (["ct/a.nii.gz", "seg/a.nii.gz"], [("a", "labels")]),
        (["scans/a.nii.gz", "scans/.hidden.nii.gz"], [("a", "none")]),
        (["s1/ct.nii.gz", "s1/segmentations/heart.nii.gz", "s2/ct.nii.gz"], [("s1", "files")]),  # s2 is skipped
        (["s1/ct.nii.gz"], [("s1", "none")]),
        (["a.nii.gz", "b.b.nii.gz"], [("a", "none"), ("b.b", "none")]),
    ],
)  # fmt: skip
def test_scans_and_masks(tmp_path: Path, files: list[str], expected: list[tuple[str, str]]) -> None:
    found = recognise(touch(tmp_path, *files))
    assert built(found) == [(name, "test", kind) for name, kind in expected]
    assert found.regions == (expected[0][1] != "none")


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        recognise(tmp_path / "gone")
    touch(tmp_path, "notes/a.txt", "slides.pdf")
    with pytest.raises(ConfigError) as caught:
        recognise(tmp_path)
    assert "it holds notes/, slides.pdf" in str(caught.value)
    assert all(layout in str(caught.value) for layout in KNOWN)


def test_a_study_without_masks_is_skipped_with_the_reason(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii.gz", "images/b.nii.gz", "masks/a/lung.nii.gz", "masks/b/tail.nii.gz", "images/-c.nii")
    dataset = ScanFolder(str(tmp_path), max_skip=1.0)
    assert [study.id for study in dataset.studies()] == ["a"]
    assert [(skip.study, skip.code) for skip in dataset.skipped] == [("'-c'", "UNSAFE_ID"), ("b", "NO_MASK")]
    assert "tail" in dataset.skipped[1].message
    check_dataset(lambda: ScanFolder(str(tmp_path), max_skip=1.0))
    for wrong in ({"images": "images"}, {"masks": "{id}/{id}"}):
        with pytest.raises(ConfigError, match="must stand in it, once"):
            ScanFolder(str(tmp_path), **wrong)
    with pytest.raises(ConfigError, match="is not a folder"):
        ScanFolder(str(tmp_path / "gone")).studies()


def test_scans_of_a_folder_are_read(tmp_path: Path) -> None:
    """Labels beside their scan, from the listing to the masks."""
    from reg2rg.core.regions import load_region_set
    from reg2rg.scans.base import ReadOptions
    from reg2rg.scans.read import read_study

    write_phantoms(tmp_path / "p", studies=1, size=(48, 48, 32), workers=0)
    image = nib.load(next((tmp_path / "p").glob("train_preprocessed/*/*/*.nii.gz")))
    lung = np.asarray(nib.load(next((tmp_path / "p").rglob("lung.nii.gz"))).dataobj)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    nib.save(image, tmp_path / "images/a.nii.gz")
    nib.save(nib.Nifti1Image((lung * 10).astype(np.uint8), image.affine), tmp_path / "masks/a.nii.gz")
    (study,) = ScanFolder(str(tmp_path)).studies()
    found = read_study(study, load_region_set(), ReadOptions())
    assert int(found.masks["lung"].sum()) == int(lung.sum()) > 0


def test_dicom(tmp_path: Path) -> None:
    from dicom_files import localizer, save, slices

    for name, study in (("s1", "1.2.3"), ("s2", "1.2.4")):
        save(slices(study=study), tmp_path / name / "series")
        save([localizer(study=study)], tmp_path / name / "survey")
    (tmp_path / "notes").mkdir()
    several = recognise(tmp_path)
    assert built(several) == [("s1", "test", "none"), ("s2", "test", "none")]
    assert not several.regions
    for one in (tmp_path / "s1", tmp_path / "s1/series", next((tmp_path / "s1/series").iterdir())):
        found = recognise(one)
        assert found.what == "one DICOM study"
        assert [study[0] for study in built(found)] == [one.name]
    for file in [*(tmp_path / "s1/series").iterdir()]:
        file.rename(file.with_suffix(".dcm"))
    assert built(recognise(tmp_path / "s1/series")) == [("series", "test", "none")]
    assert built(recognise(tmp_path / "s1")) == [("s1", "test", "none")]
    (tmp_path / "s1").rename(tmp_path / "images")
    for file in [*(tmp_path / "images/series").iterdir()]:
        file.rename(tmp_path / "images" / file.name)
    assert built(recognise(tmp_path / "images")) == [("images", "test", "none")]
    (tmp_path / "images").rename(tmp_path / "s1")
    (tmp_path / "studies.csv").write_text("id,image,split,report\na,s1,test,\nb,s1/gone,test,\nc,notes,test,\n")
    table = recognise(tmp_path)
    assert built(table) == [("a", "test", "none")]


def test_a_zip_of_something_else_is_no_scan(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii.gz", "images/b.dcm")
    with zipfile.ZipFile(tmp_path / "images/all.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert built(recognise(tmp_path)) == [("a", "test", "none"), ("b", "test", "none")]


@pytest.mark.parametrize(
    ("make", "dataset", "arguments", "regions"),
    [
        (lambda root: ct_rate(root, real=False), "CTRate", {"train": "train", "test": "valid"}, False),
        (lambda root: ct_rate(root / "dataset", "v1", real=False), "CTRate", {"train": "train"}, False),
        (lambda root: ctrg(root, ""), "CTRG", {"texts": "annotation.json"}, True),
        (
            lambda root: (root / "CTRG_train.csv").write_text("id,finding\n"),
            "CTRG",
            {"texts": ".", "masks": None},
            False,
        ),
        (lambda root: radgenome(root, real=False), "RadGenome", {"train": "train", "test": "valid"}, True),
    ],
    ids=["CT-RATE v2", "CT-RATE v1", "CTRG", "CTRG as CSV", "RadGenome from archives"],
)
def test_distributed_data_sets_are_recognised(tmp_path, make, dataset, arguments, regions):
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    found = recognise(root)
    assert (found.dataset, found.regions) == (dataset, regions)
    assert arguments.items() <= found.arguments.items()
