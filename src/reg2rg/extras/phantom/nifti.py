"""NIfTI-1 files whose bytes depend on their content alone: no time stamp, no library version."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reg2rg.core.files import atomic_write

_CODES = {"int16": (4, 16), "uint8": (2, 8)}
_HEADER_BYTES, _DATA_AT = 348, 352
_DESCRIPTION_AT, _DESCRIPTION_BYTES = 148, 80


def _header(shape: tuple[int, ...], dtype: str, affine: npt.NDArray[np.float64], description: str) -> bytes:
    """The 348 bytes of a NIfTI-1 header with a scanner sform and an equal qform."""
    code, bits = _CODES[dtype]
    spacing = np.abs(np.diag(affine)[:3])
    out = bytearray(_DATA_AT)
    struct.pack_into("<i", out, 0, _HEADER_BYTES)
    struct.pack_into("<8h", out, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", out, 70, code, bits)
    struct.pack_into("<8f", out, 76, 1.0, *spacing, 0, 0, 0, 0)
    struct.pack_into("<3f", out, 108, _DATA_AT, 1.0, 0.0)  # vox_offset, scl_slope, scl_inter
    out[123] = 2  # millimetres
    text = description.encode("ascii")[: _DESCRIPTION_BYTES - 1]
    out[_DESCRIPTION_AT : _DESCRIPTION_AT + len(text)] = text
    struct.pack_into("<2h", out, 252, 1, 1)  # qform and sform: scanner
    struct.pack_into("<6f", out, 256, 0, 0, 0, *affine[:3, 3])
    struct.pack_into("<12f", out, 280, *affine[:3].ravel())
    out[344:348] = b"n+1\0"
    return bytes(out)


def write_nifti(path: Path, array: npt.NDArray[np.generic], affine: npt.NDArray[np.float64], description: str) -> None:
    """Write (H, W, D) int16 or uint8 voxels as ``.nii.gz``, whole or not at all.

    Args:
        path: the target.
        array: voxels in RAS order.
        affine: (4, 4), diagonal apart from its origin.
        description: up to 79 ASCII characters kept in the header.
    """
    packer = zlib.compressobj(4 if array.dtype == np.int16 else 6, zlib.DEFLATED, 31)
    with atomic_write(path) as stream:
        stream.write(packer.compress(_header(array.shape, array.dtype.name, affine, description)))
        stream.write(packer.compress(np.asfortranarray(array).T.data))
        stream.write(packer.flush())


def read_description(path: Path) -> str:
    """The header's description, ``""`` when there is no readable file: tells whose file this is."""
    try:
        with gzip.open(path) as stream:
            header = stream.read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return ""
    return header[_DESCRIPTION_AT : _DESCRIPTION_AT + _DESCRIPTION_BYTES].split(b"\0")[0].decode("ascii", "replace")
