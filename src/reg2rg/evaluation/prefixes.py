"""Region prefixes in report text: detected, taken off, and turned into paragraphs by region.

Two readings of the same text. `strip_prefixes`, `published_regions` and `published_slots` follow the published scripts
with their quirks, because that is what the published figures were made with; `own_report` is the strict reading of
`reg2rg.report`, with the spellings of a region set understood.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reg2rg.errors import ConfigError
from reg2rg.regions import RegionSet
from reg2rg.report import Report, parse_report

_ANY = re.compile(r"The region\s+\d+(?:\s+is\s+[^:]{1,80}?)?\s*:")
_PUBLISHED = re.compile(r"The region \d+ is [^:]+: ")
_PUBLISHED_SLOT = re.compile(r"The region (\d+) is (\w+)")
_SLOT = re.compile(r"The region\s+(\d{1,9})(?:\s+is\s+([^:]{1,80}?))?\s*:")
_BEGINNING = re.compile(r"The region\s+\d+")
# The text of regions without a mask is added behind the others, in braces; a text cut at its limit closes none.
_TAIL = re.compile(r"The other report is:? ?")
_OTHER = re.compile(r"\{([^:{}]+): ?([^{}]*)(?:\}|$)")


@dataclass(frozen=True, slots=True)
class Slot:
    """A prefix of a text.

    Attributes:
        number: the slot that it names.
        region: its region: the set's own name, the raw words if the set has no such region, "" if none is named.
    """

    number: int
    region: str


def has_prefixes(text: str) -> bool:
    """Whether any paragraph of the text begins with a region prefix."""
    return _ANY.search(text) is not None


def strip_prefixes(text: str) -> str:
    """The text without prefixes: what the published text metrics compare.

    White space is folded before the tail; the parts of the tail follow, joined by blanks.
    """
    main, others = _split_tail(text)
    main = " ".join(_PUBLISHED.sub("", main).split())
    return " ".join([main, *(words for _, words in others if words)]).strip()


def published_regions(text: str, names: Sequence[str]) -> dict[str, str]:
    """Region -> its text, as the published script cuts it.

    The name must be spelled exactly, and the text runs to the next prefix, the tail included. A region that is named
    twice has both texts.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        for match in re.finditer(
            rf"The region \d+ is {re.escape(name)}: (.*?)(?=The region \d+ is|$)", text, re.DOTALL
        ):
            words = " ".join(match[1].split())
            if words:
                found.setdefault(name, []).append(words)
    return {name: " ".join(parts) for name, parts in found.items()}


def published_slots(text: str) -> dict[int, str]:
    """Slot -> first word of the region's name. Of a slot that is named twice the last one counts."""
    return {int(number): word for number, word in _PUBLISHED_SLOT.findall(text)}


def own_slots(text: str, regions: RegionSet) -> list[Slot]:
    """All prefixes of the text in order, names brought to the set's own spelling where it knows them."""
    return [Slot(int(match[1]), _canonical(match[2] or "", regions)) for match in _SLOT.finditer(text)]


def given_regions(text: str, regions: RegionSet) -> tuple[str, ...]:
    """The regions of a reference in slot order; empty unless its slots are 0, 1, 2, ... each once with a name."""
    slots = own_slots(text, regions)
    numbered = [slot.number for slot in slots] == list(range(len(slots)))
    return tuple(slot.region for slot in slots) if numbered and all(slot.region for slot in slots) else ()


def own_report(text: str, given: Sequence[str], regions: RegionSet) -> Report:
    """The text read strictly (see `reg2rg.report.parse_report`), every spelling of a region understood.

    Args:
        text: with prefixes; a tail of other regions is left out of the paragraphs.
        given: region standing at each slot.
        regions: whose spellings are understood.
    """
    main, _ = _split_tail(text)

    def spelled(match: re.Match[str]) -> str:
        return f"The region {match[1]} is {_canonical(match[2], regions)}:" if match[2] else match[0]

    parts, begin = [], 0
    for beginning in [*_BEGINNING.finditer(main)][1:]:
        parts.append(main[begin : beginning.start()])
        begin = beginning.start()
    parts.append(main[begin:])
    text = "".join(_SLOT.sub(spelled, part, count=1) for part in parts)
    named = any(slot.region for slot in own_slots(text, regions))
    return parse_report(text, given, identity=named)


def other_regions(text: str, regions: RegionSet) -> dict[str, str]:
    """Region -> text from the tail that lists regions without a mask; names that the set does not know are left out."""
    _, others = _split_tail(text)
    known = {_canonical(name, regions): words for name, words in others if words}
    return {name: words for name, words in known.items() if name in regions}


def _split_tail(text: str) -> tuple[str, list[tuple[str, str]]]:
    match = _TAIL.search(text)
    if match is None:
        return text, []
    return text[: match.start()], [
        (name, " ".join(words.split())) for name, words in _OTHER.findall(text[match.end() :])
    ]


def _canonical(name: str, regions: RegionSet) -> str:
    words = " ".join(name.split())
    try:
        return regions.canonical(words) if words else ""
    except ConfigError:
        return words
