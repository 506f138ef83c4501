"""Phantoms as features of others: grids and organ masks in the published layout of ORCA-3DCT's COLIPRI features.

::

    uncompressed/colipri/<split>/<id>.npy                            (24, 24, 24, 768) float16
    compressed/colipri/colipri_GridAvg_b216_d768/<split>.npy         (studies, 216, 768) float16
    compressed/colipri/colipri_GridAvg_b216_d768/<split>_ids.txt     an id a row
    organ_masks/<split>/<id>.npz                                     masks (11, 24, 24, 24) float16, 0 to 1

The numbers are none of COLIPRI's: what a cell of the phantom holds (its darkest, mean and brightest HU, its spread), by
a fixed random map to 768 channels. The frame is COLIPRI's: a cube of 384 mm around the middle of the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from reg2rg.core.files import atomic_write
from reg2rg.core.types import Volume
from reg2rg.extras.phantom.writer import Job
from reg2rg.scans.nifti import NIfTI

Floats = npt.NDArray[np.float32]

CELLS, CHANNELS, EDGE = 24, 768, 384.0  # cells along an edge, numbers a cell, mm
POOLED = "compressed/colipri/colipri_GridAvg_b216_d768"
GRIDS, MASKS = "uncompressed/colipri", "organ_masks"
ORGANS = {
    "lung": "lung",
    "airway": "trachea and bronchie",
    "heart": "heart",
    "aorta": "",
    "central vessels": "",
    "mediastinum": "mediastinum",
    "hiatus": "",
    "pleura": "pleura",
    "chest-wall bone": "bone",
    "thoracic spine": "bone",
    "upper abdomen": "abdomen",
}
"""Channel of the masks -> region of the phantom that it is drawn from, ``""`` for what the phantom does not have."""
_FINE = 2  # samples along each edge of a cell
_SPINE = 30.0  # mm from the middle of the body to either side


def write_features(jobs: Sequence[Job], out: Path, grids: bool = False) -> None:
    """Write features and masks of phantoms that are already there.

    Args:
        jobs: the phantoms.
        out: folder.
        grids: write each whole grid (21 MB) too, not the averages alone.
    """
    pooled: dict[str, list[Floats]] = {}
    for job in jobs:
        volume, masks = _read(job)
        features = _features(volume)
        pooled.setdefault(job.split, []).append(features.reshape(6, 4, 6, 4, 6, 4, CHANNELS).mean((1, 3, 5)))
        if grids:
            _save(out / GRIDS / job.split / f"{job.id}.npy", features.astype(np.float16))
        with atomic_write(out / MASKS / job.split / f"{job.id}.npz") as stream:
            np.savez_compressed(stream, masks=masks.astype(np.float16))
    for split, arrays in pooled.items():
        _save(out / POOLED / f"{split}.npy", np.stack(arrays).reshape(len(arrays), -1, CHANNELS).astype(np.float16))
        with atomic_write(out / POOLED / f"{split}_ids.txt", "w") as text:
            text.writelines(f"{job.id}\n" for job in jobs if job.split == split)


def _save(path: Path, array: npt.NDArray[np.float16]) -> None:
    with atomic_write(path) as stream:
        np.save(stream, array, allow_pickle=False)


def _read(job: Job) -> tuple[Volume, Floats]:
    """The scan, and the organs' shares of cells, (11, 24, 24, 24)."""
    image = NIfTI().read(job.image)
    volume = Volume(image.values().astype(np.int16), image.affine)
    regions: dict[str, npt.NDArray[np.bool_]] = {}
    for region in {region for region in ORGANS.values() if region and job.mask(region).is_file()}:
        drawn = NIfTI().read(job.mask(region)).values()
        regions[region] = _sampled(Volume(drawn.astype(np.int16), image.affine), 0) > 0.5
    nothing = np.zeros((CELLS * _FINE,) * 3, bool)
    spine = np.abs(np.arange(CELLS * _FINE) - CELLS * _FINE / 2 + 0.5) < _SPINE * CELLS * _FINE / EDGE
    organs = []
    for organ, region in ORGANS.items():
        mask = regions.get(region, nothing)
        if region == "bone" and mask.any():
            behind = np.arange(mask.shape[1]) < np.flatnonzero(mask.any(axis=(0, 2))).mean()
            back = spine[:, None, None] & behind[None, :, None]
            mask = mask & (back if organ == "thoracic spine" else ~back)
        organs.append(_blocks(mask.astype(np.float32)).mean(-1))
    return volume, np.stack(organs)


def _sampled(volume: Volume, order: int) -> Floats:
    """(48, 48, 48) values in COLIPRI's cube; what lies outside of the scan is its lowest value."""
    shape = np.array(volume.array.shape)
    middle = volume.affine @ [*((shape - 1) / 2), 1]
    step = EDGE / (CELLS * _FINE)
    cube = np.diag([step, step, step, 1.0])
    cube[:3, 3] = middle[:3] - EDGE / 2 + step / 2
    to_voxels = np.linalg.inv(volume.affine) @ cube
    low = float(volume.array.min())
    size = (CELLS * _FINE,) * 3
    found = ndimage.affine_transform(
        volume.array.astype(np.float32), to_voxels[:3, :3], to_voxels[:3, 3], size, order=order, cval=low
    )
    return np.asarray(found, np.float32)


def _blocks(fine: Floats) -> Floats:
    """(48, 48, 48) samples as (24, 24, 24, 8)."""
    blocks = fine.reshape(CELLS, _FINE, CELLS, _FINE, CELLS, _FINE)
    return blocks.transpose(0, 2, 4, 1, 3, 5).reshape(CELLS, CELLS, CELLS, -1)


def _features(volume: Volume) -> Floats:
    """(24, 24, 24, 768)."""
    blocks = np.clip(_blocks(_sampled(volume, 1)), -1000, 1000) / 1000
    facts = np.stack([blocks.min(-1), blocks.mean(-1), blocks.max(-1), blocks.std(-1), np.ones(blocks.shape[:3])], -1)
    mapping = np.random.default_rng(0).normal(size=(facts.shape[-1], CHANNELS))
    return np.tanh(2 * facts @ mapping).astype(np.float32)
