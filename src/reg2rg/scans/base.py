"""What every reader gives: an image as stored, on a grid that a chest CT or its mask can have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.registry import Registry
from reg2rg.core.task import Intensity, Views
from reg2rg.core.types import Grid, PositiveInt, Rescale, Study, Volume
from reg2rg.scans.grid_layout import GridLayout

Affine = npt.NDArray[np.float64]
Shape = tuple[int, int, int]
MaskGrid = Literal["header", "scan", "ras"]
Implausible = Literal["error", "drop", "note", "ignore"]

MIN_DIM, MAX_DIM = 8, 2048
MIN_SPACING, MAX_SPACING = 0.2, 10.0  # mm
THICK_SLICES = 5.0  # mm; noted above
EXPORT = "export the scan again with its own grid"
_SHEAR = 1e-3


@dataclass(frozen=True)  # no slots: jsonargparse reads a default through vars()
class ReadOptions:
    """How scans and masks are read.

    Attributes:
        min_slices: fewest axial slices.
        hu: ``"check"`` refuses volumes that are not plausible Hounsfield units; ``"trust"`` takes any values.
        mask_grid: ``"header"`` places masks by their own affine, those without one where they fit the scan's voxels;
            ``"scan"`` takes every mask array as lying on the scan's stored grid, whatever its affine says; ``"ras"``
            on the grid of the scan brought to RAS (what SAT writes).
        implausible: what becomes of masks that cannot be those of the scan (`reg2rg.scans.plausibility`): ``"error"``
            refuses the study, ``"drop"`` leaves out regions that are not what they are called, if the others fit,
            ``"note"`` says so in a note, ``"ignore"`` does not look.
        padding: a constant frame around the CT that is not air, such as -3024, -2000 or 0: ``"keep"`` notes it,
            ``"air"`` sets it to -1024 HU too.
        clip: bring the CT to [-1024, 3071] HU. Off keeps what int16 holds, padding and metal too, which
            ``task.views.clip: last`` averages; the commands turn it off where the task says so.
        series: of several DICOM series the one to read, by its SeriesInstanceUID or the end of it.
        kernel: of several DICOM reconstructions those with this ConvolutionKernel.
        tilt: a CT of a tilted gantry: ``"shear"`` brings it onto an upright grid, ``"refuse"`` does not.
        uneven: DICOM slices with an uneven step: ``"refuse"`` or ``"resample"`` (linear, onto the usual step).
        first_slice: of files that do not say it, pictures and arrays, which end of the patient their first slice is.
        rescale: what a table says of the stored values of this scan; the study brings it.
        intensity: what the values of scans are; the commands take it from the task's views.
        intensity_range: see `reg2rg.core.task.Views`, as `intensity`.
        grid: how files of features lie, which take the place of scans; null for scans.
    """

    min_slices: PositiveInt = 16
    hu: Literal["check", "trust"] = "check"
    mask_grid: MaskGrid = "header"
    implausible: Implausible = "error"
    padding: Literal["keep", "air"] = "keep"
    clip: bool = True
    series: str = ""
    kernel: str = ""
    tilt: Literal["shear", "refuse"] = "shear"
    uneven: Literal["refuse", "resample"] = "refuse"
    first_slice: Literal["head", "feet"] = "head"
    rescale: Rescale | None = None
    intensity: Intensity = "hu"
    intensity_range: tuple[float, float] | None = None
    grid: GridLayout | None = None

    def for_views(self, views: Views) -> ReadOptions:
        """The same options, with the values that the views are computed from.

        Raises:
            ConfigError: files of other features than the views are of.
        """
        if self.grid is not None:
            self.grid.check(views)
        elif views.features:
            raise ConfigError(
                f"task.views.features is {views.features!r}, but data.read.grid does not say how its files lie. Fix: "
                "give encoder, cells, channels and axes there, as the packaged features/colipri.yaml does"
            )
        return replace(
            self,
            clip=self.clip and views.clip == "first",
            intensity=views.intensity,
            intensity_range=views.intensity_range,
        )

    @property
    def measures(self) -> bool:
        """Whether what is read is in Hounsfield units, in which regions are measured and judged."""
        return self.grid is None and self.intensity == "hu"

    def as_facts(self) -> dict[str, Any]:
        """The options as plain values for keys; what came later stands there only where it says something."""
        later = {"intensity": "hu", "intensity_range": None, "grid": None, "first_slice": "head", "rescale": None}
        return {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}

    def for_study(self, study: Study) -> ReadOptions:
        """The same options, with what a table says of the study's stored values."""
        return self if study.rescale is None else replace(self, rescale=study.rescale)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A 3D image as its file holds it.

    Attributes:
        path: where it came from.
        stored: (I, J, K) voxels in the stored type and native byte order, first axis fastest; read-only.
        slope, inter: value = stored * slope + inter.
        affine: (4, 4) voxel indices -> RAS mm.
        notes: oddities that do no harm.
        names: label -> its name, where the file says so.
        placed: whether the file says where it lies; otherwise the affine is what its format takes for granted.
    """

    path: Path
    stored: npt.NDArray[Any]
    slope: float
    inter: float
    affine: Affine
    notes: tuple[str, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    placed: bool = True

    @property
    def scaled(self) -> bool:
        """Whether slope and intercept change anything."""
        return (self.slope, self.inter) != (1.0, 0.0)

    def values(self) -> npt.NDArray[Any]:
        """Voxel values, slope and intercept applied: in the stored type where they change nothing, else float32."""
        if not self.scaled:
            return self.stored
        values: npt.NDArray[Any] = np.multiply(self.stored, np.float32(self.slope), dtype=np.float32)
        values += np.float32(self.inter)
        return values


@dataclass(frozen=True, slots=True)
class Scan:
    """A CT in RAS with what is needed to bring masks onto its grid.

    Attributes:
        volume: the CT, int16 HU, RAS; array with its first axis fastest in memory.
        stored: grid of the file, before it was brought to RAS.
        notes: what was repaired.
        placed: whether the file says where it lies.
    """

    volume: Volume
    stored: Grid
    notes: tuple[str, ...]
    placed: bool = True


class Reader(ABC):
    """Reads one kind of file. Built without arguments; it keeps nothing between files.

    Attributes:
        suffixes: how names of such files end, in lower case, the commonest first.
    """

    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def matches(self, path: Path) -> bool:
        """Whether the content says that `path` is such a file, whatever its name. Never raises, reads a few bytes."""

    @abstractmethod
    def read(self, path: Path) -> StoredImage:
        """Read one 3D image to its last byte.

        Raises:
            DataFault: a file that is damaged, cut short or not one 3D image. Never another exception.
        """

    def read_scan(self, path: Path, options: ReadOptions) -> StoredImage:
        """Read a CT. What may hold several asks `options` which.

        Raises:
            DataFault: as `read`.
        """
        return self.read(path)

    def grid(self, path: Path, options: ReadOptions) -> Grid | None:
        """Where the voxels of a CT lie, by its header alone; ``None`` where only reading it would tell.

        Raises:
            DataFault: a header that `read_scan` would refuse.
        """
        return None

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files that the image at `path` is made of, so that a change of any is noticed."""
        return (path,)


