"""What a report is worth that has seen no image: the commonest texts, and reports handed to other studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def commonest(texts: Iterable[str] | Counter[str]) -> str:
    """The text that comes most often; of several the first in alphabetical order. "" of none."""
    times = texts if isinstance(texts, Counter) else Counter(texts)
    return min(times, key=lambda text: (-times[text], text), default="")


def commonest_by_region(reports: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Region -> the text that describes it most often.

    Args:
        reports: region -> text of each; empty texts do not count.
    """
    texts: dict[str, list[str]] = {}
    for report in reports:
        for region, text in report.items():
            if text:
                texts.setdefault(region, []).append(text)
    return {region: commonest(found) for region, found in texts.items()}


def givers(studies: Sequence[str], patients: Sequence[str] | None = None, seed: int | None = None) -> list[int]:
    """For each study the place of the one whose report it gets: a ring of all of them, so that none keeps its own.

    Args:
        studies: their ids; the ring depends on these and not on their order.
        patients: whose each is: where possible no study gets a report of its own patient. ``None`` does not look.
        seed: of the ring's order; ``None`` takes that of the ids, so that each study gets the next one's.
    """
    order = sorted(range(len(studies)), key=lambda place: studies[place])
    if seed is None:
        order.reverse()
    else:
        order = [order[place] for place in np.random.default_rng(seed).permutation(len(order))]
    giver = dict(zip(order, np.roll(order, 1).tolist(), strict=True))
    for one in order if patients is not None else ():  # two studies of a patient look alike: swap with another's
        assert patients is not None
        own = patients[one]
        if own == patients[giver[one]]:
            other = next((k for k in order if patients[k] != own and patients[giver[k]] != own), None)
            if other is not None:
                giver[one], giver[other] = giver[other], giver[one]
    return [giver[place] for place in range(len(studies))]
