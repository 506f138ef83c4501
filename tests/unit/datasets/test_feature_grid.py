"""Folders of features, in the two published layouts and with what goes wrong in them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from reg2rg.check.run import check_dataset
from reg2rg.core.errors import EXIT_SKIPPED, ConfigError
from reg2rg.core.types import MaskChannels
from reg2rg.datasets import FeatureGrid
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.grid_layout import GridLayout
from reg2rg.testing import check_dataset as check_contract

CELLS, CHANNELS = (2, 2, 2), 3
LAYOUT = GridLayout("toy", CELLS, CHANNELS, organs=("lung", "heart", "abdomen"), order=[("lung", "S", "abdomen")])
IDS = {"train": ["train_1_a_2", "train_2_a_1", "train_3_a_1"], "valid": ["valid_1_a_2"]}


def features(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(8, CHANNELS)).astype(np.float16)


def shares() -> np.ndarray:
    found = np.zeros((3, *CELLS), np.float16)
    found[0, :, :, 1] = found[1, 0, 0, 0] = found[2, 1, :, 0] = 1
    return found


class Folder:
    """ORCA-3DCT's layout: an array a split, masks a file a volume, and RadGenome's tables of the first volumes."""

    def __init__(self, root: Path) -> None:
        self.root, self.features, self.masks = root, root / "features", root / "masks"
        self.features.mkdir()
        rows = []
        for split, ids in IDS.items():
            np.save(self.features / f"{split}.npy", np.stack([features(len(i) + k) for k, i in enumerate(ids)]))
            (self.features / f"{split}_ids.txt").write_text("\n".join(ids))
            (self.masks / split).mkdir(parents=True)
            for name in ids:
                np.savez(self.masks / split / f"{name}.npz", masks=shares())
                volume = f"{name[:-1]}1.nii.gz"
                rows += [(volume, "lung", f"Clear in {name}."), (volume, "lung/left lung", "."), (volume, "", "All.")]
        self.write(rows)

    def write(self, rows: list[tuple[str, str, str]]) -> None:
        with open(self.root / "t.csv", "w", newline="") as stream:
            csv.writer(stream).writerows([("Volumename", "Anatomy", "Sentence"), *rows])

    def dataset(self, **changes: object) -> FeatureGrid:
        arguments = {"features": self.features, "reports": self.root / "t.csv", "masks": self.masks, "by_scan": True}
        return FeatureGrid(**{**arguments, "val_fraction": 0.0, "max_skip": 1.0, **changes})  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_stacked_arrays(folder: Folder) -> None:
    check_contract(folder.dataset)
    studies = {study.id: study for study in folder.dataset().studies()}
    assert list(studies) == sorted(IDS["train"] + IDS["valid"])
    first = studies["train_1_a_2"]
    assert (first.patient, first.split, first.row) == ("train_1", "train", 0)
    assert first.image == folder.features / "train.npy"
    assert first.masks == MaskChannels(folder.masks / "train" / "train_1_a_2.npz")
    assert first.reports == {"lung": "Clear in train_1_a_2."}
    assert first.whole == "All."
    assert studies["valid_1_a_2"].split == "test"
    assert {note.code: note.count for note in folder.dataset().notes} == {"HIERARCHY_ROW": 4}


def test_without_by_scan_other_reconstructions_are_not_described(folder: Folder) -> None:
    dataset = folder.dataset(by_scan=False)
    assert [study.id for study in dataset.studies()] == ["train_2_a_1", "train_3_a_1", "valid_1_a_2"]
    assert [(skip.study, skip.code) for skip in dataset.skipped] == [("train_1_a_2", "NO_REPORT")]
    assert "by_scan: true" in dataset.skipped[0].message
    assert dataset.studies()[-1].reports == {}  # a test study without a text stays


@pytest.mark.parametrize("place", ["", "train", "somewhere"])
def test_a_file_a_volume(tmp_path: Path, place: str) -> None:
    target = tmp_path / "grids" / place / "train_7_a_1.npy"
    target.parent.mkdir(parents=True)
    np.save(target, features(0))
    table = tmp_path / "t.csv"
    table.write_text("id,split,report,report:lung,finding:Emphysema\ntrain_7_a_1,val,Whole.,Clear.,1\n")
    (study,) = FeatureGrid(str(tmp_path / "grids"), str(table), val_fraction=0).studies()
    assert (study.image, study.row, study.split, study.masks) == (target, None, "train", None)
    assert (study.whole, study.reports) == ("Whole.", {"lung": "Clear."})


def test_labels_and_splits_of_a_table(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", features(0))
    (tmp_path / "t.csv").write_text("id,split,patient,report\na,test,p,Whole.\nb,,q,Whole.\n")
    (tmp_path / "l.csv").write_text("VolumeName,Emphysema\na.nii.gz,1\nb,0\n")
    found = FeatureGrid(
        str(tmp_path), str(tmp_path / "t.csv"), labels=str(tmp_path / "l.csv"), val_fraction=0
    ).studies()
    assert [(s.id, s.split, s.patient, s.findings) for s in found] == [
        ("a", "test", "p", {"Emphysema": True}),
        ("b", "train", "q", {"Emphysema": False}),
    ]


def test_a_folder_of_tables(folder: Folder) -> None:
    tables = folder.root / "tables"
    tables.mkdir()
    (folder.root / "t.csv").rename(tables / "train_region_report.csv")
    (tables / "case_disorders.csv").write_text("Volumename,Disorder\nx,y\n")
    dataset = folder.dataset(reports=tables)
    assert len(dataset.studies()) == 4
    assert [note.examples for note in dataset.notes if note.code == "OTHER_TABLE"] == [("case_disorders.csv",)]


def test_data_check_names_what_is_planted(folder: Folder, tmp_path: Path) -> None:
    """One fault a study, all found in one run; `data check` goes on after each."""
    train = np.stack([features(k) for k in range(9)])
    names = [f"train_{k}_a_1" for k in range(9)]
    train[1, 0, 0] = np.nan  # train_1
    train[2] = 0
    train[8] = train[7]  # the same features twice
    np.save(folder.features / "train.npy", train)
    (folder.features / "train_ids.txt").write_text("\n".join([*names[:6], "train_5_a_1", *names[7:]]))
    np.save(folder.features / "train_20_a_1.npy", features(1)[:, :2])  # wrong channels
    np.save(folder.features / "train_21_a_1.npy", features(2).astype(np.float64))
    np.save(folder.features / "train_22_a_1.npy", features(3).astype(object))
    np.save(folder.features / "train_23_a_1.npy", features(4))  # no mask
    np.save(folder.features / "train_24_a_1.npy", features(5))  # no text
    np.save(folder.features / "train_25_a_1.npy", features(6))  # two texts
    small, upside_down, coarse = shares(), shares(), shares()
    small[1] *= 0.5
    small[2] = 0
    upside_down = upside_down[..., ::-1]
    numbers = [*range(9), 20, 21, 22, 24, 25]
    for number in numbers:
        masks = {3: upside_down, 4: coarse[:, :1], 5: shares() * 7, 0: small}.get(number, shares())
        np.savez(folder.masks / "train" / f"train_{number}_a_1.npz", masks=masks)
    rows = [(f"train_{number}_a_1", "lung", f"Text {number}.") for number in [*numbers, 23] if number != 24]
    folder.write(
        [*rows, ("train_25_a_1", "lung", "Another."), ("train_0_a_1", "lnug", "."), ("valid_1_a_2", "lung", ".")]
    )
    result = check_dataset(folder.dataset(), options=ReadOptions(grid=LAYOUT), workers=0, out=tmp_path / "out")
    found = {(finding.severity, finding.code, finding.study) for finding in result.findings}
    faults = {
        ("NON_FINITE", "train_1_a_1"), ("CONSTANT", "train_2_a_1"), ("AXES", "train_3_a_1"),
        ("MASK_GRID", "train_4_a_1"), ("MASK_VALUES", "train_5_a_1"), ("DUPLICATE_STUDY", "train_5_a_1"),
        ("FEATURE_SHAPE", "train_20_a_1"), ("FEATURE_DTYPE", "train_21_a_1"), ("PICKLED", "train_22_a_1"),
        ("MASK_MISSING", "train_23_a_1"), ("NO_REPORT", "train_24_a_1"), ("DUPLICATE_ROWS", "train_25_a_1"),
    }  # fmt: skip
    assert {(code, study) for severity, code, study in found if severity == "error"} == faults
    notes = {(code, study) for severity, code, study in found if severity == "note" and study}
    assert {("BELOW_ONE_CELL", "train_0_a_1"), ("EMPTY_MASK", "train_0_a_1")} <= notes
    assert ("note", "DUPLICATE_VOLUME", "train_7_a_1") in found
    assert any(code == "UNKNOWN_REGION" for _, code, _ in found)
    assert result.exit_code == EXIT_SKIPPED
    assert not (tmp_path / "out" / "overlays").exists()
    assert {line.region: line.mask for line in result.coverage if line.split == "train"}["heart"] == 3


def test_faults_of_whole_files(folder: Folder) -> None:
    (folder.features / "valid_ids.txt").write_text("valid_1_a_2 valid_9_a_1")
    result = check_dataset(folder.dataset(), options=ReadOptions(grid=LAYOUT), workers=0)
    assert [f.message for f in result.findings if f.code == "FEATURE_ROWS"] == [
        f"FEATURE_ROWS {folder.features / 'valid.npy'}: 1 rows, but valid_ids.txt has 2 ids (expected an id a row). "
        "Fix: get both files of one download"
    ]
    (folder.features / "valid_ids.txt").write_bytes(b"\xff\xfe\x00")
    assert [f.code for f in folder.dataset().listing().faults] == ["FEATURE_ROWS"]
    (folder.root / "t.csv").write_text("name,text\na,b\n")
    assert [f.code for f in folder.dataset().listing().faults] == ["TABLE_COLUMNS", "FEATURE_ROWS"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {"valid": "validation"}}, "splits leads to 'validation'"),
        ({"features": "/nowhere"}, "features: no folder at /nowhere"),
        ({"masks": "/nowhere"}, "masks: no folder at /nowhere"),
    ],
)
def test_arguments_that_cannot_be(folder: Folder, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        folder.dataset(**changes).listing()
