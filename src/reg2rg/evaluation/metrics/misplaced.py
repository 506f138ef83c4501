"""Findings under another region: what a paragraph states that is true of the patient, elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reg2rg.evaluation.bootstrap import Statistic, ratio
from reg2rg.evaluation.metrics.base import METRICS, Metric, Scores
from reg2rg.evaluation.results import REPORT

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

_TEXT = (
    "of the findings that paragraphs state, share that the reference states under another region and not under this "
    "one; findings by {labeler}"
)


@METRICS.register
class MisplacedFindings(Metric):
    """How often a paragraph states what the reference states of another region alone. Lower is better."""

    group, place = "findings", 57
    keys = ("Findings under another region",)

    def score(self, cohort: Cohort) -> Scores:
        """Score studies whose reference has regions; nothing without a labeler or without regions."""
        labeler = cohort.settings.labeler
        if labeler is None or not cohort.cells or cohort.everything or (labeler.english and cohort.unread):
            return Scores()
        shape = (len(cohort.cells), len(cohort.pairs), len(labeler.labels))
        truth, said = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        for place, (region, cell) in enumerate(cohort.cells.items()):
            labelled = cohort.paragraph_labels(cell, region, labeler)
            truth[place, cell.rows], said[place, cell.rows] = labelled.truth, labelled.said
        stated = said.sum(axis=(0, 2))
        if not stated.any():
            return Scores()
        elsewhere = (said & ~truth & truth.any(axis=0)).sum(axis=(0, 2))
        units, text = np.stack([elsewhere, stated], axis=-1), _TEXT.format(labeler=labeler.name)
        return Scores([Statistic("findings", REPORT, self.keys[0], text, units, ratio, int(stated.sum()), score=False)])
