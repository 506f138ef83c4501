"""What a check found, as records and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from reg2rg.core.errors import EXIT_OK, EXIT_SKIPPED, EXIT_USAGE

FORMAT = 1
_WHOLE_SET = ("PATIENT_LEAK", "DUPLICATE_VOLUME", "CONFIG")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the result.

    Attributes:
        severity: ``"error"``: the study, or the whole set, cannot be used as it is. ``"note"``: worth knowing.
        code: reason code.
        split: ``""`` where it concerns no one split.
        study: ``""`` where it concerns no one study.
        message: what was found, what was expected, the fix.
        count: how many such things the line stands for.
    """

    severity: Literal["error", "note"]
    code: str
    split: str
    study: str
    message: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of the usable studies of one split, how many have a region.

    Attributes:
        region: name.
        split: split.
        studies: usable studies of the split.
        mask: those with a voxel of the region.
        text: those with a text for the region.
        both: those with both, on which a model can train.
    """

    region: str
    split: str
    studies: int
    mask: int
    text: int
    both: int


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found. Equal data give an equal result, whatever the number of workers.

    Attributes:
        findings: errors first, then notes; by code and study.
        coverage: by region of the set and split.
        listed: studies by split, before any was read.
        usable: studies by split that have no error.
        read: number of studies whose volume and masks were read.
        overlays: pictures written, relative to the output folder.
    """

    findings: tuple[Finding, ...]
    coverage: tuple[Coverage, ...]
    listed: dict[str, int]
    usable: dict[str, int]
    read: int
    overlays: tuple[str, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Findings that stop a study or the whole set."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def exit_code(self) -> int:
        """0 without errors; 2 if the set as a whole cannot be used; 3 if single studies would be skipped."""
        if any(not finding.study or finding.code in _WHOLE_SET for finding in self.faults):
            return EXIT_USAGE
        return EXIT_SKIPPED if self.faults else EXIT_OK

    def counts(self) -> dict[tuple[str, str], int]:
        """(severity, code) -> number, in the order of the findings."""
        counts: Counter[tuple[str, str]] = Counter()
        for finding in self.findings:
            counts[finding.severity, finding.code] += finding.count
        return dict(counts)

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """What `as_json` gave."""
        return cls(
            findings=tuple(Finding(**line) for line in told["findings"]),
            coverage=tuple(Coverage(**line) for line in told["coverage"]),
            listed=told["listed"],
            usable=told["usable"],
            read=told["read"],
            overlays=tuple(told["overlays"]),
        )

    def as_json(self) -> dict[str, Any]:
        """The result as it is written to ``check.json``."""
        return {
            "format": FORMAT,
            "listed": self.listed,
            "usable": self.usable,
            "read": self.read,
            "counts": [
                {"severity": severity, "code": code, "count": count}
                for (severity, code), count in self.counts().items()
            ],
            "coverage": [asdict(line) for line in self.coverage],
            "overlays": list(self.overlays),
            "findings": [asdict(finding) for finding in self.findings],
        }
