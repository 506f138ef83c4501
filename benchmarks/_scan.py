"""A synthetic chest CT of any size with ten region masks, as .nii.gz files: the right amount of work, not anatomy.

Region shares of the volume are those of a chest: lung 13 %, pleura 4 %, bone 4 %, heart 3 %, and so on. Noise is 20 HU,
correlated between neighbours as reconstruction filters leave it; it decides how well scans compress.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np

from reg2rg.core.regions import load_region_set
from reg2rg.core.types import RegionFiles, Study

BODY = ((0.5, 0.5, 0.5), (0.42, 0.31, 2.0))
LUNGS = (((0.31, 0.5, 0.55), (0.13, 0.22, 0.40)), ((0.69, 0.5, 0.55), (0.13, 0.22, 0.40)))
REGIONS = {  # ellipsoids: centre and half axes as shares of the volume
    "abdomen": [((0.5, 0.5, 0.05), (0.36, 0.26, 0.20))],
    "breast": [((0.33, 0.80, 0.45), (0.08, 0.05, 0.12)), ((0.67, 0.80, 0.45), (0.08, 0.05, 0.12))],
    "esophagus": [((0.5, 0.40, 0.6), (0.015, 0.015, 0.5))],
    "heart": [((0.54, 0.58, 0.40), (0.10, 0.13, 0.20))],
    "lung": list(LUNGS),
    "mediastinum": [((0.5, 0.52, 0.55), (0.09, 0.20, 0.40))],
    "thyroid": [((0.5, 0.55, 0.95), (0.05, 0.03, 0.05))],
    "trachea and bronchie": [((0.5, 0.48, 0.80), (0.02, 0.02, 0.25))],
}
HU = {"abdomen": 60, "breast": -60, "esophagus": 20, "heart": 45, "lung": -850, "mediastinum": 20, "thyroid": 110}


def write_study(folder: Path, size: tuple[int, int, int], seed: int = 0) -> Study:
    """Write the scan and its masks, unless they are there."""
    files = {name: folder / f"{name}.nii.gz" for name in load_region_set().names}
    study = Study("scan", "patient", "train", folder / "ct.nii.gz", RegionFiles(files))
    if (folder / "done.json").exists():
        return study
    folder.mkdir(parents=True, exist_ok=True)
    body = _ellipsoids(size, [BODY])
    lung = _ellipsoids(size, REGIONS["lung"])
    masks = {name: _ellipsoids(size, shapes) & body for name, shapes in REGIONS.items()}
    wide = [(centre, tuple(1.06 * axis for axis in axes)) for centre, axes in LUNGS]
    masks["pleura"] = _ellipsoids(size, wide) & ~lung & body
    inner = _ellipsoids(size, [(BODY[0], tuple(0.9 * axis for axis in BODY[1]))])
    ribs = (np.arange(size[2]) * 12 // size[2]) % 2 == 0
    spine = _ellipsoids(size, [((0.5, 0.28, 0.5), (0.05, 0.05, 2.0))])
    masks["bone"] = (body & ~inner & ribs) | spine
    hu = np.full(size, -1000, dtype=np.float32, order="F")
    hu[body] = -80
    for name in (*HU, "bone"):
        hu[masks[name]] = HU.get(name, 400)
    hu[masks["trachea and bronchie"]] = -990
    _add_noise(hu, np.random.default_rng(seed))
    affine = np.diag([350 / size[0], 350 / size[1], 300 / size[2], 1.0])
    _save(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), affine, study.image)
    for name, mask in masks.items():
        _save(mask.astype(np.uint8), affine, files[name])
    (folder / "done.json").write_text(json.dumps({"size": size, "seed": seed}))
    return study


def _add_noise(hu: np.ndarray, rng: np.random.Generator) -> None:
    """20 HU, correlated in plane and a little between slices."""
    previous = None
    for index in range(hu.shape[2]):
        plane = rng.standard_normal((hu.shape[0], hu.shape[1]), dtype=np.float32)
        plane = plane + 0.5 * (np.roll(plane, 1, 0) + np.roll(plane, 1, 1))
        mixed = plane if previous is None else 0.9 * plane + 0.44 * previous
        previous = plane
        hu[:, :, index] += np.float32(20 / 1.22) * mixed


def _ellipsoids(size: tuple[int, int, int], shapes: list) -> np.ndarray:
    mask = np.zeros(size, dtype=bool, order="F")
    for centre, axes in shapes:
        parts = [((np.arange(n) / n - c) / a) ** 2 for n, c, a in zip(size, centre, axes, strict=True)]
        plane = parts[0][:, None] + parts[1][None, :]
        for index, height in enumerate(parts[2]):
            if height < 1:
                mask[:, :, index] |= plane < 1 - height
    return mask


def _save(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    data = nib.Nifti1Image(array, affine).to_bytes()
    path.write_bytes(gzip.compress(data, compresslevel=1, mtime=0))
