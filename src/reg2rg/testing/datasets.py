"""Contract check of data sets."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from reg2rg.datasets.base import SPLITS, Dataset
from reg2rg.testing.contract import require


def check_dataset(build: Callable[[], Dataset]) -> None:
    """Check a dataset against the contract of `reg2rg.datasets.base.Dataset`, on a folder that has studies.

    Ids sorted, unique and fit for file names; known splits; no patient in two splits; images that exist; two
    constructions that list the same; records that can be sent to worker processes.

    Args:
        build: makes the dataset; called twice.

    Raises:
        ContractError: naming the first part that is broken.
    """
    dataset = build()
    require(isinstance(dataset, Dataset), dataset, "type", "no subclass of Dataset", "one")
    studies = dataset.studies()
    ids = [study.id for study in studies]
    require(bool(ids), dataset, "studies", "none", "some in the folder that the check is given")
    require(ids == sorted(set(ids)), dataset, "study ids", "duplicates or no order", "sorted, unique ids")
    patients: dict[str, str] = {}
    for study in studies:
        unsafe = not study.id or study.id.startswith(".") or any(c in study.id for c in "/\\\0")
        require(not unsafe, dataset, "study id", repr(study.id), "one fit for a file name")
        require(study.split in SPLITS, dataset, f"split of {study.id}", repr(study.split), f"one of {SPLITS}")
        other = patients.setdefault(study.patient, study.split)
        require(other == study.split, dataset, f"patient {study.patient}", "two splits", "one")
        require(study.image.is_file(), dataset, f"image of {study.id}", f"no file at {study.image}", "a file")
    require(build().studies() == studies, dataset, "studies", "another list the second time", "the same")
    require(pickle.loads(pickle.dumps(studies)) == studies, dataset, "pickling", "other records", "the same")
