"""What a head told of the regions of one study, as plain values that results and files carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from reg2rg.core.report import Report

CAVEAT = "holds for studies exchangeable with those of the calibration only"
"""Said wherever the rate of omissions is shown."""


@dataclass(slots=True)  # not frozen: Lightning copies what predict returns field by field
class RegionFindings:
    """Findings of one region.

    Attributes:
        probabilities: label that the region can have -> calibrated probability.
        detected: labels at or above their threshold.
        review: the paragraph may leave a finding out: it does not state a label that it may not leave out unmarked.
            ``None`` without a calibration.
        wanting: those labels.
    """

    probabilities: Mapping[str, float]
    detected: tuple[str, ...]
    review: bool | None = None
    wanting: tuple[str, ...] = ()


@dataclass(slots=True)
class StudyFindings:
    """What a head told of one study.

    Attributes:
        regions: region -> its findings, in slot order.
        operating_point: what the thresholds aim at.
        cued: the prompt named the detected findings.
        alpha: share of paragraphs with findings that may leave one out unmarked; ``None`` without a calibration.
    """

    regions: Mapping[str, RegionFindings] = field(default_factory=dict)
    operating_point: str = "f1"
    cued: bool = False
    alpha: float | None = None

    @property
    def review(self) -> tuple[str, ...]:
        """Regions whose paragraphs are marked for review."""
        return tuple(name for name, found in self.regions.items() if found.review)

    @property
    def promise(self) -> str:
        """What the marks promise, and when it holds; ``""`` without a calibration."""
        if self.alpha is None:
            return ""
        return (
            "Review marks paragraphs that leave out a finding which the model's head takes for probable. At most "
            f"{self.alpha * 100:g} % of a region's paragraphs with findings leave one out without the mark. This "
            f"{CAVEAT}."
        )

    def mark(self, region: str) -> str:
        """The mark of a region's paragraph, ``""`` where there is none."""
        found = self.regions.get(region)
        return f"Review: may leave out {', '.join(found.wanting)}." if found is not None and found.review else ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From what `plain` gives."""
        regions = {
            name: RegionFindings(one["probabilities"], tuple(one["detected"]), one["review"], tuple(one["wanting"]))
            for name, one in values["regions"].items()
        }
        return cls(regions, values["operating_point"], values["cued"], (values["omissions"] or {}).get("alpha"))

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "operating_point": self.operating_point,
            "cued": self.cued,
            "omissions": None if self.alpha is None else {"alpha": self.alpha, "caveat": CAVEAT},
            "regions": {
                name: {
                    "probabilities": {label: round(value, 6) for label, value in found.probabilities.items()},
                    "detected": list(found.detected),
                    "review": found.review,
                    "wanting": list(found.wanting),
                }
                for name, found in self.regions.items()
            },
            "review": list(self.review),
        }


def report_lines(report: Report, told: StudyFindings | None = None) -> list[str]:
    """A report as text: a line for each paragraph, its region before it if it has one; a tail at the end.

    Args:
        report: what was written.
        told: what a head told. With it what is to be reviewed is marked, regions on which nothing was written too, and
            what the marks promise stands below.
    """
    marks = {} if told is None else {region: f" [{told.mark(region)}]" for region in told.review}
    lines = [
        f"{f'{part.region}: ' if part.region else ''}{part.text}{marks.get(part.region, '')}"
        for part in report.paragraphs
    ]
    lines += [f"{region}: no paragraph{marks[region]}" for region in report.missing if region in marks]
    lines += [f"{key}: {text}" for key, text in report.others.items() if text]
    return [*lines, *([told.promise] if told is not None and told.promise else [])]
