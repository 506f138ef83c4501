"""Faults planted in CTRG-Chest-548K, CT-RATE and RadGenome-ChestCT from archives: `data check` names each.

docs/how-to/data.md lists them under "Faults that are planted": the same names as here.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layouts import (
    COLUMNS,
    as_picture,
    as_slices,
    chest,
    ct_rate,
    ctrg,
    ctrg_rows,
    nifti,
    radgenome,
    slices,
    write_table,
)
from reg2rg.check.run import check_dataset
from reg2rg.datasets import CTRG, CTRate, RadGenome

DOCS = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "data.md"
Planted = tuple[str, Callable[[Path], object], dict[str, object], str, str]


def rows(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Change the rows of annotation.json."""

    def plant(root: Path) -> None:
        found = ctrg_rows()
        change(found)
        (root / "annotation.json").write_text(json.dumps(found))

    return plant


def array(**named: np.ndarray) -> Callable[[Path], None]:
    return lambda root: np.savez(root / "1.npz", **named)


def in_slices(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Study 1 as a folder of slices with a fault."""

    def plant(root: Path) -> None:
        (root / "1.npz").unlink()
        change(slices(root / "1", as_picture(as_slices(chest()))))

    return plant


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_text((root / name).read_text().replace(old, new, 1))


def published(root: Path) -> None:
    write_table(root / "texts.csv", ("AccNum", "GT_whole_report"), [("3", "The region 0 is lung: A. ")])
    write_table(root / "mine.csv", ("id", "split"), [("3", "train"), ("1", "test")])


def in_parts(root: Path, lost: str) -> None:
    archive = root / "train_region_mask.tar.gz"
    data = archive.read_bytes()
    archive.unlink()
    for number, word in enumerate(("aa", "ab", "ac")):
        step = len(data) // 3 + 1
        archive.with_name(f"{archive.name}.part-{word}").write_bytes(data[number * step : (number + 1) * step])
    archive.with_name(f"{archive.name}.part-{lost}").unlink()


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


OWN = {"region_texts": "texts.csv", "train": "mine.csv", "test": "mine.csv"}
V1_TRAIN = "train/train_1/train_1_a/train_1_a_1.nii.gz"
V2_TRAIN = V1_TRAIN.replace("train/", "train_fixed/", 1)
CTRG_FAULTS: list[Planted] = [
    ("an id with leading zeros", rows(lambda r: r["train"][0].update(id="0001")), {}, "BAD_ID", "0001"),
    ("an id beyond the data set", rows(lambda r: r["train"][0].update(id=1804)), {}, "BAD_ID", "1804"),
    ("an id that is a fraction", rows(lambda r: r["train"][0].update(id=1.5)), {}, "BAD_ID", "1.5"),
    ("a file whose name has leading zeros", lambda root: (root / "1.npz").rename(root / "0001.npz"), {},
     "VOLUME_MISSING", "there is 0001.npz"),
    ("an id twice in one split", rows(lambda r: r["train"].append(r["train"][0])), {}, "DUPLICATE_STUDY", "train 1"),
    ("an id in two splits", rows(lambda r: r["test"].append(r["train"][0])), {}, "PATIENT_LEAK", "in split train"),
    ("neither finding nor findings", rows(lambda r: r["train"][0].pop("finding")), {}, "TABLE_COLUMNS", "train 1"),
    ("finding and findings that differ", rows(lambda r: r["train"][0].update(findings="Other.")), {},
     "DUPLICATE_ROWS", "finding and findings differ"),
    ("an empty finding", rows(lambda r: r["train"][0].update(finding="")), {}, "NO_REPORT", "train 1"),
    ("several paths of one study", rows(lambda r: r["train"][0].update(image_path=["a", "b"])), {}, "BAD_PATH", "'b'"),
    ("a path out of the folder", rows(lambda r: r["train"][0].update(image_path="../../x.npz")), {},
     "UNSAFE_PATH", "leaves"),
    ("splits by other names", rows(lambda r: r.update(training=r.pop("train"))), {}, "TABLE_JSON", "training"),
    ("JSON that is cut short", lambda root: (root / "annotation.json").write_text('{"train": ['), {},
     "TABLE_JSON", "annotation.json"),
    ("published texts of the other split's test set", published, OWN, "SPLIT_MIXED", "trains on 1 studies"),
    ("two splits mixed", lambda root: None, {"train": "annotation"}, "CONFIG", "the same split for both"),
    ("NIfTI made of pictures, without a window", lambda root: nifti(root / "1.nii.gz", as_picture(chest()))
     and (root / "1.npz").unlink(), {"masks": None}, "NOT_HU", "task.views.intensity: picture"),
    ("an array under another key", array(ct=chest()), {}, "ARRAY_KEY", "keys ct"),
    ("an array in HU, not in HU / 1000", array(arr_0=as_slices(chest())), {}, "NOT_HU", "divide by 1000"),
    ("an array of one slice", array(arr_0=chest()[0]), {}, "NOT_3D", "26 x 20"),
    ("an array of pickled objects", array(arr_0=np.array([[[{}]]], dtype=object)), {}, "DATATYPE", "object"),
    ("a slice that is missing", in_slices(lambda f: (f / "7.png").unlink()), {}, "SLICE_GAP", "none of number 7"),
    ("a slice of another size", in_slices(lambda f: Image.new("L", (9, 9)).save(f / "7.png")), {},
     "SLICE_SIZE", "7.png is 9 x 9"),
    ("a slice with colour", in_slices(lambda f: Image.new("RGB", (24, 26), (9, 0, 0)).save(f / "7.png")), {},
     "COLOUR", "7.png"),
]  # fmt: skip
CT_RATE_FAULTS: list[Planted] = [
    ("a volume in the folder of another split",
     lambda root: shutil.copytree(root / "valid_fixed/valid_1", root / "train_fixed/valid_1"), {},
     "PATIENT_LEAK", "valid_1_a_1.nii.gz"),
    ("a report in the table of another split", replaced("radiology_text_reports/train_reports.csv",
     "train_1_a_1.nii.gz", "valid_1_a_1.nii.gz"), {}, "PATIENT_LEAK", "train_reports.csv line 2"),
    ("a volume that is not there", lambda root: shutil.rmtree(root / "train_fixed/train_1"), {},
     "VOLUME_MISSING", "train_reports.csv line 2"),
    ("a name that is none of CT-RATE's", lambda root: (root / V2_TRAIN).with_name("scan.nii.gz").touch(), {},
     "BAD_ID", "scan"),
    ("reconstructions with different reports", replaced("radiology_text_reports/train_reports.csv",
     "Findings of train_1_a", "Other"), {}, "REPORTS_DIFFER", "line 2"),
    ("the second release taken for the first", lambda root: (root / "train_fixed").rename(root / "train")
     and (root / "valid_fixed").rename(root / "valid"), {"release": "v1"}, "NOT_HU", "rescaled twice"),
    ("the first release taken for the second", lambda root: nifti(root / V2_TRAIN, chest() + 1024),
     {"release": "v2"}, "NOT_HU", "stored values, which slope 1"),
    ("a slope that is no number", replaced("metadata/train_metadata.csv", '"1"', '"nan"'), {}, "METADATA", "'nan'"),
    ("a spacing that is no list", replaced("metadata/train_metadata.csv", "[4.0, 4.0]", "4.0 x 4.0"), {},
     "METADATA", "4.0 x 4.0"),
    ("a first release without metadata of a volume", lambda root: [
        (root / "train_fixed").rename(root / "train"), (root / "valid_fixed").rename(root / "valid"),
        write_table(root / "metadata/train_metadata.csv", COLUMNS, [("train_2_a_1.nii.gz", 0, 1, "", "")])],
     {"release": "v1"}, "METADATA", "no row of the volume"),
    ("a label that is neither 0 nor 1", replaced("multi_abnormality_labels/train_predicted_labels.csv", '"0"', '"2"'),
     {}, "TABLE_ROWS", "Lung nodule is '2'"),
]  # fmt: skip
ARCHIVE_FAULTS: list[Planted] = [
    ("a part of an archive that is missing", lambda root: in_parts(root, "ab"), {}, "ARCHIVE_PART", "number 2"),
    ("the last part of an archive that is missing", lambda root: in_parts(root, "ac"), {},
     "(TRUNCATED|CORRUPT)", "train_region_mask.tar.gz.part-aa, train_region_mask.tar.gz.part-ab"),
    ("an archive with a flipped bit", lambda root: flipped(root / "train_region_mask.tar.gz"), {},
     "(TRUNCATED|CORRUPT)", "train_region_mask.tar.gz"),
    ("an archive that is a web page", lambda root: (root / "train_region_mask.tar.gz").write_text("<html>" * 99), {},
     "CORRUPT", "train_region_mask.tar.gz"),
]  # fmt: skip
ALL = [("CTRG", *one) for one in CTRG_FAULTS] + [("CTRate", *one) for one in CT_RATE_FAULTS]
ALL += [("RadGenome", *one) for one in ARCHIVE_FAULTS]


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sound")
    return {"CTRG": ctrg(root / "ctrg"), "CTRate": ct_rate(root / "rate"), "RadGenome": radgenome(root / "radgenome")}


def checked(root: Path, kind: str, options: dict[str, object]):
    classes = {"CTRG": CTRG, "CTRate": CTRate, "RadGenome": RadGenome}
    plain = {"val_fraction": 0.0} | ({"masks": None} if kind == "CTRate" else {})
    try:
        dataset = classes[kind](str(root), **(plain | options))
    except Exception as error:
        return [f"CONFIG {error}"]
    found = check_dataset(dataset, dataset.regions, workers=0, overlays=0, needs_regions=kind != "CTRate")
    return [f"{one.code} {one.message}" for one in found.findings if one.severity == "error"]


@pytest.mark.parametrize("kind", ["CTRG", "CTRate", "RadGenome"])
def test_the_sound_folder_has_no_fault(sound, kind):
    codes = [error.split()[0] for error in checked(sound[kind], kind, {})]
    assert codes == (["NO_REGION_TEXT"] if kind == "CTRG" else [])  # its texts to train on are not published by region


@pytest.mark.parametrize(("kind", "name", "plant", "options", "code", "said"), ALL, ids=[one[1] for one in ALL])
def test_a_planted_fault_is_named(sound, tmp_path, kind, name, plant, options, code, said):
    root = tmp_path / "data"
    shutil.copytree(sound[kind], root, ignore=shutil.ignore_patterns("*.index"))
    plant(root)
    errors = checked(root, kind, options)
    assert any(re.match(code, error) and said in error for error in errors), errors
    assert all("Fix: " in error for error in errors), errors


def test_the_guide_lists_every_planted_fault():
    text = DOCS.read_text(encoding="utf-8")
    assert [name for _, name, *_ in ALL if f"| {name} |" not in text] == []
