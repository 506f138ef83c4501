"""From records to numbers: what follows its own region, what changes with another, what is known without an image.

Every number is a statistic that is additive over studies, so that intervals and comparisons are those of
`reg2rg.evaluation.bootstrap`: resamples of patients, the same ones for all numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from reg2rg.audit.plan import DONATED, NO_IMAGE, SAME, SWAP, labels_of
from reg2rg.audit.records import StudyRecord, Trial
from reg2rg.audit.results import Swap
from reg2rg.evaluation.bootstrap import Array, Resamples, Statistic, interval, p_value, ratio
from reg2rg.evaluation.labelers.base import Labeler
from reg2rg.evaluation.metrics.efficacy import precision_recall_f1
from reg2rg.evaluation.results import REPORT, Difference, Group, Number

Bools = NDArray[np.bool_]

FOLLOW, FOLLOW_WORDS, APART, LEAK, LEAK_FINDINGS = (
    "follow rate",
    "follow rate, words",
    "told apart",
    "leak rate",
    "leak rate, findings",
)
PRIOR, F1, F1_BLIND = "prior share", "F1", "F1, no image"
CHANGED, CHANGED_FINDINGS, F1_BEFORE, F1_AFTER, F1_CHANGE = (
    "changed",
    "findings changed",
    "F1 before",
    "F1 after",
    "F1 change",
)
DEFINITIONS: Mapping[str, str] = {
    FOLLOW: "of the findings in which what the model writes of the two patients' regions differs, share on which the "
    "paragraph sides with the donor after the swap; 0 for a model that writes the same of all",
    FOLLOW_WORDS: "of the swaps of regions of which the model writes different words, share after which the paragraph "
    "has the donor's words to the letter",
    APART: "of the findings in which the references of the two regions differ, share in which what the model writes of "
    "them differs",
    LEAK: "share of the paragraphs on other regions that changed in any word when one region's tokens were swapped",
    LEAK_FINDINGS: "the same of those whose findings changed; of a finding: in which that one changed",
    F1: "micro-F1 of the findings of paragraphs against their references, all labels in one pot",
    F1_BLIND: "the same with every token that of an empty image, and the names of the regions given",
    PRIOR: "F1 without any image over F1 with it",
    CHANGED: "share of the paragraphs on the region that changed in any word; of all regions where the whole image is "
    "concerned",
    CHANGED_FINDINGS: "the same of those whose findings changed",
    F1_BEFORE: "F1 of these paragraphs before",
    F1_AFTER: "F1 of these paragraphs after",
    F1_CHANGE: "F1 after minus F1 before, paired",
}


def measure_audit(
    outcomes: Outcomes, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[list[Number], list[Number], list[Number]]:
    """The numbers of an audit: of whole reports and interventions, by region, by finding.

    Args:
        outcomes: of all studies.
        resamples: of patients; 0 leaves intervals out.
        confidence: of the intervals.
        seed: of the resamples.
    """
    statistics = list(audit_statistics(outcomes))
    numbers = [one.number() for one in statistics]
    if resamples:
        drawn = Resamples([record.patient for record in outcomes.records], resamples, seed).each(statistics)
        numbers = [one.number(*interval(draws, confidence)) for one, draws in zip(statistics, drawn, strict=True)]
    kinds: tuple[Group, ...] = ("statistics", "regions", "findings")
    by_kind = [[number for number in numbers if number.group == kind] for kind in kinds]
    return by_kind[0], by_kind[1], by_kind[2]


def compare_audits(
    ours: Outcomes,
    theirs: Sequence[StudyRecord],
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Difference]:
    """Paired differences of two audits, on the studies that both have.

    Raises:
        ValueError: they have none in common.
    """
    both = ours.by_study.keys() & {one.study for one in theirs}
    if not both:
        raise ValueError("the two audits have no study in common")
    first, second = (ours.also([one for one in side if one.study in both]) for side in (ours.records, theirs))
    mine = list(audit_statistics(first))
    match = {one.key: one for one in audit_statistics(second)}
    shared = [(one, match[one.key]) for one in mine if one.key in match]
    drawing = Resamples([one.patient for one in first.records], resamples, seed)
    found = []
    draws = zip(*(drawing.each(side) for side in zip(*shared, strict=True)), strict=True) if shared else ()
    for (one, other), (left, right) in zip(shared, draws, strict=True):
        low, high = interval(left - right, confidence)
        if low is not None and high is not None:
            found.append(Difference(one.number(), other.number().value, low, high, p_value(left - right)))
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one trial did.

    Attributes:
        row: of its study.
        trial: itself.
        slots: slots whose tokens were changed.
        before: paragraphs of the study as it is, (R,).
        after: the same under the intervention.
        donor: what is written of the donor's own region, or ``None``.
        donor_reference: its reference.
    """

    row: int
    trial: Trial
    slots: tuple[int, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    donor: str | None = None
    donor_reference: str = ""


class Outcomes:
    """Trials of all studies, with the findings of every text.

    Args:
        records: of all studies.
        labeler: reads findings.
        known: text -> findings, of texts that need not be read again.
    """

    def __init__(
        self, records: Sequence[StudyRecord], labeler: Labeler, known: Mapping[str, Bools] | None = None
    ) -> None:
        self.records, self.labels, self._labeler = list(records), labeler.labels, labeler
        self.by_study = {record.study: record for record in self.records}
        before = known or {}
        self._known = {**before, **labels_of(labeler, (text for text in self._texts() if text not in before))}

    def also(self, records: Sequence[StudyRecord]) -> Outcomes:
        """Trials of other records; only texts that are new here are read."""
        return Outcomes(records, self._labeler, self._known)

    def said(self, text: str) -> Bools:
        """(L,) findings of a text."""
        return self._known[text]

    @cached_property
    def occurs(self) -> Bools:
        """(L,) findings that any text states."""
        return np.asarray(np.any([self._known[text] for text in {"", *self._texts()}], axis=0))

    @cached_property
    def all(self) -> list[Outcome]:
        """Every trial; swaps whose donor was not audited are left out."""
        found = []
        for row, record in enumerate(self.records):
            for trial in record.trials:
                slots = (record.regions.index(trial.region),) if trial.region else tuple(range(len(record.regions)))
                before, after = record.paragraphs, record.after(trial)
                if trial.intervention not in DONATED:
                    found.append(Outcome(row, trial, slots, before, after))
                elif (donor := self.by_study.get(record.donors[trial.region])) is not None:
                    reference = donor.references[trial.region]
                    found.append(Outcome(row, trial, slots, before, after, donor.own(trial.region), reference))
        return found

    def of(self, intervention: str) -> list[Outcome]:
        """Trials of one intervention."""
        return [one for one in self.all if one.trial.intervention == intervention]

    def interventions(self) -> dict[str, int]:
        """Intervention -> its trials."""
        return dict(Counter(one.trial.intervention for one in self.all))

    def reference(self, outcome: Outcome, slot: int) -> str:
        """The reference of a slot of a trial's study."""
        record = self.records[outcome.row]
        return record.references[record.regions[slot]]

    def swaps(self) -> Iterator[Swap]:
        """Every swap in words."""
        for one in self.of(SWAP):
            record, [slot] = self.records[one.row], one.slots
            assert one.donor is not None
            apart = self.said(one.before[slot]) != self.said(one.donor)
            sides = apart & (self.said(one.after[slot]) == self.said(one.donor))
            others = [k for k in range(len(record.regions)) if k != slot and one.after[k] != one.before[k]]
            yield Swap(
                record.study,
                record.regions[slot],
                record.donors[record.regions[slot]],
                self.reference(one, slot),
                one.before[slot],
                one.donor,
                one.after[slot],
                self.named(apart),
                self.named(sides),
                tuple(record.regions[k] for k in others),
            )

    def named(self, present: Bools) -> tuple[str, ...]:
        """Labels in words."""
        return tuple(label for label, there in zip(self.labels, present, strict=True) if there)

    def _texts(self) -> Iterator[str]:
        for record in self.records:
            yield from record.references.values()
            yield from record.paragraphs
            for trial in record.trials:
                yield from trial.changed.values()


def audit_statistics(outcomes: Outcomes) -> Iterator[Statistic]:
    """All numbers before they have intervals, in the groups ``statistics``, ``regions`` and ``findings``."""
    swaps = outcomes.of(SWAP)
    blind = outcomes.of(NO_IMAGE)
    if swaps:
        yield from _of_swaps(outcomes, swaps)
    if blind:
        yield from _of_prior(outcomes, blind)
    for name in outcomes.interventions():
        yield from _of_intervention(outcomes, name)


class _Sums:
    """Sums over studies of what trials add, by scope."""

    def __init__(self, studies: int, width: int) -> None:
        self._studies, self._width = studies, width
        self.of: dict[str, Array] = {}

    def add(self, scope: str, row: int, *values: float) -> None:
        """Add to a study."""
        if scope not in self.of:
            self.of[scope] = np.zeros((self._studies, self._width))
        self.of[scope][row] += values

    def statistics(
        self, group: Group, name: str, value: Callable[[Array], Array], count: int, score: bool = True
    ) -> Iterator[Statistic]:
        """A number for each scope that has something to count; the column `count` says how much."""
        for scope, units in self.of.items():
            n = int(units[:, count].sum())
            if n or scope == REPORT:
                yield Statistic(group, scope, name, DEFINITIONS[name], units, value, n, score=score)


def _of_swaps(outcomes: Outcomes, swaps: Sequence[Outcome]) -> Iterator[Statistic]:
    studies = len(outcomes.records)
    names = (FOLLOW, FOLLOW_WORDS, APART, LEAK, LEAK_FINDINGS)
    whole, regions, findings = ({name: _Sums(studies, 2) for name in names} for _ in range(3))

    def add(name: str, one: Outcome, hits: float, of: float) -> None:
        whole[name].add(REPORT, one.row, hits, of)
        regions[name].add(one.trial.region, one.row, hits, of)

    for one in swaps:
        [slot] = one.slots
        assert one.donor is not None
        own, given = outcomes.said(one.before[slot]), outcomes.said(one.donor)
        apart, follows = own != given, outcomes.said(one.after[slot]) == given
        due = outcomes.said(outcomes.reference(one, slot)) != outcomes.said(one.donor_reference)
        add(FOLLOW, one, (apart & follows).sum(), apart.sum())
        add(APART, one, (due & apart).sum(), due.sum())
        differ = one.before[slot] != one.donor
        add(FOLLOW_WORDS, one, differ and one.after[slot] == one.donor, differ)
        others = [k for k in range(len(one.before)) if k != slot]
        flips = np.array([outcomes.said(one.before[k]) != outcomes.said(one.after[k]) for k in others])
        flips = flips.reshape(len(others), len(outcomes.labels))
        add(LEAK, one, sum(one.before[k] != one.after[k] for k in others), len(others))
        add(LEAK_FINDINGS, one, flips.any(1).sum(), len(others))
        for place, label in enumerate(outcomes.labels):
            if apart[place]:
                findings[FOLLOW].add(label, one.row, follows[place], 1)
            if due[place]:
                findings[APART].add(label, one.row, apart[place], 1)
            if outcomes.occurs[place]:
                findings[LEAK_FINDINGS].add(label, one.row, flips[:, place].sum(), len(others))
    for name in names:
        yield from whole[name].statistics("statistics", name, _share_or_zero, 1)
        yield from regions[name].statistics("regions", name, ratio, 1)
        yield from findings[name].statistics("findings", name, ratio, 1)


def _of_prior(outcomes: Outcomes, blind: Sequence[Outcome]) -> Iterator[Statistic]:
    """F1 with and without an image: columns are the counts with, the counts without, and what is there to find."""
    studies = len(outcomes.records)
    whole, regions, findings = (_Sums(studies, 7) for _ in range(3))
    for one in blind:
        record = outcomes.records[one.row]
        for slot in one.slots:
            truth = outcomes.said(outcomes.reference(one, slot))
            counts = np.concatenate(
                [
                    _counts(truth, outcomes.said(one.before[slot])),
                    _counts(truth, outcomes.said(one.after[slot])),
                    truth[:, None],
                ],
                axis=1,
            )
            whole.add(REPORT, one.row, *counts.sum(0))
            regions.add(record.regions[slot], one.row, *counts.sum(0))
            for place in np.flatnonzero(counts.any(1)):
                findings.add(outcomes.labels[place], one.row, *counts[place])
    kinds: tuple[tuple[_Sums, Group], ...] = ((whole, "statistics"), (regions, "regions"), (findings, "findings"))
    for sums, group in kinds:
        yield from sums.statistics(group, F1, lambda sums: _f1(sums[..., :3]), 6)
        yield from sums.statistics(group, F1_BLIND, lambda sums: _f1(sums[..., 3:6]), 6, score=False)
        yield from sums.statistics(group, PRIOR, _ratio_of_f1, 6, score=False)


def _of_intervention(outcomes: Outcomes, name: str) -> Iterator[Statistic]:
    """What an intervention does to the paragraphs that it concerns, and to the others."""
    studies = len(outcomes.records)
    shares = {key: _Sums(studies, 2) for key in (CHANGED, CHANGED_FINDINGS, LEAK, LEAK_FINDINGS, FOLLOW)}
    counts = _Sums(studies, 7)
    for one in outcomes.of(name):
        for slot, (before, after) in enumerate(zip(one.before, one.after, strict=True)):
            said, now = outcomes.said(before), outcomes.said(after)
            own = slot in one.slots
            shares[CHANGED if own else LEAK].add(name, one.row, before != after, 1)
            shares[CHANGED_FINDINGS if own else LEAK_FINDINGS].add(name, one.row, bool((said != now).any()), 1)
            if not own:
                continue
            truth = outcomes.said(outcomes.reference(one, slot))
            parts = [_counts(truth, said), _counts(truth, now), truth[:, None]]
            counts.add(name, one.row, *np.concatenate(parts, axis=1).sum(0))
            if one.donor is not None:
                apart = said != outcomes.said(one.donor)
                shares[FOLLOW].add(name, one.row, (apart & (now == outcomes.said(one.donor))).sum(), apart.sum())
    for key, sums in shares.items():
        yield from sums.statistics("statistics", key, ratio, 1, score=False)
    if name != SAME:
        yield from counts.statistics("statistics", F1_BEFORE, lambda sums: _f1(sums[..., :3]), 6)
        yield from counts.statistics("statistics", F1_AFTER, lambda sums: _f1(sums[..., 3:6]), 6)
        yield from counts.statistics(
            "statistics", F1_CHANGE, lambda sums: _f1(sums[..., 3:6]) - _f1(sums[..., :3]), 6, score=False
        )


def _counts(truth: Bools, said: Bools) -> NDArray[np.int64]:
    """(L, 3) true positives, false positives, false negatives."""
    return np.stack([truth & said, ~truth & said, truth & ~said], axis=1).astype(np.int64)


def _share_or_zero(sums: Array) -> Array:
    """`ratio` of whole reports, 0 where nothing was tried: what never moves follows nothing."""
    return np.nan_to_num(ratio(sums))


def _f1(sums: Array) -> Array:
    return np.asarray(precision_recall_f1(sums)[..., 2])


def _ratio_of_f1(sums: Array) -> Array:
    with_image, without = _f1(sums[..., :3]), _f1(sums[..., 3:6])
    return np.divide(without, with_image, out=np.full_like(without, np.nan), where=with_image > 0)
