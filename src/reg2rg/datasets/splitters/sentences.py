"""A report cut into sentences as radiologists write them, in English and Chinese alike.

A full stop ends no sentence inside a decimal ("1.5 cm"), behind an abbreviation ("approx. 5 mm", "L. lower lobe"), or
behind the number of a list ("2. Nodule"), which belongs to what follows. One without a space behind it does
("nodules.No effusion"). A line that goes on in lower case is a wrapped one.
"""

from __future__ import annotations

import re

ABBREVIATIONS = (
    "approx", "ca", "cf", "dr", "e.g", "etc", "fig", "i.e", "im", "incl", "lat", "max", "min", "no", "nr", "pat",
    "prof", "resp", "se", "st", "vs", "viz",
)  # fmt: skip
"""Words whose full stop does not end a sentence where a small letter or a number follows; single letters likewise."""

_TITLES = ("dr", "e.g", "fig", "i.e", "im", "pat", "prof", "se", "vs")
"""Of these, those that a capital letter may follow within a sentence."""

_LIST = r"(?:\d{1,2}[.)]|[(\uff08]\d{1,2}[)\uff09]|\d{1,2}[\u3001\uff0e]|[\u2460-\u2473])"
_END = re.compile(
    r"[.!?]+[\"')\]\u201d]*(?=\s|$)"  # a full stop and a space
    r"|(?<=[a-z)\]])\.(?=[A-Z][a-z])"  # without the space
    r"|[\u3002\uff01\uff1f\uff1b\uff0e][\"')\]\u201d\u300d\uff09]*"  # Chinese, whose sentences have no space between
    r"|(?<=[\u4e00-\u9fff])[.;!?](?![0-9])"  # its Latin look-alikes
    r"|\n[^\S\n]*(?:\n\s*|(?=[A-Z0-9\u4e00-\u9fff\u2022*\-(\uff08\u2460-\u2473]))"  # an empty line, a line of its own
)
_ITEM = re.compile(rf"(?<=[.;:!?\u3002\uff1b\uff1a\uff01\uff1f\s]){_LIST}\s*(?=[^\d\s.,])")
"""The number of an item of a list, inside a text that has no lines."""

_LAST_WORD = re.compile(r"([^\s(\uff08,;:]+)\.$")
_ONLY_NUMBER = re.compile(rf"\s*(?:[-*\u2022]\s*)?(?:{_LIST}|\d{{1,2}})?[.)\s]*")


def sentences(text: str) -> list[str]:
    """The sentences of a report, in order, without the white space around them.

    Nothing else is taken away: the sentences and the space between them are the text.

    Args:
        text: in English or Chinese, on one line or several.
    """
    return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where each sentence begins and ends, without the white space around it."""
    spans, start = [], 0
    for end in (*_ends(text), len(text)):
        if _ONLY_NUMBER.fullmatch(text, start, end) and end < len(text):  # the number of an item, or nothing
            continue
        stripped = text[start:end].strip()
        if stripped:
            first = text.index(stripped, start)
            spans.append((first, first + len(stripped)))
        start = end
    return spans


def _ends(text: str) -> list[int]:
    ends = [found.end() for found in _END.finditer(text) if not _goes_on(text, found)]
    numbered = [found.start() for found in _ITEM.finditer(text)]
    return sorted({*ends, *numbered}) if len(numbered) > 1 else ends


def _goes_on(text: str, found: re.Match[str]) -> bool:
    """Whether the sentence goes on behind a full stop."""
    if found[0] != ".":
        return False
    before = _LAST_WORD.search(text, max(0, found.start() - 24), found.end())
    word = before[1].lower() if before is not None else ""
    following = text[found.end() :].lstrip()[:1]
    if len(word) == 1 and word.isalpha():
        return following.islower() or following.isdigit()
    if word in _TITLES:
        return following != ""
    return word in ABBREVIATIONS and (following.islower() or following.isdigit())
