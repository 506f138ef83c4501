"""How well a whole set of masks fits its CT as it lies, and how well a moved copy of it would.

Where a region ends, the scan changes. Masks in their place therefore have other HU inside than in a shell around them;
masks that are mirrored, shifted or of somebody else cut through whatever lies there and see the same on both sides. The
measure is the Jensen-Shannon divergence between the two histograms of HU, in bits, averaged over the regions: it knows
nothing of what a region should look like, so disease inside a region hardly changes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from reg2rg.core.types import Mask, Volume
from reg2rg.scans.boxed import BoxedMasks
from reg2rg.scans.grid import bounding_box

T = TypeVar("T", bound=np.generic)
Points = npt.NDArray[np.float64]
_SPACING = 4.0  # mm of the samples, at least the voxels'
_POINTS = 800  # a region, and as many of its shell
_FEWEST = 60  # samples of a region that is judged, and of a histogram that counts
_SHELL = 2  # samples wide
_EDGES = np.array([-970, -900, -800, -650, -450, -200, -130, -60, -10, 20, 45, 75, 120, 200, 350, 700], np.int16)
_BINS = len(_EDGES) + 1
_STEPS, _FARTHEST = (24.0, 12.0, 6.0), 80.0  # mm of the search for a shift
_NEAR = 15.0  # mm
_MIRRORED = ("left and right", "front and back", "top and bottom")


@dataclass(frozen=True, slots=True)
class Move:
    """A way in which masks can be misplaced, told by what undoes it.

    Attributes:
        axes: which array axis of the masks is which of the scan.
        mirrored: axes along which they run the wrong way.
        about: ``"frame"`` or ``"origin"``: where the mirror stands.
        shift: mm that the masks lie off along x, y, z.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    mirrored: tuple[int, ...] = ()
    about: str = "frame"
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __str__(self) -> str:
        parts = []
        if self.axes != (0, 1, 2):
            parts.append(f"the axes are in the order {', '.join('xyz'[axis] for axis in self.axes)}")
        if self.mirrored:
            what = " and ".join(f"{_MIRRORED[axis]} ({'xyz'[axis]})" for axis in self.mirrored)
            origin = ", at the origin of the world: signs of the affine are lost" if self.about == "origin" else ""
            parts.append(f"{what} {'is' if len(self.mirrored) == 1 else 'are'} mirrored{origin}")
        if any(self.shift):
            parts.append(f"they lie {', '.join(f'{step:+.0f}' for step in self.shift)} mm off along x, y, z")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class MaskFit:
    """Samples of a CT and of a set of masks.

    Attributes:
        names: regions with enough samples.
        binned: (I, J, K) int8, class of HU of each sample of the CT.
        points: (P, 3) sample indices, of regions and of their shells.
        classes: (P,) 2 r for region r, 2 r + 1 for its shell.
        spacing: (3,) mm between samples.
        step: (3,) voxels between samples.
        origin: (3,) the world's origin in samples.
    """

    names: tuple[str, ...]
    binned: npt.NDArray[np.int8]
    points: Points
    classes: npt.NDArray[np.intp]
    spacing: npt.NDArray[np.float64]
    step: npt.NDArray[np.intp]
    origin: npt.NDArray[np.float64]

    @classmethod
    def of(cls, volume: Volume, masks: BoxedMasks) -> MaskFit:
        """Sample a CT and masks on its grid, both in RAS."""
        sizes = np.array(volume.spacing)
        step = np.maximum(1, np.floor(_SPACING / sizes)).astype(np.intp)
        names: list[str] = []
        points: list[npt.NDArray[np.intp]] = []
        classes: list[npt.NDArray[np.intp]] = []
        for name in masks:
            inside, shell = _inside_and_shell(masks.thinned(name, step))
            if len(inside) < _FEWEST or len(shell) < _FEWEST:
                continue
            points += [inside, shell]
            classes += [np.full(len(inside), 2 * len(names)), np.full(len(shell), 2 * len(names) + 1)]
            names.append(name)
        binned = np.searchsorted(_EDGES, thinned(volume.array, step)).astype(np.int8)
        origin = np.linalg.solve(volume.affine, [0, 0, 0, 1])[:3] / step
        places = np.concatenate(points).astype(np.float64) if points else np.zeros((0, 3))
        kinds = np.concatenate(classes) if classes else np.zeros(0, np.intp)
        return cls(tuple(names), binned, places, kinds, sizes * step, step, origin)

    def contrast(self, points: Points | None = None) -> float:
        """The measure, 0 to 1, with the samples where `points` has them, by default as the masks lie."""
        # A hundred times a study: a row an axis, one comparison for both ends (below zero is huge without a sign).
        where = np.rint((self.points if points is None else points).T).astype(np.intp)
        seen = np.logical_and.reduce(
            [row < size for row, size in zip(where.view(np.uintp), self.binned.shape, strict=True)]
        )
        (i, j, k), (_, columns, depth) = where, self.binned.shape
        count = 2 * len(self.names)
        places = self.classes[seen] * _BINS + self.binned.ravel()[((i * columns + j) * depth + k)[seen]]
        histograms = np.bincount(places, minlength=count * _BINS).reshape(-1, 2, _BINS).astype(np.float64)
        totals = histograms.sum(axis=2)
        shares = histograms / np.maximum(totals, 1)[:, :, None]
        bits = _entropy(shares.mean(axis=1)) - _entropy(shares).mean(axis=1)
        return float(np.where(totals.min(axis=1) >= _FEWEST / 2, bits, 0).mean())

    def nearby(self) -> float:
        """Mean measure of copies that are moved a little along each axis: far below the masks' own if they fit."""
        moves = [sign * step / self.spacing for step in np.eye(3) * _NEAR for sign in (1, -1)]
        return float(np.mean([self.contrast(self.points + move) for move in moves]))

    def best_move(self) -> tuple[Move, float]:
        """The misplacement that explains the masks best, and the measure once it is undone."""
        tried = [(self.contrast(points), move, points) for move, points in self._turned()]
        _, move, points = max(tried, key=lambda one: one[0])
        found = [(*self._climb(start), other) for start, other in ((points, move), (self.points, Move()))]
        contrast, shift, move = max(found, key=lambda one: one[0])
        x, y, z = (float(step) for step in -shift + 0.0)
        return Move(move.axes, move.mirrored, move.about, (x, y, z)), contrast

    def _turned(self) -> Iterator[tuple[Move, Points]]:
        """Every order and direction of the axes but the masks' own, and mirrors at the world's origin."""
        last = np.array(self.binned.shape) - 1
        for axes in itertools.permutations(range(3)):
            turned = (self.points * self.step)[:, axes] / self.step
            for signs in itertools.product((False, True), repeat=3):
                mirrored = tuple(axis for axis in range(3) if signs[axis])
                if mirrored or axes != (0, 1, 2):
                    yield Move((axes[0], axes[1], axes[2]), mirrored), np.where(signs, last - turned, turned)
        for mirrored in ((0, 1), (0,), (1,)):
            signs = tuple(axis in mirrored for axis in range(3))
            yield Move(mirrored=mirrored, about="origin"), np.where(signs, 2 * self.origin - self.points, self.points)

    def _climb(self, points: Points) -> tuple[float, npt.NDArray[np.float64]]:
        """Uphill from `points` in steps along the axes: the measure there, and the shift in mm."""
        best, at = self.contrast(points), np.zeros(3)
        for size in _STEPS:
            moved = True
            while moved and np.abs(at).max() < _FARTHEST:
                moved = False
                for move in (*(np.eye(3) * size), *(np.eye(3) * -size)):
                    contrast = self.contrast(points + (at + move) / self.spacing)
                    if contrast > best + 1e-4:
                        best, at, moved = contrast, at + move, True
        return best, at


def thinned(array: npt.NDArray[T], step: npt.NDArray[np.intp]) -> npt.NDArray[T]:
    """Every so many voxels along each axis, packed."""
    return np.ascontiguousarray(array[:: step[0], :: step[1], :: step[2]])


def _inside_and_shell(mask: Mask) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Samples of a region and of the shell around it, evenly thinned out."""
    box = bounding_box(mask)
    if box is None:
        return np.zeros((0, 3), np.intp), np.zeros((0, 3), np.intp)
    low = np.array([max(0, start - _SHELL) for start, _ in box])
    part = mask[tuple(slice(start, stop + _SHELL) for start, (_, stop) in zip(low, box, strict=True))]
    shell = ndimage.binary_dilation(part, iterations=_SHELL) & ~part
    return _some(part) + low, _some(shell) + low


def _some(mask: Mask) -> npt.NDArray[np.intp]:
    places = np.flatnonzero(mask)
    if len(places) > _POINTS:
        places = places[np.linspace(0, len(places) - 1, _POINTS).astype(np.intp)]
    return np.stack(np.unravel_index(places, mask.shape), axis=1)


def _entropy(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logs = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    return np.asarray(-(shares * logs).sum(axis=-1))
