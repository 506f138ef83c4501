"""A baseline that looks at numbers alone: one threshold on one measured number for each finding, and no network.

What a model of many million weights finds is worth what it finds beyond this. Rules are fitted on the training split:
for each region and label, the number (of `reg2rg.store.attributes.vector`) and the threshold with the highest F1 on
what the training texts state. The report of a study has, for each region, the commonest training paragraph with the
labels that the rules tell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from reg2rg.evaluation.baselines import commonest
from reg2rg.evaluation.labelers import Labeler

Vectors = Mapping[str, NDArray[np.float32]]
"""Region -> its measured numbers."""
NAME = "rules on attributes, no network"
RAREST = 0.005
"""Share of a region's training texts that must state a label for it to get a rule."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A label is told where a number lies on one side of a threshold.

    Attributes:
        number: index of the number.
        name: its name.
        above: the side.
        threshold: that itself counts as above.
        f1: on the training split.
    """

    number: int
    name: str
    above: bool
    threshold: float
    f1: float

    def holds(self, values: NDArray[np.float32]) -> bool:
        """Whether it tells the label of a region with these numbers."""
        return bool(values[self.number] >= self.threshold) == self.above

    def __str__(self) -> str:
        return f"{self.name} {'>=' if self.above else '<'} {self.threshold:.3g} (F1 {self.f1:.2f})"


@dataclass(frozen=True, slots=True)
class AttributeRules:
    """Rules, and the paragraphs that tell what they say.

    Attributes:
        rules: region -> label -> its rule.
        paragraphs: region -> labels -> the commonest training paragraph that states them and no others.
    """

    rules: Mapping[str, Mapping[str, Rule]] = field(default_factory=dict)
    paragraphs: Mapping[str, Mapping[frozenset[str], str]] = field(default_factory=dict)

    @classmethod
    def fit(cls, studies: Sequence[tuple[Vectors, Mapping[str, str]]], labeler: Labeler, names: Sequence[str]) -> Self:
        """Fit the rules.

        Args:
            studies: of the training split: region -> numbers, and region -> text.
            labeler: reads what the texts state.
            names: of the numbers.
        """
        rows: dict[str, list[tuple[NDArray[np.float32], str]]] = defaultdict(list)
        for measured, texts in studies:
            for region, text in texts.items():
                if text and region in measured:
                    rows[region].append((measured[region], text))
        rules: dict[str, dict[str, Rule]] = {}
        paragraphs: dict[str, dict[frozenset[str], str]] = {}
        for region, own in rows.items():
            values, texts_ = np.stack([row for row, _ in own]), [text for _, text in own]
            stated = labeler.label(texts_)
            enough = np.flatnonzero(stated.sum(0) >= max(1.0, RAREST * len(own)))
            rules[region] = {labeler.labels[k]: _best(values, stated[:, k], names) for k in enough.tolist()}
            told: dict[frozenset[str], Counter[str]] = defaultdict(Counter)
            for text, row in zip(texts_, stated, strict=True):
                told[frozenset(np.array(labeler.labels)[row].tolist())][text] += 1
            paragraphs[region] = {labels: commonest(texts) for labels, texts in told.items()}
        return cls(rules, paragraphs)

    def tell(self, measured: Vectors, region: str) -> frozenset[str]:
        """Labels of a region; none of one that training did not have."""
        if region not in measured:
            return frozenset()
        rules = self.rules.get(region, {})
        return frozenset(label for label, rule in rules.items() if rule.holds(measured[region]))

    def write(self, measured: Vectors, regions: Sequence[str]) -> dict[str, str]:
        """Region -> paragraph; that of the most similar labels, where no training text has exactly these."""
        found = {}
        for region in regions:
            known, labels = self.paragraphs.get(region, {}), self.tell(measured, region)
            if known:
                nearest = min(known, key=lambda one: (len(one ^ labels), sorted(one)))
                found[region] = known[nearest]
        return found


def _best(values: NDArray[np.float32], stated: NDArray[np.bool_], names: Sequence[str]) -> Rule:
    """The number, side and threshold with the highest F1; of equal ones the first."""
    best, present = Rule(0, names[0], True, float("inf"), 0.0), int(stated.sum())
    for number in range(values.shape[1]):
        order = np.argsort(values[:, number], kind="stable")
        ranked, truth = values[order, number], stated[order]
        cuts = np.concatenate([[0], np.flatnonzero(np.diff(ranked)) + 1])  # where a threshold can lie
        below = np.concatenate([[0], truth.cumsum()])[cuts]
        for above, hits, claimed in ((True, present - below, len(ranked) - cuts), (False, below, cuts)):
            f1 = 2 * hits / (claimed + present)
            place = int(f1.argmax())
            if f1[place] > best.f1:
                cut = int(cuts[place])
                threshold = ranked[0] if cut == 0 else (ranked[cut - 1] + ranked[cut]) / 2
                best = Rule(number, names[number], above, float(threshold), float(f1[place]))
    return best
