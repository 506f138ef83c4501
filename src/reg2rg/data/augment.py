"""Training studies transformed by TorchIO before their views are computed, scan and masks together.

What a study becomes follows from (seed, epoch, study id) alone: it is the same in every worker, and after a run was
stopped and resumed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import torch

from reg2rg.core.errors import ConfigError, MissingExtraError
from reg2rg.core.task import Views
from reg2rg.core.types import RegionVolume, Volume
from reg2rg.data.order import generator
from reg2rg.scans.hounsfield import HU_MAX, HU_MIN
from reg2rg.store.attributes import Attributes
from reg2rg.store.store import Store
from reg2rg.store.views import StudyViews, compute_views

log = logging.getLogger(__name__)

_TRIES = 3
"""Draws for one sample until all of its regions are still there; then the study stays as it is."""
_MOST_DEGREES = 45.0
"""Rotation beyond which left may lie where right was, or up where down was."""
_LEAST_SPREAD = 0.2
"""Of the standard deviation before: less is another scale of values, not another look."""


@dataclass(frozen=True)  # no slots: jsonargparse reads a default through vars()
class Augment:
    """How training studies are transformed.

    Attributes:
        transforms: of TorchIO, in their order, each by ``class_path: torchio.NAME`` and ``init_args``. They see the
            scan as it lies in the store, float32 HU in RAS at its own spacing, and the masks of its regions as a label
            map, which spatial transforms move along, nearest voxel by nearest voxel.
        mirrors: take transforms that can swap left and right, front and back or top and bottom, though reports name
            sides and would then be wrong.
    """

    transforms: list[Callable[[Any], Any]]
    mirrors: bool = False

    def __post_init__(self) -> None:
        try:
            from torchio import Transform
        except ImportError:
            raise MissingExtraError("torchio is not installed. Fix: pip install 'reg2rg[augment]'") from None
        for transform in _every(self.transforms):
            if not isinstance(transform, Transform):
                raise ConfigError(f"data.augment: {type(transform).__name__} is no transform of TorchIO")
            if not self.mirrors and (told := _mirrors(transform)):
                raise ConfigError(
                    f"data.augment: {type(transform).__name__} {told}, but reports name sides: they would be wrong. "
                    "Fix: leave it out, or set data.augment.mirrors: true if no text of yours names a side"
                )

    def of(self, source: RegionVolume, seed: int, epoch: int, study: str) -> RegionVolume:
        """A study transformed, or as it is where every draw moves one of its regions out of the scan.

        Args:
            source: scan and masks.
            seed: of the run.
            epoch: from 0.
            study: id.

        Raises:
            ConfigError: a transform that turns the axes or changes the scale of the values.
        """
        for attempt in range(_TRIES):
            drawn = int(generator(seed, epoch, "augment", study, str(attempt)).integers(2**63))
            with torch.random.fork_rng(devices=[]):  # TorchIO draws from torch's generator alone
                torch.manual_seed(drawn)
                moved = self._once(source)
            if moved is not None:
                return moved
        log.debug("%s: not transformed in epoch %d: each draw loses a region", study, epoch)
        return source

    def _once(self, source: RegionVolume) -> RegionVolume | None:
        """One draw, ``None`` where a region loses every voxel."""
        import torchio

        affine, names = source.volume.affine, list(source.masks)
        before = source.volume.array.astype(np.float32, order="C")
        parts: dict[str, Any] = {"scan": torchio.ScalarImage(tensor=torch.from_numpy(before)[None], affine=affine)}
        if names:
            stacked = np.stack([np.ascontiguousarray(source.masks[name]) for name in names]).view(np.uint8)
            parts["masks"] = torchio.LabelMap(tensor=torch.from_numpy(stacked), affine=affine)
        subject = torchio.Subject(parts)
        for transform in self.transforms:
            subject = transform(subject)
        array, moved = subject["scan"].numpy()[0], np.asarray(subject["scan"].affine)
        masks = subject["masks"].numpy() > 0 if names else np.empty((0, *array.shape), bool)
        if not masks.any(axis=(1, 2, 3)).all():
            return None
        self._check(before, array, affine, moved)
        hu = np.clip(np.rint(array), HU_MIN, HU_MAX).astype(np.int16, order="F")
        kept = {name: np.asfortranarray(mask) for name, mask in zip(names, masks, strict=True)}
        return RegionVolume(Volume(hu, moved), kept, source.notes)

    def _check(self, before: Any, after: Any, affine: Any, moved: Any) -> None:
        axes = ["".join(nib.orientations.aff2axcodes(one)) for one in (affine, moved)]
        if axes[0] != axes[1]:
            raise ConfigError(f"data.augment: the transforms turn the axes from {axes[0]} to {axes[1]}. Fix: leave out "
                              "what reorders axes; task.views.orientation says how the model sees them")  # fmt: skip
        if not np.isfinite(after).all() or after.std() < _LEAST_SPREAD * before.std():
            raise ConfigError(
                f"data.augment: values of {before.min():g} to {before.max():g} became {after.min():g} to "
                f"{after.max():g}, which is another scale. Fix: leave out what normalises (RescaleIntensity, "
                "ZNormalization): task.views.window and intensity do that"
            )


class AugmentedStore:
    """The views of training studies, of which no two epochs see the same.

    Args:
        store: the prepared studies, with native detail.
        augment: the transforms.
        seed: of the run.
        epoch: from 0.
    """

    def __init__(self, store: Store, augment: Augment, seed: int, epoch: int) -> None:
        self.store, self.augment, self.seed, self.epoch = store, augment, seed, epoch

    def attributes(self, study: str) -> Attributes:
        """What is measured of the study's regions, as they were before they were transformed."""
        return self.store.attributes(study)

    def views(self, study: str, views: Views, regions: Sequence[str], want: Collection[str]) -> StudyViews:
        """Views of the study as this epoch has it; of all its regions, whichever are asked for, it is the same one.

        Raises:
            DataFault: as `Store.read` and `compute_views`.
        """
        detail = self.store.read(study).detail
        moved = self.augment.of(detail.to_region_volume(), self.seed, self.epoch, study)
        return compute_views(views, moved, regions, want)


def _every(transforms: Sequence[Any]) -> Iterator[Any]:
    """All transforms, those inside others too."""
    for transform in transforms:
        yield transform
        inner = getattr(transform, "transforms", None) or getattr(transform, "transforms_dict", None) or ()
        yield from _every(list(inner))


def _mirrors(transform: Any) -> str:
    """How a transform can swap sides, ``""`` if it is not known to."""
    if type(transform).__name__ in ("RandomFlip", "Flip"):
        return f"mirrors the axes {transform.axes}"
    degrees = np.abs(np.asarray(getattr(transform, "degrees", 0), np.float64))
    if degrees.max() > _MOST_DEGREES:
        return f"turns the body by up to {degrees.max():g} degrees (more than {_MOST_DEGREES:g})"
    return ""
