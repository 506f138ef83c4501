"""What a report on one scan is: the paragraphs, the regions that they speak of, the grid, and how it all came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reg2rg.core.codes import Code
from reg2rg.core.errors import ConfigError
from reg2rg.core.report import OrderCertificate, Report, Written
from reg2rg.core.types import Grid, Mask, RegionVolume, Study
from reg2rg.inference.inputs import Inputs
from reg2rg.models.findings import StudyFindings, report_lines
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


@dataclass(frozen=True, slots=True)
class Run:
    """What the run record of a report has beyond its other files (`reg2rg.inference.run_record`).

    Attributes:
        inputs: identifiers and digests of what was read.
        device: where the model ran.
        language_model: hub id, or name of the folder, of the base language model.
        language_model_weights: digest of its weights.
        seeds: name -> seed.
        decoding: how the report was decoded.
        seconds: stage -> how long it took.
    """

    inputs: Inputs
    device: str
    language_model: str
    language_model_weights: str
    seeds: Mapping[str, int]
    decoding: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class ReportResult:
    """A report on one scan, tied to its voxels.

    Attributes:
        study: the scan's id, its file and where its masks are.
        report: the paragraphs with their regions.
        source: the scan in RAS with the masks of its regions on its grid, as they were read; ``None`` for a report on
            features, of which there is no scan.
        asked: the regions that the model was asked for, in slot order; empty for a report without regions.
        absent: region of the model's set that it was not asked for -> why.
        made_by: how it came about.
        attributes: what is measured of the regions, ``None`` where that was not done.
        written: how each paragraph came by its region's name, and whether it was cut; in slot order. Nothing where
            decoding was free.
        run: what it was made from, where and how fast; ``None`` for a result that no pipeline made.
        codes: region -> what it is called in DICOM and FHIR, of all of the model's set; others get a code of our own.
        findings: what the model's head told: probabilities, what was detected, paragraphs to review; ``None`` without
            a head.
        order: that the order of the paragraphs plays no part, of a model that writes them independently; else ``None``.
    """

    study: Study
    report: Report
    source: RegionVolume | None
    asked: tuple[str, ...]
    absent: Mapping[str, str]
    made_by: Provenance
    attributes: Attributes | None = None
    written: tuple[Written, ...] = ()
    run: Run | None = None
    codes: Mapping[str, Code] = field(default_factory=dict)
    findings: StudyFindings | None = None
    order: OrderCertificate | None = None

    @property
    def text(self) -> str:
        """The report as text: a line for each paragraph, its region before it if it has one; a tail at the end."""
        return "\n".join(report_lines(self.report))

    @property
    def marked_text(self) -> str:
        """`text` for people: what is to be reviewed is marked, and what the marks promise stands below."""
        return "\n".join(report_lines(self.report, self.findings))

    def mark(self, region: str) -> str:
        """The review mark of a region's paragraph, ``""`` where there is none."""
        return "" if self.findings is None else self.findings.mark(region)

    def __str__(self) -> str:
        return self.marked_text

    @property
    def grid(self) -> Grid:
        """The grid of `masks`, in RAS."""
        volume = self._source.volume
        shape = volume.array.shape
        return Grid((shape[0], shape[1], shape[2]), volume.affine)

    @property
    def stored_grid(self) -> Grid:
        """The grid of the scan's file, as its axes lie there."""
        return self._source.stored or self.grid

    @property
    def masks(self) -> Mapping[str, Mask]:
        """Region -> mask, bool, on `grid`."""
        return {} if self.source is None else self.source.masks

    @property
    def _source(self) -> RegionVolume:
        if self.source is None:
            raise ConfigError(f"{self.study.id}: a report on features, without a scan: there are no voxels")
        return self.source

    def _mask(self, region: str) -> Mask:
        if region not in self.masks:
            known = ", ".join(self.masks) or "none"
            raise ConfigError(f"{self.study.id}: there is no mask of region '{region}' (there are: {known})")
        return self.masks[region]

    def stored_mask(self, region: str) -> Mask:
        """The mask of a region on `stored_grid`: a view, to be laid over the voxels of the scan's file."""
        return Orientation.of(self.stored_grid.affine).from_ras(self._mask(region))

    def code(self, region: str) -> Code:
        """What a region is called in DICOM and FHIR."""
        return self.codes.get(region) or Code.private(region)

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
