"""Region recognition of an evaluation: which region the text names where which region stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reg2rg.evaluation.bootstrap import Array, Statistic, mean_statistic
from reg2rg.evaluation.prefixes import published_slots
from reg2rg.evaluation.protocols import Protocol
from reg2rg.evaluation.reading import Pair
from reg2rg.evaluation.results import REPORT, Confusion
from reg2rg.metrics.efficacy import precision_recall_f1

NONE, UNKNOWN = "(none)", "(unknown name)"
_FIGURES = ("precision", "recall", "F1")
_TEXT = {
    "strict": "full names; a repeated, unknown or missing name is wrong",
    "published": "first word of the name, slot by slot; of repeated slots the last one counts, further slots do not",
}


@dataclass(frozen=True, slots=True)
class Recognition:
    """Which region was named where.

    Attributes:
        rows: (slots,) the study of each slot that a region stands at.
        given: (slots,) index of the region that stands there.
        named: (slots,) index of the region that is named, -1 for no name, -2 for an unknown one.
        regions: the names behind the indices.
    """

    rows: NDArray[np.intp]
    given: NDArray[np.intp]
    named: NDArray[np.intp]
    regions: tuple[str, ...]


def recognise(pairs: Sequence[Pair], protocol: Protocol, regions: Sequence[str]) -> Recognition | None:
    """Read the slots of all pairs; ``None`` if no reference has slots."""
    if protocol.recognition == "published":
        return _published(pairs, regions)
    index = {name: place for place, name in enumerate(regions)}
    rows, given, named = [], [], []
    for row, pair in enumerate(pairs):
        for slot, region in enumerate(pair.given):
            if region not in index:
                continue
            said = pair.named[slot]
            repeated = said in pair.named[:slot]
            rows.append(row)
            given.append(index[region])
            named.append(-1 if not said else index.get(said, -2) if not repeated else -2)
    return _recognition(rows, given, named, regions)


def _published(pairs: Sequence[Pair], regions: Sequence[str]) -> Recognition | None:
    words = {name.split()[0]: place for place, name in enumerate(regions)}
    rows, given, named = [], [], []
    for row, pair in enumerate(pairs):
        if not pair.given:
            continue
        said = published_slots(pair.prediction)
        for slot, word in published_slots(pair.reference).items():
            if word in words:
                rows.append(row)
                given.append(words[word])
                named.append(words.get(said[slot], -2) if slot in said else -1)
    return _recognition(rows, given, named, regions)


def _recognition(rows: list[int], given: list[int], named: list[int], regions: Sequence[str]) -> Recognition | None:
    if not rows:
        return None
    return Recognition(np.asarray(rows), np.asarray(given), np.asarray(named), tuple(regions))


def recognition_statistics(found: Recognition, protocol: Protocol, studies: int) -> list[Statistic]:
    """Accuracy, and precision, recall and F1 over all regions and of each."""
    text = _TEXT[protocol.recognition]
    right = found.given == found.named
    statistics = [
        _accuracy(
            "Recognition accuracy", f"mean over studies of the share of slots; {text}", found.rows, right, studies
        )
    ]
    counts = np.zeros((studies, len(found.regions), 3))
    np.add.at(counts, (found.rows, found.given, 0), right)
    np.add.at(counts, (found.rows, found.given, 2), ~right)
    wrong = ~right & (found.named >= 0)
    np.add.at(counts, (found.rows[wrong], found.named[wrong], 1), 1)
    present = [place for place in range(len(found.regions)) if (found.given == place).any()]
    recall = counts[:, present][..., [0, 2]]
    # Recall cannot be raised by leaving a paragraph out; precision can, so that F1 is shown and not ranked by.
    statistics.append(
        Statistic(
            "regions",
            REPORT,
            "Recognition (mean over regions)",
            f"mean over regions of the share of their slots; {text}",
            recall.reshape(studies, -1),
            _mean_share(len(present)),
            len(found.rows),
        )
    )
    scopes: list[tuple[str, list[int], str]] = [("", present, f"mean over regions; {text}")]
    if protocol.left_out:
        kept = [place for place in present if found.regions[place] not in protocol.left_out]
        names = " and ".join(protocol.left_out)
        if kept:
            scopes.append((f", without {names}", kept, f"mean over regions without {names}, as published; {text}"))
        merged = _merged(found, protocol.left_out)
        statistics.append(
            _accuracy(
                f"Recognition accuracy, {names} merged",
                f"{names} count as one region; {text}",
                found.rows,
                merged,
                studies,
            )
        )
    for suffix, places, definition in scopes:
        units = counts[:, places].reshape(studies, -1)
        spread = precision_recall_f1(counts[:, places].sum(axis=0)).std(axis=0)
        statistics += [
            Statistic(
                "regions",
                REPORT,
                f"Recognition {figure}{suffix}",
                definition,
                units,
                _mean_figure(len(places), i),
                len(places),
                std=float(spread[i]),
                score=False,
            )
            for i, figure in enumerate(_FIGURES)
        ]
    for place in present:
        units = counts[:, place]
        statistics += [
            Statistic(
                "regions",
                found.regions[place],
                f"Recognition {figure}",
                f"slots of this region; {text}",
                units,
                _figure(i),
                int((found.given == place).sum()),
                score=figure == "recall",
            )
            for i, figure in enumerate(_FIGURES)
        ]
    return statistics


def confusion(found: Recognition) -> Confusion:
    """Counts of named regions by given ones."""
    columns = (*found.regions, NONE, UNKNOWN)
    counts = np.zeros((len(found.regions), len(columns)), dtype=int)
    place = np.where(found.named >= 0, found.named, len(found.regions) - 1 - found.named)
    np.add.at(counts, (found.given, place), 1)
    present = [row for row in range(len(found.regions)) if counts[row].any()]
    return Confusion(
        tuple(found.regions[row] for row in present), columns, tuple(tuple(map(int, counts[row])) for row in present)
    )


def accuracy_by_study(found: Recognition) -> Mapping[int, float]:
    """Study's row -> share of its slots that are recognised."""
    slots = np.bincount(found.rows)
    right = np.bincount(found.rows, weights=found.given == found.named)
    return {int(row): float(right[row] / slots[row]) for row in np.flatnonzero(slots)}


