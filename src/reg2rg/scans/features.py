"""Grids of features with organ masks: read, held against their layout, and brought to RAS cells with regions' weights.

A file comes from strangers: nothing pickled is loaded, shapes and sizes are looked at before anything is read.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import MaskChannels, Study
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.grid_layout import GridLayout, to_ras, towards
from reg2rg.scans.read import no_region

Array = npt.NDArray[Any]
Weights = npt.NDArray[np.float32]

UNKNOWN = "no cell of the grid has weight, so that nothing is known of it"
BELOW, AXES = "below one cell of the grid", ("the organs explain", "may be swapped")
"""Words of the notes on a region without weight, on one that is too small, and on axes that may be other ones."""
_MOST_BYTES = 1 << 32
_AGAIN = "make the file again with its encoder"
_BY_CHANNELS = 24  # of the features, evenly spread, that tell how well they fit the masks
_FINE_ENOUGH = 12  # cells along each axis, from which on that is told
_BETTER = 1.2  # times the explained variance, from which on other axes are named


@dataclass(frozen=True, slots=True)
class FeatureVolume:
    """Features of one study in RAS.

    Attributes:
        features: (X, Y, Z, C) float16 or float32, as they were made; cells from right to left, back to front, bottom
            to top.
        weights: region -> (X, Y, Z) share of each cell that lies in the region, 0 to 1, in the order of the region set;
            only regions with some weight.
        notes: what a grid cannot tell, one line each.
    """

    features: Array
    weights: Mapping[str, Weights]
    notes: tuple[str, ...] = ()


def read_features(study: Study, regions: RegionSet, options: ReadOptions, needs_regions: bool = True) -> FeatureVolume:
    """Read a study's features and the weights of its regions.

    Args:
        study: where the files are.
        regions: which regions, and in which order.
        options: `ReadOptions.grid` says how the files lie.
        needs_regions: refuse a study without any region.

    Raises:
        DataFault: with the study's id: MISSING_FILE, UNREADABLE, PICKLED, TOO_LARGE, NO_KEY, FEATURE_DTYPE,
            FEATURE_SHAPE, NON_FINITE, CONSTANT of the features; MASK_GRID, MASK_VALUES, AXES of the masks; NO_REGION.
        ConfigError: a layout that does not fit the region set.
    """
    layout = options.grid
    assert layout is not None  # who reads features asks first
    try:
        features = _features(study, layout)
        weights, notes = region_weights(study, regions, options) if study.masks is not None else ({}, [])
        if weights:
            notes += axes_note(features, weights, layout)
    except DataFault as fault:
        raise fault.for_study(study.id) from None
    if needs_regions and not weights:
        raise no_region(study, regions, "masks without weight in any cell")
    return FeatureVolume(features, weights, tuple(notes))


def load_array(path: Path, key: str) -> Array:
    """The array of a .npy file, mapped, or the one called `key` of a .npz file. Nothing pickled is ever loaded.

    Raises:
        DataFault: MISSING_FILE, UNREADABLE, PICKLED, TOO_LARGE, NO_KEY.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(6)
        if head == np.lib.format.MAGIC_PREFIX:
            return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
        if head[:1] == b"\x80":
            raise ValueError("pickle")
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
        if key not in names:
            found = f"the arrays {', '.join(sorted(names)) or 'none'}"
            fix = "name the array: data.read.grid.key for features, mask_key for masks"
            raise DataFault.of("NO_KEY", found=found, expected=f"an array '{key}'", fix=fix, path=path)
        if names[key].file_size > _MOST_BYTES:
            found, fix = f"{names[key].file_size:,} bytes unpacked", _AGAIN
            raise DataFault.of("TOO_LARGE", found=found, expected=f"at most {_MOST_BYTES:,}", fix=fix, path=path)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key]  # type: ignore[no-any-return]
    except FileNotFoundError:
        fix = "correct the folder, or get the file"
        raise DataFault.of("MISSING_FILE", found="nothing", expected="a file", fix=fix, path=path) from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        pickled = any(word in str(error).lower() for word in ("pickle", "python objects"))
        raise DataFault.of(
            "PICKLED" if pickled else "UNREADABLE",
            found="Python objects (pickle), which can run any code" if pickled else str(error).partition("\n")[0],
            expected="a .npy or .npz file of numbers",
            fix="save the numbers themselves: numpy.save(path, array.astype(numpy.float16))" if pickled else _AGAIN,
            path=path,
        ) from None


def row_digest(path: Path, row: int) -> str | None:
    """SHA-256 of one row of a stacked array; ``None`` where it cannot be read, which its reader reports."""
    try:
        return hashlib.sha256(np.ascontiguousarray(load_array(path, "")[row]).data).hexdigest()
    except (DataFault, IndexError, ValueError):
        return None


