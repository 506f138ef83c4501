"""The commonest table of a hospital, of phantoms: a row a study, the report in one column, not split by region."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reg2rg.core.files import atomic_write
from reg2rg.core.regions import load_region_set
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.extras.phantom.sentences import write_report
from reg2rg.extras.phantom.writer import Job

TABLE = "studies.csv"


def write_one_column(out: Path, jobs: Sequence[Job]) -> Path:
    """Write the table of studies that `reg2rg.extras.phantom.writer.write_phantoms` drew.

    Regions follow each other in an order of the study's own, so that no order gives a region away.

    Args:
        out: folder of the data set; paths in the table are relative to it.
        jobs: its studies.

    Returns:
        The table: id, patient, split, image, a mask a region, report.
    """
    regions, path = load_region_set("radgenome").names, out / TABLE
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", "patient", "split", "image", *(f"mask:{name}" for name in regions), "report"])
        for job in jobs:
            report = write_report(draw_patient(job.seed, job.number))
            order = np.random.default_rng((job.seed, job.number)).permutation(len(report))
            texts = [" ".join(report[name]) for name in (list(report)[place] for place in order)]
            masks = [_below(out, job.mask(name)) for name in regions]
            split = "test" if job.split == "valid" else job.split
            patient = f"{job.split}_{job.number + 1}"
            writer.writerow([job.id, patient, split, _below(out, job.image), *masks, " ".join(texts)])
    return path


def _below(out: Path, file: Path) -> str:
    """A file's path from the folder on; empty for one that is not there."""
    return file.relative_to(out).as_posix() if file.is_file() else ""
