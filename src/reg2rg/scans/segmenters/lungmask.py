"""Lungs or their lobes by lungmask, disease included.

Hofmanninger et al., 2020, "Automatic lung segmentation in routine imaging is primarily a data diversity problem, not a
methodology problem". The package is no dependency and stays out until a scan is segmented; version 0.2.22 was looked
at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reg2rg.core.errors import DataFault
from reg2rg.core.files import sha256
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import PathText
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.class_names import TOTAL
from reg2rg.scans.read import read_scan
from reg2rg.scans.segmenters.base import SEGMENTERS
from reg2rg.scans.segmenters.installed import installed_version
from reg2rg.scans.segmenters.kept import KeptSegmenter, Made

_LEFT = tuple(TOTAL[f"lung_{lobe}_lobe_left"] for lobe in ("upper", "lower"))
_RIGHT = tuple(TOTAL[f"lung_{lobe}_lobe_right"] for lobe in ("upper", "middle", "lower"))
_SIDES = {1: _RIGHT, 2: _LEFT}
_LOBES = {label: (lobe,) for label, lobe in enumerate((*_LEFT, *_RIGHT), 1)}
"""Label of a model -> the lobes in it, by their labels in TotalSegmentator's task ``total``, as in region sets."""


@SEGMENTERS.register
class LungMask(KeptSegmenter):
    """Lungs or lobes by lungmask's U-Net, effusions and tumours in them included, the trachea not.

    It gives the regions of a set that are whole lobes, or for the models ``R231`` whole lungs, by what stands under
    ``totalsegmentator`` in the set. The package fetches its weights itself when they are first needed.

    Args:
        kept: folder in which masks are kept; ``None`` for one in the user's cache.
        model: ``LTRCLobes`` tells lobes apart, the others sides.
        weights: file of the model's weights, where they cannot be fetched. The package reads it with `torch.load`, so
            take it from a source that you trust.
        cpu: leave a GPU alone.
    """

    def __init__(
        self,
        kept: PathText | None = None,
        model: Literal["R231", "R231CovidWeb", "LTRCLobes"] = "R231",
        weights: PathText | None = None,
        cpu: bool = False,
    ) -> None:
        super().__init__(kept)
        self.model, self.weights, self.cpu = model, weights, cpu
        self._inferer: Any = None

    @property
    def version(self) -> str:
        """Of the installed package."""
        return installed_version("lungmask", "lungmask")

    def settings(self) -> Mapping[str, Any]:
        """What its masks depend on beside its version."""
        return {"model": self.model, "weights": None if self.weights is None else sha256(self.weights)}

    def plan(self, regions: RegionSet) -> Mapping[str, Sequence[int]]:
        """Region -> labels of the model."""
        parts = _LOBES if self.model == "LTRCLobes" else _SIDES
        found = {}
        for region, wanted in regions.from_totalsegmentator().items():
            labels = [label for label, lobes in parts.items() if set(lobes) <= set(wanted)]
            if labels and {lobe for label in labels for lobe in parts[label]} == set(wanted):
                found[region] = labels
        return found

    def make(self, scan: Path, plan: Mapping[str, Sequence[int]], options: ReadOptions) -> Made:
        """Run the model, which stays in memory for the next scan.

        Raises:
            DataFault: a scan that cannot be read; NOT_SEGMENTED, lungmask failed.
        """
        from lungmask import LMInferer

        volume = read_scan(scan, options).volume
        try:
            if self._inferer is None:
                self._inferer = LMInferer(
                    modelname=self.model, modelpath=self.weights, force_cpu=self.cpu, tqdm_disable=True
                )
            # It takes slices from feet to head, each from front to back and from the patient's right to left.
            found = self._inferer.apply(np.ascontiguousarray(volume.array[::-1, ::-1].transpose(2, 1, 0)))
        except Exception as error:  # a download, a file of weights, memory
            raise DataFault.of(
                "NOT_SEGMENTED",
                found=f"lungmask, model {self.model}, ended with {type(error).__name__}: {error}",
                expected="labels",
                fix=f"see whether `lungmask {scan} OUT.nii.gz --modelname {self.model}` works; or give the weights",
                path=scan,
            ) from error
        labels = np.asarray(found).transpose(2, 1, 0)[::-1, ::-1]
        return Made({region: np.isin(labels, values) for region, values in plan.items()}, volume.affine)
