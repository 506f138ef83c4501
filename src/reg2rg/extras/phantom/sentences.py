"""Reports of synthetic patients: one paragraph a region, true of the image. The phrases are in ``phrases.yaml``."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from reg2rg.core.documents import read_yaml
from reg2rg.extras.phantom.findings import Finding
from reg2rg.extras.phantom.patient import Patient

_MOST_WORDS, _MOST_SENTENCES = 28, 2


@dataclass(frozen=True, slots=True)
class Normal:
    """A statement of what is not there.

    Attributes:
        say: its phrasings.
        absent: kinds of findings that rule it out.
        healthy: ``True`` only where the region has no finding, ``False`` only where it has one, ``None`` in both.
        first: stands before the findings.
    """

    say: tuple[str, ...]
    absent: frozenset[str]
    healthy: bool | None
    first: bool

    def fits(self, kinds: frozenset[str]) -> bool:
        """Whether the statement is true and wanted for a region with these findings."""
        return not kinds & self.absent and (self.healthy is None or self.healthy is not bool(kinds))


@functools.cache
def _phrases() -> tuple[Mapping[str, tuple[str, ...]], Mapping[str, tuple[Normal, ...]]]:
    """Kind of finding -> its phrasings, and region -> its statements of normality."""
    data: dict[str, Any] = read_yaml(Path(str(files("reg2rg.extras.phantom"))) / "phrases.yaml")
    abnormal = {kind: tuple(say) for kind, say in data["abnormal"].items()}
    normal = {
        region: tuple(
            Normal(
                tuple(entry["say"]), frozenset(entry.get("absent", ())), entry.get("healthy"), entry.get("first", False)
            )
            for entry in entries
        )
        for region, entries in data["normal"].items()
    }
    return abnormal, normal


def _choose(phrases: tuple[str, ...], rng: np.random.Generator) -> str:
    return phrases[int(rng.integers(len(phrases)))]


def write_sentence(finding: Finding, rng: np.random.Generator) -> str:
    """One phrasing of a finding with its own place and size filled in."""
    place = finding.place
    side = "on both sides" if place == "both" else f"in the {place} hemithorax"
    small = "small" if finding.size < 20 else "moderate" if finding.size < 40 else "large"
    if finding.kind == "fibrosis":
        place = "apex of both lungs" if place == "both" else f"apex of the {place} lung"
    phrase = _choose(_phrases()[0][finding.kind], rng)
    return phrase.format(place=place, size=finding.size, side=side, small=small)


def _paragraph(region: str, findings: list[Finding], rng: np.random.Generator) -> tuple[str, ...]:
    """Sentences of one region: what is seen, and what is not as far as there is room."""
    kinds = frozenset(finding.kind for finding in findings)
    told = [write_sentence(finding, rng) for finding in findings]
    rng.shuffle(told)
    words, count = sum(len(sentence.split()) for sentence in told), len(told)
    before: list[str] = []
    after: list[str] = []
    normal = _phrases()[1][region]
    for statement in (normal[i] for i in rng.permutation(len(normal))):
        sentence = _choose(statement.say, rng)
        if not statement.fits(kinds) or count >= _MOST_SENTENCES or words + len(sentence.split()) > _MOST_WORDS:
            continue
        (before if statement.first else after).append(sentence)
        words, count = words + len(sentence.split()), count + 1
    return (*before, *told, *after)


def write_report(patient: Patient) -> Mapping[str, tuple[str, ...]]:
    """Region -> its sentences, for every region that the patient's scan shows."""
    rng = patient.rng(7)
    return {
        region: _paragraph(region, [finding for finding in patient.findings if finding.region == region], rng)
        for region in sorted(patient.regions)
    }


def labels(patient: Patient) -> frozenset[str]:
    """Clinical labels that are true of the patient."""
    return frozenset(finding.label for finding in patient.findings if finding.label)


_PARTS: tuple[tuple[str, str, str], ...] = (
    ("lung", r"right \w+ lobe", "lung/lung/right lung"),
    ("lung", r"left \w+ lobe", "lung/lung/left lung"),
    ("abdomen", r"\bliver\b", "abdomen/abdomen/liver"),
    ("abdomen", r"\bspleen\b", "abdomen/abdomen/spleen"),
    ("mediastinum", r"\baorta\b", "mediastinum/mediastinum/aorta"),
)
"""Region, expression for a sentence about one of its parts, and the part's path."""


def sub_anatomy(report: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Some sentences once more under the path of the part they speak of, as the real tables have them."""
    return [
        (path, sentence)
        for region, words, path in _PARTS
        for sentence in report.get(region, ())
        if re.search(words, sentence)
    ]
