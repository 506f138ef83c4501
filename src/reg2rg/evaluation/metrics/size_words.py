"""Words of size: does a paragraph say larger or smaller than normal where its reference does?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from reg2rg.evaluation.bootstrap import Statistic, summed
from reg2rg.evaluation.labelers.finding_rules import Rule
from reg2rg.evaluation.labelers.keywords import KeywordReader
from reg2rg.evaluation.metrics import efficacy
from reg2rg.evaluation.metrics.base import METRICS, Metric, Scores
from reg2rg.evaluation.results import REPORT

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

_MEASURED = r"sizes?\b|diameter|calib|width|dimension|volume|height|larger|length"

SIZE_WORDS: Mapping[str, tuple[Rule, ...]] = {
    "larger": (
        Rule((r"enlarg|dilat|ectasi|ectatic|aneurysm|hypertroph",)),
        Rule((r"(?:cardio|spleno|hepato|hepatospleno|thyro|lymphadeno)megal|lymphadenopath",)),
        Rule((r"(?:larger|wider|bigger|greater|longer)\b|above", r"normal|usual|expected")),
        Rule((r"increase", _MEASURED)),
    ),
    "smaller": (
        Rule((r"atroph|shrunk|shrink|hypoplas",)),
        Rule((r"(?:smaller|narrower|shorter)\b|below", r"normal|usual|expected")),
        Rule((r"decrease|reduc|diminish|loss\b|lost\b", _MEASURED)),
    ),
}
"""Direction -> the ways to say it, of whatever the paragraph is about."""


@METRICS.register
class SizeWords(Metric):
    """Precision, recall and F1 of "larger" and "smaller" than normal: what a paragraph says and its reference does.

    Denials count as everywhere: "not enlarged" says nothing of these. Whether the number beside a finding is right is
    asked by `reg2rg.evaluation.metrics.questions.ReportQuestions`.
    """

    group, place, english = "findings", 56, True
    keys = ("Size words *",)

    def score(self, cohort: Cohort) -> Scores:
        """Score paragraphs by region where there are any, whole reports elsewhere; nothing where no text has one."""
        reader, studies = KeywordReader(SIZE_WORDS), len(cohort.pairs)
        groups = list(cohort.cells.values()) or [cohort.undivided]
        rows = np.concatenate([cell.rows for cell in groups])
        truth, said = (
            np.array([[*reader.read(text).values()] for cell in groups for text in getattr(cell, side)], dtype=bool)
            for side in ("references", "predictions")
        )
        if not (truth | said).any():
            return Scores()
        counts = efficacy.count(truth, said).sum(axis=1)
        units = summed(rows, counts, studies)
        text = "larger and smaller than normal, of paragraphs, in one pot; read by keyword rules"
        return Scores(
            [
                Statistic("findings", REPORT, f"Size words {name}", text, units, efficacy.figure_at(place), len(rows))
                for place, name in enumerate(("precision", "recall", "F1"))
            ]
        )
