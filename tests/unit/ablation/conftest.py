"""Folders of predictions, made without a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reg2rg.core.documents import write_record
from reg2rg.core.report import write_report

TEXTS = {
    "lung": ("There is a nodule in the right lung.", "The lungs are clear."),
    "heart": ("The heart is enlarged, cardiomegaly.", "The heart is of normal size."),
    "pleura": ("There is a pleural effusion.", "No pleural effusion."),
}
LABELS = {"lung": "Lung nodule", "heart": "Cardiomegaly", "pleura": "Pleural effusion"}
STUDIES = 12


def truth() -> dict[str, dict[str, bool]]:
    """Study -> label -> present."""
    random = np.random.default_rng(0)
    return {f"valid_{i}_a_1": {label: bool(random.random() < 0.5) for label in LABELS.values()} for i in range(STUDIES)}


Write = Callable[..., Path]


@pytest.fixture
def write_predictions(tmp_path: Path) -> Write:
    """Writes a folder of predictions whose findings are right with a given chance."""

    def write(name: str, skill: float, seed: int = 0, named: float = 1.0, identity: bool = True) -> Path:
        random = np.random.default_rng(seed)
        for study, labels in truth().items():
            order = list(random.permutation(list(TEXTS)))
            reference = {region: TEXTS[region][0 if labels[LABELS[region]] else 1] for region in order}
            told = []
            for region in order:
                right = random.random() < skill
                there = labels[LABELS[region]] if right else not labels[LABELS[region]]
                told.append(TEXTS[region][0 if there else 1])
            names = list(order)
            if random.random() >= named:
                names[0], names[1] = names[1], names[0]
            text = write_report(names, told, identity)
            paragraphs = [{"slot": i, "region": names[i], "text": told[i]} for i in range(len(order))]
            record = {
                "study": study, "regions": order, "text": text, "truncated": False, "paragraphs": paragraphs,
                "invalid": [], "duplicate": [], "missing": [], "reference": reference, "question": "?",
            }  # fmt: skip
            write_record(tmp_path / name / "studies" / f"{study}.json", record)
        return tmp_path / name

    return write


@pytest.fixture
def make_truth() -> dict[str, dict[str, bool]]:
    """Truth labels of the studies."""
    return truth()
