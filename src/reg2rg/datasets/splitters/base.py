"""What puts the sentences of a report under regions. It places sentences and never writes: no text can be altered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from reg2rg.core.errors import DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.registry import Registry
from reg2rg.datasets.splitters.sentences import sentences

OTHER = "other"
"""Stands for the sentences that belong to no region of the set."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a sentence belongs.

    Attributes:
        regions: names of regions of the set, each once; none for what belongs to no region.
        reason: why, in words for people.
    """

    regions: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a report, as it stands there, with its regions.

    Attributes:
        text: without the white space around it.
        regions: as in `Placement`.
        reason: as in `Placement`.
    """

    text: str
    regions: tuple[str, ...]
    reason: str


class Splitter(ABC):
    """Places sentences. Registered in `SPLITTERS`, it is chosen by its class name.

    Attributes:
        slow: its answers are worth keeping: ``reg2rg data split`` writes each down as it comes, and goes on from there.
    """

    slow: ClassVar[bool] = False

    @abstractmethod
    def place(self, sentences: Sequence[str], regions: RegionSet) -> Sequence[Placement]:
        """Where each sentence of one report belongs, in their order. It depends on this report and the set alone.

        Args:
            sentences: of one report, in order; may be none.
            regions: the region set, whose own names are to be used.

        Raises:
            DataFault: this report cannot be placed; its study is skipped with the reason.
        """


SPLITTERS: Registry[Splitter] = Registry("splitter", Splitter)  # type: ignore[type-abstract]


def split_report(text: str, splitter: Splitter, regions: RegionSet) -> tuple[Sentence, ...]:
    """A report as sentences with their regions, in order.

    Args:
        text: the report.
        splitter: places its sentences.
        regions: the region set.

    Raises:
        DataFault: ``SPLIT``: the splitter gave too few or too many places, or names a region twice or one that the set
            does not have; or what the splitter itself raises.
    """
    told = sentences(text)
    return tuple(
        Sentence(sentence, place.regions, place.reason)
        for sentence, place in zip(told, checked(splitter.place(told, regions), told, regions, splitter), strict=True)
    )


def checked(
    places: Sequence[Placement], told: Sequence[str], regions: RegionSet, splitter: Splitter
) -> Sequence[Placement]:
    """The places, if each sentence has one that can be.

    Raises:
        DataFault: ``SPLIT``.
    """
    name, wrong = type(splitter).__name__, ""
    unknown = sorted({region for place in places for region in place.regions} - set(regions.names))
    if len(places) != len(told):
        wrong = f"{name} gave {len(places)} places for {len(told)} sentences"
    elif unknown:
        wrong = f"{name} names regions that are not in the set: {', '.join(unknown)}"
    elif any(len(set(place.regions)) < len(place.regions) for place in places):
        wrong = f"{name} names a region twice for one sentence"
    if not wrong:
        return places
    expected = f"one place for each sentence, of regions of the set '{regions.name}', each once"
    raise DataFault.of("SPLIT", found=wrong, expected=expected, fix=f"correct {name}, or its answers")


def by_region(placed: Iterable[Sentence], regions: RegionSet) -> dict[str, str]:
    """Region -> its sentences joined by blanks, in the order of the set, `OTHER` last; only those that have one."""
    texts: dict[str, list[str]] = {}
    for sentence in placed:
        for region in sentence.regions or (OTHER,):
            texts.setdefault(region, []).append(" ".join(sentence.text.split()))
    return {name: " ".join(texts[name]) for name in (*regions.names, OTHER) if name in texts}
