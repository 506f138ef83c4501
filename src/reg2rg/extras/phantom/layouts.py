"""The same phantoms in the layouts of other data sets, each as it is distributed.

``radgenome-archives``
    RadGenome-ChestCT with the masks in ``.tar.gz``: the train split's in three parts.
``ct-rate-v1``, ``ct-rate-v2``
    CT-RATE: values as stored with slope and intercept in the metadata, or HU in ``*_fixed``; two reconstructions of
    every second scan; reports and labels as CSV.
``ctrg-nifti``, ``ctrg-csv``, ``ctrg-npz``, ``ctrg-slices``
    CTRG-Chest-548K: NIfTI made of pictures with JSON or with CSV, arrays of HU / 1000, folders of PNG. The held-out
    studies have ids of Reg2RG's test set. Of some regions there is a text and no mask.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

from reg2rg.core.errors import ConfigError
from reg2rg.core.files import atomic_write
from reg2rg.core.labels import FINDINGS
from reg2rg.core.registry import did_you_mean
from reg2rg.datasets.ctrg import reg2rg_test
from reg2rg.extras.phantom.nifti import write_nifti
from reg2rg.extras.phantom.patient import Patient, draw_patient
from reg2rg.extras.phantom.sentences import labels, write_report
from reg2rg.extras.phantom.writer import Job, plan, write_csv, write_phantoms

RADGENOME = "radgenome"
_PARTS = 3
_TABLE_NAMES = {"train": "train", "valid": "validation"}
_INTERCEPTS = (-1024, -8192)  # of scanners, by turns
_PICTURE_WINDOW = (-1000, 400)  # HU that become 0 and 255
_UNMASKED = ("pleura", "mediastinum")  # regions whose masks are left out, by turns
_BRAIN = "Both cerebral hemispheres are symmetrical, and the midline is in the middle."

Voxels = npt.NDArray[np.int16]


def write_layout(
    out: str | Path,
    layout: str,
    studies: int,
    seed: int = 0,
    size: tuple[int, int, int] = (96, 96, 64),
    workers: int | None = None,
    first: int = 0,
    mr: bool = False,
) -> None:
    """Write phantoms in a layout; arguments as of `reg2rg.extras.phantom.writer.write_phantoms`.

    Raises:
        ConfigError: no such layout.
    """
    if layout == RADGENOME:
        write_phantoms(out, studies, seed, size, workers, first, mr)
        return
    if mr:
        raise ConfigError(f"layout {layout} is of CTs (mr is on). Fix: layout {RADGENOME}")
    if layout not in LAYOUTS:
        known = [RADGENOME, *LAYOUTS]
        raise ConfigError(f"layout is {layout!r}.{did_you_mean(layout, known)} Known: {', '.join(known)}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".drawn-") as drawn:
        write_phantoms(drawn, studies, seed, size, workers, first)
        LAYOUTS[layout](Path(drawn), out, plan(Path(drawn), studies, seed, size, first))


def _archives(drawn: Path, out: Path, jobs: Sequence[Job]) -> None:
    for entry in sorted(drawn.iterdir()):
        if not entry.name.endswith("_region_mask"):
            shutil.rmtree(out / entry.name, ignore_errors=True)
            shutil.copytree(entry, out / entry.name)
            continue
        archive = out / f"{entry.name}.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            tar.add(entry, entry.name)
        if entry.name.startswith("train"):
            _split(archive)


def _split(archive: Path) -> None:
    """Cut a file into parts, as ``split`` does, and remove it."""
    data = archive.read_bytes()
    step = -(-len(data) // _PARTS)
    for number in range(_PARTS):
        part = archive.with_name(f"{archive.name}.part-a{'abc'[number]}")
        part.write_bytes(data[number * step : (number + 1) * step])
    archive.unlink()


# ---- CT-RATE


def _ct_rate(fixed: bool) -> Callable[[Path, Path, Sequence[Job]], None]:
    def write(drawn: Path, out: Path, jobs: Sequence[Job]) -> None:
        for split in dict.fromkeys(job.split for job in jobs):
            _ct_rate_split(out, split, [job for job in jobs if job.split == split], fixed)

    return write


def _ct_rate_split(out: Path, split: str, jobs: Sequence[Job], fixed: bool) -> None:
    reports, truth, metadata = [], [], []
    for place, job in enumerate(jobs):
        volume, affine = read_phantom(job)
        told = [" ".join(sentences) for _, sentences in sorted(write_report(_patient(job)).items())]
        found = labels(_patient(job))
        scan = job.id.removesuffix("_1")
        for number in (1, 2) if place % 2 else (1,):
            name, inter = f"{scan}_{number}.nii.gz", _INTERCEPTS[place % len(_INTERCEPTS)]
            stored = volume if fixed else (volume.astype(np.int32) - inter).astype(np.int16)
            folder = out / (f"{split}_fixed" if fixed else split) / scan.rpartition("_")[0] / scan
            write_nifti(folder / name, stored, affine, f"reconstruction {number}")
            x, y, z = np.diag(affine)[:3]
            reports.append((name, "Not given.", "CT", " ".join(told), told[0]))
            truth.append((name, *(int(label in found) for label in FINDINGS)))
            metadata.append((name, "phantom", inter, 1, f"[{y}, {x}]", z))
    write_csv(
        out / "radiology_text_reports" / f"{_TABLE_NAMES[split]}_reports.csv",
        ("VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN"),
        reports,
    )
    write_csv(out / "multi_abnormality_labels" / f"{split}_predicted_labels.csv", ("VolumeName", *FINDINGS), truth)
    write_csv(
        out / "metadata" / f"{_TABLE_NAMES[split]}_metadata.csv",
        ("VolumeName", "Manufacturer", "RescaleIntercept", "RescaleSlope", "XYSpacing", "ZSpacing"),
        metadata,
    )


# ---- CTRG-Chest-548K


def _ctrg(form: str, table: str = "json") -> Callable[[Path, Path, Sequence[Job]], None]:
    def write(drawn: Path, out: Path, jobs: Sequence[Job]) -> None:
        rows: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
        texts: list[tuple[str, str, str]] = []
        names = ctrg_ids(jobs)
        for job in jobs:
            name, report = names[job.number], write_report(_patient(job))
            told = {region: " ".join(sentences) for region, sentences in sorted(report.items())}
            other = _BRAIN if job.number % 2 else ""
            _ctrg_files(out, name, job, form, _UNMASKED[job.number % len(_UNMASKED)])
            rows["test" if job.split == "valid" else "train"].append((name, " ".join([other, *told.values()]).strip()))
            texts += [(name, region, text) for region, text in told.items()] + [(name, "other", other)]
        rows["val"] = [rows["train"].pop()] if len(rows["train"]) > 1 else []
        write_csv(out / "region_texts.csv", ("id", "region", "text"), texts)
        _ctrg_tables(out, rows, form, table)

    return write


def ctrg_ids(jobs: Sequence[Job]) -> dict[int, str]:
    """Number of a study -> its id: held-out ones have ids of Reg2RG's test set, the others have none of them."""
    test = sorted(map(int, reg2rg_test()))
    train = [number for number in range(1804) if number not in set(test)]
    return {job.number: str((test if job.split == "valid" else train)[job.number]) for job in jobs}


