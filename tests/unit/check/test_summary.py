"""What a data set holds: by tables and headers, without a voxel."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_files import save, slices
from reg2rg.check import summary as module
from reg2rg.check.scripts import LATIN, NONE, TURKISH, script_of
from reg2rg.check.summary import Spread, summarise
from reg2rg.cli.main import main
from reg2rg.core.regions import load_region_set
from reg2rg.datasets import Manifest, ScanFolder

REGIONS = load_region_set("radgenome")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("No pleural effusion. Größe normal.", LATIN),
        ("Akciğer parankiminde nodül izlenmiş ve kalınlaşma yoktur.", TURKISH),
        ("双肺纹理清晰，CT示结节5mm。", "Chinese signs"),
        ("肺に結節を認めます。", "Japanese (kana)"),
        ("폐 결절이 있습니다.", "Korean (Hangul)"),
        ("В лёгких очагов нет, CT 1.", "Cyrillic letters"),
        ("لا توجد عقيدات", "Arabic letters"),
        ("12.5 - 3", NONE),
        ("", NONE),
    ],
)
def test_scripts(text, script) -> None:
    assert script_of(text) == script


def test_a_spread_keeps_counts_and_bounds_its_last_bin() -> None:
    assert Spread.of([]) == Spread(0)
    assert Spread.of([3, 3, 3]).quantiles == (3.0,) * 5
    many = Spread.of([*range(1000), 1_000_000])
    assert (many.count, sum(many.bins), many.quantiles[2], many.quantiles[-1]) == (1001, 1001, 500.0, 1e6)
    assert many.edges[-1] < 1100


@pytest.fixture
def table(tmp_path: Path) -> Path:
    affine = np.array([[0, 0, 2.5, 0], [-0.7, 0, 0, 0], [0, 0.8, 0, 0], [0, 0, 0, 1]])  # axes P, S, R
    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(np.zeros((20, 30, 40), np.int16), affine), tmp_path / f"{name}.nii.gz")
    cut = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(cut[: len(cut) // 2])  # its header is whole
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    for name in ("lung", "heart"):
        (tmp_path / f"{name}.nii.gz").touch()
    path = tmp_path / "t.csv"
    path.write_text(
        "id,patient,split,image,mask:lung,mask:heart,report,report:lung,finding:Cardiomegaly\n"
        "a,p,train,a.nii.gz,lung.nii.gz,heart.nii.gz,Clear lungs. No effusion.,Clear lungs.,1\n"
        "b,p,train,b.nii.gz,lung.nii.gz,,双肺清晰。,双肺清晰。,0\n"
        "c,q,test,cut.nii.gz,lung.nii.gz,,Clear lungs. No effusion.,,\n"
        "d,r,test,bad.nii.gz,lung.nii.gz,,,,\n"
        "e,r,test,absent.nii.gz,lung.nii.gz,,,,\n",
        encoding="utf-8",
    )
    return path


def test_numbers_of_a_table(table, monkeypatch) -> None:
    monkeypatch.setattr("reg2rg.scans.nifti.read_bytes", lambda *_: pytest.fail("a volume was read"))
    found = summarise(Manifest(str(table), val_fraction=0.0), REGIONS)
    assert (found.studies, found.patients) == ({"test": 2, "train": 2}, {"test": 2, "train": 1})
    assert found.skipped == {"VOLUME_MISSING": 1}
    assert (found.orientations, found.unreadable) == ({"PSR": 3}, {"NOT_NIFTI": 1})
    medians = {name: spread.quantiles[2] for name, spread in found.grids.items()}
    assert medians == {
        "spacing left-right (mm)": 2.5,
        "spacing back-front (mm)": 0.7,
        "spacing bottom-top (mm)": 0.8,
        "voxels left-right": 40.0,
        "voxels back-front": 20.0,
        "voxels bottom-top": 30.0,
        "extent left-right (mm)": 100.0,
        "extent back-front (mm)": 14.0,
        "extent bottom-top (mm)": 24.0,
    }
    masks = {share.name: share.having for share in found.masks}
    assert (masks["lung"], masks["heart"]) == ({"test": 2, "train": 2}, {"test": 0, "train": 1})
    assert {share.name: share.having for share in found.texts}["lung"] == {"test": 0, "train": 2}
    assert [(share.name, share.having, share.of) for share in found.labels] == [
        ("Cardiomegaly", {"train": 1}, {"train": 2})
    ]
    assert found.scripts == {LATIN: 2, "Chinese signs": 1}
    assert found.repeated == 2
    assert found.words["report"].count == 3
    assert found.words["report"].quantiles[2:] == (4.0, 4.9, 5.0), "five signs, four words"


def test_command_writes_page_and_numbers(table, tmp_path, capsys) -> None:
    assert main(["data", "summary", str(table), "--out", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Scans whose header cannot be read, or does not tell: NOT_NIFTI 1." in said
    assert "Reports by script: Latin letters 2, Chinese signs 1." in said
    found = json.loads((tmp_path / "out/summary.json").read_text())
    assert found["format"] == 1
    assert found["grids"]["spacing bottom-top (mm)"]["quantiles"][2] == 0.8
    page = (tmp_path / "out/summary.html").read_text()
    assert page.count("<svg") == 1, "grids that are all alike are not drawn"
    assert "4 studies of 3 patients" in page
    assert "src=" not in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_headers_of_dicom_are_kept_for_the_next_run(tmp_path, monkeypatch) -> None:
    for name in ("one", "two"):
        save(slices(), tmp_path / "in" / name)
    dataset = ScanFolder(str(tmp_path / "in"), images="{id}", masks=None)
    kept = tmp_path / "out/headers.jsonl"
    first = summarise(dataset, REGIONS, workers=0, kept=kept)
    assert first.grids["voxels bottom-top"].quantiles == (24.0,) * 5
    kept.write_text(kept.read_text()[:-9])  # what a kill leaves
    asked = []
    real = module.read_grid
    monkeypatch.setattr(module, "read_grid", lambda path, options: asked.append(path.name) or real(path, options))
    assert summarise(dataset, REGIONS, workers=0, kept=kept) == first
    assert len(asked) == 1
    assert summarise(dataset, REGIONS, workers=0, kept=kept) == first
    assert len(asked) == 1, "nothing is left to read"
