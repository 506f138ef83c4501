"""What reading a study takes in memory, told by its headers before anything is read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np

from reg2rg.core.memory import available_memory
from reg2rg.core.types import LabelMap, MaskChannels, Study
from reg2rg.scans.base import MIN_DIM
from reg2rg.scans.inflate import first_bytes
from reg2rg.scans.read import files_of

log = logging.getLogger(__name__)

_LOOKED_AT: Final = 64
"""Studies, about, whose headers tell how much memory the others take."""
_SHARE: Final = 0.9
"""Of the free memory, what workers may take."""
_PROCESS: Final = 180e6
"""Bytes of a worker with its libraries; 30 MB of them are pydicom's, which nibabel imports where it is installed."""
_SCAN: Final = 8.0
"""Bytes a voxel of a scan that takes up to 4 on disk, while it becomes HU in RAS and is cropped. Measured (peak of the
process over voxels): 7.9 of a NIfTI of 256 x 256 x 400 without masks, 10.4 of float64; 6.8 of 512 x 512 x 1200 with
ten."""
_READ: Final = 4.0
"""Bytes a voxel after that: the HU, and the mask that is being read."""
_MASK: Final = 0.6
"""Bytes a voxel of a mask that is kept as its box."""
_PACKED: Final = 4.0
"""Voxels a byte of a file that is no NIfTI: two bytes a voxel, packed to an eighth."""
_SLICE: Final = 512 * 512
"""Voxels of a file that is one of many: a slice of DICOM."""


def estimated_peak(study: Study) -> int:
    """Bytes that a process takes at most while it reads a study, brings it into RAS and crops it.

    A file that cannot be read takes nothing: reading it ends in an error.
    """
    if study.row is not None or isinstance(study.masks, MaskChannels):  # features, of which little is read
        return int(_PROCESS)
    voxels, itemsize = _size(study.image)
    masks = study.masks
    count = 0 if masks is None else len(masks.labels if isinstance(masks, LabelMap) else masks.files)
    return int(_PROCESS + voxels * max(_SCAN, itemsize + 3, _READ + _MASK * count))


def workers_that_fit(workers: int, studies: Sequence[Study]) -> int:
    """The number of workers whose scans the memory holds together; fewer than asked is said."""
    sample = studies[:: max(1, len(studies) // _LOOKED_AT)]
    if workers < 2 or not sample:
        return workers
    peak, free = max(map(estimated_peak, sample)), available_memory()
    fitting = max(1, min(workers, int(_SHARE * free / peak)))
    if fitting < min(workers, len(studies)):
        log.warning(
            "%d of %d workers: the largest of %d scans looked at takes about %.1f GB while it is read, and %.1f GB of "
            "memory are free here", fitting, workers, len(sample), peak / 1e9, free / 1e9)  # fmt: skip
    return fitting


def _size(path: Path) -> tuple[float, int]:
    """Number of voxels, and bytes of each as it is stored."""
    head = first_bytes(path)
    for kind, size in ((nib.Nifti1Header, 348), (nib.Nifti2Header, 540)):
        order = {size.to_bytes(4, "little"): "<", size.to_bytes(4, "big"): ">"}.get(head[:4])
        if order and len(head) >= size:
            header = kind(head[:size], endianness=order, check=False)
            lengths = np.clip(header["dim"][1:4].astype(np.float64), 1, None)
            return float(lengths.prod()), max(1, int(header["bitpix"]) // 8)
    try:
        sizes = [file.stat().st_size for file in files_of(path)]
        voxels = _PACKED * sum(sizes)
        return min(voxels, _SLICE * len(sizes)) if len(sizes) > MIN_DIM else voxels, 2
    except OSError:
        return 0.0, 2
