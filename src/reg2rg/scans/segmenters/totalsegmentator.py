"""TotalSegmentator by its Python API.

Wasserthal et al., 2023, "TotalSegmentator: Robust Segmentation of 104 Anatomical Structures in CT Images". The package
is no dependency and stays out until a scan is segmented; version 2.18 was looked at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.registry import did_you_mean
from reg2rg.core.types import Mask, PathText, Volume
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.class_names import TOTAL
from reg2rg.scans.read import read_scan
from reg2rg.scans.segmenters.base import SEGMENTERS
from reg2rg.scans.segmenters.installed import installed_version
from reg2rg.scans.segmenters.kept import KeptSegmenter, Made

_MAIN = "total"
_NAMES = {label: name for name, label in TOTAL.items()}


@SEGMENTERS.register
class TotalSegmentator(KeptSegmenter):
    """Regions as unions of TotalSegmentator's classes; those that it has no class for are absent.

    What a region is made of stands under ``totalsegmentator`` in its region set; classes of further tasks are added by
    `extra`. The package fetches its weights itself when they are first needed (``totalseg_download_weights`` does so
    beforehand), and sends statistics of use unless its own settings say otherwise. Some of its tasks need a licence.

    Args:
        kept: folder in which masks are kept; ``None`` for one in the user's cache.
        fast: the model of 3 mm in place of that of 1.5 mm, for the task ``total``.
        device: what it runs on.
        extra: further task -> region -> names of the task's classes, such as ``{breasts: {breast: [breast]}}``.
    """

    def __init__(
        self,
        kept: PathText | None = None,
        fast: bool = False,
        device: Literal["gpu", "cpu", "mps"] = "gpu",
        extra: dict[str, dict[str, list[str]]] | None = None,
    ) -> None:
        super().__init__(kept)
        self.fast, self.device = fast, device
        self.extra: Mapping[str, Mapping[str, Sequence[str]]] = extra or {}
        self._loaded: dict[str, dict[str, Any]] = {}

    @property
    def version(self) -> str:
        """Of the installed package, and of what resamples its labels."""
        return " ".join(
            installed_version(name, "totalsegmentator") for name in ("TotalSegmentator", "nnunetv2", "batchgenerators")
        )

    def settings(self) -> Mapping[str, Any]:
        """What its masks depend on beside its version."""
        return {"fast": self.fast}

    def plan(self, regions: RegionSet) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Region -> task -> names of the task's classes.

        Raises:
            ConfigError: a region of `extra` that the set does not have.
        """
        found: dict[str, dict[str, Sequence[str]]] = {}
        for region, labels in regions.from_totalsegmentator().items():
            found[region] = {_MAIN: [_NAMES[label] for label in labels if label in _NAMES]}
        for task, wanted in self.extra.items():
            for region, classes in wanted.items():
                parts = found.setdefault(regions.canonical(region), {})
                parts[task] = [*parts.get(task, ()), *classes]
        return found

    def make(self, scan: Path, plan: Mapping[str, Mapping[str, Sequence[str]]], options: ReadOptions) -> Made:
        """Run each task that a region needs, once.

        Raises:
            DataFault: a scan that cannot be read; NOT_SEGMENTED, TotalSegmentator failed, or its labels do not lie on
                the scan's grid.
            ConfigError: a task or class that the installed version does not have.
        """
        tasks = list(dict.fromkeys(task for parts in plan.values() for task in parts))
        numbers = {task: _numbers(task, plan) for task in tasks}
        volume = read_scan(scan, options).volume
        masks: dict[str, Mask] = {}
        for task in tasks:
            labels = self._run(task, volume, scan)
            for region, parts in plan.items():
                if task in parts:
                    mask = np.isin(labels, [numbers[task][name] for name in parts[task]])
                    masks[region] = masks[region] | mask if region in masks else mask
        return Made(masks, volume.affine)

    def _run(self, task: str, volume: Volume, scan: Path) -> npt.NDArray[Any]:
        """Labels of a task, (H, W, D), on the scan's grid."""
        from totalsegmentator.python_api import totalsegmentator

        image = nib.Nifti1Image(volume.array, volume.affine)
        fast = self.fast and task == _MAIN
        try:
            with _models_kept(self._loaded):
                found = totalsegmentator(
                    image, None, ml=True, task=task, fast=fast, skip_saving=True, quiet=True, device=self.device
                )
        except (Exception, SystemExit) as error:  # it ends the process where a licence or a file is missing
            raise DataFault.of(
                "NOT_SEGMENTED",
                found=f"TotalSegmentator, task {task}, ended with {type(error).__name__}: {error}",
                expected="labels",
                fix=f"see whether `TotalSegmentator -i {scan} -o OUT --task {task}` works (weights, licence, memory)",
                path=scan,
            ) from error
        labels = np.asarray(found.dataobj)
        if labels.shape != volume.array.shape or not np.allclose(found.affine, volume.affine, atol=1e-3):
            raise DataFault.of(
                "NOT_SEGMENTED",
                found=f"TotalSegmentator, task {task}, gave labels of {labels.shape} voxels, or placed elsewhere",
                expected=f"the scan's grid, {volume.array.shape}",
                fix="use version 2.18, whose labels lie there",
                path=scan,
            )
        return labels


def _numbers(task: str, plan: Mapping[str, Mapping[str, Sequence[str]]]) -> Mapping[str, int]:
    """Class -> label of a task in the installed version, where it has all that are asked for."""
    from totalsegmentator.map_to_binary import class_map

    fix = "Fix: correct `extra`, or install a version that has it"
    if task not in class_map:
        hint = did_you_mean(task, list(class_map))
        raise ConfigError(f"TotalSegmentator has no task '{task}'.{hint} Known: {', '.join(class_map)}. {fix}")
    numbers = {name: int(label) for label, name in class_map[task].items()}
    asked = dict.fromkeys(name for parts in plan.values() for name in parts.get(task, ()))
    if missing := [name for name in asked if name not in numbers]:
        known = f"{', '.join(list(numbers)[:12])}{', ...' if len(numbers) > 12 else ''}"
        raise ConfigError(f"TotalSegmentator's task {task} has no class {', '.join(missing)} (it has {known}). {fix}")
    return numbers


@contextlib.contextmanager
def _models_kept(loaded: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Let TotalSegmentator, which builds a predictor for every scan, find the models again that it has loaded.

    Args:
        loaded: what is kept, by the model's folder and folds.
    """
    from totalsegmentator.config import setup_nnunet

    setup_nnunet()  # before its modules are imported: they read the environment
    from totalsegmentator import nnunet

    plain = nnunet.nnUNetPredictor

    class Keeping(plain):  # type: ignore[misc, valid-type]
        def initialize_from_trained_model_folder(self, *args: Any, **kwargs: Any) -> None:
            key = repr((args, sorted(kwargs.items())))
            if key not in loaded:
                before = dict(vars(self))
                super().initialize_from_trained_model_folder(*args, **kwargs)
                loaded[key] = {name: value for name, value in vars(self).items() if before.get(name) is not value}
            for name, value in loaded[key].items():
                setattr(self, name, value)

    nnunet.nnUNetPredictor = Keeping
    try:
        yield
    finally:
        nnunet.nnUNetPredictor = plain
