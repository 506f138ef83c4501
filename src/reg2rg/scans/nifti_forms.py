"""Where a NIfTI header puts its voxels: sform or qform as the standard (nifti1.h) says, with a note on what is odd.

A header may say it twice, and writers leave either half out or spoil it by rounding. What can be read in one way alone
is read and noted, also where other tools read it differently; two places that cannot both be true are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.quaternions import quat2mat
from nibabel.volumeutils import shape_zoom_affine

from reg2rg.core.errors import DataFault
from reg2rg.scans.base import EXPORT, Affine, Shape, affine_notes, corner_shift

_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units -> factor to mm; 0 is "unknown", in practice mm
_MAX_FORM_MM = 1.0
_ROUNDING = 1e-3
"""By how much b² + c² + d² of a unit quaternion may exceed 1: three digits, as some writers keep."""
_FLOAT32_ROUNDING = 3 * float(np.finfo(np.float32).eps)
"""What single precision leaves of 1 - (b² + c² + d²) for a half turn; as in nibabel, no rotation is read from it."""
_SAME_LENGTH = 0.01  # relative
_SHEAR = 1e-3
_TEMPLATES = {3: "Talairach's atlas", 4: "the MNI template", 5: "a template"}  # sform_code
_KEEP_ONE = "keep the true one and clear the other (nibabel: image.set_qform(None) or image.set_sform(None))"


@dataclass(frozen=True, slots=True)
class _Form:
    """One of the header's two ways to place voxels: an affine in mm with notes, or why it gives none."""

    affine: Affine | None
    fault: str = ""
    notes: tuple[str, ...] = ()


def place(header: Any, shape: Shape, path: Path) -> tuple[Affine, tuple[str, ...]]:
    """The affine of a NIfTI header, voxel indices -> RAS mm, and what is odd about it.

    Args:
        header: of nibabel, unchecked.
        shape: of the volume.
        path: for messages.

    Raises:
        DataFault: AFFINE, SPACING; FORM_CONFLICT, a sform and a qform that place the voxels differently.
    """
    unit = int(header["xyzt_units"]) & 7
    factor = _UNITS.get(unit, 1.0)
    sform, qform = _sform(header, factor), _qform(header, factor)
    if sform is None and qform is None:
        affine, notes = _base(header, shape, factor)
    else:
        affine, notes = _choose(header, shape, sform, qform, path)
    if sform is not None and affine is sform.affine:
        notes += _other_lengths(header, factor, affine)
    if factor != 1.0:
        notes.append(f"affine converted from {'metres' if unit == 1 else 'micrometres'} to mm")
    return affine, (*notes, *affine_notes(affine, path))


def _sform(header: Any, factor: float) -> _Form | None:
    """The sform, ``None`` if its code says that there is none."""
    if int(header["sform_code"]) <= 0:
        return None
    affine = np.asarray(header.get_sform(), np.float64)
    affine[:3] *= factor
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return _Form(None, "a sform that is zero, singular or not finite")
    return _Form(affine)


def _qform(header: Any, factor: float) -> _Form | None:
    """The qform, ``None`` if its code says that there is none."""
    if int(header["qform_code"]) <= 0:
        return None
    quaternion = np.array([header[f"quatern_{letter}"] for letter in "bcd"], np.float64)
    offsets = np.array([header[f"qoffset_{axis}"] for axis in "xyz"], np.float64)
    sizes, notes = _sizes(header)
    if not (np.isfinite(quaternion).all() and np.isfinite(offsets).all()):
        return _Form(None, "a qform that is not finite")
    if not (np.isfinite(sizes).all() and sizes.all()):
        return _Form(None, f"a qform with voxels of {_mm(sizes)} (pixdim)")
    rest = 1 - float(quaternion @ quaternion)
    if rest < -_ROUNDING:
        return _Form(None, f"a qform whose quaternion has length {np.sqrt(1 - rest):.4g}, which is no rotation")
    if rest < -_FLOAT32_ROUNDING:
        notes.append("the qform's quaternion is longer than 1 by rounding: read as of length 1 (nibabel refuses it)")
    sign = float(header["pixdim"][0])
    if abs(sign) != 1:
        notes.append(f"pixdim[0] is {sign:g}: read as {-1 if sign < 0 else 1}, as the standard says")
    affine = np.eye(4)
    affine[:3, :3] = quat2mat([np.sqrt(rest) if rest > _FLOAT32_ROUNDING else 0.0, *quaternion])
    affine[:3, :3] *= sizes * (1, 1, -1 if sign < 0 else 1)
    affine[:3, 3] = offsets
    affine[:3] *= factor
    return _Form(affine, notes=tuple(notes))