def _features(study: Study, layout: GridLayout) -> Array:
    """(X, Y, Z, C) in RAS, in memory."""
    path = study.image
    array = load_array(path, layout.key)
    if study.row is not None:
        if array.ndim < 2 or study.row >= len(array):
            found = f"shape {array.shape}, no row {study.row}"
            fix = "get array and ids of one download"
            raise DataFault.of("FEATURE_SHAPE", found=found, expected="a row a study", fix=fix, path=path)
        array = array[study.row]
    if array.dtype.newbyteorder("=") not in (np.float16, np.float32):
        found, fix = str(array.dtype), "convert it once: numpy.save(path, array.astype(numpy.float16))"
        raise DataFault.of("FEATURE_DTYPE", found=found, expected="float16 or float32", fix=fix, path=path)
    expected = layout.shape(layout.axes, layout.channels, layout.cells)
    shape = _without_ones(array.shape)
    flat = (math.prod(layout.cells), layout.channels) if layout.axes.endswith("C") else None
    if shape not in (_without_ones(expected), None if flat is None else _without_ones(flat)):
        raise DataFault.of(
            "FEATURE_SHAPE",
            found=f"shape {tuple(array.shape)}",
            expected=f"{expected}" + ("" if flat is None else f" or {flat}") + f", {layout.axes} of {layout.encoder}",
            fix="correct data.read.grid (cells, channels, axes), or the folder: these are other features",
            path=path,
        )
    order, flips = to_ras(layout.axes)
    kept = array.dtype.newbyteorder("=")
    turned = np.flip(array.reshape(expected).transpose(order), flips)
    return _sound(np.ascontiguousarray(turned, dtype=kept), path)


def _sound(features: Array, path: Path) -> Array:
    """The same features, if they can be some."""
    bad = features.size - int(np.count_nonzero(np.isfinite(features)))
    if bad:
        found = f"{bad} of {features.size} numbers NaN or infinite"
        raise DataFault.of("NON_FINITE", found=found, expected="finite features", fix=_AGAIN, path=path)
    if features.min() == features.max():
        found = f"every number is {float(features.flat[0]):g}"
        fix = f"{_AGAIN}: zeros often stand for a study that was missing"
        raise DataFault.of("CONSTANT", found=found, expected="features", fix=fix, path=path)
    return features


def region_weights(study: Study, regions: RegionSet, options: ReadOptions) -> tuple[dict[str, Weights], list[str]]:
    """Region -> weights on the features' cells, and notes on what the cells cannot tell; see `read_features`."""
    layout = options.grid
    assert layout is not None
    assert isinstance(study.masks, MaskChannels)
    path = study.masks.file
    channels = layout.channels_of(regions)
    organs = _pooled(_occupancy(path, layout), layout)
    weights, notes = {}, _check_order(organs, layout, path)
    for name, places in channels.items():
        weight = np.minimum(organs[list(places)].sum(axis=0), 1)
        covered = float(weight.sum())
        if covered == 0:
            notes.append(f"{name}: {UNKNOWN}")
            continue
        weights[name] = weight
        if covered < 1:
            notes.append(f"{name}: {BELOW} ({covered:.2f}): its features are mostly those of what lies around")
    return weights, notes


def _occupancy(path: Path, layout: GridLayout) -> Weights:
    """(organs, x, y, z) in RAS, 0 to 1, as fine as the file has it."""
    array = load_array(path, layout.mask_key)
    order, flips = to_ras(layout.mask_axes)
    shape = tuple(array.shape[place] for place in order) if array.ndim == 4 else ()
    fits = shape[3:] == (len(layout.organs),) and not any(
        fine < cells or fine % cells for fine, cells in zip(shape[:3], layout.cells, strict=True)
    )
    if not fits:
        coarse = layout.shape(layout.mask_axes, len(layout.organs), layout.cells)
        raise DataFault.of(
            "MASK_GRID",
            found=f"shape {tuple(array.shape)}",
            expected=f"{coarse}, {layout.mask_axes} with {len(layout.organs)} organs, or a whole number of voxels a "
            "cell along each axis",
            fix="take the masks that were made for these features; correct data.read.grid (organs, mask_axes)",
            path=path,
        )
    values = np.flip(array.transpose(order), flips).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if array.dtype.kind not in "fub" or not (low >= 0 and high <= 1.001):
        found = f"{array.dtype} from {low:g} to {high:g}"
        fix = "labels are no masks: make one channel an organ, 0 outside and 1 inside"
        raise DataFault.of("MASK_VALUES", found=found, expected="shares from 0 to 1", fix=fix, path=path)
    return np.moveaxis(values, 3, 0)


