"""Reports of synthetic patients: one paragraph a region, true of the image."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from reg2rg.data.phantom.findings import Finding
from reg2rg.data.phantom.patient import Patient
from reg2rg.data.phantom.phrases import ABNORMAL, NORMAL

_MOST_WORDS = 38
_MOST_SENTENCES = 4


def write_sentence(finding: Finding, rng: np.random.Generator) -> str:
    """One phrasing of a finding with its own place and size filled in."""
    phrases = ABNORMAL[finding.kind]
    place = finding.place
    side = "in both hemithorax" if place == "both" else f"in the {place} hemithorax"
    small = "small" if finding.size < 20 else "moderate" if finding.size < 40 else "large"
    apex = "apex of both lungs" if place == "both" else f"apex of the {place} lung"
    phrase = phrases[int(rng.integers(len(phrases)))]
    return phrase.format(
        place=place, size=finding.size, hemithorax=side, small=small, amount=small.capitalize(), apex=apex
    )


def _allowed(rules: tuple[str, ...], kinds: set[str]) -> bool:
    return not kinds if "*" in rules else not kinds & set(rules)


def _paragraph(region: str, findings: list[Finding], rng: np.random.Generator) -> tuple[str, ...]:
    """Sentences of one region: what is seen, and some of what is not, within the limits of length."""
    kinds = {finding.kind for finding in findings}
    told = [write_sentence(finding, rng) for finding in findings]
    before, after = [], []
    for when, rules, phrases in NORMAL[region]:
        if _allowed(rules, kinds):
            sentence = phrases[int(rng.integers(len(phrases)))]
            (before if when == "first" else after).append(sentence)
    if region == "lung" and not findings:
        after = after[:1] + after[2:]  # the first says it all; saying "no nodule" twice is no report
    budget = _MOST_WORDS - sum(len(sentence.split()) for sentence in told)
    room = _MOST_SENTENCES - len(told)
    kept: list[str] = []
    for sentence in [*before, *after]:
        if room and len(sentence.split()) <= budget:
            kept.append(sentence)
            budget -= len(sentence.split())
            room -= 1
    rng.shuffle(told)
    return (*[s for s in before if s in kept], *told, *[s for s in after if s in kept])


def write_report(patient: Patient) -> Mapping[str, tuple[str, ...]]:
    """Region -> its sentences, for every region that the patient's scan shows, in the order of the drawing table."""
    rng = patient.rng(7)
    out = {}
    for region in sorted(patient.regions):
        out[region] = _paragraph(region, [f for f in patient.findings if f.region == region], rng)
    return out


def labels(patient: Patient) -> frozenset[str]:
    """Clinical labels that are true of the patient."""
    return frozenset(finding.label for finding in patient.findings if finding.label)


def vocabulary() -> frozenset[str]:
    """Every word, number and mark that the phrases can produce."""
    text = " ".join(phrase for phrases in ABNORMAL.values() for phrase in phrases)
    text += " ".join(phrase for rows in NORMAL.values() for _, _, phrases in rows for phrase in phrases)
    return frozenset(re.findall(r"\w+(?:-\w+)*|[^\w\s{}]", text))


_PARTS: tuple[tuple[str, str, str], ...] = (
    ("lung", "lobe of the right lung", "lung/lung/right lung"),
    ("lung", "lobe of the left lung", "lung/lung/left lung"),
    ("abdomen", "liver", "abdomen/abdomen/liver"),
    ("abdomen", "spleen", "abdomen/abdomen/spleen"),
    ("mediastinum", "aorta", "mediastinum/mediastinum/aorta"),
)
"""Region, words that a sentence about one of its parts has, and the part's path."""


def sub_anatomy(patient: Patient, report: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Some sentences once more under the path of the part they speak of, as the real tables have them."""
    return [
        (path, sentence) for region, words, path in _PARTS for sentence in report.get(region, ()) if words in sentence
    ]
