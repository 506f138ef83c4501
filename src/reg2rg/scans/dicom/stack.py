"""Slices of one series as one volume: sorted by position along the normal, every doubt about the grid said by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reg2rg.core.errors import DataFault
from reg2rg.scans.base import Affine
from reg2rg.scans.dicom.frames import Frame, Vector
from reg2rg.scans.dicom.library import counted
from reg2rg.scans.dicom.pixels import planes

ORIENTATION_TOLERANCE = 1e-4
"""Largest difference of a direction cosine within a series; 0.04 mm over a frame of 400 mm."""
SAME_PLACE = 0.01
"""mm below which two slices lie at one place."""
_UNEVEN = (0.02, 0.06)  # off the even grid: share of the step, or mm (positions are written with one decimal)
_TILT = 0.5  # voxels by which the last slice is displaced against the first: below, there is no tilt
_LISTED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Sorted slices on one grid.

    Attributes:
        frames: by position along the normal, rising.
        places: (N,) mm of each along the step between slices, from the first.
        step: (3,) from slice to slice, LPS mm.
        tilt: degrees between that step and the normal.
        uneven: not on an even grid, which `ReadOptions.uneven` lets be resampled.
        notes: what was dropped or found.
    """

    frames: tuple[Frame, ...]
    places: Vector
    step: Vector
    tilt: float
    uneven: bool
    notes: tuple[str, ...]

    @property
    def spacing(self) -> float:
        """Length in mm of the step."""
        return float(np.linalg.norm(self.step))

    def gaps(self) -> str:
        """The smallest and the largest step, for messages: ``1 to 2.5``."""
        gaps = np.diff(self.places)
        return f"{gaps.min():.3g} to {gaps.max():.3g}"

    def affine(self) -> Affine:
        """(4, 4) indices (column, row, slice) -> RAS mm."""
        first = self.frames[0]
        affine = np.eye(4)
        affine[:3, 0] = first.orientation[0] * first.spacing[0]
        affine[:3, 1] = first.orientation[1] * first.spacing[1]
        affine[:3, 2], affine[:3, 3] = self.step, first.position
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def stack(frames: Sequence[Frame], path: Path) -> Stack:
    """Sort slices and hold them to one grid.

    Localizers among them and identical copies are dropped with a note.

    Raises:
        DataFault: LOCALIZER, MIXED_SIZE, AFFINE, MIXED_ORIENTATION, ONE_PLACE, DUPLICATE_SLICE, MISSING_SLICE,
            FEW_SLICES (one alone has no step), SIDE_STEP.
    """
    kept, notes = _without_localizers(frames, path)
    notes += _one_orientation(kept, path)
    _one_size(kept, path)
    kept, said = _without_copies(kept, path)
    return _on_a_grid(kept, [*notes, *said], path)


def is_localizer(frame: Frame) -> bool:
    """Whether it is a survey of the patient, by its ImageType."""
    return "LOCALIZER" in frame.kinds


def _without_localizers(frames: Sequence[Frame], path: Path) -> tuple[list[Frame], list[str]]:
    kept = [frame for frame in frames if not is_localizer(frame)]
    if not kept:
        found = counted(len(frames), "localizer") if frames else "no slice that has a place"
        raise _fault("LOCALIZER", found, "slices of a CT", "give the series of the CT itself", path)
    dropped = len(frames) - len(kept)
    return kept, [f"{counted(dropped, 'localizer')} among the slices: dropped"] if dropped else []


def _one_size(frames: Sequence[Frame], path: Path) -> None:
    sizes = Counter((*frame.shape, *(round(size, 4) for size in frame.spacing)) for frame in frames)
    if len(sizes) > 1:
        listed = ", ".join(
            f"{count} of {rows} x {columns} ({dx:g} x {dy:g} mm)"
            for (rows, columns, dx, dy), count in sizes.most_common(_LISTED)
        )
        raise _fault("MIXED_SIZE", f"slices of different sizes: {listed}", "one size", _APART, path)


_APART = "export the reconstructions as series of their own"


def _one_orientation(frames: Sequence[Frame], path: Path) -> list[str]:
    first = frames[0]
    gram = first.orientation @ first.orientation.T
    if np.abs(gram - np.eye(2)).max() > 1e-3 or min(first.spacing) <= 0:
        fix = "export the series again"
        raise _fault("AFFINE", "directions or a spacing that make no grid", "unit vectors at right angles", fix, path)
    turned = np.array([np.abs(frame.orientation - first.orientation).max() for frame in frames])
    worst = float(turned.max())
    if worst > ORIENTATION_TOLERANCE:
        groups = Counter(tuple(np.round(frame.normal, 2) + 0.0) for frame in frames)
        listed = ", ".join(
            f"{count} with normal ({normal[0]:g}, {normal[1]:g}, {normal[2]:g})"
            for normal, count in groups.most_common(_LISTED)
        )
        found = f"slices of different orientations: {listed}"
        raise _fault("MIXED_ORIENTATION", found, f"cosines within {ORIENTATION_TOLERANCE:g}", _APART, path)
    return [f"orientations differ by up to {worst:.1g}: taken as one"] if worst > 1e-6 else []


