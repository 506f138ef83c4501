"""One's own table: CSV and JSON lines."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.core.types import LabelMap, RegionFiles
from reg2rg.datasets import DATASETS, Manifest

REGIONS = load_region_set()
FILES = ("a.nii.gz", "b.nii.gz", "a_lung.nii.gz", "a_heart.nii.gz", "seg/a.nii.gz", "seg/b.nii.gz")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def manifest(root: Path, rows: str | list[dict[str, Any]], /, **options: Any) -> Manifest:
    path = root / ("m.csv" if isinstance(rows, str) else "m.jsonl")
    path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    return Manifest(str(path), **({"val_fraction": 0.0, "max_skip": 1.0} | options))


def codes(found: Manifest) -> list[tuple[str, str]]:
    return [(skip.study, skip.code) for skip in found.skipped]


def test_csv_with_one_mask_file_a_region(root: Path) -> None:
    found = manifest(
        root,
        "id,patient,split,image,mask:lung,mask:Heart,report,report:lung,report:heart,finding:Cardiomegaly,ward\n"
        "007,P1,training,a.nii.gz,a_lung.nii.gz,a_heart.nii.gz,All.,Clear.,None,1,x\n"
        "8.5,,test,b.nii.gz,,a_heart.nii.gz,,,Large.,,x\n",
    )
    first, second = found.studies()
    assert (first.id, first.patient, first.split, first.whole) == ("007", "P1", "train", "All.")
    assert first.masks == RegionFiles({"heart": root / "a_heart.nii.gz", "lung": root / "a_lung.nii.gz"})
    assert first.reports == {"lung": "Clear."}
    assert first.findings == {"Cardiomegaly": True}
    assert (second.id, second.patient, second.findings) == ("8.5", "8.5", None)
    assert [(note.code, note.examples) for note in found.notes] == [("UNUSED_COLUMN", ("ward",))]


def test_json_lines_nested_and_flat_are_the_same(root: Path) -> None:
    same = {"image": "a.nii.gz"}
    nested = same | {
        "id": 7,
        "masks": {"lung": "a_lung.nii.gz"},
        "reports": {"lungs": "Clear.", "heart": None},
        "findings": {"Emphysema": True, "Cardiomegaly": 0},
    }
    flat = same | {
        "id": "7",
        "mask:lung": "a_lung.nii.gz",
        "report:lung": "Clear.",
        "finding:Emphysema": 1,
        "finding:Cardiomegaly": "0",
    }
    (study,) = manifest(root, [nested]).studies()
    assert manifest(root, [flat]).studies() == [study]
    assert study.id == "7"
    assert study.findings == {"Emphysema": True, "Cardiomegaly": False}


def test_template_of_region_files(root: Path) -> None:
    found = manifest(root, "id,image,report:lung\na,a.nii.gz,x\nb,b.nii.gz,x\n", masks="{id}_{region}.nii.gz")
    (study,) = found.studies()
    assert study.masks == RegionFiles({"heart": root / "a_heart.nii.gz", "lung": root / "a_lung.nii.gz"})
    assert codes(found) == [("b", "NO_MASK")]


def test_multilabel_masks_of_totalsegmentator(root: Path) -> None:
    found = manifest(root, "id,image,report:lung,report:breast\na,a.nii.gz,x,y\n", masks="seg/{id}.nii.gz",
                     label_map="totalsegmentator")  # fmt: skip
    (study,) = found.studies()
    assert isinstance(study.masks, LabelMap)
    assert study.masks.file == root / "seg/a.nii.gz"
    assert study.masks.labels["lung"] == (10, 11, 12, 13, 14)
    assert "breast" not in study.masks.labels
    assert {note.code: note.examples[0] for note in found.notes} == {
        "NO_SOURCE": "breast: no label in label_map. Not in total. The task breasts, class 1, gives it.",
        "TEXT_WITHOUT_MASK": "a breast",
    }


def test_multilabel_column_with_own_map(root: Path) -> None:
    text = "id,image,mask,report:lung\na,a.nii.gz,seg/a.nii.gz,x\n"
    (study,) = manifest(root, text, label_map={"Lungs": [1, 2]}).studies()
    assert study.masks == LabelMap(root / "seg/a.nii.gz", {"lung": (1, 2)})
    with pytest.raises(ConfigError, match=r"m.csv line 2.*label_map: totalsegmentator"):
        manifest(root, text).studies()


def test_renamed_columns_and_root(root: Path) -> None:
    (root / "tables").mkdir()
    table = root / "tables/m.csv"
    table.write_text("AccNum;nifti;report:lung;m\nx1;a.nii.gz;Clear.;a_lung.nii.gz\n")
    columns = {"id": "AccNum", "image": "nifti", "mask:lung": "m"}
    (study,) = Manifest(str(table), root=str(root), columns=columns, val_fraction=0.0).studies()
    assert (study.id, study.image) == ("x1", root / "a.nii.gz")
    with pytest.raises(DataFault, match="column AccNum, nifti, m missing; the header has: id, image"):
        manifest(root, "id,image\n", columns=columns).studies()


@pytest.mark.parametrize(
    "blob",
    [
        "blobs/" + 64 * "a",  # the cache of the Hugging Face hub
        "blobs/" + 40 * "b",
        "dvc/files/md5/0c/" + 30 * "c",
        "repo/.git/annex/objects/Xx/9z/SHA256E-s9--0d.nii.gz/SHA256E-s9--0d.nii.gz",
    ],
)
def test_files_that_are_links_into_a_store_of_blobs(tmp_path: Path, blob: str) -> None:
    """They keep the names that their links have, wherever the store lies; other links may not leave the folder."""
    root = tmp_path / "hub/snapshots/abc"
    for name in FILES:
        target = tmp_path / "hub" / blob
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    table = "id,image,mask:lung,report:lung\na,a.nii.gz,a_lung.nii.gz,x\n"
    for options in ({}, {"root": str(tmp_path / "hub")}, {"root": str(tmp_path)}):
        (study,) = manifest(root, table, **options).studies()
        assert study.image == root / "a.nii.gz"
        assert study.masks == RegionFiles({"lung": root / "a_lung.nii.gz"})
    masks = {"masks": "{id}_{region}.nii.gz"}
    (study,) = manifest(root, "id,image,report:lung\na,a.nii.gz,x\n", **masks).studies()
    assert list(study.masks.files) == ["heart", "lung"]
    (tmp_path / "secret.nii.gz").touch()
    (root / "b.nii.gz").unlink()
    (root / "b.nii.gz").symlink_to(tmp_path / "secret.nii.gz")
    found = manifest(root, "id,image,mask:lung,report:lung\nb,b.nii.gz,a_lung.nii.gz,x\n")
    assert codes(found) == [("b", "UNSAFE_PATH")]
    (root / "a_heart.nii.gz").unlink()
    (root / "a_heart.nii.gz").symlink_to(tmp_path / "secret.nii.gz")
    assert codes(manifest(root, "id,image,report:lung\na,a.nii.gz,x\n", **masks)) == [("a", "UNSAFE_PATH")]


def test_paths_relative_to_a_table_below_the_root(root: Path) -> None:
    (root / "tables").mkdir()
    (root / "tables/a.nii.gz").touch()
    text = "id,image,report\na,../seg/a.nii.gz,x\nb,b.nii.gz,x\nc,a.nii.gz,x\nd,../../d.nii.gz,x\n"
    found = manifest(root / "tables", text, root=str(root))
    assert [study.image for study in found.studies()] == [
        root / "seg/a.nii.gz",
        root / "b.nii.gz",
        root / "a.nii.gz",  # what the root has comes first
    ]
    assert codes(found) == [("d", "UNSAFE_PATH")]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("report:lnug", r"column 'report:lnug': Unknown region 'lnug'.*Did you mean 'lung'"),
        ("reprot:lung", r"starts with an unknown word. Did you mean 'report'"),
        ("mask:spleen", r"Unknown region 'spleen'"),
        ("report:Lungs", r"the columns 'report:lung' and 'report:Lungs' mean the same"),
    ],
)
def test_columns_that_cannot_be_meant(root: Path, column: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        manifest(root, f"id,image,report:lung,{column}\na,a.nii.gz,x,y\n").studies()


def test_missing_required_column(root: Path) -> None:
    with pytest.raises(DataFault, match=r"column image missing; the header has: id, imgae.*Did you mean 'imgae'"):
        manifest(root, "id,imgae\na,b\n").studies()


def test_bad_rows_are_skipped_with_line_and_reason(root: Path) -> None:
    found = manifest(
        root,
        "id,image,mask:lung,split,report:lung,finding:X\n"
        "a,a.nii.gz,a_lung.nii.gz,train,x,\n"
        "a,a.nii.gz,a_lung.nii.gz,train,x,\n"
        "b,nowhere.nii.gz,a_lung.nii.gz,train,x,\n"
        "c,a.nii.gz,gone.nii.gz,train,x,\n"
        "d,../../etc/passwd,a_lung.nii.gz,train,x,\n"
        "e,a.nii.gz,a_lung.nii.gz,holdout,x,\n"
        "f,a.nii.gz,a_lung.nii.gz,train,,\n"
        "g,a.nii.gz,,train,x,\n"
        "h,a.nii.gz,a_lung.nii.gz,train,x,maybe\n"
        "../i,a.nii.gz,a_lung.nii.gz,train,x,\n"
        "j,,a_lung.nii.gz,train,x,\n"
        "k,a.nii.gz,a_lung.nii.gz,test,,\n",
    )
    assert [study.id for study in found.studies()] == ["a", "k"]
    assert sorted(code for _, code in codes(found)) == sorted(
        ["DUPLICATE_STUDY", "VOLUME_MISSING", "MASK_MISSING", "UNSAFE_PATH", "BAD_SPLIT", "NO_REPORT", "NO_MASK",
         "BAD_FINDING", "UNSAFE_ID", "VOLUME_MISSING"])  # fmt: skip
    for skip in found.skipped:
        assert "Fix:" in skip.message


def test_broken_json_lines_are_all_named(root: Path) -> None:
    path = root / "m.jsonl"
    path.write_text('{"id": 1, "image": "a.nii.gz"}\n{"id": \n\n[1]\n{"id": [1], "image": "a"}\n{"id": "\\ud800"}\n')
    with pytest.raises(
        DataFault, match=r"3 broken rows: line 2 is not JSON \(.*\); line 4 is a list, no object; line 5: id holds list"
    ):
        Manifest(str(path)).listing()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": "seg/{id}.nii.gz"}, "label_map is not set"),
        ({"masks": "seg/{region}.nii.gz"}, "share one file"),
        ({"masks": "seg/{study}.nii.gz"}, "only {id} and {region}"),
        ({"masks": "seg/{"}, "only {id} and {region}"),
        ({"label_map": "totalsegmentor"}, "Did you mean 'totalsegmentator'"),
        ({"label_map": {"lnug": [1]}}, "Did you mean 'lung'"),
        ({"label_map": {}}, "no region any label"),
        ({"val_fraction": -1.0}, "val_fraction"),
        ({"encoding": "utf9"}, "Did you mean 'utf-8'"),
        ({"regions": "radgenom"}, "Did you mean 'radgenome'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Manifest("nowhere.csv", **options)


def test_validation_is_carved_only_if_no_row_has_it(root: Path) -> None:
    row = "{0},a.nii.gz,a_lung.nii.gz,{1},x\n"
    header = "id,image,mask:lung,split,report:lung\n"
    carved = manifest(root, header + "".join(row.format(n, "train") for n in range(40)), val_fraction=0.2).studies()
    assert 2 <= sum(study.split == "val" for study in carved) <= 16
    given_rows = header + "".join(row.format(n, "valid" if n == 3 else "train") for n in range(40))
    assert [s.id for s in manifest(root, given_rows, val_fraction=0.2).studies() if s.split == "val"] == ["3"]


def test_no_study_at_all(root: Path) -> None:
    with pytest.raises(ConfigError, match="there is no study"):
        manifest(root, "id,image\n").studies()
    with pytest.raises(DataFault, match="TABLE_MISSING"):
        Manifest(str(root / "gone.csv")).studies()


BASE_CSV = 'id,image,mask:lung,report:lung\na,a.nii.gz,a_lung.nii.gz,"Clear, so."\nb,b.nii.gz,a_lung.nii.gz,x\n'
BASE_JSON = "".join(
    json.dumps({"id": n, "image": f"{n}.nii.gz", "masks": {"lung": "a_lung.nii.gz"}, "reports": {"lung": "x"}}) + "\n"
    for n in "ab"
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    name, base = draw(st.sampled_from([("m.csv", BASE_CSV), ("m.jsonl", BASE_JSON)]))
    data = bytearray(base.encode())
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 3))
        new = draw(st.one_of(st.binary(max_size=4), st.text(string.printable + "é\0", max_size=6).map(str.encode)))
        data[place : place + cut] = new
    return name, bytes(data)


@settings(max_examples=150, deadline=None)
@given(table=mutated())
def test_mutated_manifests_load_or_fail_with_a_place(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[str, bytes]
) -> None:
    root = tmp_path_factory.getbasetemp() / "mutated_manifest"
    root.mkdir(exist_ok=True)
    for name in FILES[:4]:
        (root / name).touch()
    (root / table[0]).write_bytes(table[1])
    try:
        found = Manifest(str(root / table[0]), regions=REGIONS, max_skip=1.0)
        studies = found.studies()
    except DataFault as fault:
        assert any(word in str(fault) for word in ("line ", "byte offset", "the header has"))  # noqa: PT017
        return
    except ConfigError as error:
        assert any(word in str(error) for word in ("column", "no study"))  # noqa: PT017
        return
    assert all(study.image.is_file() and study.image.parent == root for study in studies)
    assert all("Fix:" in skip.message for skip in found.skipped)


def test_registered_by_name() -> None:
    assert DATASETS.get("Manifest") is Manifest