READERS: Registry[Reader] = Registry("reader", Reader)  # type: ignore[type-abstract]


def known_kinds() -> str:
    """What can be read, for messages: ``a DICOM, NIfTI or NRRD file``."""
    *names, last = READERS
    return f"a {', '.join(names)}{' or ' if names else ''}{last} file"


def volume_shape(sizes: list[int], path: Path) -> Shape:
    """The sizes of a file's axes as the shape of one volume.

    Raises:
        DataFault: NOT_3D, HEADER.
    """
    if len(sizes) != 3:
        fix = "save the one volume that you mean as its own file (nibabel.four_to_three)"
        found = f"shape {' x '.join(map(str, sizes))}"
        raise DataFault.of("NOT_3D", found=found, expected="one 3D volume", fix=fix, path=path)
    found, expected = f"shape {sizes}", f"1 to {MAX_DIM} voxels an axis"
    if min(sizes) < 1 or max(sizes) > MAX_DIM:
        raise DataFault.of("HEADER", found=found, expected=expected, fix=EXPORT, path=path)
    return sizes[0], sizes[1], sizes[2]


def affine_notes(affine: Affine, path: Path) -> list[str]:
    """What is odd about an affine, for a reader's notes.

    Raises:
        DataFault: AFFINE, SPACING.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        found = "an affine that is singular or not finite"
        raise DataFault.of("AFFINE", found=found, expected="an invertible affine", fix=EXPORT, path=path)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() < MIN_SPACING * 0.999 or spacing.max() > MAX_SPACING * 1.001:
        raise DataFault.of(
            "SPACING",
            found=f"spacing {' x '.join(f'{size:.4g}' for size in spacing)} mm",
            expected=f"{MIN_SPACING:g} to {MAX_SPACING:g} mm",
            fix="correct the header: the unit (xyzt_units, space units) or the spacing is wrong",
            path=path,
        )
    notes = [f"slices {spacing.max():.1f} mm apart"] if spacing.max() > THICK_SLICES else []
    directions = affine[:3, :3] / spacing
    if np.abs(directions.T @ directions - np.eye(3)).max() > _SHEAR:
        notes.append("axes are not at right angles (gantry tilt or shear)")
    return notes


def native_order(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same voxels in the byte order of this machine, first axis fastest."""
    return stored if stored.dtype.isnative else stored.astype(stored.dtype.newbyteorder("="), order="F")


def corner_shift(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """Largest distance, in the unit of the affines' output, between where the two put a corner voxel of `shape`."""
    corners = np.array([[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    return float(np.linalg.norm(((first - second) @ corners.T)[:3], axis=0).max())
