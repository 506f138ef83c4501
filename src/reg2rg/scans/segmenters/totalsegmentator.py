"""TotalSegmentator (Wasserthal et al., 2023, "TotalSegmentator: Robust Segmentation of 104 Anatomical Structures in CT
Images") by its Python API; and lungmask (Hofmanninger et al., 2020) for the lungs alone.

Both packages stay out until a scan is segmented; neither is a dependency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import ConfigError, MissingExtraError
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import Volume
from reg2rg.scans.base import Affine, ReadOptions
from reg2rg.scans.read import read_scan
from reg2rg.scans.segmenters.base import SEGMENTERS
from reg2rg.scans.segmenters.kept import KeptSegmenter, Made

Labels = npt.NDArray[np.integer[Any]]


@SEGMENTERS.register
class TotalSegmentator(KeptSegmenter):
    """Regions as unions of TotalSegmentator's classes; those that it has no class for are absent.

    Its weights are fetched by itself when they are first needed; ``totalseg_download_weights`` does so beforehand. Tasks
    other than ``total`` may need a licence of theirs.

    Args:
        kept: folder in which masks are kept; ``None`` for one in the user's cache.
        fast: the coarser and faster model.
        device: ``"gpu"``, ``"cpu"`` or ``"mps"``.
        extra: further task -> region -> its class numbers in that task, such as ``{breasts: {breast: [1]}}``.
    """

    regions = ("whatever the region set has labels for",)

    def __init__(
        self,
        kept: str | None = None,
        fast: bool = False,
        device: Literal["gpu", "cpu", "mps"] = "gpu",
        extra: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
    ) -> None:
        super().__init__(kept)
        self.fast, self.device, self.extra = fast, device, extra or {}

    @property
    def version(self) -> str:
        """Of the installed package."""
        return _installed("TotalSegmentator", "totalsegmentator")

    def settings(self) -> Mapping[str, Any]:
        """What its masks depend on beside its version."""
        extra = {task: {name: list(labels) for name, labels in part.items()} for task, part in self.extra.items()}
        return {"fast": self.fast, "extra": extra}

    def make(self, scan: Path, regions: RegionSet) -> Made:
        """Run the task ``total`` and the further ones.

        Raises:
            ConfigError: the region set has no labels for any region, or `extra` names no region of it.
        """
        from totalsegmentator.python_api import totalsegmentator

        tasks = {"total": regions.from_totalsegmentator()}
        for task, part in self.extra.items():
            tasks[task] = {regions.canonical(name): tuple(labels) for name, labels in part.items()}
        if not any(tasks.values()):
            raise ConfigError(
                f"TotalSegmentator: region set '{regions.name}' has no labels of it for any region. Fix: give them under "
                "totalsegmentator in the region set, or as extra"
            )
        volume = read_scan(scan, ReadOptions(min_slices=1)).volume
        image = nib.Nifti1Image(volume.array, volume.affine)
        made: dict[str, npt.NDArray[np.bool_]] = {}
        for task, wanted in tasks.items():
            if not wanted:
                continue
            found = totalsegmentator(
                image, None, ml=True, task=task, fast=self.fast and task == "total", skip_saving=True, quiet=True,
                device=self.device,
            )  # fmt: skip
            labels = _labels(found, volume)
            for name, values in wanted.items():
                mask = np.isin(labels, values)
                made[name] = made[name] | mask if name in made else mask
        return Made(made, volume.affine)


@SEGMENTERS.register
class LungMask(KeptSegmenter):
    """The lungs by lungmask's U-Net, pathology included; nothing else.

    Args:
        kept: folder in which masks are kept; ``None`` for one in the user's cache.
        model: name of lungmask's model.
        weights: file of the model's weights, where they cannot be fetched; they are read by `torch.load` in lungmask
            itself, so take them from a source that you trust.
        cpu: leave a GPU alone.
    """

    regions = ("lung",)

    def __init__(
        self,
        kept: str | None = None,
        model: Literal["R231", "R231CovidWeb"] = "R231",
        weights: str | None = None,
        cpu: bool = False,
    ) -> None:
        super().__init__(kept)
        self.model, self.weights, self.cpu = model, weights, cpu
        self._inferer: Any = None

    @property
    def version(self) -> str:
        """Of the installed package."""
        return _installed("lungmask", "lungmask")

    def settings(self) -> Mapping[str, Any]:
        """What its masks depend on beside its version."""
        return {"model": self.model}

    def make(self, scan: Path, regions: RegionSet) -> Made:
        """Run the model, which stays in memory for the next scan."""
        from lungmask import LMInferer

        if self._inferer is None:
            self._inferer = LMInferer(
                modelname=self.model, modelpath=self.weights, force_cpu=self.cpu, tqdm_disable=True
            )
        volume = read_scan(scan, ReadOptions(min_slices=1)).volume
        # An array is taken as slices from feet to head, each from front to back and from the patient's right to left.
        found = self._inferer.apply(np.ascontiguousarray(volume.array[::-1, ::-1].transpose(2, 1, 0)))
        lung = np.asarray(found).transpose(2, 1, 0)[::-1, ::-1] > 0
        return Made({regions.canonical("lung"): lung}, volume.affine)


def _installed(package: str, extra: str) -> str:
    try:
        return package_version(package)
    except PackageNotFoundError:
        raise MissingExtraError(f"{package} is not installed. Fix: pip install 'reg2rg[{extra}]'") from None


def _labels(image: Any, volume: Volume) -> Labels:
    """The labels of what came back, which must lie on the scan's own grid."""
    labels = np.asarray(image.dataobj)
    affine: Affine = np.asarray(image.affine)
    if labels.shape != volume.array.shape or not np.allclose(affine, volume.affine, atol=1e-3):
        raise ConfigError(
            f"TotalSegmentator gave labels of shape {labels.shape} for a scan of {volume.array.shape}, or on another grid. "
            "Fix: use a version whose output lies on the input's grid, and report this"
        )
    return labels.astype(np.uint16)
