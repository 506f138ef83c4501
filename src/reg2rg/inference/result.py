"""What a report on one scan is: the paragraphs, the regions that they speak of, the grid, and how it all came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reg2rg.core.errors import ConfigError
from reg2rg.core.report import Report, Written
from reg2rg.core.types import Grid, Mask, RegionVolume, Study
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.grid import Orientation, bounding_box
from reg2rg.scans.segmenters import MadeBy
from reg2rg.store.attributes import Attributes

Corner = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a report came about.

    Attributes:
        versions: of reg2rg, Python and the packages that the numbers depend on.
        model: digest of the model's weights.
        masks: what made the masks, ``None`` for a report without regions.
        options: how scan and masks were read.
        notes: what was repaired or is worth knowing, one line each.
        truncated: the report was stopped by its length or by a loop, not by its own end.
    """

    versions: Mapping[str, str]
    model: str
    masks: MadeBy | None
    options: ReadOptions
    notes: tuple[str, ...] = ()
    truncated: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ReportResult:
    """A report on one scan, tied to its voxels.

    Attributes:
        study: the scan's id, its file and where its masks are.
        report: the paragraphs with their regions.
        source: the scan in RAS with the masks of its regions on its grid, as they were read.
        asked: the regions that the model was asked for, in slot order; empty for a report without regions.
        absent: region of the model's set that it was not asked for -> why.
        made_by: how it came about.
        attributes: what is measured of the regions, ``None`` where that was not done.
        written: how each paragraph came by its region's name, and whether it was cut; in slot order. Nothing where
            decoding was free.
    """

    study: Study
    report: Report
    source: RegionVolume
    asked: tuple[str, ...]
    absent: Mapping[str, str]
    made_by: Provenance
    attributes: Attributes | None = None
    written: tuple[Written, ...] = ()

    @property
    def text(self) -> str:
        """The report as text: a line for each paragraph, with its region before it if it has one."""
        lines = (f"{part.region}: {part.text}" if part.region else part.text for part in self.report.paragraphs)
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text

    @property
    def grid(self) -> Grid:
        """The grid of `masks`, in RAS."""
        shape = self.source.volume.array.shape
        return Grid((shape[0], shape[1], shape[2]), self.source.volume.affine)

    @property
    def stored_grid(self) -> Grid:
        """The grid of the scan's file, as its axes lie there."""
        return self.source.stored or self.grid

    @property
    def masks(self) -> Mapping[str, Mask]:
        """Region -> mask, bool, on `grid`."""
        return self.source.masks

    def _mask(self, region: str) -> Mask:
        if region not in self.masks:
            known = ", ".join(self.masks) or "none"
            raise ConfigError(f"{self.study.id}: there is no mask of region '{region}' (there are: {known})")
        return self.masks[region]

    def stored_mask(self, region: str) -> Mask:
        """The mask of a region on `stored_grid`: a view, to be laid over the voxels of the scan's file."""
        return Orientation.of(self.stored_grid.affine).from_ras(self._mask(region))

    def volume_ml(self, region: str) -> float:
        """Volume of a region in millilitres.

        Raises:
            ConfigError: no mask of it.
        """
        voxel = abs(float(np.linalg.det(self.grid.affine[:3, :3])))
        return int(np.count_nonzero(self._mask(region))) * voxel / 1000

    def box_mm(self, region: str) -> tuple[Corner, Corner]:
        """Lowest and highest corner in RAS mm of the box around a region, the outer faces of its voxels included."""
        box = bounding_box(self._mask(region))
        assert box is not None  # a region has a voxel
        edges = np.array(np.meshgrid(*[(low - 0.5, high - 0.5) for low, high in box], indexing="ij"))
        affine = self.grid.affine
        points = affine[:3, :3] @ edges.reshape(3, -1) + affine[:3, 3:]
        low, high = points.min(1).tolist(), points.max(1).tolist()
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])
