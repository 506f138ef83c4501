"""Are these the masks of this CT? The whole set of a study's masks is held against the voxels.

Three questions, and the evidence for each is joint, so that disease, which changes a region, is not taken for a fault
of the files, which moves or renames all of them:

- Would a moved copy of the set fit the CT far better than the set as it lies (see `reg2rg.scans.mask_fit`)? Then the
  masks are mirrored, permuted or shifted, and the copy that fits says how.
- Does the set fit no better than copies moved by some mm, and nowhere else either? Then it is another patient's.
- Do several regions hold what their names cannot be, as a region set expects it? Then labels are numbered otherwise.

What a single region shows that it should not is a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from reg2rg.core.errors import DataFault
from reg2rg.core.expected import Expected
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import HU, Mask, Volume
from reg2rg.scans.boxed import BoxedMasks
from reg2rg.scans.mask_fit import MaskFit, Move, thinned

# Over phantoms, phantoms with disease, metal and narrow fields of view, and real masks, all in place, the contrast
# of a set was 0.29 to 0.89 and copies moved by 15 mm had 0.08 to 0.30 of it; misplaced: at most 0.31, and 0.41 to 2.7.
_FAR_BETTER, _GAIN, _FITS = 1.6, 0.08, 0.2  # a moved copy's contrast: ratio and difference to the set's, and its least
_FLAT, _POOR = 0.42, 0.18
_SMALL_SHIFT = 13.0  # mm; breathing between two scans moves masks as far
_SMALLEST_FRAME = 60.0  # mm along every axis; less shows too little of a chest
_AIR_BELOW, _OUTER_AIR = -500, -940  # HU
_ENOUGH_AIR = 1000.0  # ml inside the body, to say where the lungs are
_FAR_HU = 150  # a median as far out of its range is none of a sick organ
_CONTRADICTED, _REGIONS = 3, 2  # points and regions that make an error of names
_LISTED = 4
_LOOK = "look at an overlay (reg2rg data check --overlays)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a set of masks.

    Attributes:
        strength: ``"strong"``, so that the study cannot be used; ``"weak"``, worth a look.
        found: what was measured, and the likely cause.
        expected: what was expected.
        fix: what to do.
        regions: those that are not what they are called, with what speaks against each; none if the set is misplaced.
    """

    strength: Literal["strong", "weak"]
    found: str
    expected: str
    fix: str
    regions: Mapping[str, str] = field(default_factory=dict)

    def fault(self, path: Path) -> DataFault:
        """The verdict as an error that names the masks' file or folder."""
        return DataFault.of("MASK_IMPLAUSIBLE", found=self.found, expected=self.expected, fix=self.fix, path=path)

    def note(self) -> str:
        """The verdict as one line."""
        return f"masks look implausible: {self.found} (expected {self.expected}). {self.fix}"


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the CT shows under one mask, in the terms of `Expected`; ``None`` where it cannot be told."""

    air: float
    median: float
    inside: float
    volume: float
    right: float
    height: float | None


@dataclass(frozen=True, slots=True)
class _Doubt:
    """One expectation that a region does not meet; disease can do so too if `points` is 1."""

    region: str
    text: str
    points: int
    side: bool = False


def judge(volume: Volume, masks: Mapping[str, Mask], regions: RegionSet) -> Verdict | None:
    """Hold a study's masks against its CT.

    Args:
        volume: in RAS.
        masks: region -> (H, W, D) bool on the CT's grid.
        regions: says what is expected of them; regions of which nothing is are left out.

    Returns:
        the gravest verdict, ``None`` if nothing is odd, or if too little is there to tell.
    """
    boxed = BoxedMasks.of(masks)
    expected = {region.name: region.expected for region in regions if region.expected and region.name in boxed}
    if min(n * mm for n, mm in zip(volume.array.shape, volume.spacing, strict=True)) < _SMALLEST_FRAME:
        return None
    fit = MaskFit.of(volume, boxed.only(expected))
    if not fit.names:
        return None
    measured = _measure(volume, boxed.only(fit.names), fit.step)
    doubts = [doubt for name in fit.names for doubt in _doubts(name, measured[name], expected[name])]
    needed = 1 if any(_contrasted(expected[name]) for name in fit.names) else 2
    certain = sum(doubt.points for doubt in doubts) >= needed
    return _of_place(fit, certain) or _of_names(doubts, measured, expected)


def _contrasted(expected: Expected) -> bool:
    """Whether a region stands out from all that can lie around it, in every patient."""
    airy = expected.air is not None and expected.air[0] > 0
    dense = expected.median is not None and expected.median[0] > 0
    return airy or dense


def _of_place(fit: MaskFit, certain: bool) -> Verdict | None:
    """Whether the set lies where it should; `certain`: what lies under the masks speaks against them, too.

    Coarse and shrunken masks have weak edges in the right place, and the right tissue under them.
    """
    contrast = fit.contrast()
    if contrast >= _POOR and contrast * _FAR_BETTER > 1:
        return None  # no measure is above 1
    move, best = fit.best_move()
    nearby = fit.nearby() / max(contrast, 1e-9)
    what = f"{', '.join(fit.names[:_LISTED])}{' and others' if len(fit.names) > _LISTED else ''}"
    edges = f"the edges of {what} stand out from the scan by {contrast:.2f}"
    if best >= _FITS and best >= _FAR_BETTER * contrast and best - contrast >= _GAIN:
        small = not move.mirrored and move.axes == (0, 1, 2) and np.linalg.norm(move.shift) < _SMALL_SHIFT
        return Verdict(
            "weak" if small else "strong",
            f"{edges}, and by {best:.2f} once this is undone: {move}",
            "masks that fit the scan as they lie",
            _remedy(move),
        )
    if nearby > _FLAT and contrast < _POOR:
        return Verdict(
            "strong" if certain else "weak",
            f"{edges}, moved by 15 mm still by {nearby * contrast:.2f}, and turned or shifted by at most {best:.2f}: "
            "these look like masks of another patient or scan",
            "masks whose edges are edges of the scan (0.3 and more)",
            f"check that scan and masks are of one study and series; {_LOOK}",
        )
    return None


def _remedy(move: Move) -> str:
    if move.axes != (0, 1, 2):
        return (
            "write the masks again with the affine of their own array; arrays of SimpleITK are in the order z, y, x "
            f"(array.transpose(2, 1, 0)); {_LOOK}"
        )
    if move.about == "origin":
        return (
            f"write the masks again with the scan's affine, signs included (ITK counts x and y the other way); {_LOOK}"
        )
    if move.mirrored:
        return (
            "write the masks again in the scan's orientation, or with the affine of their own; if the option mask_grid "
            f"places them, they are stored otherwise than it says; {_LOOK}"
        )
    return f"write the masks again with the origin of the array they were made on, and of this series; {_LOOK}"


def _measure(volume: Volume, masks: BoxedMasks, step: npt.NDArray[np.intp]) -> dict[str, _Measured]:
    array = thinned(volume.array, step)
    spacing = np.array(volume.spacing) * step
    ml = float(np.prod(spacing)) / 1000
    outside, lungs = _air(array, ml)
    middle = np.flatnonzero(~outside.all(axis=(1, 2))).mean() if not outside.all() else array.shape[0] / 2
    result = {}
    for name in masks:
        where = np.flatnonzero(masks.thinned(name, step))
        values = array.reshape(-1)[where]
        i, _, k = np.unravel_index(where, array.shape)
        result[name] = _Measured(
            air=float(np.mean(values < _AIR_BELOW)),
            median=float(np.median(values)),
            inside=1 - float(np.mean(outside.reshape(-1)[where])),
            volume=len(where) * ml,
            right=float(np.mean(i > middle)),
            height=None if lungs is None else float(k.mean() - lungs) * float(spacing[2]),
        )
    return result


def _air(array: HU, ml: float) -> tuple[Mask, float | None]:
    """Air around the body, and the slice in the middle of the air within it, ``None`` if that is too little.

    A lung that a narrow field of view cuts is not taken for air around the body: that is thinner.
    """
    labels, count = ndimage.label(array < _AIR_BELOW)
    flat = labels.reshape(-1)
    sizes = np.bincount(flat, minlength=count + 1)
    means = np.bincount(flat, weights=array.reshape(-1), minlength=count + 1) / np.maximum(sizes, 1)
    sides = np.zeros(count + 1, bool)
    for face in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        sides[face.reshape(-1)] = True
    outer = sides & (means < _OUTER_AIR)
    outer[0] = False
    outside = outer[labels]
    inner = (labels > 0) & ~outside
    if np.count_nonzero(inner) * ml < _ENOUGH_AIR:
        return outside, None
    return outside, float(np.average(np.arange(array.shape[2]), weights=np.count_nonzero(inner, axis=(0, 1))))


def _of_names(
    doubts: list[_Doubt], measured: Mapping[str, _Measured], expected: Mapping[str, Expected]
) -> Verdict | None:
    """Whether the regions are what they are called."""
    if not doubts:
        return None
    sided = [name for name in measured if expected[name].side]
    if sided and {doubt.region for doubt in doubts if doubt.side} == set(sided) and all(d.side for d in doubts):
        return Verdict(
            "weak",
            f"{', '.join(sided)} lie on the other side of the body, all else fits",
            "left regions on the left of the patient",
            f"check the scan's own orientation and the names: sides may be swapped in both; {_LOOK}",
        )
    doubts = sorted(doubts, key=lambda doubt: -doubt.points)
    enough = sum(doubt.points for doubt in doubts) >= _CONTRADICTED
    strong = enough and doubts[0].points > 1 and len({doubt.region for doubt in doubts}) >= _REGIONS
    more = f" and {len(doubts) - _LISTED} more" if len(doubts) > _LISTED else ""
    found = "; ".join(doubt.text for doubt in doubts[:_LISTED]) + more
    named = {doubt.region: doubt.text for doubt in reversed(doubts)}  # the gravest of each
    if not strong:
        return Verdict("weak", found, "what the region set says", f"{_LOOK}; disease can look like this")
    looks = _exchanged(measured, expected)
    return Verdict(
        "strong",
        f"{found}{looks}",
        "what the region set says of each region",
        "check which table the numbers or names come from (TotalSegmentator version 1, version 2 and other tasks count "
        f"differently) and map them anew; {_LOOK}",
        named,
    )


def _exchanged(measured: Mapping[str, _Measured], expected: Mapping[str, Expected]) -> str:
    """Which names would fit the masks better, if an exchange among them does."""
    names = list(measured)
    cost = [[sum(d.points for d in _doubts(name, measured[mask], expected[name])) for name in names] for mask in names]
    masks, better = linear_sum_assignment(np.array(cost) - 0.1 * np.eye(len(names)))
    swaps = [
        f"{names[mask]} looks like {names[name]}" for mask, name in zip(masks, better, strict=True) if mask != name
    ]
    return f" (of these masks, {', '.join(swaps[:_LISTED])})" if swaps else ""


def _doubts(name: str, measured: _Measured, expected: Expected) -> list[_Doubt]:
    """What speaks against a region's name: 2 points where no disease explains it."""
    doubts = []
    if expected.air is not None and not expected.air[0] <= measured.air <= expected.air[1]:
        text = f"{name} is {measured.air:.0%} air (expected {expected.air[0]:.0%} to {expected.air[1]:.0%})"
        doubts.append(_Doubt(name, text, 2 if measured.air > expected.air[1] else 1))
    elif expected.median is not None and not expected.median[0] <= measured.median <= expected.median[1]:
        far = max(expected.median[0] - measured.median, measured.median - expected.median[1]) > _FAR_HU
        airy = expected.air is not None and expected.air[0] > 0  # fluid takes the air's place
        text = f"{name} has a median of {measured.median:.0f} HU ({_between(expected.median)} HU)"
        doubts.append(_Doubt(name, text, 2 if far and not airy else 1))
    if expected.inside is not None and measured.inside < expected.inside[0]:
        text = f"{1 - measured.inside:.0%} of {name} lies outside the body"
        doubts.append(_Doubt(name, text, 1))
    if expected.volume is not None and not expected.volume[0] <= measured.volume <= expected.volume[1]:
        text = f"{name} has {measured.volume:.0f} ml ({_between(expected.volume)} ml)"
        doubts.append(_Doubt(name, text, 2 if measured.volume > 2 * expected.volume[1] else 1))
    wrong_side = measured.right if expected.side == "left" else 1 - measured.right
    if expected.side is not None and wrong_side > 0.8:
        text = f"{wrong_side:.0%} of {name} lies on the patient's {'right' if expected.side == 'left' else 'left'}"
        doubts.append(_Doubt(name, text, 2, side=True))
    height = measured.height
    if expected.height is not None and height is not None and not expected.height[0] <= height <= expected.height[1]:
        text = f"{name} lies {height:+.0f} mm from the height of the lungs' middle ({_between(expected.height)} mm)"
        doubts.append(_Doubt(name, text, 1))
    return doubts


def _between(bounds: tuple[float, float]) -> str:
    return f"expected {bounds[0]:g} to {bounds[1]:g}"
