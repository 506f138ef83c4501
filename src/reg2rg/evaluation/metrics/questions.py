"""Questions that a report must be able to answer: is the finding there, on which side, in which lobe, how large.

Both texts answer from their own words, by rules that one can read; what the reference answers is right. A question on
side, lobe or size is asked where the reference gives one; a prediction that does not state the finding has it wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from reg2rg.core.labels import FINDINGS
from reg2rg.evaluation.bootstrap import Statistic, ratio
from reg2rg.evaluation.labelers.keywords import KeywordReader, largest_size
from reg2rg.evaluation.metrics.base import METRICS, Metric, Scores
from reg2rg.evaluation.results import REPORT

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

_READER = KeywordReader()
_SIDE = re.compile(r"\b(right|left|both|bilateral(?:ly)?)\b", re.IGNORECASE)
_LOBE = re.compile(r"\b(upper|middle|lower)\b(?=[^.;]*\blob)|\b(lingula)", re.IGNORECASE)
_BOTH = frozenset({"right", "left"})
SAME_SIZE = 0.2
"""Share by which two sizes may differ and be the same: what RECIST 1.1 calls progression is more."""


@dataclass(slots=True)
class Answer:
    """What a text says of one finding that it states.

    Attributes:
        sides: ``right``, ``left``, or both; empty if it names none.
        lobes: ``upper``, ``middle``, ``lower``, ``lingula``; empty if it names none.
        size: the largest in mm; 0 if it gives none.
    """

    sides: set[str] = field(default_factory=set)
    lobes: set[str] = field(default_factory=set)
    size: float = 0.0


def answers_of(text: str) -> dict[str, Answer]:
    """Finding -> side, lobe and size, for each finding that the text states; of several mentions all count together."""
    found: dict[str, Answer] = {}
    for mention in _READER.mentions(text):
        if mention.status == "absent":
            continue
        own = found.setdefault(mention.label, Answer())
        for match in _SIDE.finditer(mention.clause):
            word = match[1].lower()
            own.sides |= {word} if word in _BOTH else _BOTH
        own.lobes |= {(match[1] or match[2]).lower() for match in _LOBE.finditer(mention.clause)}
        own.size = max(own.size, largest_size(mention.clause) or 0.0)
    return found


@METRICS.register
class ReportQuestions(Metric):
    """Presence, then side, lobe and size, answered from the words of both texts."""

    group, place, english = "findings", 55, True
    keys = ("Asked *",)

    def score(self, cohort: Cohort) -> Scores:
        """Ask every study, of whole reports, and of the paragraphs of each region."""
        studies = len(cohort.pairs)
        texts = [(row, pair.reference_text, pair.prediction_text) for row, pair in enumerate(cohort.pairs)]
        found = list(_statistics(REPORT, texts, studies))
        for region, cell in cohort.cells.items() if cohort.settings.by_region else ():
            rows = cell.rows.tolist()
            found += _statistics(region, list(zip(rows, cell.references, cell.predictions, strict=True)), studies)
        return Scores(found)


_QUESTIONS: Mapping[str, str] = {
    "Asked presence, stated": "of the findings that the reference states, share that the prediction states",
    "Asked presence, not stated": "of the findings that the reference does not state, share that the prediction does "
    "not state either",
    "Asked side": "of the findings that the reference gives a side, share that the prediction states with the same",
    "Asked side, where found": "the same of those that the prediction states at all",
    "Asked lobe": "of the findings that the reference puts into a lobe, share that the prediction states in the same",
    "Asked lobe, where found": "the same of those that the prediction states at all",
    "Asked size": "of the findings that the reference measures, share that the prediction states with a size within a "
    "fifth of it, largest against largest",
    "Asked size, where found": "the same of those that the prediction states at all",
}


def _statistics(scope: str, texts: Sequence[tuple[int, str, str]], studies: int) -> Iterator[Statistic]:
    units = {name: np.zeros((studies, 2)) for name in _QUESTIONS}
    known: dict[str, dict[str, Answer]] = {}
    for row, reference, prediction in texts:
        right, said = (known.setdefault(text, answers_of(text)) for text in (reference, prediction))
        for name, hit in _asked(right, said):
            units[name][row] += hit, 1
    for name, definition in _QUESTIONS.items():
        if n := int(units[name][:, 1].sum()):
            text = f"{definition}; read by keyword rules, sides, lobes and sizes in the clause that states the finding"
            score = not name.startswith("Asked presence")
            yield Statistic("findings", scope, name, text, units[name], ratio, n, score=score)


def _asked(right: Mapping[str, Answer], said: Mapping[str, Answer]) -> Iterator[tuple[str, bool]]:
    for label in FINDINGS:
        truth, told = right.get(label), said.get(label)
        if truth is None:
            yield "Asked presence, not stated", told is None
            continue
        yield "Asked presence, stated", told is not None
        for name, asked, fits in (
            ("Asked side", truth.sides, told is not None and told.sides == truth.sides),
            ("Asked lobe", truth.lobes, told is not None and told.lobes == truth.lobes),
            ("Asked size", truth.size, told is not None and abs(told.size - truth.size) <= SAME_SIZE * truth.size),
        ):
            if asked:
                yield name, fits
                if told is not None:
                    yield f"{name}, where found", fits
