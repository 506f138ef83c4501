"""Report text of any system read: region prefixes in every spelling, a tail of further regions, the published reading.

`strip_prefixes`, `published_regions` and `published_slots` follow the published scripts with their quirks, because that
is what the published figures were made with. Everything else is `reg2rg.core.report`'s reading of the same text, with
the spellings of a region set understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.report import Part, Report, report_of, split_report, split_tail

_PUBLISHED = re.compile(r"The region \d+ is [^:]+: ")
_PUBLISHED_SLOT = re.compile(r"The region (\d+) is (\w+)")
_NOT_GIVEN = 10**9
"""Stands for slots that a reference does not have: larger than any that is written."""


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
    main, others = split_tail(text)
    parts = [" ".join(_PUBLISHED.sub("", main).split())]
    for entry in others:
        # A brace that a text cut at its limit leaves open was not read by the published script: it stands there still.
        parts.append(entry.text if entry.closed else f"{{{entry.key}: {entry.text}")
    return " ".join(part for part in parts if part).strip()


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
    return any(part.slot is not None for part in split_report(text))


def plain_text(text: str) -> str:
    """The text without prefixes, white space folded; the parts of a tail follow. No other word is lost."""
    main, others = split_tail(text)
    words = " ".join(part.text for part in split_report(main)).split()
    return " ".join([*words, *(entry.text for entry in others if entry.text)])


def own_slots(text: str, regions: RegionSet, numbers: Sequence[int] | None = None) -> list[Slot]:
    """All prefixes of the text in order, names brought to the set's own spelling where it knows them.

    Args:
        text: with prefixes.
        regions: whose spellings are understood.
        numbers: the slots that are called 0, 1, 2, ... here, any other gets a number that nothing has; ``None``: as
            written.
    """
    return [Slot(part.slot, part.name) for part in _spelled(text, regions, numbers) if part.slot is not None]


def given_slots(text: str, regions: RegionSet) -> dict[int, str]:
    """Slot -> region of a reference, in the order of the text.

    Empty unless every prefix names a region and no slot or region comes twice: then nobody can say what stands where.
    """
    slots = own_slots(text, regions)
    named = {slot.number: slot.region for slot in slots if slot.region}
    return named if len(slots) == len(named) == len(set(named.values())) else {}


def own_report(text: str, given: Sequence[str], regions: RegionSet, numbers: Sequence[int] | None = None) -> Report:
    """The text read strictly (see `reg2rg.core.report.parse_report`), every spelling of a region understood.

    Args:
        text: with prefixes; a tail of other regions is left out of the paragraphs.
        given: region standing at each slot.
        regions: whose spellings are understood.
        numbers: as of `own_slots`.
    """
    parts = _spelled(text, regions, numbers)
    return report_of(parts, given, identity=any(part.name for part in parts))


def named_regions(text: str, regions: RegionSet, join: bool = False) -> dict[str, str]:
    """Region of the set -> its text, whichever slot it stands at; texts of the tail too.

    Args:
        text: with prefixes.
        regions: whose spellings are understood.
        join: put the texts of a region that is named twice together; otherwise the first one counts.
    """
    found: dict[str, list[str]] = {}
    for part in _spelled(text, regions):
        if part.name in regions:
            found.setdefault(part.name, []).append(" ".join(part.text.split()))
    own = {region: " ".join(texts) if join else texts[0] for region, texts in found.items()}
    return {**other_regions(text, regions), **own}


def other_regions(text: str, regions: RegionSet) -> dict[str, str]:
    """Region -> text from the tail that lists regions without a mask; names that the set does not know are left out."""
    _, others = split_tail(text)
    known = {_canonical(entry.key, regions): entry.text for entry in others if entry.text}
    return {name: words for name, words in known.items() if name in regions}


def clean_regions(texts: Mapping[str, str]) -> dict[str, str]:
    """Without regions whose text is empty."""
    return {name: text for name, text in texts.items() if text}


def _spelled(text: str, regions: RegionSet, numbers: Sequence[int] | None = None) -> list[Part]:
    """The parts of a text before its tail, in the set's spelling and the numbers of slots that are wanted."""
    main, _ = split_tail(text)
    places = {number: place for place, number in enumerate(numbers or ())}

    def slot(number: int | None) -> int | None:
        return number if numbers is None or number is None else places.get(number, _NOT_GIVEN)

    return [replace(part, slot=slot(part.slot), name=_canonical(part.name, regions)) for part in split_report(main)]


def _canonical(name: str, regions: RegionSet) -> str:
    words = " ".join(name.split())
    try:
        return regions.canonical(words) if words else ""
    except ConfigError:
        return words
