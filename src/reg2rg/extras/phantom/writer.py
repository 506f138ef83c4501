"""Write synthetic studies to disk in the layout of RadGenome-ChestCT.

::

    train_preprocessed/train_1/train_1a/train_1_a_1.nii.gz
    train_region_mask/seg_train_1_a_1/<region>.nii.gz
    radgenome_files/train_region_report.csv             Volumename, Anatomy, Sentence
    multi_abnormality_labels/train_labels.csv           VolumeName, one 0/1 column a label

and the same for ``valid`` (whose report table is called ``validation``, as there).
"""

from __future__ import annotations

import csv
import functools
import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reg2rg.core.errors import ConfigError
from reg2rg.core.files import atomic_write
from reg2rg.core.labels import FINDINGS
from reg2rg.core.parallel import run_tasks, usable_cores
from reg2rg.core.regions import load_region_set
from reg2rg.extras.phantom.anatomy import draw
from reg2rg.extras.phantom.grid import Grid
from reg2rg.extras.phantom.mr import REGIONS, as_mr, write_region_set
from reg2rg.extras.phantom.nifti import read_description, write_nifti
from reg2rg.extras.phantom.patient import Patient, draw_patient
from reg2rg.extras.phantom.sentences import labels, sub_anatomy, write_report

HELD_OUT = 0.2
"""Share of the studies, the last ones, that make up the held-out split; of two studies or more at least one."""

_SPLITS = {"train": "train", "valid": "validation"}
"""Split -> its name in the names of report tables."""


@dataclass(frozen=True, slots=True)
class Job:
    """One study to write.

    Attributes:
        out: root of the data folder.
        seed: seed of the collection.
        number: number of the study, which with the seed decides everything about it.
        split: ``train`` or ``valid``.
        size: voxels along x, y, z.
        mr: as an MR machine might show it, with other names of regions.
    """

    out: Path
    seed: int
    number: int
    split: str
    size: tuple[int, int, int]
    mr: bool = False

    @property
    def id(self) -> str:
        """The study's id, as in the file names."""
        return f"{self.split}_{self.number + 1}_a_1"

    @property
    def image(self) -> Path:
        """Where the volume goes."""
        patient = f"{self.split}_{self.number + 1}"
        return self.out / f"{self.split}_preprocessed" / patient / f"{patient}a" / f"{self.id}.nii.gz"

    def mask(self, region: str) -> Path:
        """Where a region's mask goes."""
        return self.out / f"{self.split}_region_mask" / f"seg_{self.id}" / f"{self.called(region)}.nii.gz"

    def called(self, region: str) -> str:
        """The name of a region in files and tables."""
        return REGIONS[region] if self.mr else region

    @property
    def stamp(self) -> str:
        """What the volume's header says: whose drawing it is. Another seed, size or program draws it anew."""
        size = "x".join(map(str, self.size))
        kind = "phantom as MR" if self.mr else "phantom"
        return f"reg2rg {kind} {_drawing_version()} seed {self.seed} study {self.number} size {size}"


