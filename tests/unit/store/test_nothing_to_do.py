"""`check` and `prepare` over what has not changed: the same outcome without a listing; any change ends that."""

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from reg2rg.check.run import check_dataset
from reg2rg.core.errors import Reg2RGError
from reg2rg.datasets.base import Dataset
from reg2rg.datasets.manifest import Manifest
from reg2rg.datasets.radgenome import RadGenome
from reg2rg.datasets.signature import signature
from reg2rg.scans.base import ReadOptions
from reg2rg.store.prepare import prepare

LUNG, HEART = (slice(3, 7), slice(4, 9), slice(4, 12)), (slice(9, 13), slice(6, 10), slice(6, 10))
OPTIONS = ReadOptions(implausible="ignore")


def scan(seed: int) -> tuple[nib.Nifti1Image, dict[str, nib.Nifti1Image]]:
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    array = np.full((16, 16, 16), -1000, np.int16)
    array[2:14, 3:12] = np.random.default_rng(seed).integers(-40, 60, (12, 9, 16))
    masks = {}
    for name, box in (("lung", LUNG), ("heart", HEART)):
        mask = np.zeros(array.shape, np.uint8)
        mask[box] = 1
        masks[name] = nib.Nifti1Image(mask, affine)
    return nib.Nifti1Image(array, affine), masks


