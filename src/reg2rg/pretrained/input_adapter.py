"""Scans and data brought to a model's input contract, or refused with the reason."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import HU, Mask, RegionVolume, Volume
from reg2rg.scans.grid import Orientation, resample_nearest
from reg2rg.store.crop import Detail, crop_to_foreground
from reg2rg.store.views import ALL_VIEWS, HasDetail, StudyViews, Views, as_detail

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from reg2rg.data.datamodule import RegionReportDataModule
    from reg2rg.data.prompt import TokenCounts
    from reg2rg.pretrained.contract import InputContract

log = logging.getLogger(__name__)

_SAME_SPACING = 0.01  # relative; less than the difference of two vendors' rounding
_MOST_VOXELS = 1 << 31


@dataclass(frozen=True)
class ConformedViews(Views):
    """Views of scans that are first brought to an orientation and a voxel size.

    Attributes:
        orientation: patient directions of the axes, such as ``RAS``.
        spacing: voxel size in mm, or ``None`` for any.
    """

    orientation: str = "RAS"
    spacing: tuple[float, float, float] | None = None

    def compute(
        self,
        source: RegionVolume | Detail | HasDetail,
        regions: Sequence[str] | None = None,
        want: Collection[str] = ALL_VIEWS,
    ) -> StudyViews:
        """As `Views.compute`, of the scan in this orientation and spacing."""
        given = source if isinstance(source, RegionVolume) else as_detail(source).to_region_volume()
        names = tuple(given.masks) if regions is None else tuple(regions)
        detail = crop_to_foreground(conform(given, self.orientation, self.spacing), needs_regions=bool(names))
        if lost := [name for name in names if name in given.masks and name not in detail.masks]:
            raise DataFault.of(
                "NO_REGION",
                found=f"{', '.join(lost)} lost every voxel at {self.spacing} mm",
                expected="regions of at least one voxel at the spacing of the model's input contract",
                fix="leave the region out, or use a model without a stated spacing",
            )
        return super().compute(detail, names, want)


def views_of(contract: InputContract) -> Views:
    """Settings of the views that a contract asks for."""
    plain = contract.view_settings
    if contract.orientation == "RAS" and contract.spacing is None:
        return plain
    return ConformedViews(**asdict(plain), orientation=contract.orientation, spacing=contract.spacing)


def conform(
    source: RegionVolume, orientation: str = "RAS", spacing: tuple[float, float, float] | None = None
) -> RegionVolume:
    """A scan with its masks in another orientation, which loses nothing, and another spacing.

    Args:
        source: the scan.
        orientation: patient directions that the axes are to point to. An oblique scan stays as oblique as it is.
        spacing: voxel size in mm that is wanted along the axes after that; ``None`` keeps what there is, and so does a
            difference below 1 %. HU are interpolated linearly, masks take the nearest voxel.

    Raises:
        DataFault: the result would be too large.
    """
    turn = _Turn.between(source.volume.affine, orientation)
    array, affine = turn.array(source.volume.array), turn.affine(source.volume.affine, source.volume.array.shape)
    volume = Volume(array, affine)
    masks = {name: turn.array(mask) for name, mask in source.masks.items()}
    notes = list(source.notes)
    if spacing is not None and any(
        abs(a / b - 1) > _SAME_SPACING for a, b in zip(volume.spacing, spacing, strict=True)
    ):
        shown = [" x ".join(f"{mm:g}" for mm in one) for one in (volume.spacing, spacing)]
        notes.append(f"resampled from {shown[0]} to {shown[1]} mm")
        volume, masks = _resampled(volume, masks, spacing)
    return RegionVolume(volume, masks, tuple(notes))


@dataclass(frozen=True, slots=True)
class _Turn:
    """Axes of an array permuted and reversed."""

    into: Orientation

    @classmethod
    def between(cls, affine: npt.NDArray[np.float64], orientation: str) -> _Turn:
        have = nib.orientations.io_orientation(affine)
        want = nib.orientations.axcodes2ornt(tuple(orientation.upper()))
        change = nib.orientations.ornt_transform(have, want)
        axes = [int(np.flatnonzero(change[:, 0] == axis)[0]) for axis in range(3)]
        flips = [bool(change[axis, 1] < 0) for axis in axes]
        return cls(Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])))

    def array(self, array: Any) -> Any:
        return np.asfortranarray(self.into.to_ras(array))

    def affine(self, affine: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        return self.into.affine(affine, shape)


def _resampled(
    volume: Volume, masks: dict[str, Mask], spacing: tuple[float, float, float]
) -> tuple[Volume, dict[str, Mask]]:
    """Onto a grid of the same frame: the outer faces of the first and last voxels stay where they are."""
    factors = np.array(spacing) / np.array(volume.spacing)
    shape = [max(1, round(length / factor)) for length, factor in zip(volume.array.shape, factors, strict=True)]
    if int(np.prod(np.array(shape, np.float64))) > _MOST_VOXELS:
        raise DataFault.of(
            "TOO_LARGE",
            found=f"{volume.array.shape} voxels of {volume.spacing} mm, which become {tuple(shape)}",
            expected=f"at most {_MOST_VOXELS} voxels at {spacing} mm, the spacing of the model's input contract",
            fix="check the spacing in the header",
        )
    mapping = np.eye(4)  # new voxel indices -> old ones
    mapping[:3, :3] = np.diag(factors)
    mapping[:3, 3] = (factors - 1) / 2
    size = (shape[0], shape[1], shape[2])
    array = _linear(volume.array, factors, mapping[:3, 3], size)
    moved = {name: resample_nearest(mask, mapping, size) for name, mask in masks.items()}
    return Volume(array, volume.affine @ mapping), {name: mask for name, mask in moved.items() if mask.any()}


def _linear(array: HU, factors: npt.NDArray[np.float64], offset: npt.NDArray[np.float64], shape: Any) -> HU:
    """Linear interpolation, edges repeated; one axis after the other, slab by slab to bound the memory."""
    for axis in range(3):
        if shape[axis] == array.shape[axis] and abs(factors[axis] - 1) < 1e-9:
            continue
        places = np.clip(np.arange(shape[axis]) * factors[axis] + offset[axis], 0, array.shape[axis] - 1)
        low = np.floor(places).astype(np.intp)
        high = np.minimum(low + 1, array.shape[axis] - 1)
        weight = (places - low).astype(np.float32)
        target = np.empty([shape[axis] if k == axis else n for k, n in enumerate(array.shape)], np.int16, order="F")
        source, result = np.moveaxis(array, axis, 0), np.moveaxis(target, axis, 0)
        for place, (a, b, w) in enumerate(zip(low, high, weight, strict=True)):
            mixed = source[a] * (1 - w) + source[b] * w if w else source[a]
            np.copyto(result[place], np.rint(mixed), casting="unsafe")
        array = target
    return array


def conform_data(
    contract: InputContract,
    data: RegionReportDataModule,
    tokenizer: PreTrainedTokenizerBase,
    token_counts: TokenCounts,
) -> list[str]:
    """Bring data to the contract of the model that will read them.

    Args:
        contract: the model's.
        data: changed in place. Views are computed anew from native detail, so nothing is lost.
        tokenizer: the model's.
        token_counts: the model's.

    Returns:
        what was changed, one clause each.

    Raises:
        ConfigError: the data have regions that the model does not know.
    """
    check_regions(data.region_set, contract.regions)
    chosen = tuple(region for region in contract.regions if region.name in data.region_set.names)
    regions = contract.regions if len(chosen) == len(contract.regions) else RegionSet(data.region_set.name, chosen)
    views = views_of(contract)
    changes = []
    pairs: dict[str, tuple[Any, Any]] = {
        "regions": (list(data.region_set.names), list(regions.names)),
        "views.size": (tuple(data.views.size), views.size),
        "views.window": (tuple(data.views.window), views.window),
        "views.coupled": (data.views.coupled, views.coupled),
        "orientation and spacing": (_frame(data.views), _frame(views)),
        "target": (data.target, contract.target),
        "identity": (data.identity, contract.identity),
        "instruction": (data.instruction, contract.instruction),
        "tokens of a region and of the image": (data.token_counts, token_counts),
    }
    for name, (given, wanted) in pairs.items():
        if given != wanted:
            changes.append(f"{name} from {_short(given)} to {_short(wanted)}")
    same_words = data.tokenizer is tokenizer or (
        not isinstance(data.tokenizer, str) and data.tokenizer.get_vocab() == tokenizer.get_vocab()
    )
    if changes or not same_words:
        data.adopt(
            regions=regions,
            views=views,
            target=contract.target,
            identity=contract.identity,
            instruction=contract.instruction,
            tokenizer=tokenizer,
            token_counts=token_counts,
        )
    return changes


def check_regions(given: RegionSet, known: RegionSet) -> None:
    """Refuse regions that a model does not know: it has never seen their names or their masks.

    Raises:
        ConfigError: names them.
    """
    unknown = [name for name in given.names if name not in known.names]
    if unknown:
        raise ConfigError(
            f"region set '{given.name}' of the data has {', '.join(unknown)}, which the model was not trained on "
            f"(its set '{known.name}': {', '.join(known.names)}). Another region set cannot be brought to the model's. "
            "Fix: prepare the data with the model's region set, or train a model on this one"
        )


def _frame(views: Views) -> tuple[Any, ...]:
    return (views.orientation, views.spacing) if isinstance(views, ConformedViews) else ("RAS", None)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:57]}..."
