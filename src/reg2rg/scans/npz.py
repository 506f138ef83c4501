"""Arrays in ``.npz``, as MvKeTR distributes CTRG-Chest-548K: key ``arr_0``, axes (D, H, W), HU / 1000.

Such a file says neither where its voxels lie nor how large they are. Rows are taken to run from front to back, columns
from the patient's right to the left, as in every picture of CT; slices from the head to the feet, or as the options
say; voxels to be 1 mm wide.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.scans.base import READERS, Reader, ReadOptions, StoredImage, volume_shape
from reg2rg.scans.inflate import check_size, read_file
from reg2rg.scans.stacked import from_slices

KEY = "arr_0"
_MEMBER = f"{KEY}.npy"
_HU = 1000.0
_MOST = 100.0  # HU / 1000: metal reaches 30
_ZIP = b"PK\x03\x04"
_FIX = "save it again: numpy.savez(path, volume), a (D, H, W) array of HU / 1000"


@READERS.register
class NPZ(Reader):
    """A volume in ``.npz`` under the key ``arr_0``: (D, H, W), HU / 1000 (MvKeTR's CTRG-Chest-548K)."""

    suffixes: ClassVar[tuple[str, ...]] = (".npz",)

    def matches(self, path: Path) -> bool:
        """Whether it is a zip of NumPy arrays."""
        try:
            with open(path, "rb") as stream:
                if stream.read(4) != _ZIP:
                    return False
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith(".npy") for name in archive.namelist())
        except (OSError, ValueError, zipfile.BadZipFile):
            return False

    def read(self, path: Path) -> StoredImage:
        """Read the volume, its slices from head to feet.

        Raises:
            DataFault: CORRUPT, ARRAY_KEY, DATATYPE, NOT_3D, HEADER, NOT_HU, TRUNCATED.
        """
        return self.read_scan(path, ReadOptions())

    def read_scan(self, path: Path, options: ReadOptions) -> StoredImage:
        """Read the volume, its slices in the order that the options say."""
        array = _read(path)
        finite = array[np.isfinite(array)]
        if finite.size and max(-float(finite.min()), float(finite.max())) > _MOST:
            raise DataFault.of(
                "NOT_HU",
                found=f"values {finite.min():g} to {finite.max():g}: these look like HU already",
                expected=f"HU / 1000 under {KEY}, about -1.1 to 3.1",
                fix="divide by 1000 and save again, or convert it to NIfTI",
                path=path,
            )
        return from_slices(path, array, options, slope=_HU)


def _read(path: Path) -> npt.NDArray[Any]:
    """The array, every byte of it read and its checksum verified; objects, which are pickles, are refused."""
    read_file(path)  # absent, empty, not readable
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if _MEMBER not in names:
                keys = ", ".join(name.removesuffix(".npy") for name in names[:8]) or "none"
                raise DataFault.of("ARRAY_KEY", found=f"keys {keys}", expected=f"a volume under {KEY}", fix=_FIX,
                                   path=path)  # fmt: skip
            with archive.open(_MEMBER) as stream:
                version = np.lib.format.read_magic(stream)
                header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                sizes, fortran, dtype = header(stream)
                if dtype.hasobject or dtype.kind not in "iuf":
                    raise DataFault.of("DATATYPE", found=f"an array of {dtype}", expected="numbers", fix=_FIX,
                                       path=path)  # fmt: skip
                shape = volume_shape(list(sizes), path)
                size = int(np.prod(shape)) * dtype.itemsize
                data = stream.read(size + 1)
    except DataFault:
        raise
    except Exception as error:  # zipfile and numpy raise whatever comes of damaged bytes
        found = f"cannot be read as NumPy arrays ({type(error).__name__}: {error})"
        raise DataFault.of(
            "CORRUPT", found=found, expected="a sound .npz", fix="download it again", path=path
        ) from None
    check_size(len(data), size, path)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
