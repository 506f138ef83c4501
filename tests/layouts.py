"""Small data folders in the layouts of CTRG-Chest-548K, CT-RATE and RadGenome-ChestCT, to plant faults in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

SHAPE = (24, 26, 20)
AFFINE = np.diag([4.0, 4.0, 5.0, 1.0])
WINDOW = (-1000, 200)


def chest(seed: int = 0) -> np.ndarray:
    """(24, 26, 20) int16 HU in RAS: a body with two lungs, its spine behind, and noise."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    volume = np.where(x**2 + (1.2 * y) ** 2 < 0.8, 40, -1000)
    for side in (-0.4, 0.4):
        volume[((x - side) / 0.25) ** 2 + (y / 0.4) ** 2 + (z / 0.7) ** 2 < 1] = -820
    volume[(np.abs(x) < 0.12) & (np.abs(y + 0.55) < 0.15)] = 400
    noise = np.random.default_rng(seed).integers(-9, 10, SHAPE)
    return (volume + noise).astype(np.int16)


def lungs() -> np.ndarray:
    return (chest() < -700) & (chest() > -900)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def as_slices(volume: np.ndarray) -> np.ndarray:
    """RAS -> (D, H, W), from head to feet."""
    return volume[::-1, ::-1, ::-1].transpose(2, 1, 0)


def as_picture(volume: np.ndarray) -> np.ndarray:
    low, high = WINDOW
    return np.rint((np.clip(volume, low, high).astype(np.float32) - low) * 255 / (high - low)).astype(np.uint8)


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [columns, *rows]
    path.write_text("".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in lines))
    return path


# ---- CTRG-Chest-548K

CTRG_IDS = ("1", "2", "4", "3", "6")  # the last two are of Reg2RG's test set


def ctrg_rows(ids: Sequence[str] = CTRG_IDS) -> dict[str, list[dict[str, Any]]]:
    rows = [{"id": int(name), "finding": f"Findings of {name}."} for name in ids]
    return {"train": rows[:3], "val": [], "test": rows[3:]}


def ctrg(root: Path, form: str = "npz", rows: Mapping[str, Any] | None = None, ids: Sequence[str] = CTRG_IDS) -> Path:
    """annotation.json, and one volume and lung mask for each id."""
    root.mkdir(exist_ok=True)
    (root / "annotation.json").write_text(json.dumps(ctrg_rows() if rows is None else rows))
    far = np.array(SHAPE) - 1
    affine = np.eye(4)
    affine[:3, 3] = -far
    for number, name in enumerate(ids):
        volume = chest(number)
        if form == "npz":
            np.savez_compressed(root / f"{name}.npz", arr_0=(as_slices(volume) / 1000).astype(np.float32))
        elif form == "slices":
            slices(root / name, as_picture(as_slices(volume)))
        elif form == "nifti":
            nifti(root / f"{name}.nii.gz", as_picture(volume), affine)
        else:
            (root / f"{name}.nii.gz").touch()
        if form:
            nifti(root / "masks" / name / "lung.nii.gz", lungs().astype(np.uint8), affine)
        else:
            (root / "masks" / name).mkdir(parents=True)
            (root / "masks" / name / "lung.nii.gz").touch()
    return root


def slices(folder: Path, planes: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, plane in enumerate(planes, start=1):
        Image.fromarray(plane).save(folder / f"{number}.png")
    return folder


# ---- CT-RATE

SCANS = ("train_1_a", "train_2_a", "valid_1_a")
COLUMNS = ("VolumeName", "RescaleIntercept", "RescaleSlope", "XYSpacing", "ZSpacing")


def ct_rate(root: Path, release: str = "v2", real: bool = True, inter: int = -1024) -> Path:
    """Three scans with two reconstructions each."""
    root.mkdir(parents=True, exist_ok=True)
    for number, scan in enumerate(SCANS):
        split, patient = scan.partition("_")[0], scan.rpartition("_")[0]
        folder = root / (f"{split}_fixed" if release == "v2" else split) / patient / scan
        for reconstruction in (1, 2):
            path = folder / f"{scan}_{reconstruction}.nii.gz"
            volume = chest(10 * number + reconstruction)
            if real:
                nifti(path, volume if release == "v2" else (volume.astype(np.int32) - inter).astype(np.int16))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                path.touch()
    for split, word in (("train", "train"), ("valid", "validation")):
        names = [f"{scan}_{n}.nii.gz" for scan in SCANS if scan.startswith(split) for n in (1, 2)]
        texts = [(name, "Not given.", f"Findings of {name[:9]}.", "Normal.") for name in names]
        write_table(root / "radiology_text_reports" / f"{word}_reports.csv",
                    ("VolumeName", "ClinicalInformation_EN", "Findings_EN", "Impressions_EN"), texts)  # fmt: skip
        write_table(root / "metadata" / f"{word}_metadata.csv", COLUMNS,
                    [(name, inter, 1, "[4.0, 4.0]", 5.0) for name in names])  # fmt: skip
        write_table(root / "multi_abnormality_labels" / f"{split}_predicted_labels.csv",
                    ("VolumeName", "Cardiomegaly", "Lung nodule"), [(name, 1, 0) for name in names])  # fmt: skip
    return root


# ---- RadGenome-ChestCT

RADGENOME = ("train_1_a_1", "train_2_a_1", "valid_1_a_1")


def radgenome(root: Path, real: bool = True) -> Path:
    """Three studies; the masks of each split in an archive."""
    for number, study in enumerate(RADGENOME):
        split, patient = study.partition("_")[0], study.rsplit("_", 2)[0]
        path = root / f"{split}_preprocessed" / patient / f"{patient}a" / f"{study}.nii.gz"
        if real:
            nifti(path, chest(number))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    mask = nifti(root / "lung.nii.gz", lungs().astype(np.uint8)).read_bytes()
    (root / "lung.nii.gz").unlink()
    for split, word in (("train", "train"), ("valid", "validation")):
        studies = [study for study in RADGENOME if study.startswith(split)]
        with tarfile.open(root / f"{split}_region_mask.tar.gz", "w:gz") as tar:
            for study in studies:
                entry = tarfile.TarInfo(f"{split}_region_mask/seg_{study}/lung.nii.gz")
                entry.size = len(mask)
                tar.addfile(entry, io.BytesIO(mask))
        rows = [(f"{study}.nii.gz", "lung", f"Lungs of {study}.") for study in studies]
        write_table(root / "radgenome_files" / f"{word}_region_report.csv", ("Volumename", "Anatomy", "Sentence"), rows)
    return root
