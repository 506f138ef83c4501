"""What has not changed is not looked at again; whatever has is."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from reg2rg.core.types import LabelMap, RegionFiles, Rescale, Study
from reg2rg.datasets.base import Dataset, Listing
from reg2rg.store.ledger import Ledger, Seal, seal_of, unchanged


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "scan").mkdir()
    for name in ("scan/1.dcm", "scan/2.dcm", "lung.nii", "more.raw", "out.r2g"):
        (tmp_path / name).write_text(name)
    return Study("s", "p", "train", tmp_path / "scan", RegionFiles({"lung": tmp_path / "lung.nii"}))


def opened(root: Path, settings: object = (1, "a")) -> Ledger:
    return Ledger.open(root / "done.json", settings)


def test_a_row_counts_while_no_file_differs(study, tmp_path) -> None:
    out, more = tmp_path / "out.r2g", tmp_path / "more.raw"
    ledger = opened(tmp_path)
    assert ledger.find(study, [out]) is None
    inputs = [str(tmp_path / "scan/1.dcm"), str(tmp_path / "lung.nii"), str(more)]
    ledger.add(study, ["lung", 7], [out], inputs)
    known = (str(tmp_path / "scan"), str(tmp_path / "lung.nii"), str(out), str(more))
    assert ledger.rows["s"].paths == known, "what lies in a folder comes with it"
    ledger.save()
    found = opened(tmp_path).find(study, [out])
    assert found is not None
    assert found.kept == ["lung", 7]
    assert opened(tmp_path, (1, "b")).find(study, [out]) is None, "of other settings"


CHANGES = [
    lambda root: (root / "scan/1.dcm").write_text("other"),
    lambda root: (root / "scan/3.dcm").write_text("added"),
    lambda root: (root / "scan/2.dcm").unlink(),
    lambda root: (root / "lung.nii").write_text("lung.nix"),
    lambda root: os.utime(root / "more.raw"),
    lambda root: (root / "out.r2g").unlink(),
    lambda root: (root / "out.r2g").replace(root / "moved") and (root / "out.r2g").write_text("out.r2g"),
    lambda root: (root / "done.json").write_text((root / "done.json").read_text().replace('"s"', '"t"')),
    lambda root: (root / "done.json").write_bytes((root / "done.json").read_bytes()[:-70]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_noticed(study, tmp_path, change) -> None:
    ledger = opened(tmp_path)
    ledger.add(study, None, [tmp_path / "out.r2g"], [str(tmp_path / "more.raw")])
    ledger.save(Seal("listed", ["kept"], [str(tmp_path / "scan")]))
    assert unchanged(tmp_path / "done.json", (1, "a"), "listed") == ["kept"]
    change(tmp_path)
    assert unchanged(tmp_path / "done.json", (1, "a"), "listed") is None, "nor is the run the one before"
    ledger = opened(tmp_path)
    assert ledger.find(study, [tmp_path / "out.r2g"]) is None
    assert not ledger.rows


def test_what_a_table_says_of_the_files_counts_too(study, tmp_path) -> None:
    (tmp_path / "a.nii").touch()
    one = replace(study, masks=LabelMap(tmp_path / "a.nii", {"lung": (1,)}))
    ledger = opened(tmp_path)
    for before, after in (
        (one, replace(one, masks=LabelMap(tmp_path / "a.nii", {"lung": (2,)}))),
        (study, replace(study, masks=RegionFiles({"heart": tmp_path / "lung.nii"}))),
        (study, replace(study, rescale=Rescale(1.0, -1024.0))),
        (study, replace(study, row=3)),
        (study, replace(study, image=tmp_path / "a.nii")),
    ):
        ledger.add(before, None)
        assert ledger.find(before) is not None
        assert ledger.find(after) is None
    gone = Study("t", "p", "train", tmp_path / "absent.nii")
    ledger.add(gone, None)
    assert "t" not in ledger.rows, "nothing is known of a file that is not there"


def test_of_masks_in_an_archive_its_parts_are_watched(study, tmp_path) -> None:
    packed = tmp_path / "masks.tar.gz"
    for part in ("aa", "ab"):
        packed.with_name(f"{packed.name}.part-{part}").write_text(part)
    inside = replace(study, masks=RegionFiles({"lung": packed / "seg_s" / "lung.nii.gz"}))
    ledger = opened(tmp_path)
    ledger.add(inside, None, inputs=[str(packed / "seg_s" / "lung.nii.gz")])
    assert [Path(path).name for path in ledger.rows["s"].paths[1:]] == [
        "masks.tar.gz.part-aa",
        "masks.tar.gz.part-ab",
    ]
    assert ledger.find(inside) is not None
    assert ledger.find(replace(study, masks=RegionFiles({"lung": packed / "seg_s" / "heart.nii.gz"}))) is None
    ledger.add(inside, None)
    packed.with_name(f"{packed.name}.part-ab").write_text("other")
    assert ledger.find(inside) is None


class Two(Dataset):
    """Lists nothing; says what it watches."""

    def __init__(self, root: Path, known: bool = True) -> None:
        super().__init__()
        self.root, self.known = root, known

    def scan(self) -> Listing:
        return Listing(())

    def watched(self):
        return [self.root] if self.known else None


def test_a_run_is_sealed_only_where_every_change_would_be_seen(tmp_path, monkeypatch) -> None:
    dataset = Two(tmp_path)
    dataset.listing()
    assert seal_of(dataset, "l", 1, []) is None, "the folder was changed a moment before: its clock may stand still"
    monkeypatch.setattr("reg2rg.store.ledger._SETTLED_NS", -(10**18))
    assert seal_of(dataset, "l", 1, [tmp_path / "out"]) == Seal("l", 1, [str(tmp_path), str(tmp_path / "out")])
    assert seal_of(dataset, None, 1, []) is None, "settings that nobody can tell"
    assert seal_of(Two(tmp_path, known=False), "l", 1, []) is None
    assert seal_of([], "l", 1, []) is None, "studies that no dataset lists"
    monkeypatch.setattr("reg2rg.store.ledger._loose_devices", lambda: {tmp_path.stat().st_dev})
    assert seal_of(dataset, "l", 1, []) is None, "a file system that may not keep the times of folders"


def test_a_seal_without_a_file_that_was_written_is_none(study, tmp_path) -> None:
    ledger = opened(tmp_path)
    ledger.save(Seal("l", 1, [str(tmp_path / "absent")]))
    assert unchanged(tmp_path / "done.json", (1, "a"), "l") is None
    ledger.save(Seal("l", 1, [str(tmp_path / "scan")]))
    assert unchanged(tmp_path / "done.json", (1, "b"), "l") is None
    assert unchanged(tmp_path / "done.json", (1, "a"), "m") is None
    (tmp_path / "scan/3.dcm").touch()
    assert unchanged(tmp_path / "done.json", (1, "a"), "l") is None, "a folder to which something was added"


@pytest.mark.parametrize("changed", [0, 63, 64, 149])
def test_many_studies_are_compared_together_and_a_change_of_any_is_noticed(tmp_path, changed) -> None:
    (tmp_path / "ct").mkdir()
    studies = [Study(f"{number:03}", "p", "train", tmp_path / f"ct/{number}.nii", None) for number in range(150)]
    ledger = opened(tmp_path)
    for study in studies:
        study.image.write_text(study.id)
        ledger.add(study, study.id)
    ledger.save(Seal("listed", "kept", [str(tmp_path / "ct")]))
    assert unchanged(tmp_path / "done.json", (1, "a"), "listed") == "kept"
    again = opened(tmp_path)
    assert [again.find(study).kept for study in studies] == [study.id for study in studies]
    again.save(Seal("listed", "again", [str(tmp_path / "ct")]))
    assert unchanged(tmp_path / "done.json", (1, "a"), "listed") == "again", "rows that were read and compared"
    studies[changed].image.write_text("other")
    assert unchanged(tmp_path / "done.json", (1, "a"), "listed") is None
    again = opened(tmp_path)
    assert [study.id for study in studies if again.find(study) is None] == [studies[changed].id]


def test_rows_that_were_not_compared_are_not_sealed(study, tmp_path) -> None:
    ledger = opened(tmp_path)
    ledger.add(study, None)
    ledger.save()
    opened(tmp_path).save(Seal("listed", "kept", []))
    assert unchanged(tmp_path / "done.json", (1, "a"), "listed") is None


def test_paths_are_kept_to_the_letter(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    for name in ("a/one.nii", "a/two.nii"):
        (tmp_path / name).write_text(name)
    for names in (["a//one.nii", "a/two.nii"], ["a/one.nii", "a/two.nii"], ["a/one.nii", str(tmp_path / "a/two.nii")]):
        ledger = opened(tmp_path)
        ledger.add(Study("s", "p", "train", Path("a"), None), None, inputs=())
        ledger.rows["t"] = replace(ledger.rows["s"], paths=tuple(names))
        ledger.save()
        assert opened(tmp_path).rows["t"].paths == tuple(names)