def _accuracy(name: str, text: str, rows: NDArray[np.intp], right: NDArray[np.bool_], studies: int) -> Statistic:
    slots = np.bincount(rows, minlength=studies)
    hits = np.bincount(rows, weights=right, minlength=studies)
    seen = np.flatnonzero(slots)
    return mean_statistic("regions", REPORT, name, text, rows=seen, values=hits[seen] / slots[seen], studies=studies)


def _merged(found: Recognition, names: Sequence[str]) -> NDArray[np.bool_]:
    places = [found.regions.index(name) for name in names if name in found.regions]
    both = np.isin(found.given, places) & np.isin(found.named, places)
    merged: NDArray[np.bool_] = (found.given == found.named) | both
    return merged


def _figure(index: int) -> Callable[[Array], Array]:
    return lambda sums: precision_recall_f1(sums)[..., index]


def _mean_figure(regions: int, index: int) -> Callable[[Array], Array]:
    return lambda sums: precision_recall_f1(sums.reshape(*sums.shape[:-1], regions, 3))[..., index].mean(axis=-1)


def _mean_share(regions: int) -> Callable[[Array], Array]:
    def value(sums: Array) -> Array:
        pairs = sums.reshape(*sums.shape[:-1], regions, 2)
        total = pairs.sum(axis=-1)
        # A resample may lack a rare region: it is left out of that resample's mean.
        with np.errstate(invalid="ignore", divide="ignore"):
            share = pairs[..., 0] / total
        return np.asarray(np.nanmean(share, axis=-1))

    return value
