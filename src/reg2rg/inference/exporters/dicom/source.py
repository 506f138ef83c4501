"""The CT series that a result was made from: its header, and each slice as the DICOM file says it, digit by digit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.types import Grid
from reg2rg.inference.result import ReportResult
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.dicom.files import Opener, is_dicom
from reg2rg.scans.dicom.frames import first, functional
from reg2rg.scans.dicom.library import damage, pydicom
from reg2rg.scans.dicom.reader import series_of
from reg2rg.scans.dicom.stack import Stack

_PLACE = ("ImageOrientationPatient", "PixelSpacing", "SliceThickness")
_LONGEST = 16  # characters of a DS
_SAME = 1e-3  # mm by which two grids may differ


@dataclass(frozen=True, slots=True)
class SourceSlice:
    """One slice of the CT.

    Attributes:
        sop_class, instance: of its file.
        frame: its number in an Enhanced file, from 1; ``None`` for a file of one slice.
        position: ImagePositionPatient as written.
    """

    sop_class: str
    instance: str
    frame: int | None
    position: Any


@dataclass(frozen=True, slots=True, eq=False)
class SourceSeries:
    """The CT.

    Attributes:
        header: of the file of the first slice, without pixels.
        place: ImageOrientationPatient, PixelSpacing and SliceThickness as written, of all slices.
        slices: by position along the normal, rising.
        stack: the same with numbers.
    """

    header: Any
    place: dict[str, Any]
    slices: tuple[SourceSlice, ...]
    stack: Stack

    @property
    def grid(self) -> Grid:
        """Where the voxels (column, row, slice) of the series lie."""
        rows, columns = self.stack.frames[0].shape
        return Grid((columns, rows, len(self.slices)), self.stack.affine())

    def holds(self, grid: Grid) -> bool:
        """Whether a grid is that of the series, voxel by voxel."""
        if grid.shape != self.grid.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, size - 1) for size in grid.shape], indexing="ij")).reshape(3, -1)
        apart = (grid.affine - self.grid.affine) @ np.vstack([corners, np.ones(corners.shape[1])])
        return float(np.abs(apart[:3]).max()) < _SAME


def refusal(scan: Path, read: ReadOptions, format_: str, on_grid: bool) -> str:
    """Why nothing can be written of a scan, ``""`` if it can.

    Args:
        scan: a file or folder of any kind.
        read: how it is read.
        format_: name of the exporter, for the message.
        on_grid: what is written lies on the grid of the CT.
    """
    if not is_dicom(scan):
        return (
            f"{scan}: no DICOM, and {format_} takes patient, study and grid from the headers of a CT series. "
            f"Fix: give the DICOM study, or leave {format_} out of the formats"
        )
    taken, _, _ = series_of(scan, read)
    if isinstance(taken, DataFault) or taken.stack is None:
        return ""  # the scan itself is refused, with a better reason
    if not (taken.series.study and taken.series.uid and all(frame.instance for frame in taken.stack.frames)):
        return (
            f"{scan}: files without UID of study, series or instance, to which {format_} would refer. "
            f"Fix: export the series again, or leave {format_} out of the formats"
        )
    if not on_grid:
        return ""
    what = "slices of a tilted gantry" if taken.stack.tilt else "uneven slices" if taken.stack.uneven else ""
    return what and (
        f"{scan}: {what} are resampled, so that the masks do not lie on the pixels of the CT, where {format_} has to "
        f"put them. Fix: leave {format_} out of the formats; TextSR and PDF can be written"
    )


def source_series(result: ReportResult, format_: str, on_grid: bool) -> SourceSeries:
    """The CT of a result.

    Raises:
        ConfigError: see `refusal`; and where the masks lie on another grid than the CT's files.
        DataFault: it cannot be read any more.
    """
    scan, read = result.study.image, result.made_by.options
    if reason := refusal(scan, read, format_, on_grid):
        raise ConfigError(reason)
    taken, _, _ = series_of(scan, read)
    if isinstance(taken, DataFault):
        raise taken
    assert taken.stack is not None  # it was chosen for it
    found = _read(taken.stack, scan)
    if on_grid and not found.holds(result.stored_grid):
        raise ConfigError(
            f"{scan}: the masks do not lie on the voxels of the series, which may have changed since it was read. "
            "Fix: report on the series as it is now"
        )
    return found


def _read(stack: Stack, scan: Path) -> SourceSeries:
    """Headers of all slices; a file is read once, a whole header only of the first."""
    headers: dict[Any, Any] = {}
    slices: list[SourceSlice] = []
    place: dict[str, Any] = {}
    with Opener() as opener:
        for frame in stack.frames:
            if frame.source not in headers:
                with damage(scan, "a header"), opener.open(frame.source) as stream:
                    tags = None if not headers else ["SOPClassUID", "SOPInstanceUID", "ImagePositionPatient"]
                    read = pydicom().dcmread(stream, stop_before_pixels=True, force=True, specific_tags=tags)
                headers[frame.source] = read
            header = headers[frame.source]
            groups: Any = header
            if frame.index is not None:
                own = header.PerFrameFunctionalGroupsSequence[frame.index]
                groups = functional(first(header, "SharedFunctionalGroupsSequence")) | functional(own)
            if not slices:
                place = {name: _decimals(groups.get(name)) for name in _PLACE}
            number = None if frame.index is None else frame.index + 1
            position = _decimals(groups.get("ImagePositionPatient"))
            slices.append(SourceSlice(str(header.SOPClassUID), str(header.SOPInstanceUID), number, position))
    return SourceSeries(next(iter(headers.values())), place, tuple(slices), stack)


def _decimals(value: Any) -> Any:
    """One number or several as they were written; those that are longer than a DS may be, rounded to 16 characters."""
    if value is None or value == "":
        return None
    if isinstance(value, float):
        return value if len(str(value)) <= _LONGEST else pydicom().valuerep.DS(float(value), auto_format=True)
    return [_decimals(one) for one in value]
