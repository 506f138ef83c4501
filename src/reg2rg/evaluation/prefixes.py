"""Region prefixes in report text: detected, taken off, and turned into paragraphs by region.

Two readings of the same text. `strip_prefixes`, `published_regions` and `published_slots` follow the published scripts
with their quirks, because that is what the published figures were made with; the others are the strict reading of
`reg2rg.core.report`, with the spellings of a region set understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.report import Report, parse_report

_PUBLISHED = re.compile(r"The region \d+ is [^:]+: ")
_PUBLISHED_SLOT = re.compile(r"The region (\d+) is (\w+)")
_SLOT = re.compile(r"The region\s+(\d{1,9})(?:\s+is\s+([^:]{1,80}?))?\s*:")
_BEGINNING = re.compile(r"The region\s+\d+")
_NUMBER = re.compile(r"(The region\s+)(\d{1,9})(?!\d)")
_ENDS_A_NAME = re.compile(r"[.!?]\s+[A-Z]|;")
# The text of regions without a mask is added behind the others, in braces; a text cut at its limit closes none.
_TAIL = re.compile(r"The other report is:? ?")
_OTHER = re.compile(r"\{([^:{}]+): ?([^{}]*)(?:\}|$)")
_NOT_GIVEN = 10**8
"""Stands for slots that a reference does not have: larger than any that one has."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A prefix of a text.

    Attributes:
        number: the slot that it names.
        region: its region: the set's own name, the raw words if the set has no such region, "" if none is named.
    """

    number: int
    region: str


# ---- as published


def strip_prefixes(text: str) -> str:
    """The text without prefixes: what the published text metrics compare.

    White space is folded before the tail; the parts of the tail follow, joined by blanks. A prefix without a colon
    takes with it everything up to the next colon.
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


# ---- strict


def has_prefixes(text: str) -> bool:
    """Whether any paragraph of the text begins with a region prefix."""
    return any(_prefix(part) is not None for part in _parts(text))


def plain_text(text: str) -> str:
    """The text without prefixes, white space folded; the parts of a tail follow. No other word is lost."""
    main, others = _split_tail(text)
    parts = []
    for part in _parts(main):
        prefix = _prefix(part)
        parts.append(part[prefix.end() :] if prefix else part)
    return " ".join([*" ".join(parts).split(), *(words for _, words in others if words)])


def own_slots(text: str, regions: RegionSet) -> list[Slot]:
    """All prefixes of the text in order, names brought to the set's own spelling where it knows them."""
    main, _ = _split_tail(text)
    found = (_prefix(part) for part in _parts(main))
    return [Slot(int(match[1]), _canonical(match[2] or "", regions)) for match in found if match]


def given_slots(text: str, regions: RegionSet) -> dict[int, str]:
    """Slot -> region of a reference, in the order of the text.

    Empty unless every prefix names a region and no slot or region comes twice: then nobody can say what stands where.
    """
    slots = own_slots(text, regions)
    named = {slot.number: slot.region for slot in slots if slot.region}
    return named if len(slots) == len(named) == len(set(named.values())) else {}


def renumbered(text: str, numbers: Sequence[int]) -> str:
    """The text with the slots `numbers` called 0, 1, 2, ...; any other slot gets a number that nothing has."""
    if list(numbers) == list(range(len(numbers))):
        return text
    places = {number: place for place, number in enumerate(numbers)}
    return _NUMBER.sub(lambda match: f"{match[1]}{places.get(int(match[2]), _NOT_GIVEN)}", text)


def own_report(text: str, given: Sequence[str], regions: RegionSet) -> Report:
    """The text read strictly (see `reg2rg.core.report.parse_report`), every spelling of a region understood.

    Args:
        text: with prefixes; a tail of other regions is left out of the paragraphs.
        given: region standing at each slot.
        regions: whose spellings are understood.
    """
    main, _ = _split_tail(text)

    def spelled(match: re.Match[str]) -> str:
        return f"The region {match[1]} is {_canonical(match[2], regions)}:" if match[2] else match[0]

    text = "".join(_SLOT.sub(spelled, part, count=1) if _prefix(part) else part for part in _parts(main))
    named = any(slot.region for slot in own_slots(text, regions))
    return parse_report(text, given, identity=named)


def named_regions(text: str, regions: RegionSet, join: bool = False) -> dict[str, str]:
    """Region of the set -> its text, whichever slot it stands at; texts of the tail too.

    Args:
        text: with prefixes.
        regions: whose spellings are understood.
        join: put the texts of a region that is named twice together; otherwise the first one counts.
    """
    main, _ = _split_tail(text)
    found: dict[str, list[str]] = {}
    for part in _parts(main):
        prefix = _prefix(part)
        region = _canonical(prefix[2] or "", regions) if prefix else ""
        if prefix and region in regions:
            found.setdefault(region, []).append(" ".join(part[prefix.end() :].split()))
    own = {region: " ".join(texts) if join else texts[0] for region, texts in found.items()}
    return {**other_regions(text, regions), **own}


def other_regions(text: str, regions: RegionSet) -> dict[str, str]:
    """Region -> text from the tail that lists regions without a mask; names that the set does not know are left out."""
    _, others = _split_tail(text)
    known = {_canonical(name, regions): words for name, words in others if words}
    return {name: words for name, words in known.items() if name in regions}


def clean_regions(texts: Mapping[str, str]) -> dict[str, str]:
    """Without regions whose text is empty."""
    return {name: text for name, text in texts.items() if text}


def _split_tail(text: str) -> tuple[str, list[tuple[str, str]]]:
    match = _TAIL.search(text)
    if match is None:
        return text, []
    return text[: match.start()], [
        (name, " ".join(words.split())) for name, words in _OTHER.findall(text[match.end() :])
    ]


def _parts(text: str) -> Iterator[str]:
    """The text cut before each beginning of a prefix: no name can run into the next paragraph."""
    begin = 0
    for beginning in _BEGINNING.finditer(text):
        if beginning.start() > begin:
            yield text[begin : beginning.start()]
        begin = beginning.start()
    yield text[begin:]


def _prefix(part: str) -> re.Match[str] | None:
    """The prefix that a part begins with. What holds the end of a sentence is no name: its colon is missing."""
    match = _SLOT.match(part)
    return None if match is None or _ENDS_A_NAME.search(match[2] or "") else match


def _canonical(name: str, regions: RegionSet) -> str:
    words = " ".join(name.split())
    try:
        return regions.canonical(words) if words else ""
    except ConfigError:
        return words
