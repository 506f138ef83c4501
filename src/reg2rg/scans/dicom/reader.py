"""The reader of DICOM: from whatever holds a series to one image for `reg2rg.scans.hounsfield`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reg2rg.core.errors import DataFault
from reg2rg.core.types import Grid
from reg2rg.scans.base import READERS, Reader, ReadOptions, StoredImage, affine_notes, volume_shape
from reg2rg.scans.dicom import files, regrid
from reg2rg.scans.dicom.choose import Candidate, candidates_of, choose, note, table
from reg2rg.scans.dicom.frames import read_series
from reg2rg.scans.dicom.pixels import volume
from reg2rg.scans.dicom.stack import Stack

_INT16 = (-32768, 32767)


@READERS.register
class DICOM(Reader):
    """A DICOM series: its folder (with others in it), a zip of it, a DICOMDIR, or one Enhanced multi-frame file.

    The series is chosen by the rules of `reg2rg.scans.dicom.choose`. Needs the extra ``reg2rg[dicom]``.
    """

    suffixes = (".dcm", ".zip")

    def matches(self, path: Path) -> bool:
        """Whether it is a DICOM file, or a folder or zip with one in it."""
        return files.is_dicom(path)

    def read(self, path: Path) -> StoredImage:
        """Read the one series that the rules choose by default; see `read_scan`."""
        return self.read_scan(path, ReadOptions())

    def read_scan(self, path: Path, options: ReadOptions) -> StoredImage:
        """Read the chosen series as one volume.

        Raises:
            DataFault: what `reg2rg.scans.dicom.files.find`, `choose` and `pixels.volume` raise.
        """
        taken, judged, said = series_of(path, options)
        if isinstance(taken, DataFault):
            raise taken.with_note("; ".join(said))
        assert taken.stack is not None  # it was chosen for it
        image = _image(taken.stack, path)
        kinds = taken.frames[0].kinds
        derived = (f"a reformat: ImageType {', '.join(kinds)}",) if kinds and "ORIGINAL" not in kinds else ()
        notes = (*note(taken, judged), *derived, *taken.series.oddities, *said, *image.notes)
        return StoredImage(path, image.stored, image.slope, image.inter, image.affine, notes)

    def grid(self, path: Path, options: ReadOptions) -> Grid | None:
        """Of the chosen series, by the headers of its slices; a tilted or uneven one as it was scanned."""
        taken, _, said = series_of(path, options)
        if isinstance(taken, DataFault):
            raise taken.with_note("; ".join(said))
        assert taken.stack is not None  # it was chosen for it
        rows, columns = taken.stack.frames[0].shape
        return Grid((columns, rows, len(taken.stack.frames)), taken.stack.affine())

    def files(self, path: Path) -> tuple[Path, ...]:
        """Every DICOM file there: another series that is added may change the choice."""
        return files.paths(path)


def series_of(path: Path, options: ReadOptions) -> tuple[Candidate | DataFault, list[Candidate], tuple[str, ...]]:
    """The series to read or why there is none, all series with their verdicts, and notes on files that are unreadable.

    Raises:
        DataFault: nothing can be read.
    """
    try:
        series, said = read_series(path)
        return *choose(candidates_of(series, path), options, path), said
    except OSError as error:
        fix = "check the folder and its permissions"
        found = f"cannot be read ({error.strerror or error})"
        raise DataFault.of("UNREADABLE", found=found, expected="readable files", fix=fix, path=path) from error


def series_table(path: Path, options: ReadOptions) -> tuple[str, DataFault | None]:
    """Every series at `path` with the verdict of the rules, a line each, and why none is taken, if so.

    The table is empty where there is no choice.

    Raises:
        DataFault: as `series_of`.
    """
    taken, judged, said = series_of(path, options)
    fault = taken.with_note("; ".join(said)) if isinstance(taken, DataFault) else None
    return table(judged) if len(judged) > 1 else "", fault


def _image(stack: Stack, path: Path) -> StoredImage:
    """The voxels of sorted slices, brought onto an even and upright grid where they lie on none."""
    rows, columns = stack.frames[0].shape
    volume_shape([columns, rows, len(stack.frames)], path)
    stored, slope, inter = volume(stack.frames)
    affine, notes = stack.affine(), [*stack.notes]
    if stack.uneven or stack.tilt:
        hu = np.empty(stored.shape, np.int16, order="F")
        for k in range(stored.shape[2]):
            hu[:, :, k] = np.clip(np.rint(stored[:, :, k] * np.float64(slope) + inter), *_INT16)
        if stack.uneven:
            hu = regrid.even(hu, stack.places, stack.spacing)
            notes.append(f"slices {stack.gaps()} mm apart: interpolated every {stack.spacing:.3g} mm")
        if stack.tilt:
            hu, affine = regrid.upright(hu, affine, path)
            notes.append(f"gantry tilted by {stack.tilt:.1f} degrees: sheared onto an upright grid")
        stored, slope, inter = hu, 1.0, 0.0
    return StoredImage(path, stored, slope, inter, affine, (*notes, *affine_notes(affine, path)))
