"""A report as paragraphs tied to regions, and its text form: write and parse are inverse to each other.

Text form (paper section III-D; systems.md 1.7): for slot i, ``The region {i} is {area}: {text} ``, or, without the
region's identity, ``The region {i}: {text} ``. What the report says of regions without a mask, and of no region, may
follow as its tail (CTRG-Chest-548K): ``The other report is: {pleura: ...}{other: ...}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

# A paragraph ends where the next one seems to begin; under a malformed beginning, text belongs to no region.
_BEGINNING = re.compile(r"The region\s+\d+")
_PREFIX = re.compile(r"The region\s+(\d{1,9})(?:\s+is\s+([^:]{1,80}?))?\s*:")
_ENDS_A_NAME = re.compile(r"[.!?]\s+[A-Z]|;")
_NUMBERED = re.compile(r"The region\s+(\d{1,9})(?:\s+is\b|\s*:)")
_TAIL = re.compile(r"The other report is:? ?")
_ENTRY = re.compile(r"\{([^:{}]+): ?([^{}]*)(\}|$)")
_BRACES = str.maketrans("{}", "()")

SENTENCE_BREAK = re.compile(r"(?<=[.!?])\s+")
"""Between two sentences, as reports are written; what knows radiology is `reg2rg.datasets.splitters.sentences`."""

OTHER = "other"
"""Key of the tail's text that belongs to no region; it is always there, and the last one."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """What a report says of one region.

    Attributes:
        slot: place of the region in the prompt, from 0.
        region: name that the text gives to the region.
        text: the description, without the prefix.
    """

    slot: int
    region: str
    text: str


@dataclass(slots=True)  # not frozen: Lightning copies what predict returns field by field
class Written:
    """What is known of a paragraph that was held to its frame while it was written, beside its text.

    Attributes:
        slot: place of the region in the prompt, from 0.
        region: name that the paragraph has.
        referring: name of the region set -> probability that the model gives it at this slot; they sum to one. Empty
            where frames name no region.
        forced: the name was given; the model did not choose it.
        truncated: the paragraph was cut, by a limit or in a loop.
    """

    slot: int
    region: str
    referring: Mapping[str, float] = field(default_factory=dict)
    forced: bool = False
    truncated: bool = False

    @property
    def probability(self) -> float | None:
        """Referring probability of the paragraph's own name."""
        return self.referring.get(self.region)


@dataclass(slots=True)  # not frozen, as `Written`
class OrderCertificate:
    """That the order of paragraphs plays no part in a report: they were read once more in one row, the last one first.

    Attributes:
        tokens: that were compared.
        rounding: largest difference between the two readings in a token's log-likelihood, in nats.
        margin: least distance of a token that was written to the next likeliest that might have been, in nats; ``None``
            of a report whose tokens were drawn.
    """

    tokens: int
    rounding: float
    margin: float | None

    @property
    def holds(self) -> bool:
        """Whether no token could have been another in any order: twice the rounding is less than the margin."""
        return self.margin is not None and 2 * self.rounding < self.margin


@dataclass(frozen=True, slots=True)
class Report:
    """A parsed report.

    Attributes:
        paragraphs: at most one a slot, in the order of the text; only regions that were given.
        invalid: prefixes that are malformed, have a slot that was not given, or a name that no given region has.
        duplicate: prefixes that name a slot or region a second time; the first one counts.
        missing: given regions that no paragraph names.
        others: key -> text of the tail: regions that were not given, and `OTHER`. Of a key that comes twice the first
            one counts; one of a given region is invalid.
    """

    paragraphs: tuple[Paragraph, ...]
    invalid: tuple[str, ...] = ()
    duplicate: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)

    def by_region(self) -> dict[str, str]:
        """Region name -> text."""
        return {paragraph.region: paragraph.text for paragraph in self.paragraphs}


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a text, from where a prefix seems to begin up to the next.

    Attributes:
        prefix: the prefix as written; of a malformed one its beginning; "" before the first.
        slot: its number; ``None`` without a well-formed prefix.
        name: the region's name, white space folded; "" if none is named.
        text: what follows the prefix; all of it where there is no well-formed one.
    """

    prefix: str
    slot: int | None
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class TailEntry:
    """One text of a tail.

    Attributes:
        key: as written: a region without a mask, or `OTHER`.
        text: white space folded.
        closed: its brace is closed; that of a text cut at its limit is not.
    """

    key: str
    text: str
    closed: bool


@dataclass(slots=True)
class _Faults:
    invalid: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)


def write_paragraph(slot: int, region: str, text: str, identity: bool = True) -> str:
    """One paragraph with its prefix, without the trailing space."""
    return f"The region {slot} is {region}: {text}" if identity else f"The region {slot}: {text}"


def write_report(regions: Sequence[str], texts: Sequence[str], identity: bool = True) -> str:
    """The target text: one paragraph a slot, each followed by a space, the last one too (published form).

    Args:
        regions: region names in slot order.
        texts: their descriptions.
        identity: name the region in its prefix (region-report alignment on).
    """
    pairs = enumerate(zip(regions, texts, strict=True))
    return "".join(write_paragraph(slot, region, text, identity) + " " for slot, (region, text) in pairs)


def write_tail(texts: Mapping[str, str]) -> str:
    """The tail, published form: a text in braces for each key, nothing between them, `OTHER` last and always there.

    Args:
        texts: region -> text, in order, and `OTHER`. Braces in a text become round brackets, since braces end it.
    """
    named = {key: text for key, text in texts.items() if key != OTHER} | {OTHER: texts.get(OTHER, "")}
    entries = (f"{{{key}: {' '.join(text.split()).translate(_BRACES)}}}" for key, text in named.items())
    return f"The other report is: {''.join(entries)}"


def split_tail(text: str) -> tuple[str, tuple[TailEntry, ...]]:
    """The text before the tail, and the tail's texts; a text without one is all before it."""
    match = _TAIL.search(text)
    if match is None:
        return text, ()
    found = _ENTRY.findall(text[match.end() :])
    return text[: match.start()], tuple(TailEntry(key, " ".join(words.split()), bool(end)) for key, words, end in found)


