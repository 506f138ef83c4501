"""Sets of masks as they should be, as they should not be, and as they look although all is well: for `plausibility.py`.

A case is (volume, masks, region set), all in RAS. Mutations move or rename the whole set of a study; hard negatives
change the scan, and the masks with it, as disease, metal and narrow fields of view do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from reg2rg.core.regions import Region, RegionSet, load_region_set
from reg2rg.core.types import LabelMap, RegionFiles, Study, Volume
from reg2rg.extras.phantom.anatomy import draw
from reg2rg.extras.phantom.grid import Grid
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_image, read_study

Masks = dict[str, np.ndarray]
SIZES = ((96, 96, 64), (80, 80, 80), (128, 112, 72))
COUNTED_BELOW = 0.7


def phantom(seed: int, number: int) -> tuple[Volume, Masks]:
    grid = Grid(SIZES[number % len(SIZES)])
    array, masks = draw(draw_patient(seed, number), grid)
    return Volume(array, grid.affine), dict(masks)


def mean_dice(masks: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> float:
    """Over the regions of either; one that only one of them has counts 0."""
    names = masks.keys() | truth.keys()
    return float(np.mean([_dice(masks.get(name), truth.get(name)) for name in names]))


def _dice(one: np.ndarray | None, other: np.ndarray | None) -> float:
    if one is None or other is None:
        return 0.0
    return 2 * np.count_nonzero(one & other) / max(1, np.count_nonzero(one) + np.count_nonzero(other))


# Mutations: each yields the kind's variants of one study's set.


def flips(volume: Volume, masks: Masks) -> Iterator[Masks]:
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        yield {name: np.flip(mask, axes) for name, mask in masks.items()}


def permutations(volume: Volume, masks: Masks) -> Iterator[Masks]:
    """Axes in another order under the scan's affine: what lies outside its frame is lost."""
    for order in list(itertools.permutations(range(3)))[1:]:
        yield {name: _framed(mask.transpose(order), mask.shape) for name, mask in masks.items()}


def lost_signs(volume: Volume, masks: Masks) -> Iterator[Masks]:
    """The affine's x, y or both read with the other sign: mirrored at the origin of the world."""
    origin = np.linalg.solve(volume.affine, [0, 0, 0, 1])[:3]
    for axes in ((0, 1), (0,), (1,)):
        moved = {}
        for name, mask in masks.items():
            for axis in axes:
                mask = _rolled(np.flip(mask, axis), axis, round(2 * origin[axis] - (mask.shape[axis] - 1)))
            moved[name] = mask
        yield moved


def shifts(volume: Volume, masks: Masks) -> Iterator[Masks]:
    for vector in (
        (20, 0, 0),
        (0, -20, 0),
        (0, 0, 20),
        (-25, 15, 0),
        (0, 25, -20),
        (15, 15, 25),
        (0, 0, -40),
        (30, -30, 10),
    ):
        moved = masks
        for axis, mm in enumerate(vector):
            voxels = int(np.sign(mm) * np.ceil(abs(mm) / volume.spacing[axis]))
            moved = {name: _rolled(mask, axis, voxels) for name, mask in moved.items()}
        yield moved