@pytest.fixture(autouse=True)
def settled(monkeypatch) -> None:
    monkeypatch.setattr("reg2rg.store.ledger._SETTLED_NS", -(10**18))  # files that were made a moment ago count


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = ["id,image,mask:lung,mask:heart,report:lung"]
    for number in range(3):
        image, masks = scan(number)
        (tmp_path / "ct").mkdir(exist_ok=True)
        nib.save(image, tmp_path / f"ct/s{number}.nii")
        for name, mask in masks.items():
            nib.save(mask, tmp_path / f"ct/s{number}_{name}.nii")
        rows.append(f"s{number},ct/s{number}.nii,ct/s{number}_lung.nii,ct/s{number}_heart.nii,A nodule.")
    (tmp_path / "studies.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def dataset(root: Path) -> Manifest:
    return Manifest(str(root / "studies.csv"), val_fraction=0.0)


def both(root: Path) -> tuple:
    found = check_dataset(dataset(root), options=OPTIONS, workers=0, overlays=1, out=root / "out")
    return found, prepare(dataset(root), root / "store", options=OPTIONS, workers=0)


def never(self: Dataset) -> None:
    raise AssertionError("the listing was made")


def test_nothing_to_do_is_the_run_before_without_a_listing(root, monkeypatch) -> None:
    first, built = both(root)
    assert (built.built, built.kept) == (3, 0)
    told = (root / "out/check.json").read_bytes(), (root / "store/summary.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "scan", never)
        again, kept = both(root)
    assert again == first
    assert (kept.built, kept.kept, kept.regions, kept.size) == (0, 3, built.regions, built.size)
    assert told == ((root / "out/check.json").read_bytes(), (root / "store/summary.json").read_bytes())
    check_dataset(dataset(root), options=OPTIONS, workers=0, overlays=1, out=root / "out", check_contents=True)
    assert prepare(dataset(root), root / "store", options=OPTIONS, workers=0, check_contents=True).kept == 3


def rewritten(root: Path) -> None:
    """Other voxels, with the size and the date of the old ones."""
    path = root / "ct/s1.nii"
    before = path.stat()
    image, _ = scan(77)
    nib.save(image, path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def swapped(root: Path) -> None:
    """The table calls each mask by the name of the other; no file but the table changes."""
    path = root / "studies.csv"
    path.write_text(path.read_text().replace("mask:lung,mask:heart", "mask:heart,mask:lung"))


def other_text(root: Path) -> None:
    path = root / "studies.csv"
    path.write_text(path.read_text().replace("A nodule.", "No nodule"))


def one_more(root: Path) -> None:
    path = root / "studies.csv"
    path.write_text(path.read_text() + "s3,ct/s0.nii,ct/s0_lung.nii,ct/s0_heart.nii,A nodule.\n")


def relinked(root: Path) -> None:
    """The folder of scans is a link now, to copies with other voxels."""
    shutil.copytree(root / "ct", root / "other")
    nib.save(scan(77)[0], root / "other/s1.nii")
    (root / "ct").rename(root / "old")
    (root / "ct").symlink_to("other")


CHANGES = {
    rewritten: {"rebuilt": 1, "kept": 2},
    swapped: {"rebuilt": 3},
    other_text: {"kept": 3},
    one_more: {"built": 1, "kept": 3},
    relinked: {"rebuilt": 1, "kept": 2},
    lambda root: (root / "store/native/s2.r2g").unlink(): {"built": 1, "kept": 2},
    lambda root: (root / "store/summary.json").unlink(): {"kept": 3},
    lambda root: (root / "store/native/.s1.r2g.tmp.9").write_text("left by a run that was killed"): {"kept": 3},
    lambda root: (root / "out/check.json").write_text("{}"): {"kept": 3},
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_looked_at(root, change) -> None:
    both(root)
    both(root)
    change(root)
    found, made = both(root)
    counts = {name: count for name in ("kept", "built", "rebuilt") if (count := getattr(made, name))}
    assert counts == CHANGES[change]
    shutil.rmtree(root / "out")
    assert found == both(root)[0], "as a check that knows nothing of an earlier one"
    assert (root / "store/summary.json").is_file()
    assert not list((root / "store/native").glob(".*"))


def test_a_link_to_another_folder_is_noticed(root) -> None:
    (root / "ct").rename(root / "v1")
    (root / "ct").symlink_to("v1")
    both(root)
    shutil.copytree(root / "v1", root / "v2")
    nib.save(scan(77)[0], root / "v2/s0.nii")
    (root / "ct").unlink()
    (root / "ct").symlink_to("v2")
    assert both(root)[1].rebuilt == 1


def test_a_set_with_a_fault_is_listed_each_time(root) -> None:
    (root / "ct/s1_heart.nii").write_bytes(b"")
    first = check_dataset(dataset(root), options=OPTIONS, workers=0, overlays=0, out=root / "out")
    assert first.faults
    nib.save(scan(1)[1]["heart"], root / "ct/s1_heart.nii")
    assert not check_dataset(dataset(root), options=OPTIONS, workers=0, overlays=0, out=root / "out").faults


@pytest.fixture
def published(tmp_path: Path) -> RadGenome:
    for number in (1, 2):
        image, masks = scan(number)
        name = f"train_{number}_a_1"
        (tmp_path / f"train_preprocessed/train_{number}/train_{number}a").mkdir(parents=True)
        nib.save(image, tmp_path / f"train_preprocessed/train_{number}/train_{number}a/{name}.nii.gz")
        (tmp_path / f"train_region_mask/seg_{name}").mkdir(parents=True)
        for region, mask in masks.items():
            nib.save(mask, tmp_path / f"train_region_mask/seg_{name}/{region}.nii.gz")
    (tmp_path / "radgenome_files").mkdir()
    rows = [f"train_{number}_a_1.nii.gz,lung,A nodule." for number in (1, 2)]
    table = "Volumename,Anatomy,Sentence\n" + "\n".join(rows) + "\n"
    (tmp_path / "radgenome_files/train_region_report.csv").write_text(table)
    return RadGenome(str(tmp_path), test=None, val_fraction=0.0)


def again(data: RadGenome) -> RadGenome:
    return RadGenome(str(data.root), test=None, val_fraction=0.0)


def test_radgenome_is_not_listed_again_until_a_file_comes(published, monkeypatch) -> None:
    root = published.root
    assert prepare(published, root / "store", options=OPTIONS, workers=0).built == 2
    with monkeypatch.context() as patch:
        patch.setattr(RadGenome, "scan", never)
        assert prepare(again(published), root / "store", options=OPTIONS, workers=0).kept == 2
    nib.save(scan(1)[1]["heart"], root / "train_region_mask/seg_train_1_a_1/bone.nii.gz")
    made = prepare(again(published), root / "store", options=OPTIONS, workers=0)
    assert (made.rebuilt, made.kept) == (1, 1)
    scan_folder = root / "train_preprocessed/train_3/train_3a"
    scan_folder.mkdir(parents=True)
    nib.save(scan(3)[0], scan_folder / "train_3_a_1.nii.gz")
    with pytest.raises(Reg2RGError, match="NO_REPORT"):  # a scan that no table describes
        prepare(again(published), root / "store", options=OPTIONS, workers=0)


def test_the_signature_tells_settings_apart_or_says_that_it_cannot(root) -> None:
    one = signature(dataset(root))
    assert one == signature(dataset(root)) is not None
    assert one != signature(Manifest(str(root / "studies.csv"), val_fraction=0.1))
    assert one != signature(Manifest(str(root / "studies.csv"), regions="lobes", val_fraction=0.0))
    odd = dataset(root)
    odd.root = object()  # type: ignore[assignment]
    assert signature(odd) is None
    assert signature([]) is None
