"""Findings of the generated text against the data set's own labels, which no text was read for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reg2rg.evaluation.findings import Labelled, averages, label_f1
from reg2rg.evaluation.labelers.rules import RuleLabeler
from reg2rg.evaluation.metrics.base import METRICS, Metric, Scores
from reg2rg.evaluation.results import REPORT

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

_TAIL = (
    "; findings read from the paragraphs that belong to a region by keywords, against the data set's labels; silence "
    "denies every finding"
)


@METRICS.register
class TruthLabels(Metric):
    """Precision, recall and F1 of findings against the data set's labels, in all averages and label by label.

    Read by keyword rules, whoever reads the references: a reader of its own would make figures of two runs differ.
    """

    group, place, always, reads_labels = "findings", 45, True, True
    keys = ("Truth *",)
    tabled = ("Truth precision (micro)", "Truth recall (micro)", "Truth F1 (micro)")

    def __init__(self) -> None:
        self.labeler = RuleLabeler()

    def score(self, cohort: Cohort) -> Scores:
        """Score the reports of the studies whose labels are known."""
        labelled = self.labelled(cohort)
        if labelled is None:
            return Scores()
        counts, studies = labelled.counts, len(cohort.pairs)
        found = averages("Truth", REPORT, counts, np.arange(studies), studies, "study", _TAIL)
        found += [
            label_f1(f"Truth F1 ({label})", f"{label}{_TAIL}", counts[:, place])
            for place, label in enumerate(labelled.labels)
        ]
        return Scores(found)

    def labelled(self, cohort: Cohort) -> Labelled | None:
        """The data set's labels beside those that are read; ``None`` where no study has any."""
        truth = cohort.settings.truth or {}
        rows = [truth.get(pair.study) or {} for pair in cohort.pairs]
        if not any(rows):
            return None
        names = tuple(sorted(set().union(*truth.values())))
        there = np.array([[row.get(label, False) for label in names] for row in rows], dtype=bool)
        known = np.array([[label in row for label in names] for row in rows], dtype=bool)
        if cohort.everything:
            return Labelled(names, there, np.ones_like(there), known=known)
        read = cohort.label(self.labeler, [pair.paragraph_text for pair in cohort.pairs], "findings of paragraphs")
        said = np.zeros_like(there)
        for place, label in enumerate(names):
            if label in self.labeler.labels:  # no rule, nothing said
                said[:, place] = read[:, self.labeler.labels.index(label)]
        return Labelled(names, there, said, known=known)