def other_patient(volume: Volume, masks: Masks, other: Masks) -> Masks:
    """Another study's masks, index by index as an equal grid would lay them."""
    shape = volume.array.shape
    moved = {}
    for name, mask in other.items():
        where = [np.arange(n) * m // n for n, m in zip(shape, mask.shape, strict=True)]
        moved[name] = mask[np.ix_(*where)]
    return moved


def renamed(masks: Masks, seed: int) -> Iterator[Masks]:
    """The numbers of another table: two orders in which no region keeps its own mask."""
    names = list(masks)
    if len(names) < 2:
        return
    rng = np.random.default_rng(seed)
    for _ in range(2):
        order = np.arange(len(names))
        while (order == np.arange(len(names))).any():
            order = rng.permutation(len(names))
        yield {names[place]: masks[names[source]] for place, source in enumerate(order)}


MUTATIONS: dict[str, Callable[[Volume, Masks], Iterator[Masks]]] = {
    "axis flip": flips,
    "axis permutation": permutations,
    "sign loss": lost_signs,
    "shift": shifts,
}


def _framed(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    result = np.zeros(shape, bool)
    box = tuple(slice(0, min(a, b)) for a, b in zip(mask.shape, shape, strict=True))
    result[box] = mask[box]
    return result


def _rolled(mask: np.ndarray, axis: int, voxels: int) -> np.ndarray:
    """Moved along an axis; what leaves the frame is lost."""
    result = np.zeros_like(mask)
    size = mask.shape[axis]
    if abs(voxels) < size:
        source = [slice(None)] * 3
        target = [slice(None)] * 3
        source[axis] = slice(max(0, -voxels), size - max(0, voxels))
        target[axis] = slice(max(0, voxels), size - max(0, -voxels))
        result[tuple(target)] = mask[tuple(source)]
    return result


# Hard negatives


def hard_negatives(volume: Volume, masks: Masks, seed: int) -> Iterator[tuple[str, Volume, Masks]]:
    rng = np.random.default_rng(seed)
    array, affine = volume.array, volume.affine
    lung, shape = masks["lung"], volume.array.shape
    x, y, z = np.ogrid[tuple(slice(0, n) for n in shape)]
    middle = round(float(np.argwhere(lung)[:, 0].mean()))
    side = (x > middle) if rng.random() < 0.5 else (x <= middle)
    one = lung & side
    low = np.percentile(np.argwhere(lung)[:, 2], 60)

    def filled(where: np.ndarray, hu: float, noise: float = 15) -> np.ndarray:
        result = array.copy()
        result[where] = np.rint(rng.normal(hu, noise, np.count_nonzero(where)))
        return result

    yield "white-out of one lung", Volume(filled(one, 35), affine), masks
    yield "white-out of both lungs", Volume(filled(lung & (rng.random(shape) < 0.85), 20, 40), affine), masks
    medial = np.abs(x - middle) < np.percentile(np.abs(np.argwhere(one)[:, 0] - middle), 25)
    yield "collapsed lung", Volume(filled(one, 30), affine), masks | {"lung": lung & (~side | medial)}
    yield "pneumonectomy", Volume(filled(one, 8), affine), masks | {"lung": lung & ~side}
    fluid = one & (z < low)
    more = {"lung": lung & ~fluid, "pleura": masks["pleura"] | fluid}
    yield "large effusion", Volume(filled(fluid, 8), affine), masks | more
    yield "large effusion in the lung's mask", Volume(filled(lung & (z < low), 8), affine), masks
    lateral = one & ~medial
    yield "pneumothorax", Volume(filled(lateral, -1000), affine), masks | {"lung": lung & ~lateral}
    yield "metal", Volume(_metal(array, masks, rng), affine), masks
    for name, box in _crops(lung):
        cut = {region: mask[box] for region, mask in masks.items() if mask[box].any()}
        moved = affine.copy()
        moved[:3, 3] = (affine @ [*(part.start for part in box), 1])[:3]
        yield name, Volume(array[box], moved), cut
    turned = {name: np.flip(mask, (0, 1)) for name, mask in masks.items()}
    yield "prone, turned in the frame", Volume(np.flip(array, (0, 1)), affine), turned
    anterior = lung & (y > np.percentile(np.argwhere(lung)[:, 1], 55))
    yield "prone, fluid in front", Volume(filled(anterior, 5), affine), masks
    yield "situs inversus", Volume(np.flip(array, 0), affine), {name: np.flip(mask, 0) for name, mask in masks.items()}


def _metal(array: np.ndarray, masks: Masks, rng: np.random.Generator) -> np.ndarray:
    """Rods beside the spine and a valve in the heart, with streaks through their slices."""
    result = array.astype(np.float32)
    x, y = np.ogrid[: array.shape[0], : array.shape[1]]
    for name in ("bone", "heart"):
        points = np.argwhere(masks[name])
        at = points[rng.integers(len(points))]
        for k in range(max(0, at[2] - 6), min(array.shape[2], at[2] + 7)):
            angle = np.arctan2(y - at[1], x - at[0])
            far = np.hypot(x - at[0], y - at[1])
            result[:, :, k] += 900 * np.cos(9 * angle + k) * np.exp(-far / 25)
            result[:, :, k][far < 2.5] = 3000
    return np.clip(np.rint(result), -1024, 3071).astype(np.int16)


def _crops(lung: np.ndarray) -> Iterator[tuple[str, tuple[slice, ...]]]:
    spans = [np.flatnonzero(lung.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    low, high = [int(span[0]) for span in spans], [int(span[-1]) + 1 for span in spans]
    half = (low[2] + high[2]) // 2
    inner = slice(low[0] + 4, high[0] - 4), slice(low[1] + 2, high[1] - 2)
    yield "field of view cut to the lungs", (*inner, slice(low[2], high[2]))
    yield (
        "field of view of one side",
        (slice((low[0] + high[0]) // 2, high[0]), slice(low[1], high[1]), slice(low[2], high[2])),
    )
    yield "lower half", (slice(0, lung.shape[0]), slice(0, lung.shape[1]), slice(0, half))
    yield "upper half", (slice(0, lung.shape[0]), slice(0, lung.shape[1]), slice(half, lung.shape[2]))


# Real scans


def real_cases(folder: Path) -> Iterator[tuple[str, Volume, Masks, RegionSet]]:
    """Every scan with masks below a folder of published test data."""
    radgenome, lobes, both = (load_region_set(name) for name in ("radgenome", "lobes", "radgenome_lobes"))
    lidc, total = folder / "lidc-idri-0314_CCBY3", folder / "totalsegmentator_Apache2"
    for name, image, masks, regions in (
        (
            "LIDC",
            lidc / "ct_1.56x1.56x2mm.nii.gz",
            {
                "lung left": lidc / "masks_derived/lung_left.nii.gz",
                "lung right": lidc / "masks_derived/lung_right.nii.gz",
                "bone": lidc / "masks_derived/bone_over220HU.nii.gz",
                "trachea": lidc / "masks_derived/trachea.nii.gz",
            },
            radgenome,
        ),
        (
            "aorta",
            total / "aorta_report/ct_cropped.nii.gz",
            {"mediastinum": total / "aorta_report/aorta.nii.gz", "bone": total / "aorta_report/vertebrae_T12.nii.gz"},
            radgenome,
        ),
        (
            "pulmonary",
            total / "pulmonary_report/ct_cropped.nii.gz",
            {
                "heart": total / "pulmonary_report/heart.nii.gz",
                "mediastinum": total / "pulmonary_report/pulmonary_artery.nii.gz",
            },
            radgenome,
        ),
    ):
        yield (name, *_read(image, masks, regions), regions)
    for name, image, labels in (
        ("torso", "example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"),
        ("slab", "example_ct_sm.nii.gz", "example_seg.nii.gz"),
    ):
        for regions in (radgenome, lobes, both):
            yield (
                f"{name}, {regions.name}",
                *_read(total / image, LabelMap(total / labels, regions.from_totalsegmentator()), regions),
                regions,
            )
    spine = LabelMap(total / "example_ct_totalseg_spine.nii.gz", {"bone": tuple(range(1, 200))})
    yield "torso, spine", *_read(total / "example_ct.nii.gz", spine, radgenome), radgenome
    chest = folder / "chestimagingplatform_BSDstyle"
    stored = np.unique(read_image(chest / "lm-64.nrrd").stored)
    labels = {"lung": tuple(int(v) for v in stored if 9 <= v % 256 <= 14)}
    yield "whole chest", *_read(chest / "ct-64.nrrd", LabelMap(chest / "lm-64.nrrd", labels), radgenome), radgenome
    sides = {
        "left": tuple(v for v in labels["lung"] if v % 256 < 12),
        "right": tuple(v for v in labels["lung"] if v % 256 > 11),
    }
    pair = RegionSet("lungs", (Region("left"), Region("right")))
    yield "whole chest, no expectation", *_read(chest / "ct-64.nrrd", LabelMap(chest / "lm-64.nrrd", sides), pair), pair


def _read(image: Path, masks: Mapping[str, Path] | LabelMap, regions: RegionSet) -> tuple[Volume, Masks]:
    options = ReadOptions(min_slices=8, implausible="ignore")
    if isinstance(masks, LabelMap):
        found = read_study(_study(image, masks), regions, options)
        return found.volume, dict(found.masks)
    parts = RegionSet("parts", tuple(Region(name) for name in masks))
    found = read_study(_study(image, RegionFiles(dict(masks))), parts, options)
    result: Masks = {}
    for name, mask in found.masks.items():
        region = "lung" if name.startswith("lung ") else regions.canonical(name)
        result[region] = result[region] | mask if region in result else mask
    return found.volume, result


def _study(image: Path, masks: LabelMap | RegionFiles) -> Study:
    return Study(id="s", image=image, masks=masks, patient="s", split="test")
