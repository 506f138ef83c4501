"""Contract check of splitters."""

from __future__ import annotations

from collections.abc import Callable

from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.datasets.splitters.base import Splitter
from reg2rg.testing.contract import require

_REPORTS = (
    "The heart is of normal size. There is a nodule of 1.5 cm in the right lung. It has grown. No pleural effusion.",
    "No pleural effusion.",
    "Technique: helical CT without contrast.",
)


def check_splitter(
    build: Callable[[], Splitter], regions: RegionSet | str = "radgenome", reports: tuple[str, ...] = _REPORTS
) -> None:
    """Check a splitter against the contract of `reg2rg.datasets.splitters.base.Splitter`.

    One place for each sentence, of regions of the set, each once; no sentence, no place; the same places from another
    object, and for a report whatever came before it.

    Args:
        build: makes the splitter; called twice.
        regions: region set that it knows.
        reports: reports that it can place.

    Raises:
        ContractError: naming the first part that is broken.
    """
    from reg2rg.datasets.splitters.sentences import sentences

    splitter, known = build(), load_region_set(regions)
    require(isinstance(splitter, Splitter), splitter, "type", "no subclass of Splitter", "one")
    require(len(splitter.place([], known)) == 0, splitter, "places of no sentence", "some", "none")
    told = [sentences(report) for report in reports]
    places = [list(splitter.place(list(one), known)) for one in told]
    for one, found in zip(told, places, strict=True):
        require(len(found) == len(one), splitter, "places", f"{len(found)} of {len(one)} sentences", "one for each")
        for place in found:
            unknown = [name for name in place.regions if name not in known.names]
            require(not unknown, splitter, "regions", ", ".join(unknown), f"some of {', '.join(known.names)}")
            require(len(set(place.regions)) == len(place.regions), splitter, "regions", "one twice", "each once")
            require(isinstance(place.reason, str), splitter, "reason", repr(place.reason), "a text")
    other = build()
    again = [list(other.place(list(one), known)) for one in reversed(told)][::-1]
    require(again == places, splitter, "places", "others after other reports", "the same")