def _ctrg_files(out: Path, name: str, job: Job, form: str, unmasked: str) -> None:
    """The volume and the masks. Voxels are 1 mm wide, for nobody knows better."""
    volume, _ = read_phantom(job)
    far = np.array(volume.shape) - 1
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -far  # RAS, the corner where a stack of slices begins in the origin
    slices = volume[::-1, ::-1, ::-1].transpose(2, 1, 0)  # (D, H, W) from head to feet
    if form == "npz":
        with atomic_write(out / f"{name}.npz") as stream:
            np.savez_compressed(stream, arr_0=(slices / 1000).astype(np.float32))
    elif form == "slices":
        for number, plane in enumerate(_picture(slices), start=1):
            file = out / name / f"{number:04}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(plane).save(file)
    else:
        write_nifti(out / f"{name}.nii.gz", _picture(volume), affine, "made of pictures")
    for file in sorted(job.mask("lung").parent.glob("*.nii.gz")):
        if file.name != f"{unmasked}.nii.gz":
            mask = np.asarray(nib.load(file).dataobj).astype(np.uint8)
            write_nifti(out / "masks" / name / file.name, mask, affine, "mask")


def _ctrg_tables(out: Path, rows: Mapping[str, Sequence[tuple[str, str]]], form: str, table: str) -> None:
    if table == "csv":
        for split, items in rows.items():
            cells = [(name, f"./Chest_new_1_volume/{name}.nii.gz", "", text) for name, text in items]
            write_csv(out / f"CTRG_{split}.csv", ("id", "image_path", "impression", "finding"), cells)
        return
    if form == "npz":
        value: dict[str, list[dict[str, object]]] = {
            split: [{"id": name, "image_path": [f"{name}.npz"], "findings": text, "clip_indices": []}
                    for name, text in items]
            for split, items in rows.items()
        }  # fmt: skip
    else:
        value = {split: [{"id": int(name), "finding": text} for name, text in items] for split, items in rows.items()}
    with atomic_write(out / "annotation.json", "w") as stream:
        json.dump(value, stream)


def _picture(volume: Voxels) -> npt.NDArray[np.uint8]:
    low, high = _PICTURE_WINDOW
    grey = np.rint((np.clip(volume, low, high).astype(np.float32) - low) * (255 / (high - low)))
    return np.asarray(grey, np.uint8)


def read_phantom(job: Job) -> tuple[Voxels, npt.NDArray[np.float64]]:
    """Voxels in HU, RAS, and affine of a phantom that was written."""
    image = nib.load(job.image)
    return np.asarray(image.dataobj).astype(np.int16), np.asarray(image.affine, np.float64)


def _patient(job: Job) -> Patient:
    return draw_patient(job.seed, job.number)


LAYOUTS: Mapping[str, Callable[[Path, Path, Sequence[Job]], None]] = {
    "radgenome-archives": _archives,
    "ct-rate-v1": _ct_rate(fixed=False),
    "ct-rate-v2": _ct_rate(fixed=True),
    "ctrg-nifti": _ctrg("nifti"),
    "ctrg-csv": _ctrg("nifti", "csv"),
    "ctrg-npz": _ctrg("npz"),
    "ctrg-slices": _ctrg("slices"),
}
"""Name -> what writes it: from the folder that was drawn, into the folder of the data set, the studies."""
