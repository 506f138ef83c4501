"""Clinical efficacy: the findings of the generated text against those of its reference, and the CRG score."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from reg2rg.evaluation.bootstrap import Array, Statistic
from reg2rg.evaluation.findings import averages
from reg2rg.evaluation.metrics import efficacy
from reg2rg.evaluation.metrics.base import METRICS, Metric, Scores
from reg2rg.evaluation.results import REPORT

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

_SILENCE = {
    "study": "a study that leaves something unanswered has every label wrong that it does not rightly affirm",
    "paragraph": "a missing paragraph has every label wrong",
}


@METRICS.register
class ClinicalEfficacy(Metric):
    """Precision, recall and F1 of findings, micro, macro, weighted and samples averages, and CRG."""

    group, place, always, reads_labels = "findings", 50, True, True
    keys = ("CE *", "CRG")
    logged: ClassVar = {
        "CE precision (micro)": "findings_precision",
        "CE recall (micro)": "findings_recall",
        "CE F1 (micro)": "findings_f1",
        "CE F1 (macro)": "findings_f1_macro",
        "CRG": "crg",
    }
    headline = (("CE F1 (micro)",), ("CE F1 (macro)",), ("CRG",))
    plotted = ("CE F1 (micro)",)
    tabled = ("CE precision (micro)", "CE recall (micro)", "CE F1 (micro)", "CRG")

    def covers(self, cohort: Cohort) -> bool:
        """Labels from tables know no script; those of a labeler are read from the texts."""
        return not (cohort.unread and cohort.reads_findings)

    def score(self, cohort: Cohort) -> Scores:
        """Score whole reports, and paragraphs where a labeler reads them."""
        settings, studies = cohort.settings, len(cohort.pairs)
        found: list[Statistic] = []
        if cohort.labelled is not None:
            counts, tail = cohort.labelled.counts, _tail(cohort, "study", settings.label_source)
            found += averages("CE", REPORT, counts, np.arange(studies), studies, "study", tail)
            found += _over_cells(cohort, counts, tail)
        if settings.labeler is not None and settings.by_region:
            tail = _tail(cohort, "paragraph", settings.labeler.name)
            for region, cell in cohort.cells.items():
                counts = cohort.paragraph_labels(cell, region, settings.labeler).counts
                found += averages("CE", region, counts, cell.rows, studies, "paragraph", tail)
        return Scores(found)


def _over_cells(cohort: Cohort, counts: efficacy.Counts, tail: str) -> list[Statistic]:
    """Numbers over studies times labels."""
    studies, size, _ = counts.shape
    units = np.concatenate([counts.reshape(studies, -1), np.full((studies, 1), size, np.int16)], axis=1)
    silent = "a silent one less" if cohort.protocol.silence_is_wrong else "so does a silent one"
    floor = f"one that says every finding gets 1/3, {silent}"
    text = f"CRG score over studies times labels; a perfect report gets 1, {floor}{tail}"
    found = [Statistic("findings", REPORT, "CRG", text, units, _of_cells(size, efficacy.crg), studies)]
    if cohort.protocol.accuracy:
        text = f"mean over labels of the share of studies that have it right{tail}"
        name = "CE accuracy (macro)"
        found.append(Statistic("findings", REPORT, name, text, units, _of_cells(size, _accuracy), studies, score=False))
    return found


def _tail(cohort: Cohort, unit: str, source: str) -> str:
    silence = _SILENCE[unit] if cohort.protocol.silence_is_wrong else "silence denies every finding"
    return f"; {silence}{f'; labels: {source}' if source else ''}"


def _of_cells(size: int, function: Callable[[Array, Array], Array]) -> Callable[[Array], Array]:
    return lambda sums: function(sums[..., :-1].reshape(*sums.shape[:-1], size, 3), sums[..., -1])


def _accuracy(counts: Array, cells: Array) -> Array:
    wrong = counts[..., 1] + counts[..., 2]
    return np.asarray(1 - wrong.sum(axis=-1) / cells)
