"""CTRG-Chest-548K: four layouts, ids, splits that are not mixed, and texts with and without a mask."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from layouts import CTRG_IDS, SHAPE, chest, ctrg, ctrg_rows, write_table
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.datasets import CTRG
from reg2rg.datasets.ctrg import reg2rg_test
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_study

TEXTS = [
    ("1", "lung", "Clear."), ("1", "pleura", "No effusion."), ("1", "other", "The brain is normal."),
    ("3", "lung", "A nodule."), ("3", "other", ""),
]  # fmt: skip


def dataset(root: Path, **options):
    return CTRG(str(root), **({"val_fraction": 0.0, "max_skip": 1.0} | options))


def skips(found) -> dict[str, str]:
    return {skip.study: skip.code for skip in found.skipped}


def test_the_split_of_the_paper():
    assert len(reg2rg_test()) == 361
    numbers = sorted(map(int, reg2rg_test()))
    assert (numbers[0], numbers[-1]) == (3, 1802)


def test_a_study_has_texts_with_a_mask_without_one_and_of_no_region(tmp_path):
    root = ctrg(tmp_path / "data", "")
    write_table(root / "texts.csv", ("id", "region", "text"), TEXTS)
    found = {study.id: study for study in dataset(root, region_texts="texts.csv").studies()}
    assert {name: study.split for name, study in found.items()} == {
        "1": "train", "2": "train", "4": "train", "3": "test", "6": "test",
    }  # fmt: skip
    one = found["1"]
    assert dict(one.reports) == {"lung": "Clear.", "pleura": "No effusion."}
    assert list(one.masks.files) == ["lung"]
    assert (one.other, one.whole, one.patient) == ("The brain is normal.", "Findings of 1.", "1")
    assert found["3"].other == ""
    assert {note.code: note.count for note in dataset(root, region_texts="texts.csv").notes}["TEXT_WITHOUT_MASK"] == 1


@pytest.mark.parametrize("form", ["wide", "published"])
def test_other_forms_of_the_region_texts(tmp_path, form):
    root = ctrg(tmp_path / "data", "")
    if form == "wide":
        columns = ("id", "report:lung", "report:pleura", "other")
        rows = [("1", "Clear.", "No effusion.", "The brain is normal."), ("3", "A nodule.", "", "")]
    else:
        columns = ("AccNum", "Question", "GT_whole_report", "Pred_whole_report")
        rows = [
            ("3", "", "The region 0 is lung: A nodule. The other report is: {other: }", ""),
            ("6", "", "The region 0 is lung: Clear. The other report is: {pleura: No effusion.}{other: Brain.}", ""),
        ]
    write_table(root / "texts.csv", columns, rows)
    found = {study.id: study for study in dataset(root, region_texts="texts.csv").studies()}
    assert dict(found["3"].reports) == {"lung": "A nodule."}
    full = found["1" if form == "wide" else "6"]
    assert dict(full.reports) == {"lung": "Clear.", "pleura": "No effusion."}
    assert full.other in ("The brain is normal.", "Brain.")


def test_json_of_both_spellings_and_ids_of_both_kinds(tmp_path):
    rows = {
        "train": [{"id": 1, "finding": "A."}, {"id": "2", "findings": "B.", "image_path": ["4.nii.gz"]}],
        "val": [{"id": 4, "findings": "C.", "image_path": "2.nii.gz"}],
        "test": [{"id": 3, "finding": "D."}],
    }
    root = ctrg(tmp_path / "data", "", rows)
    found = {study.id: study for study in dataset(root, train="annotation", test="annotation").studies()}
    assert {name: (study.split, study.whole) for name, study in found.items()} == {
        "1": ("train", "A."), "2": ("train", "B."), "4": ("val", "C."), "3": ("test", "D."),
    }  # fmt: skip
    assert found["2"].image.name == "4.nii.gz"  # a path that exists counts more than the id


def test_csv_and_paths_of_another_machine(tmp_path):
    root = ctrg(tmp_path / "data", "")
    (root / "annotation.json").unlink()
    for split, rows in ctrg_rows().items():
        cells = [(row["id"], f"./Chest_new_1_volume/{row['id']}.nii.gz", "", f"{row['finding']} 3×2") for row in rows]
        write_table(root / f"CTRG_{split}.csv", ("id", "image_path", "impression", "finding"), cells)
    found = dataset(root, texts=".").studies()
    assert sorted(study.id for study in found) == sorted(CTRG_IDS)
    assert {study.image.name for study in found} == {f"{name}.nii.gz" for name in CTRG_IDS}
    assert found[0].whole == "Findings of 1. 3×2"


def test_leading_zeros_make_another_id(tmp_path):
    root = ctrg(tmp_path / "data", "", ids=("0001", "2", "4", "3", "6"))
    (root / "masks" / "0001").rename(root / "masks" / "1")
    found = dataset(root)
    assert [study.id for study in found.studies()] == ["2", "3", "4", "6"]
    assert skips(found) == {"1": "VOLUME_MISSING"}
    assert "there is 0001.nii.gz, which is another id" in found.skipped[0].message
    rows = {"train": [{"id": "0001", "finding": "A."}], "test": []}
    (root / "annotation.json").write_text(json.dumps(rows))
    assert skips(dataset(root)) == {"0001": "BAD_ID"}
    own = dataset(root, train="annotation", test=None, masks=None)
    assert [study.id for study in own.studies()] == ["0001"]


def test_the_two_splits_are_not_mixed(tmp_path):
    root = ctrg(tmp_path / "data", "")
    for train, test in (("annotation", "reg2rg"), ("reg2rg", "annotation"), ("reg2rg", "mine.csv")):
        with pytest.raises(ConfigError, match="the same split for both"):
            dataset(root, train=train, test=test)
    assert {study.split for study in dataset(root, test=None).studies()} == {"train"}
    assert {study.split for study in dataset(root, train=None).studies()} == {"test"}


def test_the_published_texts_are_refused_where_they_would_be_trained_on(tmp_path):
    root = ctrg(tmp_path / "data", "")
    write_table(root / "texts.csv", ("AccNum", "GT_whole_report"), [("3", "The region 0 is lung: A. ")])
    options = {"region_texts": "texts.csv", "train": "mine.csv", "test": "mine.csv"}
    write_table(root / "mine.csv", ("id", "split"), [("3", "train"), ("1", "test")])
    with pytest.raises(DataFault, match=r"SPLIT_MIXED .*trains on 1 studies \(3\)"):
        dataset(root, **options).studies()
    write_table(root / "mine.csv", ("id", "split"), [("1", "train"), ("3", "test"), ("2", "val")])
    assert {s.id: s.split for s in dataset(root, **options).studies()} == {"1": "train", "2": "val", "3": "test"}


def test_only_a_part_of_the_volumes(tmp_path):
    root = ctrg(tmp_path / "data", "", ids=("1", "3"))
    assert set(skips(dataset(root)).values()) == {"VOLUME_MISSING"}
    found = dataset(root, partial=True)
    assert [study.id for study in found.studies()] == ["1", "3"]
    assert {note.code: note.count for note in found.notes}["NOT_IN_PART"] == 3


def test_chexbert_labels(tmp_path):
    root = ctrg(tmp_path / "data", "")
    rows = [("1", "1.0", "0"), ("2", "-1", ""), ("3", "", "1")]
    write_table(root / "labels.csv", ("id", "Cardiomegaly", "Edema"), rows)
    found = {study.id: study.findings for study in dataset(root, labels="labels.csv").studies()}
    assert found["1"] == {"Cardiomegaly": True, "Edema": False}
    assert found["2"] == {"Cardiomegaly": False, "Edema": False}  # -1 is uncertain, and no finding
    assert found["6"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train": None, "test": None}, "both null"),
        ({"masks": "masks/lung.nii.gz"}, r"\{id\} must stand in it"),
        ({"masks": "{id}/{region}/x.nii.gz"}, "in the file's name"),
        ({"val_fraction": 1.5}, "val_fraction is 1.5"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        dataset(tmp_path, **options)


def test_no_root(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        dataset(tmp_path / "no").studies()


@pytest.mark.parametrize("first", ["head", "feet"])
def test_arrays_of_hu_by_a_thousand(tmp_path, first):
    """A voxel is where the array has it, in HU."""
    root = ctrg(tmp_path / "data", "npz", ids=("1",))
    [study] = [one for one in dataset(root, masks=None).studies() if one.id == "1"]
    read = read_study(study, dataset(root).regions, ReadOptions(first_slice=first), needs_regions=False)
    wanted = chest(0) if first == "head" else chest(0)[:, :, ::-1]
    np.testing.assert_array_equal(read.volume.array, wanted)
    assert read.volume.spacing == (1, 1, 1)
    assert any("the file says no place" in note for note in read.notes)


def test_folders_of_slices_are_scans(tmp_path):
    root = ctrg(tmp_path / "data", "slices")
    found = dataset(root).studies()
    assert [study.image.name for study in found] == [study.id for study in found]
    read = read_study(found[0], dataset(root).regions, ReadOptions(hu="trust"), needs_regions=False)
    assert read.volume.array.shape == SHAPE
    assert read.volume.array.max() == 255


def test_counts_of_the_published_texts(tmp_path):
    """361 studies, 1,257 texts of regions with a mask, 483 of regions without, 160 of no region that are not empty."""
    root = Path(os.environ.get("REG2RG_SHARED", Path(__file__).resolve().parents[4] / "shared"))
    table = root / "data" / "reports" / "ctrg" / "ctrg_combined_reports.csv"
    if not table.is_file():
        pytest.skip(f"real test data are not at {table} (set REG2RG_SHARED to the folder that holds data/reports/ctrg)")
    with table.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    folder = ctrg(tmp_path / "data", "", {"train": [], "test": [{"id": int(r["AccNum"]), "finding": ""} for r in rows]},
                  [row["AccNum"] for row in rows])  # fmt: skip
    (folder / "texts.csv").write_bytes(table.read_bytes())
    studies = dataset(folder, region_texts="texts.csv", masks=None).studies()
    given = {row["AccNum"]: row["GT_whole_report"].partition("The other report is")[0] for row in rows}
    with_mask = {(s.id, name) for s in studies for name in s.reports if f" is {name}: " in given[s.id]}
    assert len(studies) == 361
    assert len(with_mask) == 1257
    assert sum(len(study.reports) for study in studies) - len(with_mask) == 483
    assert sum(bool(study.other) for study in studies) == 160
