"""What a data set holds, by tables and headers: grids, regions, labels, lengths and scripts of reports. No voxels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from reg2rg.check.scripts import script_of
from reg2rg.core.documents import DocumentError, parse_json
from reg2rg.core.errors import DataFault
from reg2rg.core.parallel import run_tasks, usable_cores
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import Grid, LabelMap, RegionFiles, Study
from reg2rg.datasets.base import Dataset, Note, count_codes
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import files_of, read_grid

FORMAT = 1
_AXES = ("left-right", "back-front", "bottom-top")
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_FLUSH_EVERY = 16


@dataclass(frozen=True, slots=True)
class Spread:
    """How a number is spread over studies or texts.

    Attributes:
        count: how many there are.
        quantiles: at `QUANTILES`; empty without any.
        edges: of the bins of a histogram.
        bins: count in each.
    """

    count: int
    quantiles: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    bins: tuple[int, ...] = ()

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of these values."""
        if not len(values):
            return cls(0)
        array = np.asarray(values, dtype=np.float64)
        most = float(np.quantile(array, 0.99)) if array.max() > 4 * np.quantile(array, 0.99) else float(array.max())
        bins, edges = np.histogram(np.minimum(array, most), bins=min(24, max(1, len(np.unique(array)))))
        quantiles = tuple(round(float(value), 3) for value in np.quantile(array, QUANTILES))
        return cls(len(array), quantiles, tuple(round(float(edge), 3) for edge in edges), tuple(int(n) for n in bins))


@dataclass(frozen=True, slots=True)
class Share:
    """How many of some studies have something, by split.

    Attributes:
        name: of a region or label.
        having: split -> how many have it.
        of: split -> of how many it is known.
    """

    name: str
    having: dict[str, int]
    of: dict[str, int]


@dataclass(frozen=True)
class Summary:
    """A data set in numbers.

    Attributes:
        studies: split -> studies.
        patients: split -> patients.
        skipped: reason code -> studies left out.
        notes: what was counted while listing.
        grids: name of a number -> its spread over scans: spacing in mm, voxels, extent in mm, by patient axis.
        orientations: axis codes of the files -> scans.
        unreadable: reason code -> scans whose header cannot be read, or does not tell.
        masks: region -> studies with a mask of it; it may be empty, which only reading it tells.
        texts: region -> studies with a text of it.
        labels: label -> studies in which it is present.
        words: name -> spread of words a report; signs where it is Chinese or Japanese.
        scripts: script -> reports.
        repeated: reports whose text another study has too.
    """

    studies: dict[str, int]
    patients: dict[str, int]
    skipped: dict[str, int]
    notes: tuple[Note, ...]
    grids: dict[str, Spread]
    orientations: dict[str, int]
    unreadable: dict[str, int]
    masks: tuple[Share, ...]
    texts: tuple[Share, ...]
    labels: tuple[Share, ...]
    words: dict[str, Spread]
    scripts: dict[str, int]
    repeated: int

    def as_json(self) -> dict[str, Any]:
        """As it is written to ``summary.json``."""
        return {"format": FORMAT, "quantiles": list(QUANTILES), **asdict(self)}


@dataclass(frozen=True, slots=True)
class _Job:
    """A scan whose header is read."""

    study: str
    image: Path
    options: ReadOptions


@dataclass(frozen=True, slots=True)
class _Found:
    """Shape and affine of a grid, or why there is none."""

    shape: tuple[int, ...] = ()
    affine: tuple[tuple[float, ...], ...] = ()
    code: str = ""


def summarise(
    dataset: Dataset,
    regions: RegionSet,
    options: ReadOptions | None = None,
    workers: int | None = None,
    kept: Path | None = None,
) -> Summary:
    """Go through tables and headers of a data set.

    Args:
        dataset: the studies; its own limit on skipped studies does not count here.
        regions: region set.
        options: how scans are read: which DICOM series, for example.
        workers: processes; by default one a core where scans are folders or archives, whose many headers take a while,
            and none else.
        kept: file in which headers of such scans are kept, so that a run that was stopped goes on; ``None`` keeps none.

    Raises:
        DataFault, ConfigError: a table or folder without which nothing can be listed.
    """
    listing = dataset.listing()
    if listing.faults:
        raise listing.faults[0]
    studies, options = listing.studies, options or ReadOptions()
    found = _grids(studies, options, workers, kept)
    grids, orientations, unreadable = _spreads(found)
    splits = dict(sorted(Counter(study.split for study in studies).items()))
    patients = {split: len({study.patient for study in studies if study.split == split}) for split in splits}
    words, scripts, repeated = _reports(studies)
    return Summary(
        studies=splits,
        patients=patients,
        skipped=count_codes(listing.skipped),
        notes=listing.notes,
        grids=grids,
        orientations=orientations,
        unreadable=unreadable,
        masks=_shares(studies, regions.names, lambda study: _masked(study, regions), splits),
        texts=_shares(studies, regions.names, lambda study: study.reports, splits),
        labels=_labels(studies),
        words=words,
        scripts=scripts,
        repeated=repeated,
    )