def _without_copies(frames: Sequence[Frame], path: Path) -> tuple[list[Frame], list[str]]:
    """One slice a place, in their order; copies with the same pixels are dropped.

    Raises:
        DataFault: ONE_PLACE, DUPLICATE_SLICE.
    """
    groups = by_place(frames)
    doubled = [group for group in groups if len(group) > 1]
    if different := [group for group in doubled if not _same_pixels(group)]:
        if len(groups) == 1:
            found = f"{len(frames)} different slices, all at one place"
            fix = "give a series that covers the chest; slices at one place are a measurement over time"
            raise _fault("ONE_PLACE", found, "one slice a place", fix, path)
        where = ", ".join(_mm(group[0]) for group in different[:_LISTED])
        found = f"{counted(len(different), 'place')} with slices of different pixels (at {where} mm along the normal)"
        raise _fault("DUPLICATE_SLICE", found, "one slice a place", _APART, path)
    dropped = len(frames) - len(groups)
    said = [f"{counted(dropped, 'identical copy', 'identical copies')} of slices: dropped"] if dropped else []
    return [group[0] for group in groups], said


def by_place(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Slices grouped by where they lie, rising along the normal of the first."""
    normal = frames[0].normal
    ordered = sorted(frames, key=lambda frame: (float(frame.position @ normal), frame.instance, frame.index or 0))
    groups: list[list[Frame]] = []
    for frame in ordered:
        if groups and np.abs(frame.position - groups[-1][0].position).max() < SAME_PLACE:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    return groups


def _same_pixels(group: Sequence[Frame]) -> bool:
    if len({(frame.slope, frame.inter) for frame in group}) > 1:
        return False
    (_, first), *others = planes(group)
    return all(np.array_equal(first, other) for _, other in others)


def _on_a_grid(frames: Sequence[Frame], notes: list[str], path: Path) -> Stack:
    if len(frames) < 2:
        fix = "give the folder of the series, not one slice of it"
        raise _fault("FEW_SLICES", "1 slice", "a series of slices", fix, path)
    positions = np.array([frame.position for frame in frames])
    way = positions[-1] - positions[0]
    length = float(np.linalg.norm(way))
    places = (positions - positions[0]) @ (way / length)
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    _refuse_gaps(frames, gaps, usual, path)
    even = np.arange(len(frames)) * (length / (len(frames) - 1))
    off = float(np.abs(places - even).max())
    uneven = off > max(_UNEVEN[0] * usual, _UNEVEN[1])
    aside = float(np.linalg.norm(positions - positions[0] - places[:, None] * (way / length), axis=1).max())
    if aside > _TILT * min(frames[0].spacing):
        found = f"slices that lie up to {aside:.1f} mm beside the line from the first to the last"
        raise _fault("SIDE_STEP", found, "slices one behind the other", _APART, path)
    normal = frames[0].normal
    tilt = float(np.degrees(np.arccos(np.clip(way @ normal / length, -1, 1))))
    sideways = float(np.linalg.norm(way - (way @ normal) * normal))
    if sideways <= _TILT * min(frames[0].spacing):
        tilt = 0.0
    if not uneven and off > 0.01 * usual:
        notes.append(f"positions are up to {off:.2g} mm off an even step of {length / (len(frames) - 1):.4g} mm")
    return Stack(
        tuple(frames), places, way / length * (usual if uneven else length / (len(frames) - 1)), tilt, uneven,
        tuple(notes),
    )  # fmt: skip


def _refuse_gaps(frames: Sequence[Frame], gaps: Vector, usual: float, path: Path) -> None:
    """Raise where a gap is a whole number of steps: slices are missing there."""
    steps = np.rint(gaps / usual)
    holes = [i for i in range(len(gaps)) if steps[i] >= 2 and abs(gaps[i] - steps[i] * usual) <= 0.1 * usual]
    others = np.delete(gaps, holes)
    if not holes or np.abs(others - usual).max() > max(_UNEVEN[0] * usual, 2 * _UNEVEN[1]):
        return  # uneven everywhere: said as such
    where = "; ".join(f"{_mm(frames[i])} to {_mm(frames[i + 1])} mm" for i in holes[:_LISTED])
    missing = int(sum(steps[i] - 1 for i in holes))
    found = f"{counted(missing, 'slice')} missing between {where} along the normal, where the step is {usual:.4g} mm"
    raise _fault("MISSING_SLICE", found, "every slice", "export or download the series again, whole", path)


def _mm(frame: Frame) -> str:
    return f"{frame.position @ frame.normal:.1f}"


def _fault(code: str, found: str, expected: str, fix: str, path: Path) -> DataFault:
    return DataFault.of(code, found=found, expected=expected, fix=fix, path=path)