@functools.cache
def _drawing_version() -> str:
    """Hash of this package's sources: files that another version drew are not taken for this one's."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]


def write_phantoms(
    out: str | Path,
    studies: int = 300,
    seed: int = 0,
    size: Sequence[int] = (96, 96, 64),
    workers: int | None = None,
    first: int = 0,
    mr: bool = False,
) -> None:
    """Write synthetic studies with region masks, reports and truth labels; the last fifth is the held-out split.

    Three are a whole set, with a study each to train on, to validate on (carved from the others) and to test on.

    The bytes depend on the arguments alone, not on the number of workers. Studies that are already there are kept, so a
    run that was stopped goes on where it was. The tables are written last.

    Args:
        out: folder of the data set; made if it is not there.
        studies: how many.
        seed: another seed is another collection.
        size: voxels along x, y, z; the field of view stays the same, so larger is finer.
        workers: processes; 0 draws in this one; default one a core.
        first: number of the first study; study n is the same in every run.
        mr: write MR-like volumes, with a region set of their own beside them (`reg2rg.extras.phantom.mr`).

    Raises:
        ConfigError: a count or size that cannot be.
    """
    grid = _check(studies, size, first)
    jobs = plan(Path(out), studies, seed, grid, first, mr)
    names = {job.number: job.id for job in jobs}
    done = run_tasks(
        write_study,
        jobs,
        name=lambda job: names[job.number],
        workers=usable_cores() if workers is None else workers,
        title="phantoms",
    )
    for _ in done:
        pass
    _write_tables(Path(out), jobs)
    if mr:
        write_region_set(Path(out))


def plan(out: Path, studies: int, seed: int, size: tuple[int, int, int], first: int = 0, mr: bool = False) -> list[Job]:
    """The studies to write: which number goes to which split."""
    held_out = max(math.floor(studies * HELD_OUT), 1 if studies > 1 else 0)
    numbers = range(first, first + studies)
    return [Job(out, seed, n, "valid" if n - first >= studies - held_out else "train", size, mr) for n in numbers]


def _check(studies: int, size: Sequence[int], first: int) -> tuple[int, int, int]:
    if studies < 1 or first < 0:
        raise ConfigError(f"studies is {studies} and first is {first}: at least 1 and at least 0 are expected.")
    if len(size) != 3 or min(size) < 16:
        raise ConfigError(f"size is {tuple(size)}: three numbers of at least 16 voxels are expected, such as 96 96 64.")
    x, y, z = (int(count) for count in size)
    return x, y, z


def write_study(job: Job) -> bool:
    """Draw and write one study unless it is already there; the volume comes last, so it tells that all is there.

    Returns:
        Whether anything had to be drawn.
    """
    patient = draw_patient(job.seed, job.number)
    shown, absent = _regions(patient)
    wanted = [*shown, *(absent if patient.empty_masks else ())]
    if all(job.mask(region).is_file() for region in wanted) and read_description(job.image) == job.stamp:
        return False
    grid = Grid(job.size)
    volume, masks = draw(patient, grid)
    for region in wanted:
        mask = masks.get(region, np.zeros(job.size, dtype=bool))
        write_nifti(job.mask(region), mask.astype(np.uint8), grid.affine, job.stamp)
    shown_as = as_mr(volume, job.seed, job.number) if job.mr else volume
    write_nifti(job.image, shown_as, grid.affine, job.stamp)
    return True


def _regions(patient: Patient) -> tuple[list[str], list[str]]:
    """Regions of the packaged set that the scan shows, and those it does not."""
    names = load_region_set("radgenome").names
    return [n for n in names if n in patient.regions], [n for n in names if n not in patient.regions]


def _write_tables(out: Path, jobs: Sequence[Job]) -> None:
    for split, group in itertools.groupby(jobs, key=lambda job: job.split):
        members = list(group)
        reports, truth = [], []
        for job in members:
            patient = draw_patient(job.seed, job.number)
            reports += _report_rows(job, patient)
            found = labels(patient)
            truth.append([f"{job.id}.nii.gz", *(int(name in found) for name in FINDINGS)])
        table = out / "radgenome_files" / f"{_SPLITS[split]}_region_report.csv"
        write_csv(table, ("Volumename", "Anatomy", "Sentence"), reports)
        write_csv(out / "multi_abnormality_labels" / f"{split}_labels.csv", ("VolumeName", *FINDINGS), truth)


def _report_rows(job: Job, patient: Patient) -> list[tuple[str, str, str]]:
    """The study's rows: the whole report without a region, a row a region, and some rows for parts of regions."""
    report = write_report(patient)
    volume = f"{job.id}.nii.gz"
    shown, _ = _regions(patient)
    rows = [(volume, "", " ".join(" ".join(report[region]) for region in shown))]
    rows += [(volume, job.called(region), " ".join(report[region])) for region in shown]
    if not job.mr:  # whose regions have no parts of a name
        rows += [(volume, part, sentence) for part, sentence in sub_anatomy(report)]
    return rows


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all."""
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
