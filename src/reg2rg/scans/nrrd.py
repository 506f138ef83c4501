"""NRRD files, header and voxels in one or apart: pynrrd understands the header, every byte is checked here."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import nrrd
import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.core.types import Grid
from reg2rg.scans.base import (
    EXPORT,
    READERS,
    Affine,
    Reader,
    ReadOptions,
    Shape,
    StoredImage,
    affine_notes,
    native_order,
    volume_shape,
)
from reg2rg.scans.inflate import check_size, first_bytes, inflate, read_file
from reg2rg.scans.label_tables import segment_labels

_MAGIC = b"NRRD"
# The directions that the axes of a space point to, as signs of RAS.
_SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_UNITS = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "micrometer": 0.001}
_COLOUR_KINDS = ("color", "vector", "gradient", "normal", "matrix", "quaternion", "complex")
_GZIP = ("gzip", "gz")
_SAME_LENGTH = 0.01  # relative
_MOST_LINES, _MOST_BYTES = 1 << 20, 1 << 31  # to skip
_ONE_FILE = "save it as one .nrrd file with its voxels in it, as 3D Slicer does by default"
_NO_SIZE = "the header has no spacings: voxels are taken as 1 mm"


@READERS.register
class NRRD(Reader):
    """NRRD, attached (``.nrrd``) or with the voxels in a file beside the header (``.nhdr``); raw or gzip."""

    suffixes = (".nrrd", ".nhdr")

    def matches(self, path: Path) -> bool:
        """Whether it begins with ``NRRD``."""
        return first_bytes(path).startswith(_MAGIC)

    def read(self, path: Path) -> StoredImage:
        """Read one 3D NRRD file to its last byte.

        Raises:
            DataFault: MISSING_FILE, UNREADABLE, EMPTY_FILE, HEADER, DATATYPE, COLOUR, NOT_3D, AFFINE,
                SPACING, TRUNCATED, CORRUPT, SIZE_MISMATCH.
        """
        header = _Header.of(path)
        shape, dtype = header.shape(), header.dtype()
        affine, notes = header.affine()
        data = header.voxels(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        stored = np.frombuffer(data, dtype).reshape(shape, order="F")
        names, placed = segment_labels(header.fields), "space directions" in header.fields
        return StoredImage(path, native_order(stored), 1.0, 0.0, affine, notes, names, placed)

    def read_scan(self, path: Path, options: ReadOptions) -> StoredImage:
        """Read a CT, whose voxels must have a size; a mask without one can be laid on its scan.

        Raises:
            DataFault: as `read`.
        """
        image = self.read(path)
        if _NO_SIZE in image.notes:
            header_of = "{'space': 'left-posterior-superior', 'space directions': ..., 'space origin': ...}"
            fix = f"write it with its grid: nrrd.write(path, array, {header_of})"
            raise _fault(path, "AFFINE", "neither space directions nor spacings", "the size and place of a voxel", fix)
        return image

    def grid(self, path: Path, options: ReadOptions) -> Grid | None:
        """By the lines before the voxels."""
        try:
            with open(path, "rb") as stream:
                header = _Header(path, _fields(path, stream), b"")
        except OSError as error:
            raise _fault(path, "UNREADABLE", error.strerror or str(error), "a readable file", "check it") from None
        return Grid(header.shape(), header.affine()[0])

    def files(self, path: Path) -> tuple[Path, ...]:
        """The header, and the file of its voxels if they lie apart."""
        try:
            with open(path, "rb") as stream:
                apart = _Header(path, _fields(path, stream), b"").data_file
        except (OSError, ValueError, DataFault):
            return (path,)
        return (path,) if apart is None else (path, apart)


class _Header:
    """The fields of a header, and the bytes that follow it."""

    def __init__(self, path: Path, fields: Mapping[str, Any], rest: bytes) -> None:
        self.path, self.fields, self.rest = path, fields, rest

    @classmethod
    def of(cls, path: Path) -> _Header:
        data = read_file(path)
        stream = io.BytesIO(data)
        fields = _fields(path, stream)
        return cls(path, fields, data[stream.tell() :])

    @property
    def data_file(self) -> Path | None:
        """The file of the voxels, ``None`` if they follow the header.

        Raises:
            DataFault: HEADER, several files, or one that does not lie beside the header.
        """
        name = self.fields.get("data file", self.fields.get("datafile"))
        if name is None:
            return None
        if Path(name).name != name or name in ("LIST", "..") or "%" in name:
            found = f"voxels in {name}"
            raise _fault(self.path, "HEADER", found, "one data file in the folder of the header", _ONE_FILE)
        return self.path.with_name(name)

    def shape(self) -> Shape:
        """Sizes of the three axes of space; others are refused unless they have length 1."""
        sizes = [int(size) for size in self.fields["sizes"]]
        for kind in self.fields.get("kinds", ()):
            if any(word in kind.lower() for word in _COLOUR_KINDS):
                fix = "this is a picture or a field of vectors: use the scan itself"
                raise _fault(self.path, "COLOUR", f"an axis of kind {kind}", "a CT or mask", fix)
        return volume_shape([size for size, spatial in zip(sizes, self._spatial(), strict=True) if spatial], self.path)

    def dtype(self) -> np.dtype[Any]:
        """The stored type, in its byte order."""
        try:  # of one voxel, so that pynrrd tells what it makes of type and byte order
            one = {**self.fields, "dimension": 1, "sizes": np.array([1]), "encoding": "raw"}
            for name in ("data file", "datafile", "byte skip", "byteskip", "line skip", "lineskip"):
                one.pop(name, None)
            dtype: np.dtype[Any] = nrrd.read_data(one, io.BytesIO(bytes(8))).dtype
        except Exception as error:
            found = f"type {self.fields['type']} ({error})"
            raise _fault(self.path, "DATATYPE", found, "8 to 64 bit integers or floats") from None
        return dtype

    def affine(self) -> tuple[Affine, tuple[str, ...]]:
        """Voxel indices -> RAS mm, checked; and what was taken on trust."""
        notes = []
        signs = _SPACES.get(str(self.fields.get("space", "")).lower())
        if signs is None:
            signs = _SPACES["lps"]
            notes.append("the header names no patient space: axes are taken as left, posterior, superior on trust")
        affine = np.eye(4)
        directions = self._directions()
        spacings = self._spacings()
        if directions is None:
            notes.append("the header has no space directions: orientation is taken on trust")
            if not np.isfinite(spacings).all():
                notes.append(_NO_SIZE)
                spacings = np.ones(3)
            if (spacings < 0).any():
                notes.append(f"spacings {' x '.join(f'{size:.4g}' for size in spacings)}: read without signs")
            directions = np.diag(np.abs(spacings))
        elif np.isfinite(spacings).all() and not np.allclose(_lengths(directions), spacings, rtol=_SAME_LENGTH, atol=0):
            notes.append("spacings and space directions differ in length: the directions are used (ITK refuses both)")
        affine[:3, :3] = directions.T
        affine[:3, 3] = self._vector("space origin", np.zeros(3))
        factors = [self._factor(unit) for unit in self.fields.get("space units", [""] * 3)]
        if len(factors) != 3:
            raise _fault(self.path, "HEADER", f"{len(factors)} space units", "3")
        if set(factors) != {1.0}:
            notes.append(f"affine converted from {self.fields['space units'][0]} to mm")
        affine[:3] *= (np.array(signs) * factors)[:, None]
        return affine, (*notes, *affine_notes(affine, self.path))

    def voxels(self, size: int) -> bytes:
        """The `size` bytes of the voxels; fewer or more are refused."""
        apart = self.data_file
        path, data = (self.path, self.rest) if apart is None else (apart, read_file(apart))
        encoding = str(self.fields["encoding"]).lower()
        start = 0
        for _ in range(self._skip("line", 0, _MOST_LINES)):
            start = data.find(b"\n", start) + 1 or len(data)
        data = data[start:]
        skip = self._skip("byte", -1, _MOST_BYTES)
        if encoding in _GZIP:
            return inflate(data, size + max(skip, 0), path)[max(skip, 0) :]
        if encoding != "raw":
            raise _fault(self.path, "DATATYPE", f"encoding {encoding}", "raw or gzip", _ONE_FILE)
        data = data[-size:] if skip == -1 else data[skip:]
        check_size(len(data), size, path)
        return data

    def _spatial(self) -> list[bool]:
        """Which axes lie in space: those that have a direction; without directions, all but those of length 1."""
        sizes, directions = self.fields["sizes"], self.fields.get("space directions")
        if directions is None:
            return [len(sizes) <= 3 or size > 1 for size in sizes]
        if len(directions) != len(sizes):
            raise _fault(self.path, "HEADER", f"{len(directions)} space directions", f"{len(sizes)}")
        placed = [vector is not None and bool(np.isfinite(vector).all()) for vector in directions]
        return [has or size > 1 for has, size in zip(placed, sizes, strict=True)]

    def _directions(self) -> npt.NDArray[np.float64] | None:
        """One row an axis of space."""
        if "space directions" not in self.fields:
            return None
        rows = [row for row, spatial in zip(self.fields["space directions"], self._spatial(), strict=True) if spatial]
        if any(row is None or np.shape(row) != (3,) for row in rows):
            raise _fault(self.path, "AFFINE", "an axis without direction in space", "three directions of length 3")
        return np.array(rows, np.float64)

    def _spacings(self) -> npt.NDArray[np.float64]:
        sizes = self.fields.get("spacings", [np.nan] * len(self.fields["sizes"]))
        kept = [size for size, spatial in zip(sizes, self._spatial(), strict=False) if spatial]
        return np.array(kept if len(kept) == 3 else [np.nan] * 3, np.float64)

    def _vector(self, name: str, default: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        value = np.asarray(self.fields.get(name, default), np.float64)
        if value.shape != (3,):
            raise _fault(self.path, "AFFINE", f"{name} of {value.size} numbers", "3")
        return value

    def _factor(self, unit: str) -> float:
        if unit.lower() not in _UNITS:
            raise _fault(self.path, "HEADER", f"space unit {unit}", "mm", "write the space directions in mm")
        return _UNITS[unit.lower()]

    def _skip(self, what: str, least: int, most: int) -> int:
        value = int(self.fields.get(f"{what} skip", self.fields.get(f"{what}skip", 0)))
        if not least <= value <= most:
            raise _fault(self.path, "HEADER", f"{what} skip {value}", f"{least} to {most}")
        return value


def _fields(path: Path, stream: IO[bytes]) -> Mapping[str, Any]:
    """The fields of the header; `stream` is left behind it."""
    try:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin with NRRD")
        stream.seek(0)
        fields: dict[str, Any] = nrrd.read_header(stream)
        lacking = [name for name in ("dimension", "type", "encoding", "sizes") if name not in fields]
        if lacking or fields["dimension"] != len(fields["sizes"]):
            raise ValueError(f"no {', '.join(lacking)}" if lacking else "dimension is not the number of sizes")
    except Exception as error:  # pynrrd raises whatever comes of a value that it cannot read
        raise _fault(path, "HEADER", f"a header that cannot be read ({error})"[:200], "an NRRD header") from None
    return fields


def _lengths(directions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.norm(directions, axis=1), np.float64)


def _fault(path: Path, code: str, found: str, expected: str, fix: str = EXPORT) -> DataFault:
    return DataFault.of(code, found=found, expected=expected, fix=fix, path=path)
