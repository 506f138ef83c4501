"""The records that flow from a data folder to the store. NumPy alone: workers that read scans need no torch.

Letters used for shapes throughout the package: B studies of a batch, N regions packed over the batch, R regions of one
study, T tokens, C channels, H W D voxels along the first, second and third array axis (left-right, back-front,
bottom-top in RAS), L text positions, E width of the language model, M visual positions of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound in the type of a constructor's argument; a config's value is held to it before anything is built.

    Attributes:
        least: smallest value.
        above: the value must be above it.
        most: largest value.
    """

    least: float
    above: bool = False
    most: float = float("inf")

    def __str__(self) -> str:
        if self.most < float("inf"):
            return f"above {self.least:g}, {self.most:g} at most" if self.above else f"{self.least:g} to {self.most:g}"
        return f"above {self.least:g}" if self.above else f"{self.least:g} or more"

    def holds(self, value: float) -> bool:
        """Whether a value keeps to it."""
        return (value > self.least if self.above else value >= self.least) and value <= self.most


@dataclass(frozen=True, slots=True)
class Place:
    """Marks text that names a file or folder, in the type of a constructor's argument; see `reg2rg.config.paths`.

    Attributes:
        kind: ``"path"``; ``"hub"``, or else a hub id: a path if something is there; ``"yaml"``, or a packaged name: a
            path by its suffix; ``"inside"``, below another folder, so that a relative one stays as it is.
    """

    kind: Literal["path", "hub", "yaml", "inside"]


PathText = Annotated[str, Place("path")]
PathOrHubId = Annotated[str, Place("hub")]
PathOrName = Annotated[str, Place("yaml")]
PathInside = Annotated[str, Place("inside")]

PositiveInt = Annotated[int, Bound(1)]
NonNegativeInt = Annotated[int, Bound(0)]
PositiveFloat = Annotated[float, Bound(0, above=True)]
NonNegativeFloat = Annotated[float, Bound(0)]
UnitFloat = Annotated[float, Bound(0, most=1)]

DecodingKind = Literal["constrained", "forced", "free"]
"""How a report is written: held to its form, held to it with the names given, or as the model likes."""

HU = npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RegionFiles:
    """One mask file a region, the layout of RadGenome-ChestCT and SAT; or several whose union it is.

    Attributes:
        files: region name -> file, or files (TotalSegmentator writes one a class, and lungs are five). A region without
            a file is absent from the mapping.
    """

    files: Mapping[str, Path | tuple[Path, ...]]

    def parts(self) -> Mapping[str, tuple[Path, ...]]:
        """Region name -> its files."""
        return {name: (found,) if isinstance(found, Path) else found for name, found in self.files.items()}


@dataclass(frozen=True, slots=True)
class LabelMap:
    """One multilabel mask file, the layout of TotalSegmentator's ``--ml``.

    Attributes:
        file: its whole numbers are labels.
        labels: region name -> label values that make up the region. A region that has no label is absent.
    """

    file: Path
    labels: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)  # no slots: an option's type may be one, and jsonargparse reads a default through vars()
class Rescale:
    """What a table says of the stored values of a scan.

    Attributes:
        slope, inter: HU = stored * slope + inter.
        spacing: mm along the three axes of the stored array; ``None`` if it does not say.
        applied: whether the file has it in it already: ``"no"``, ``"yes"``, or ``"unknown"``, which the values tell.
            Whatever it says, nothing that is in HU is rescaled again.
    """

    slope: float
    inter: float
    spacing: tuple[float, float, float] | None = None
    applied: Literal["no", "yes", "unknown"] = "unknown"


@dataclass(frozen=True, slots=True)
class MaskChannels:
    """One array with a channel an organ, on the grid of a study's features or a finer one; for `Study.masks`.

    Attributes:
        file: `reg2rg.scans.grid_layout.GridLayout` says which channel is which organ.
    """

    file: Path

    def parts(self) -> Mapping[str, tuple[Path, ...]]:
        """The file under a name, as other masks have them."""
        return {"organs": (self.file,)}


@dataclass(frozen=True, slots=True)
class Study:
    """One scan with its masks and report, as paths and text: nothing is read yet.

    Attributes:
        id: unique in its dataset and safe as a file name.
        patient: unit of splits and of bootstrap intervals.
        split: ``"train"``, ``"val"`` or ``"test"``.
        image: the CT volume: a file of any kind that `reg2rg.scans` has a reader for; or an array of features.
        masks: where the region masks are; ``None`` for a scan without regions.
        reports: region name -> text that describes the region. Regions without text are absent.
        whole: the whole report as written, ``""`` if the dataset has none.
        findings: clinical label -> present; ``None`` if the dataset has none.
        other: what the report says of no region, ``""`` if nothing, or if the dataset does not tell it apart.
        rescale: what a table says of the scan's stored values.
        row: of an array that stacks the features of many studies, this one's.
    """

    id: str
    patient: str
    split: str
    image: Path
    masks: RegionFiles | LabelMap | MaskChannels | None = None
    reports: Mapping[str, str] = field(default_factory=dict)
    whole: str = ""
    findings: Mapping[str, bool] | None = None
    other: str = ""
    rescale: Rescale | None = None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the voxels of an array lie.

    Attributes:
        shape: of the array.
        affine: (4, 4) float64, voxel indices -> RAS millimetres.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Volume:
    """A CT volume.

    Attributes:
        array: (H, W, D) int16, HU.
        affine: (4, 4) float64, voxel indices -> RAS millimetres.
    """

    array: HU
    affine: npt.NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along each array axis."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])


@dataclass(frozen=True, slots=True)
class RegionVolume:
    """A CT volume with the masks of its regions, if it has any, on the same grid.

    Attributes:
        volume: the CT.
        masks: region name -> (H, W, D) bool. Only non-empty regions, in the order of the region set.
        notes: what was repaired or is worth knowing, one line each (resampled masks, clipped voxels, empty regions).
        stored: the grid of the file that the CT came from, before it was brought to RAS; ``None`` if it came from none.
    """

    volume: Volume
    masks: Mapping[str, Mask]
    notes: tuple[str, ...] = ()
    stored: Grid | None = None