def _grids(studies: Sequence[Study], options: ReadOptions, workers: int | None, kept: Path | None) -> Iterator[_Found]:
    """Of every scan; headers of scans that are many files are kept as they come."""
    slow = {study.id: _stamp(study.image) for study in studies if _is_many(study.image)}
    known = _known(kept) if kept is not None and slow else {}
    jobs = [_Job(study.id, study.image, options) for study in studies if slow.get(study.id) not in known]
    for stamp in slow.values():
        if stamp in known:
            yield known[stamp]
    if workers is None:
        workers = min(usable_cores(), len(jobs)) if slow else 0
    waiting: list[str] = []
    for job, found in run_tasks(_read, jobs, name=lambda job: job.study, workers=workers, title="headers"):
        if kept is not None and job.study in slow:
            waiting.append(json.dumps([slow[job.study], found.shape, found.affine, found.code]))
            if len(waiting) >= _FLUSH_EVERY:
                _keep(kept, waiting)
        yield found
    if kept is not None:
        _keep(kept, waiting)


def _read(job: _Job) -> _Found:
    try:
        grid = read_grid(job.image, job.options)
    except DataFault as fault:
        return _Found(code=fault.code)
    except Exception:
        return _Found(code="UNREADABLE")
    if grid is None:
        return _Found(code="HEADER_TELLS_NOTHING")
    return _Found(grid.shape, tuple(tuple(map(float, row)) for row in grid.affine))


def _is_many(image: Path) -> bool:
    return image.suffix.lower() == ".zip" or image.is_dir()


def _stamp(image: Path) -> str:
    """What tells that the files of a scan are those of before: names, sizes, times."""
    digest = hashlib.sha256(str(image.absolute()).encode("utf-8", "surrogatepass"))
    for file in files_of(image):
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _known(kept: Path) -> dict[str, _Found]:
    """Headers that earlier runs kept; a line that a kill cut short is left out."""
    known = {}
    if kept.is_file():
        for line in kept.read_text(encoding="utf-8").splitlines():
            try:
                stamp, shape, affine, code = parse_json(line, str(kept))
                known[stamp] = _Found(tuple(shape), tuple(map(tuple, affine)), code)
            except (DocumentError, ValueError, TypeError):
                continue
    return known


def _keep(kept: Path, waiting: list[str]) -> None:
    if waiting:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with open(kept, "a", encoding="utf-8") as stream:
            stream.write("".join(f"\n{line}" for line in waiting))  # first, so that a torn line harms no other
        waiting.clear()


def _spreads(found: Iterator[_Found]) -> tuple[dict[str, Spread], dict[str, int], dict[str, int]]:
    numbers: dict[str, list[float]] = defaultdict(list)
    orientations: Counter[str] = Counter()
    unreadable: Counter[str] = Counter()
    for one in found:
        if one.code:
            unreadable[one.code] += 1
            continue
        grid = Grid((one.shape[0], one.shape[1], one.shape[2]), np.array(one.affine))
        turned = nib.io_orientation(grid.affine)
        lengths = np.linalg.norm(grid.affine[:3, :3], axis=0)
        orientations["".join(map(str, nib.aff2axcodes(grid.affine)))] += 1
        for axis, (place, _) in enumerate(turned):
            name, size = _AXES[int(place)], grid.shape[axis]
            numbers[f"spacing {name} (mm)"].append(float(lengths[axis]))
            numbers[f"voxels {name}"].append(size)
            numbers[f"extent {name} (mm)"].append(size * float(lengths[axis]))
    names = [f"{what} {axis}{unit}" for what, unit in _KINDS for axis in _AXES]
    spreads = {name: Spread.of(numbers[name]) for name in names if name in numbers}
    return spreads, dict(orientations.most_common()), dict(unreadable.most_common())


_KINDS = (("spacing", " (mm)"), ("voxels", ""), ("extent", " (mm)"))


def _masked(study: Study, regions: RegionSet) -> frozenset[str]:
    masks = study.masks
    named = masks.files if isinstance(masks, RegionFiles) else masks.labels if isinstance(masks, LabelMap) else ()
    return frozenset(name for name in regions.names if name in named)


def _shares(studies: Sequence[Study], names: Sequence[str], of: Any, splits: dict[str, int]) -> tuple[Share, ...]:
    having: dict[str, Counter[str]] = {name: Counter() for name in names}
    for study in studies:
        for name in of(study):
            if name in having:
                having[name][study.split] += 1
    return tuple(Share(name, {split: counts[split] for split in splits}, splits) for name, counts in having.items())


def _labels(studies: Sequence[Study]) -> tuple[Share, ...]:
    having: dict[str, Counter[str]] = defaultdict(Counter)
    known: dict[str, Counter[str]] = defaultdict(Counter)
    for study in studies:
        for label, there in (study.findings or {}).items():
            known[label][study.split] += 1
            having[label][study.split] += there
    return tuple(Share(label, dict(having[label]), dict(counts)) for label, counts in known.items())


@dataclass
class _Texts:
    lengths: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    scripts: Counter[str] = field(default_factory=Counter)
    digests: Counter[bytes] = field(default_factory=Counter)

    def add(self, name: str, text: str, script: str) -> None:
        signs = script.startswith(("Chinese", "Japanese"))
        self.lengths[name].append(sum(not one.isspace() for one in text) if signs else len(text.split()))


def _reports(studies: Sequence[Study]) -> tuple[dict[str, Spread], dict[str, int], int]:
    texts = _Texts()
    for study in studies:
        report = study.whole or " ".join(study.reports.values())
        if not report:
            continue
        script = script_of(report)
        texts.scripts[script] += 1
        texts.digests[hashlib.blake2b(report.encode("utf-8", "replace"), digest_size=12).digest()] += 1
        texts.add("report", report, script)
        for region, text in study.reports.items():
            texts.add(region, text, script)
    repeated = sum(count for count in texts.digests.values() if count > 1)
    spreads = {name: Spread.of(lengths) for name, lengths in texts.lengths.items()}
    return spreads, dict(texts.scripts.most_common()), repeated
