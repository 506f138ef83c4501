"""What has not changed is not looked at again; whatever has is."""

import os
from pathlib import Path

import pytest

from reg2rg.core.types import LabelMap, RegionFiles, Study
from reg2rg.store.ledger import Ledger


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
    assert ledger.rows["s"].more == (str(more),), "what lies in a folder comes with it"
    ledger.save()
    found = opened(tmp_path).find(study, [out])
    assert found is not None
    assert found.kept == ["lung", 7]
    assert opened(tmp_path, (1, "b")).find(study, [out]) is None, "of other settings"


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "scan/1.dcm").write_text("other"),
        lambda root: (root / "scan/3.dcm").write_text("added"),
        lambda root: (root / "scan/2.dcm").unlink(),
        lambda root: (root / "lung.nii").write_text("lung.nix"),
        lambda root: os.utime(root / "more.raw"),
        lambda root: (root / "out.r2g").unlink(),
        lambda root: (root / "out.r2g").replace(root / "moved") and (root / "out.r2g").write_text("out.r2g"),
        lambda root: (root / "done.json").write_text((root / "done.json").read_text().replace('"s"', '"t"')),
    ],
)
def test_any_change_is_noticed(study, tmp_path, change) -> None:
    ledger = opened(tmp_path)
    ledger.add(study, None, [tmp_path / "out.r2g"], [str(tmp_path / "more.raw")])
    ledger.save()
    change(tmp_path)
    ledger = opened(tmp_path)
    assert ledger.find(study, [tmp_path / "out.r2g"]) is None
    assert not ledger.rows


def test_labels_of_a_map_count_too(tmp_path) -> None:
    (tmp_path / "a.nii").touch()
    one = Study("s", "p", "train", tmp_path / "a.nii", LabelMap(tmp_path / "a.nii", {"lung": (1,)}))
    other = Study("s", "p", "train", tmp_path / "a.nii", LabelMap(tmp_path / "a.nii", {"lung": (2,)}))
    ledger = opened(tmp_path)
    ledger.add(one, None)
    assert ledger.find(one) is not None
    assert ledger.find(other) is None
    gone = Study("t", "p", "train", tmp_path / "absent.nii")
    ledger.add(gone, None)
    assert "t" not in ledger.rows, "nothing is known of a file that is not there"
