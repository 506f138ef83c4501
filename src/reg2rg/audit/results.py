"""What an audit found: plain data that the terminal, JSON, tables and the page are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reg2rg.evaluation.results import Difference, Evaluation, Number


@dataclass(frozen=True, slots=True)
class Swap:
    """One region of one study, written before and after another patient's tokens stood in its slots.

    Attributes:
        study: whose report it is.
        region: whose tokens were replaced.
        donor: the study that they are of.
        reference: what the reference says of the study's own region.
        own: what the model writes of the study's own region.
        donor_own: what it writes of the donor's, in the donor's report.
        after: what it writes of the study with the donor's tokens.
        findings: findings that tell `own` and `donor_own` apart.
        followed: those of them on which `after` sides with the donor.
        leaked: other regions whose paragraphs changed.
    """

    study: str
    region: str
    donor: str
    reference: str
    own: str
    donor_own: str
    after: str
    findings: tuple[str, ...]
    followed: tuple[str, ...]
    leaked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditResult:
    """Everything that an audit found.

    Attributes:
        name: of the model.
        studies: how many were audited.
        patients: of how many patients.
        interventions: that were made, with how many trials each.
        numbers: report-wide ones; their scope is an intervention, or ``"report"``.
        regions: the same by region; their scope is the region.
        findings: the same by finding; their scope is the finding.
        swaps: every swap.
        text: the reports of the studies as they are, scored as text alone.
        resamples: behind the intervals.
        confidence: of the intervals.
        seed: of the resamples.
        labeler: one sentence that says who reads findings.
        differences: to another audit, on the studies that both have.
        facts: what the records were made by.
        notes: what was left out, one sentence each.
    """

    name: str
    studies: int
    patients: int
    interventions: Mapping[str, int]
    numbers: Sequence[Number]
    regions: Sequence[Number]
    findings: Sequence[Number]
    swaps: Sequence[Swap]
    text: Evaluation
    resamples: int
    confidence: float
    seed: int
    labeler: str
    differences: Sequence[Difference] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def number(self, name: str, scope: str = "report") -> Number:
        """The number of this name.

        Args:
            name: such as ``"follow rate"``.
            scope: ``"report"``, an intervention, a region or a finding.

        Raises:
            KeyError: none; the message lists those of the scope.
        """
        every = (*self.numbers, *self.regions, *self.findings)
        for number in every:
            if number.name == name and number.scope == scope:
                return number
        known = [number.name for number in every if number.scope == scope]
        raise KeyError(f"no number '{name}' for '{scope}'; there are: {', '.join(known)}")