def _base(header: Any, shape: Shape, factor: float) -> tuple[Affine, list[str]]:
    """Voxel sizes alone: left, anterior, superior, centred, as nibabel takes it."""
    sizes, notes = _sizes(header)
    affine = np.asarray(shape_zoom_affine(shape, sizes, x_flip=True), np.float64)
    affine[:3] *= factor
    odd = "neither sform nor qform is set: orientation is taken on trust (left, anterior, superior; SimpleITK turns it)"
    return affine, [odd, *notes]


def _sizes(header: Any) -> tuple[Affine, list[str]]:
    """Voxel sizes without signs, and a note if there were any."""
    sizes = np.array(header["pixdim"][1:4], np.float64)
    if not (sizes < 0).any():
        return sizes, []
    return np.abs(sizes), [f"pixdim is {_mm(sizes)}: read without signs (SimpleITK mirrors such a file)"]


def _choose(
    header: Any, shape: Shape, sform: _Form | None, qform: _Form | None, path: Path
) -> tuple[Affine, list[str]]:
    """The sform if it can be read, else the qform."""
    faults = [form.fault for form in (sform, qform) if form is not None and form.fault]
    if sform is not None and sform.affine is not None:
        if qform is not None and qform.affine is not None:
            return _agreed(header, shape, sform.affine, qform, path)
        return sform.affine, [f"{fault}: the sform is used" for fault in faults]
    if qform is not None and qform.affine is not None:
        return qform.affine, [*(f"{fault}: the qform is used" for fault in faults), *qform.notes]
    raise DataFault.of("AFFINE", found=" and ".join(faults), expected="an affine", fix=EXPORT, path=path)


def _agreed(header: Any, shape: Shape, sform: Affine, qform: _Form, path: Path) -> tuple[Affine, list[str]]:
    """One affine of two that can be read.

    Raises:
        DataFault: FORM_CONFLICT, they place the voxels differently: nobody can say which one is right.
    """
    assert qform.affine is not None
    shift = corner_shift(sform, qform.affine, shape)
    signs = [note for note in qform.notes if "without signs" in note]
    if shift <= _MAX_FORM_MM:
        return sform, signs
    if any(corner_shift(twin, qform.affine, shape) <= _MAX_FORM_MM for twin in _without_shear(sform)):
        return sform, [
            f"the sform has shear (gantry tilt), which no qform can hold: the sform is used, and tools that go by the "
            f"qform, as SimpleITK does, put voxels up to {shift:.1f} mm elsewhere",
            *signs,
        ]
    template = _TEMPLATES.get(int(header["sform_code"]))
    if template is not None and int(header["qform_code"]) < min(_TEMPLATES):
        odd = f"the sform leads to {template}, the qform to the scanner: the qform is used (nibabel takes the sform)"
        return qform.affine, [odd, *qform.notes]
    cosines = np.sum(_directions(sform) * _directions(qform.affine), axis=0)
    degrees = float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max())
    found = f"qform and sform that differ by {shift:.1f} mm and {degrees:.1f} degrees"
    raise DataFault.of("FORM_CONFLICT", found=found, expected=f"at most {_MAX_FORM_MM:g} mm", fix=_KEEP_ONE, path=path)


def _without_shear(sform: Affine) -> list[Affine]:
    """What writers put into the qform of a sheared sform: its closest rotation, or its slices set upright.

    The closest one is what nibabel and nifti_io write; others keep the axes of the slice and take its normal as the
    third, with the distance along the tilted axis or along the normal.
    """
    directions = _directions(sform)
    if np.abs(directions.T @ directions - np.eye(3)).max() <= _SHEAR:
        return []
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    left, _, right = np.linalg.svd(directions)
    upright = directions.copy()
    normal = np.cross(directions[:, 0], directions[:, 1])
    upright[:, 2] = normal / np.linalg.norm(normal) * np.sign(normal @ directions[:, 2])
    along = abs(float(upright[:, 2] @ directions[:, 2]))
    twins = []
    for axes, scale in ((left @ right, 1.0), (upright, 1.0), (upright, along)):
        twin = sform.copy()
        twin[:3, :3] = axes * lengths * (1, 1, scale)
        twins.append(twin)
    return twins


def _other_lengths(header: Any, factor: float, affine: Affine) -> list[str]:
    """A note if pixdim says another voxel size than the sform."""
    sizes, lengths = _sizes(header)[0] * factor, np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(sizes, lengths, rtol=_SAME_LENGTH, atol=0):
        return []
    return [
        f"pixdim says voxels of {_mm(sizes)}, the sform {_mm(lengths)}: the sform is used (SimpleITK and MONAI go by "
        "pixdim)"
    ]


def _directions(affine: Affine) -> Affine:
    return np.asarray(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0), np.float64)


def _mm(sizes: Affine) -> str:
    return f"{' x '.join(f'{size:.4g}' for size in sizes)} mm"
