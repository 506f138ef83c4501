"""NIfTI-1 and NIfTI-2 files: every byte checked, the header held to what a chest CT or its mask can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from reg2rg.core.errors import DataFault
from reg2rg.core.types import Grid
from reg2rg.scans.base import (
    EXPORT,
    READERS,
    Reader,
    ReadOptions,
    Shape,
    StoredImage,
    known_kinds,
    native_order,
    volume_shape,
)
from reg2rg.scans.inflate import first_bytes, read_bytes
from reg2rg.scans.label_tables import caret_labels
from reg2rg.scans.nifti_forms import place

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COLOURS = {128, 2304}
_FORMATS = ((nib.Nifti1Header, 348, b"n+1"), (nib.Nifti2Header, 540, b"n+2"))


@READERS.register
class NIfTI(Reader):
    """NIfTI-1 and NIfTI-2 in one file, plain or gzipped."""

    suffixes = (".nii.gz", ".nii")

    def matches(self, path: Path) -> bool:
        """Whether it begins with the size of a NIfTI header, in either byte order."""
        head = first_bytes(path)
        return any(_byte_order(head, size) for _, size, _ in _FORMATS)

    def read(self, path: Path) -> StoredImage:
        """Read one 3D NIfTI file to its last byte.

        Raises:
            DataFault: what `reg2rg.scans.inflate.read_bytes` raises, and HEADER, DATATYPE, COLOUR, NOT_3D,
                AFFINE, SPACING, FORM_CONFLICT.
        """
        header = _Header(path)
        data, notes = read_bytes(path, header.expected_size)
        stored = np.frombuffer(data, header.dtype, int(np.prod(header.shape)), header.offset)
        slope, inter, scaled = header.scaling()
        affine, odd = place(header.fields, header.shape, path)
        voxels = native_order(stored.reshape(header.shape, order="F"))
        names = caret_labels(header.extensions(data))
        placed = max(int(header.fields["sform_code"]), int(header.fields["qform_code"])) > 0
        return StoredImage(path, voxels, slope, inter, affine, (*notes, *scaled, *odd), names, placed)

    def read_scan(self, path: Path, options: ReadOptions) -> StoredImage:
        """As `read`; a note says where dcm2niix put a better form of the scan beside it."""
        image = self.read(path)
        end = next((end for end in self.suffixes if path.name.endswith(end)), "")
        names = {path.name.removesuffix(end) + mark + end: why for mark, why in _BESIDE}
        said = [f"{name} lies beside it: {why}" for name, why in names.items() if path.with_name(name).is_file()]
        return replace(image, notes=(*image.notes, *said))

    def grid(self, path: Path, options: ReadOptions) -> Grid | None:
        """By the first bytes of the file."""
        header = _Header(path)
        header.expected_size(first_bytes(path))
        return Grid(header.shape, place(header.fields, header.shape, path)[0])


_BESIDE = (
    ("_Tilt_1", "dcm2niix took a gantry tilt back there, which this file still has"),
    ("_Eq_1", "dcm2niix interpolated uneven or missing slices there, which this file takes for even"),
)


def _byte_order(head: bytes, size: int) -> str | None:
    """Byte order of a header of `size` bytes, ``None`` if `head` does not begin with one."""
    orders = {size.to_bytes(4, "little"): "<", size.to_bytes(4, "big"): ">"}
    return orders.get(head[:4]) if len(head) >= size else None


class _Header:
    """A header read once, from the first bytes of the file."""

    shape: Shape
    dtype: np.dtype[Any]
    offset: int

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fields: Any = None

    def _fault(self, code: str, found: str, expected: str, fix: str) -> DataFault:
        return DataFault.of(code, found=found, expected=expected, fix=fix, path=self._path)

    def expected_size(self, head: bytes) -> int:
        """Parse `head`; bytes that header and voxels take together."""
        self.fields = header = self._parse(head)
        self.dtype = self._dtype(header)
        self.shape = self._shape(header)
        minimum = 352 if int(header["sizeof_hdr"]) == 348 else 544
        offset = float(header["vox_offset"])
        if offset and not (minimum <= offset < 1 << 30 and offset == int(offset)):
            raise self._fault("HEADER", f"vox_offset {offset}", f"{minimum} or a little more", EXPORT)
        self.offset = int(offset) or minimum
        return self.offset + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def _parse(self, head: bytes) -> Any:
        for kind, size, magic in _FORMATS:
            order = _byte_order(head, size)
            if order is None:
                continue
            header = kind(head[:size], endianness=order, check=False)
            found = bytes(header["magic"].tobytes())[:3]
            if found == magic:
                return header
            what = "the header of a .hdr/.img pair" if found[:2] == b"ni" else "an ANALYZE 7.5 or damaged header"
            raise self._fault("NOT_NIFTI", what, "one NIfTI file", "convert it to a single .nii.gz")
        raise self._fault("NOT_NIFTI", "no NIfTI header", known_kinds(), "download or export the file again")

    def _dtype(self, header: Any) -> np.dtype[Any]:
        code = int(header["datatype"])
        if code in _COLOURS:
            raise self._fault(
                "COLOUR", "a colour image", "a CT or mask", "this is a picture of it: use the scan itself"
            )
        if code not in _DTYPES:
            raise self._fault("DATATYPE", f"datatype code {code}", "8 to 64 bit integers or floats", EXPORT)
        dtype: np.dtype[Any] = np.dtype(header.endianness + _DTYPES[code])
        if int(header["bitpix"]) != 8 * dtype.itemsize:
            found = f"bitpix {int(header['bitpix'])} with datatype {dtype.name}"
            raise self._fault("HEADER", found, f"bitpix {8 * dtype.itemsize}", EXPORT)
        return dtype

    def _shape(self, header: Any) -> Shape:
        count = int(header["dim"][0])
        if not 1 <= count <= 7:
            raise self._fault("HEADER", f"{count} dimensions", "3", EXPORT)
        dims = [int(size) for size in header["dim"][1 : 1 + count]]
        while len(dims) > 3 and dims[-1] == 1:
            dims.pop()
        dims += [1] * (3 - len(dims))
        return volume_shape(dims, self._path)

    def extensions(self, data: bytes) -> bytes:
        """What stands between header and voxels, ``b""`` where the header says that nothing does."""
        size = int(self.fields["sizeof_hdr"])
        return data[size + 4 : self.offset] if data[size : size + 1] not in (b"", b"\0") else b""

    def scaling(self) -> tuple[float, float, tuple[str, ...]]:
        """Slope and intercept, and a note where others scale otherwise; slope 0 or NaN means none (nifti1.h)."""
        slope, inter = float(self.fields["scl_slope"]), float(self.fields["scl_inter"])
        if slope == 0 or np.isnan(slope):
            odd = f"slope {slope:g}, intercept {inter:g}: not scaled, as the standard says (SimpleITK adds {inter:g})"
            return 1.0, 0.0, (odd,) if inter != 0 and np.isfinite(inter) else ()
        inter = 0.0 if np.isnan(inter) else inter
        if not (np.isfinite(slope) and np.isfinite(inter)):
            raise self._fault("HEADER", f"scl_slope {slope}, scl_inter {inter}", "finite numbers", EXPORT)
        return slope, inter, ()