def _pooled(masks: Weights, layout: GridLayout) -> Weights:
    """Masks averaged over the voxels of each cell."""
    (x, y, z), (a, b, c) = layout.cells, masks.shape[1:]
    fine = masks.reshape(-1, x, a // x, y, b // y, z, c // z)
    return np.asarray(fine.mean(axis=(2, 4, 6), dtype=np.float32))


def _check_order(organs: Weights, layout: GridLayout, path: Path) -> list[str]:
    """Refuse masks whose organs do not lie as they lie in every patient; a wrong side is noted, for some hearts lie so.

    Returns:
        the notes.
    """
    places = {name: place for place, name in enumerate(layout.organs)}
    wrong: list[str] = []
    sides: list[str] = []
    for first, direction, last in layout.order:
        axis, sign = towards(direction)
        middles = [_middle(organs[places[name]], axis) for name in (first, last)]
        if None not in middles and sign * (middles[0] - middles[1]) <= 0:  # type: ignore[operator]
            (sides if axis == 0 else wrong).append(f"{first} does not lie further {direction} than {last}")
    if wrong:
        raise DataFault.of(
            "AXES",
            found="; ".join(wrong),
            expected=f"axes {layout.mask_axes}",
            fix="data.read.grid.mask_axes says how the masks lie: correct it, or the order of organs",
            path=path,
        )
    return [f"{one}: left and right {AXES[1]} (data.read.grid.mask_axes), or are in this patient" for one in sides]


def _middle(weight: Weights, axis: int) -> float | None:
    """Mean index along an axis; ``None`` of what has no weight."""
    profile = weight.sum(axis=tuple(other for other in range(3) if other != axis))
    total = float(profile.sum())
    return float(profile @ np.arange(len(profile))) / total if total > 0 else None


def axes_note(features: Array, weights: Mapping[str, Weights], layout: GridLayout) -> list[str]:
    """A note if the features fit the masks clearly better with other axes than those that the layout says.

    Features of one organ are alike, so the organs explain most of their variance where both lie alike.
    A body is nearly the same from its left, so that this tells no left from right.
    """
    labels: npt.NDArray[np.intp] = np.zeros(features.shape[:3], np.intp)
    best = np.full(features.shape[:3], 0.5, np.float32)
    for place, weight in enumerate(weights.values(), 1):
        labels[weight > best] = place
        best = np.maximum(best, weight)
    if min(labels.shape) < _FINE_ENOUGH or len(np.unique(labels)) < 3:
        return []
    step = max(1, features.shape[3] // _BY_CHANNELS)
    some = features[..., ::step].reshape(-1, len(range(0, features.shape[3], step))).astype(np.float64)
    some -= some.mean(axis=0)
    own = _explained(some, labels)
    found, way = own, ""
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            turned = np.flip(labels.transpose(order), tuple(axis for axis in range(3) if flips[axis]))
            if turned.shape == labels.shape and (share := _explained(some, turned)) > found:
                found, way = share, _as_axes(order, flips, layout)
    if found < _BETTER * own + 0.01:
        return []
    return [
        f"{AXES[0]} {own:.0%} of the features' variance with axes {layout.axes}, and {found:.0%} "
        f"with {way}: look at data.read.grid.axes"
    ]


def _explained(features: npt.NDArray[np.float64], labels: npt.NDArray[np.intp]) -> float:
    """Share of the variance of centred (T, C) features that lies between the groups."""
    flat = labels.reshape(-1)
    counts = np.bincount(flat)
    sums = np.stack([np.bincount(flat, column, len(counts)) for column in features.T])
    between = float((sums[:, counts > 0] ** 2 / counts[counts > 0]).sum())
    return between / max(float((features**2).sum()), 1e-30)


def _as_axes(order: tuple[int, ...], flips: tuple[bool, ...], layout: GridLayout) -> str:
    """Letters of the axes of a file whose cells would lie as masks do that were turned this way.

    Axis i of the features (in RAS by the layout) holds the masks' axis ``order[i]``, reversed where ``flips[i]``.
    """
    said = ["RAS"[order[axis]] if not flips[axis] else "LPI"[order[axis]] for axis in range(3)]
    turn, reverse = to_ras(layout.axes)
    letters = list(layout.axes)
    for axis in range(3):
        letter = said[axis] if axis not in reverse else "LPIRAS"["RASLPI".index(said[axis])]
        letters[turn[axis]] = letter
    return "".join(letters)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)