def parse_report(text: str, given: Sequence[str], identity: bool = True) -> Report:
    """Read a generated text. Never raises, and never gives text to a region that was not given.

    Args:
        text: anything a language model may produce.
        given: the regions in the prompt, in slot order.
        identity: the text names its regions; otherwise a slot's region is the given one.

    Returns:
        the paragraphs whose prefix is valid. Text under an invalid or repeated prefix is dropped; the prefix is listed.
        The region is the one that the text names, not the one that stands at the slot: telling them apart is what
        recognition accuracy measures. A tail's texts are `Report.others`, and in no paragraph.
    """
    main, entries = split_tail(text)
    report = report_of(split_report(main), given, identity)
    if not entries:
        return report
    others: dict[str, str] = {}
    faults = _Faults([*report.invalid], [*report.duplicate])
    for entry in entries:
        key = " ".join(entry.key.split())
        if key in given:
            faults.invalid.append(f"{{{key}:")
        elif key in others:
            faults.duplicate.append(f"{{{key}:")
        else:
            others[key] = entry.text
    return replace(report, invalid=tuple(faults.invalid), duplicate=tuple(faults.duplicate), others=others)


def surplus_prefix(text: str, given: int) -> int | None:
    """Where the first prefix begins whose number no region has, of so many that were given; ``None`` without one."""
    return next((found.start() for found in _NUMBERED.finditer(text) if int(found[1]) >= given), None)


@lru_cache(maxsize=64)  # whoever reads a report asks several times in a row
def split_report(text: str) -> tuple[Part, ...]:
    """The text cut before each beginning of a prefix, so that no name can run into the next paragraph.

    What holds the end of a sentence is no name: its colon is missing.
    """
    beginnings = list(_BEGINNING.finditer(text))
    starts = [beginning.start() for beginning in beginnings]
    parts = [Part("", None, "", text[: starts[0] if starts else len(text)])]
    for beginning, end in zip(beginnings, [*starts[1:], len(text)], strict=False):  # no beginning, no paragraph
        match = _PREFIX.match(text, beginning.start(), end)
        if match is None or _ENDS_A_NAME.search(match[2] or ""):
            parts.append(Part(beginning[0], None, "", text[beginning.start() : end]))
        else:
            parts.append(Part(match[0], int(match[1]), " ".join((match[2] or "").split()), text[match.end() : end]))
    return tuple(parts)


def report_of(parts: Iterable[Part], given: Sequence[str], identity: bool = True) -> Report:
    """The report that the parts of a text make; see `parse_report`."""
    faults = _Faults()
    paragraphs: list[Paragraph] = []
    slots: set[int] = set()
    regions: set[str] = set()
    for part in parts:
        if part.slot is None:
            if part.prefix:
                faults.invalid.append(part.prefix)
            continue
        region = part.name
        if not identity:
            region = given[part.slot] if part.slot < len(given) and not part.name else ""
        if part.slot >= len(given) or region not in given:
            faults.invalid.append(part.prefix)
        elif part.slot in slots or region in regions:
            faults.duplicate.append(part.prefix)
        else:
            slots.add(part.slot)
            regions.add(region)
            paragraphs.append(Paragraph(part.slot, region, " ".join(part.text.split())))
    missing = tuple(region for region in given if region not in regions)
    return Report(tuple(paragraphs), tuple(faults.invalid), tuple(faults.duplicate), missing)
