"""What is measured of each region at native resolution: size, density, place.

Numbers come from the voxels of the scan under the mask as it was prepared, nothing is resampled. They are as good as
the masks: see `MadeBy.for_measurements`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.documents import DocumentError, read_record, write_record
from reg2rg.core.regions import RegionSet
from reg2rg.scans.boxed import RegionMask
from reg2rg.scans.class_names import TOTAL
from reg2rg.scans.grid import box_slices
from reg2rg.scans.hounsfield import HU_MAX, HU_MIN
from reg2rg.store.crop import Detail
from reg2rg.store.surroundings import Surroundings, surroundings

ATTRIBUTES_FORMAT = 2
"""Version of the section; a change makes `prepare` measure anew, from native detail, and nothing else."""
PERCENTILES = (5, 25, 50, 75, 95)
AIR_BELOW, CALCIUM_FROM = -500, 130
"""HU: gas, as in `reg2rg.core.expected`; the threshold of Agatston et al., 1990."""

VECTOR_NAMES = (
    *("log of volume", "log of its share of the body", "mean HU", "sd of HU"),
    *(f"percentile {share} of HU" for share in PERCENTILES),
    *("root of air", "root of calcium"),
    *(f"{what} {axis}" for what in ("extent", "centroid") for axis in ("left-right", "back-front", "bottom-top")),
    *("body width", "body depth", "body height", "cut", "cardiothoracic ratio", "ratio known"),
    *("log of air around it", "mean HU around it", "sd of HU around it"),
)
VECTOR = len(VECTOR_NAMES)
"""Numbers in the `vector` of a region."""
DENSITY_NAMES = ("mean HU", "sd of HU", "percentile 5 of HU", "median HU", "percentile 95 of HU", "air", "calcium")
"""What a `density_table` has of each region."""

Triple = tuple[float, float, float]
_TISSUE = -300  # HU: the body without its gas
_BODY_STEP = 4.0  # mm between the voxels that the body's extent is told from
_FINE = 1.0  # mm
_SLICES = 16  # less than 256, so that a byte counts them
_BODY_TAIL = 0.5  # per cent of them that lie beyond the body's extent, so that table and lines hardly count
_FIX = "run `reg2rg data prepare` again: it measures anew"
_HEART = TOTAL["heart"]
_LOBES = frozenset(label for name, label in TOTAL.items() if name.startswith("lung_"))


@dataclass(frozen=True, slots=True)
class RegionAttributes:
    """What is measured of one region.

    Attributes:
        volume_ml: volume.
        mean_hu, sd_hu: of its voxels, within [-1024, 3071] HU.
        percentiles_hu: `PERCENTILES` of them: the least value that so large a share does not exceed.
        air: share of voxels below -500 HU.
        calcium: share of voxels of 130 HU and more, which contrast has too.
        extent_mm: size along the patient's axes: left-right, back-front, bottom-top.
        centroid_mm: from the body's centre to the right, front and head of the patient.
        cut: it reaches an end of the scan, so that volume and extent may be those of a part.
        around: what lies beside it and in no mask; ``None`` where there is nothing of that kind.
    """

    volume_ml: float
    mean_hu: float
    sd_hu: float
    percentiles_hu: tuple[int, ...]
    air: float
    calcium: float
    extent_mm: Triple
    centroid_mm: Triple
    cut: bool
    around: Surroundings | None = None


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is measured of one scan.

    Attributes:
        regions: region -> its attributes.
        body_extent_mm: size of the tissue (above -300 HU) along the patient's axes, as far as the scan goes, without
            the outermost half per cent at either end.
        cardiothoracic_ratio: width of the heart over that of both lungs, where both are there and the scan cuts neither
            heart nor sides of the lungs; ``None`` elsewhere.
    """

    regions: Mapping[str, RegionAttributes]
    body_extent_mm: Triple
    cardiothoracic_ratio: float | None


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a region lies: lowest and highest RAS coordinates in mm, and at which faces of the scan, two an axis."""

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    faces: npt.NDArray[np.bool_]


def measure(detail: Detail, regions: RegionSet) -> Attributes:
    """Measure all regions of a scan.

    Args:
        detail: native detail; its axes lie near those of the patient (RAS), oblique ones too.
        regions: tell which of them are heart and lungs, by their classes in TotalSegmentator.
    """
    centre, extent = _body(detail)
    spans = {name: _span(detail, mask) for name, mask in detail.masks.items()}
    beside = surroundings(detail, AIR_BELOW)
    measured = {
        name: _region(detail, mask, centre, spans[name], beside.get(name)) for name, mask in detail.masks.items()
    }
    return Attributes(measured, extent, _cardiothoracic_ratio(spans, regions))


def vector(attributes: Attributes, region: str) -> npt.NDArray[np.float32]:
    """The attributes of one region and its scan as a model takes them, (`VECTOR`,), each of about unit size.

    Lengths are in units of 100 mm, HU in units of 300, volumes as natural logarithms; small shares count by their root.
    A ratio that is not known is 0, and a last number says whether it is.

    Raises:
        KeyError: no such region.
    """
    own, (width, depth, height) = attributes.regions[region], attributes.body_extent_mm
    ratio, around = attributes.cardiothoracic_ratio, own.around
    body_ml = max(width * depth * height / 1000, 1e-3)
    values = (
        math.log1p(own.volume_ml) / 3,
        math.log(max(own.volume_ml, 1e-3) / body_ml) / 3,
        own.mean_hu / 300,
        own.sd_hu / 300,
        *(rank / 300 for rank in own.percentiles_hu),
        math.sqrt(own.air),
        3 * math.sqrt(own.calcium),
        *(length / 100 for length in (*own.extent_mm, *own.centroid_mm)),
        *(length / 100 for length in attributes.body_extent_mm),
        float(own.cut),
        2 * (ratio or 0.0),
        float(ratio is not None),
        *((math.log1p(around.air_ml) / 3, around.mean_hu / 300, around.sd_hu / 300) if around else (0.0, 0.0, 0.0)),
    )
    return np.asarray(values, dtype=np.float32)


def vectors(attributes: Attributes) -> dict[str, npt.NDArray[np.float32]]:
    """Region -> its `vector`."""
    return {region: vector(attributes, region) for region in attributes.regions}


def density_table(studies: Sequence[Attributes], regions: Sequence[str]) -> npt.NDArray[np.float64]:
    """`DENSITY_NAMES` of each study and region, (S, R, K); nan where a study lacks a region."""
    found = np.full((len(studies), len(regions), len(DENSITY_NAMES)), np.nan)
    for row, study in enumerate(studies):
        for place, region in enumerate(regions):
            if (own := study.regions.get(region)) is not None:
                low, _, middle, _, high = own.percentiles_hu
                found[row, place] = own.mean_hu, own.sd_hu, low, middle, high, own.air, own.calcium
    return found


def write_attributes(path: Path, study: str, key: str, attributes: Attributes) -> None:
    """Write a study's attributes, atomically.

    Args:
        path: target.
        study: id.
        key: key of the native entry that they were measured on.
        attributes: what was measured.
    """
    write_record(path, {"format": ATTRIBUTES_FORMAT, "id": study, "key": key, **asdict(attributes)})


def attributes_key(path: Path) -> tuple[str, int] | None:
    """Key and format of a study's attributes; ``None`` where there are none, or they are damaged."""
    try:
        found = read_record(path, _FIX)
        return str(found["key"]), int(found["format"])
    except (FileNotFoundError, DocumentError, KeyError):
        return None


