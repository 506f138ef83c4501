"""NIfTI-1 and NIfTI-2 files: every byte checked, the header held to what a chest CT or its mask can be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from reg2rg.core.errors import DataFault
from reg2rg.scans.inflate import read_bytes

Affine = npt.NDArray[np.float64]

MIN_DIM, MAX_DIM = 8, 2048
MIN_SPACING, MAX_SPACING = 0.2, 10.0  # mm
THICK_SLICES = 5.0  # mm; noted above
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COLOURS = {128, 2304}
_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units -> factor to mm; 0 is "unknown", in practice mm
_MAX_FORM_MM, _MAX_FORM_DEGREES = 1.0, 1.0
_SHEAR = 1e-3
_EXPORT = "export the scan again with its own grid"


@dataclass(frozen=True, slots=True)
class Nifti:
    """A NIfTI file as stored.

    Attributes:
        path: where it came from.
        stored: (I, J, K) voxels in the stored type and native byte order, first axis fastest; read-only.
        slope, inter: value = stored * slope + inter.
        affine: (4, 4) voxel indices -> RAS mm.
        notes: oddities that do no harm.
    """

    path: Path
    stored: npt.NDArray[Any]
    slope: float
    inter: float
    affine: Affine
    notes: tuple[str, ...] = ()

    @property
    def scaled(self) -> bool:
        """Whether slope and intercept change anything."""
        return (self.slope, self.inter) != (1.0, 0.0)


def open_nifti(path: str | Path) -> Nifti:
    """Read one 3D NIfTI file to its last byte.

    Raises:
        DataFault: what `reg2rg.scans.inflate.read_bytes` raises, and HEADER, DATATYPE, COLOUR, NOT_3D, FEW_SLICES,
            AFFINE, SPACING, FORM_CONFLICT.
    """
    path = Path(path)
    reader = _Header(path)
    data, notes = read_bytes(path, reader.expected_size)
    stored = np.frombuffer(data, reader.dtype, int(np.prod(reader.shape)), reader.offset)
    stored = stored.reshape(reader.shape, order="F")
    if not stored.dtype.isnative:
        stored = stored.astype(stored.dtype.newbyteorder("="), order="F")
    slope, inter = reader.scaling()
    affine, affine_notes = reader.affine()
    return Nifti(path, stored, slope, inter, affine, notes + affine_notes)


def read_nifti(path: str | Path) -> tuple[npt.NDArray[Any], Affine]:
    """Voxel values and affine of a 3D NIfTI file.

    Returns:
        (I, J, K) values with slope and intercept applied (in the stored type where they change nothing, else float32),
        and the (4, 4) affine, voxel indices -> RAS mm.

    Raises:
        DataFault: see `open_nifti`.
    """
    image = open_nifti(path)
    if not image.scaled:
        return image.stored, image.affine
    values = np.multiply(image.stored, np.float32(image.slope), dtype=np.float32)
    values += np.float32(image.inter)
    return values, image.affine


class _Header:
    """A header read once, from the first bytes of the file."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header: Any = None

    def _fault(self, code: str, found: str, expected: str, fix: str) -> DataFault:
        return DataFault.of(code, found=found, expected=expected, fix=fix, path=self._path)

    def expected_size(self, head: bytes) -> int:
        """Parse `head`; bytes that header and voxels take together."""
        self._header = header = self._parse(head)
        self.dtype = self._dtype(header)
        self.shape = self._shape(header)
        minimum = 352 if int(header["sizeof_hdr"]) == 348 else 544
        offset = float(header["vox_offset"])
        if offset and not (minimum <= offset < 1 << 30 and offset == int(offset)):
            raise self._fault("HEADER", f"vox_offset {offset}", f"{minimum} or a little more", _EXPORT)
        self.offset = int(offset) or minimum
        return self.offset + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def _parse(self, head: bytes) -> Any:
        for kind, size, magic in ((nib.Nifti1Header, 348, b"n+1"), (nib.Nifti2Header, 540, b"n+2")):
            orders = {size.to_bytes(4, "little"): "<", size.to_bytes(4, "big"): ">"}
            if len(head) < size or head[:4] not in orders:
                continue
            header = kind(head[:size], endianness=orders[head[:4]], check=False)
            found = bytes(header["magic"].tobytes())[:3]
            if found == magic:
                return header
            what = "the header of a .hdr/.img pair" if found[:2] == b"ni" else "an ANALYZE 7.5 or damaged header"
            raise self._fault("NOT_NIFTI", what, "one NIfTI file", "convert it to a single .nii.gz")
        raise self._fault("NOT_NIFTI", "no NIfTI header", "a NIfTI file", "download or export the file again")

    def _dtype(self, header: Any) -> np.dtype[Any]:
        code = int(header["datatype"])
        if code in _COLOURS:
            raise self._fault(
                "COLOUR", "a colour image", "a CT or mask", "this is a picture of it: use the scan itself"
            )
        if code not in _DTYPES:
            raise self._fault("DATATYPE", f"datatype code {code}", "8 to 64 bit integers or floats", _EXPORT)
        dtype: np.dtype[Any] = np.dtype(header.endianness + _DTYPES[code])
        if int(header["bitpix"]) != 8 * dtype.itemsize:
            found = f"bitpix {int(header['bitpix'])} with datatype {dtype.name}"
            raise self._fault("HEADER", found, f"bitpix {8 * dtype.itemsize}", _EXPORT)
        return dtype

    def _shape(self, header: Any) -> tuple[int, int, int]:
        count = int(header["dim"][0])
        if not 1 <= count <= 7:
            raise self._fault("HEADER", f"{count} dimensions", "3", _EXPORT)
        dims = [int(size) for size in header["dim"][1 : 1 + count]]
        while len(dims) > 3 and dims[-1] == 1:
            dims.pop()
        dims += [1] * (3 - len(dims))
        if len(dims) != 3:
            fix = "save the one volume that you mean as its own file (nibabel.four_to_three)"
            raise self._fault("NOT_3D", f"shape {' x '.join(map(str, dims))}", "one 3D volume", fix)
        if min(dims) < 1 or max(dims) > MAX_DIM:
            raise self._fault("HEADER", f"shape {dims}", f"{MIN_DIM} to {MAX_DIM} voxels an axis", _EXPORT)
        if min(dims) < MIN_DIM:
            fix = "use the whole volume, not some slices of it"
            raise self._fault("FEW_SLICES", f"shape {dims}", f"{MIN_DIM} to {MAX_DIM} voxels an axis", fix)
        return dims[0], dims[1], dims[2]

    def scaling(self) -> tuple[float, float]:
        """Slope and intercept; slope 0 or NaN means none, as the standard says."""
        slope, inter = float(self._header["scl_slope"]), float(self._header["scl_inter"])
        if slope == 0 or np.isnan(slope):
            return 1.0, 0.0
        inter = 0.0 if np.isnan(inter) else inter
        if not (np.isfinite(slope) and np.isfinite(inter)):
            raise self._fault("HEADER", f"scl_slope {slope}, scl_inter {inter}", "finite numbers", _EXPORT)
        return slope, inter

    def affine(self) -> tuple[Affine, tuple[str, ...]]:
        """The sform if it is set, else the qform, else spacing alone; in mm, checked."""
        header, notes = self._header, []
        has_s, has_q = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
        if has_s:
            affine = np.asarray(header.get_sform(), np.float64)
            if has_q:
                self._compare(affine, self._qform(optional=True))
        elif has_q:
            affine = np.asarray(self._qform(optional=False), np.float64)
        else:
            affine = np.asarray(header.get_base_affine(), np.float64)
            notes.append("neither sform nor qform is set: orientation is taken on trust")
        unit = int(header["xyzt_units"]) & 7
        factor = _UNITS.get(unit, 1.0)
        if factor != 1.0:
            affine = affine.copy()
            affine[:3] *= factor
            notes.append(f"affine converted from {'metres' if unit == 1 else 'micrometres'} to mm")
        self._check(affine, notes)
        return affine, tuple(notes)

    def _qform(self, optional: bool) -> Affine | None:
        try:
            qform = np.asarray(self._header.get_qform(), np.float64)
        except (HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
            if optional:
                return None
            raise self._fault(
                "AFFINE", f"a qform that makes no rotation ({error})", "a valid qform", _EXPORT
            ) from error
        return qform

    def _compare(self, sform: Affine, qform: Affine | None) -> None:
        """Refuse a header whose two affines place the voxels differently: nobody can say which one is right."""
        if qform is None or not np.isfinite(qform).all() or not np.isfinite(sform).all():
            return
        shift = corner_shift(sform, qform, self.shape)
        if shift <= _MAX_FORM_MM:
            return
        cosines = np.sum(_directions(sform) * _directions(qform), axis=0)
        degrees = float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max())
        found = f"qform and sform that differ by {shift:.1f} mm and {degrees:.1f} degrees"
        fix = "set both to the true affine (nibabel: image.set_qform, image.set_sform)"
        raise self._fault("FORM_CONFLICT", found, f"at most {_MAX_FORM_MM:g} mm", fix)

    def _check(self, affine: Affine, notes: list[str]) -> None:
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise self._fault("AFFINE", "an affine that is singular or not finite", "an invertible affine", _EXPORT)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if spacing.min() < MIN_SPACING * 0.999 or spacing.max() > MAX_SPACING * 1.001:
            found = f"spacing {' x '.join(f'{size:.4g}' for size in spacing)} mm"
            fix = "correct the header: the unit (xyzt_units) or the spacing is wrong"
            raise self._fault("SPACING", found, f"{MIN_SPACING:g} to {MAX_SPACING:g} mm", fix)
        if spacing.max() > THICK_SLICES:
            notes.append(f"slices {spacing.max():.1f} mm apart")
        directions = affine[:3, :3] / spacing
        if np.abs(directions.T @ directions - np.eye(3)).max() > _SHEAR:
            notes.append("axes are not at right angles (gantry tilt or shear)")


def _directions(affine: Affine) -> Affine:
    norms = np.linalg.norm(affine[:3, :3], axis=0)
    return np.asarray(affine[:3, :3] / np.where(norms > 0, norms, 1), np.float64)


def corner_shift(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """Largest distance, in the unit of the affines' output, between where the two put a corner voxel of `shape`."""
    corners = np.array([[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    return float(np.linalg.norm(((first - second) @ corners.T)[:3], axis=0).max())