def read_attributes(path: Path) -> Attributes:
    """Attributes of `ATTRIBUTES_FORMAT`.

    Raises:
        FileNotFoundError: there are none.
        DocumentError: they are damaged.
    """
    found = read_record(path, _FIX)
    regions = {name: _region_of(values) for name, values in found["regions"].items()}
    extent: Triple = tuple(found["body_extent_mm"])
    return Attributes(regions, extent, found["cardiothoracic_ratio"])


def _region_of(values: Mapping[str, Any]) -> RegionAttributes:
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    around = plain.pop("around")
    return RegionAttributes(**plain, around=None if around is None else Surroundings(**around))


def _body(detail: Detail) -> tuple[npt.NDArray[np.float64], Triple]:
    """The body's centre in RAS mm, of all slices, and its extent, of some voxels."""
    linear = detail.affine[:3, :3]
    steps = np.array([max(1, int(_BODY_STEP // size)) for size in detail.spacing])
    some = np.stack(np.nonzero(detail.array[:: steps[0], :: steps[1], :: steps[2]] > _TISSUE))
    if not some.size:
        return detail.affine[:3, 3], (0.0, 0.0, 0.0)
    low, high = np.percentile((linear * steps) @ some, (_BODY_TAIL, 100 - _BODY_TAIL), axis=1)
    # Fine pixels: the middle ones of three by three, which moves no centre. The scan cuts slices, so all of them count.
    pixel = np.array(
        [3 if size < _FINE and count > 2 else 1 for size, count in zip(detail.spacing, detail.array.shape, strict=True)]
    )
    rows, columns = (slice(step // 2, None, step) for step in pixel[:2])
    slices = detail.array[rows, columns].transpose(2, 1, 0)
    plane, depths = np.zeros(slices.shape[1:], np.int32), np.zeros(len(slices), np.int64)
    for k, part in enumerate(slices):
        tissue = part > _TISSUE
        plane += tissue
        depths[k] = np.count_nonzero(tissue)
    pixel[2] = 1
    return linear @ (_middle(plane, depths) * pixel + pixel // 2) + detail.affine[:3, 3], _triple(high - low)


def _middle(plane: npt.NDArray[np.int32], depths: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Mean index of voxels, from how many there are in each line along the third axis (W, H), and in each slice."""
    lines = plane.sum(axis=0), plane.sum(axis=1), depths
    return np.array([float(line @ np.arange(len(line))) / float(line.sum()) for line in lines])


def _region(
    detail: Detail, mask: RegionMask, centre: npt.NDArray[np.float64], span: _Span, around: Surroundings | None
) -> RegionAttributes:
    counts, middle = _counted(detail, mask)
    total = int(counts.sum())
    values = np.arange(HU_MIN, HU_MAX + 1)
    mean = float(counts @ values) / total
    running = counts.cumsum()
    ranks = [int(np.searchsorted(running, total * share / 100)) for share in PERCENTILES]
    affine = detail.affine
    return RegionAttributes(
        volume_ml=total * abs(float(np.linalg.det(affine[:3, :3]))) / 1000,
        mean_hu=mean,
        sd_hu=float(np.sqrt(counts @ (values - mean) ** 2 / total)),
        percentiles_hu=tuple(int(values[rank]) for rank in ranks),
        air=float(counts[: AIR_BELOW - HU_MIN].sum()) / total,
        calcium=float(counts[CALCIUM_FROM - HU_MIN :].sum()) / total,
        extent_mm=_triple(span.high - span.low),
        centroid_mm=_triple(affine[:3, :3] @ middle + affine[:3, 3] - centre),
        cut=bool(span.faces.any()),
        around=around,
    )


def _counted(detail: Detail, mask: RegionMask) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """How many voxels have each HU, and the mean index in the crop; some slices at a time, in the processor's cache."""
    slices = detail.array[box_slices(mask.box)].transpose(2, 1, 0)
    inside = mask.array.transpose(2, 1, 0)
    counts = np.zeros(1 << 16, np.int64)
    plane = np.zeros(inside.shape[1:], np.int32)
    for first in range(0, len(inside), _SLICES):
        part = slice(first, first + _SLICES)
        counts += np.bincount(slices[part][inside[part]].view(np.uint16), minlength=len(counts))
        plane += np.add.reduce(inside[part].view(np.uint8), axis=0, dtype=np.uint8)
    depths = np.array([np.count_nonzero(own) for own in inside])
    counts = np.roll(counts, 1 << 15)  # from -32768 HU on
    low, high = HU_MIN + (1 << 15), HU_MAX + (1 << 15)
    counts[low], counts[high] = counts[: low + 1].sum(), counts[high:].sum()
    return counts[low : high + 1], np.array([start for start, _ in mask.box]) + _middle(plane, depths)


def _span(detail: Detail, mask: RegionMask) -> _Span:
    """Where a region lies; exact on oblique grids too, whose extremes are ends of columns of voxels."""
    linear, origin = detail.affine[:3, :3], detail.affine[:3, 3:]
    low = np.array([start for start, _ in mask.box])
    high = np.array([stop for _, stop in mask.box]) - 1
    ends = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), np.float64).reshape(3, -1)
    if np.count_nonzero(np.abs(linear) > 1e-3 * np.abs(linear).max()) > 3:  # more than one entry a row
        columns = np.nonzero(mask.array.any(axis=2))
        first = mask.array.argmax(axis=2)[columns]
        last = mask.array.shape[2] - 1 - mask.array[:, :, ::-1].argmax(axis=2)[columns]
        ends = np.concatenate([np.stack([*columns, place]) for place in (first, last)], axis=1) + low[:, None]
    points = linear @ ends + origin
    half = np.abs(linear).sum(axis=1) / 2
    start = low + detail.origin
    stop = high + detail.origin
    faces = np.stack([start <= 0, stop >= np.array(detail.shape) - 1], axis=1)
    return _Span(points.min(axis=1) - half, points.max(axis=1) + half, faces)


def _cardiothoracic_ratio(spans: Mapping[str, _Span], regions: RegionSet) -> float | None:
    made_of = {name: frozenset(labels) for name, labels in regions.from_totalsegmentator().items() if name in spans}
    hearts = [name for name, labels in made_of.items() if _HEART in labels]
    lungs = [name for name, labels in made_of.items() if labels <= _LOBES]
    if len(hearts) != 1 or frozenset().union(*(made_of[name] for name in lungs)) != _LOBES:
        return None
    if spans[hearts[0]].faces.any() or any(spans[name].faces[0].any() for name in lungs):
        return None
    width = max(spans[name].high[0] for name in lungs) - min(spans[name].low[0] for name in lungs)
    heart = spans[hearts[0]]
    return float((heart.high[0] - heart.low[0]) / width)


def _triple(values: npt.NDArray[np.float64]) -> Triple:
    first, second, third = values.tolist()
    return first, second, third
