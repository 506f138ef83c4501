"""Region recognition: which region the text names where which region stands.

A slot is recognised if the paragraph at this slot names the region that stands there. A slot without a valid paragraph
counts as wrong. The headline is the mean over regions, so that rare regions count alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.errors import ConfigError
from reg2rg.evaluation.bootstrap import Array, Statistic, mean_statistic
from reg2rg.evaluation.metrics.base import METRICS, Column, Metric, Scores
from reg2rg.evaluation.metrics.efficacy import figure_at, precision_recall_f1
from reg2rg.evaluation.pairs import REPEATED, Pair, chose_no_names
from reg2rg.evaluation.prefixes import published_slots
from reg2rg.evaluation.protocols import Protocol
from reg2rg.evaluation.results import REPORT, Confusion

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

NONE, UNKNOWN = "(none)", "(unknown name)"
OTHERS = (NONE, UNKNOWN, REPEATED)
"""What a slot may name that is no region; -1, -2 and -3 in `Recognition.named`."""
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
        named: (slots,) index of the region that is named, or a place of `OTHERS` counted from -1 down.
        regions: the names behind the indices.
        surplus_rows: (m,) the study of each further name: of repeated regions, and of slots that were not given.
        surplus: (m,) index of the region that it names, -2 for an unknown one.
    """

    rows: NDArray[np.intp]
    given: NDArray[np.intp]
    named: NDArray[np.intp]
    regions: tuple[str, ...]
    surplus_rows: NDArray[np.intp]
    surplus: NDArray[np.intp]


@METRICS.register
class RegionRecognition(Metric):
    """How many slots name the region that stands there, over studies, over regions, and of each region."""

    group, place, always = "regions", 60, True
    keys = ("Recognition *", "* names per report")
    logged: ClassVar = {
        "Recognition (mean over regions)": "recognition",
        "Recognition accuracy": "recognition_study",
        "Recognition recall": "recognition_{scope}",
    }
    headline = (("Recognition (mean over regions)", "Recognition accuracy"),)
    plotted = ("Recognition recall",)
    tabled = ("Recognition (mean over regions)",)

    def score(self, cohort: Cohort) -> Scores:
        """Score the names; nothing where slots are not known, or predictions chose no names."""
        found = cohort.recognition
        if found is None:
            return Scores()
        rows, shares = accuracy_by_study(found)
        statistics = recognition_statistics(found, cohort.protocol, len(cohort.pairs))
        return Scores(statistics, [Column(REPORT, "recognition", rows, shares)])


def recognise(pairs: Sequence[Pair], protocol: Protocol, regions: Sequence[str]) -> Recognition | None:
    """Read the slots of all pairs; ``None`` if no reference has slots, or if predictions chose no names.

    Raises:
        ConfigError: the protocol tells regions apart by their first words, and two have the same.
    """
    if chose_no_names(pairs) or any(pair.forced for pair in pairs):
        return None
    if protocol.reading == "published":
        return _published(pairs, regions)
    index = {name: place for place, name in enumerate(regions)} | {"": -1, REPEATED: -3}
    slots, surplus = [], []
    for row, pair in enumerate(pairs):
        for slot, region in enumerate(pair.given):
            if region in index:
                slots.append((row, index[region], index.get(pair.named[slot], -2)))
        surplus += [(row, index.get(name, -2)) for name in pair.surplus]
    return _recognition(slots, surplus, regions)


def _published(pairs: Sequence[Pair], regions: Sequence[str]) -> Recognition | None:
    words = {name.split()[0]: place for place, name in enumerate(regions)}
    slots = []
    for row, pair in enumerate(pairs):
        said = published_slots(pair.prediction)
        for slot, word in published_slots(pair.reference).items():
            if word in words:
                slots.append((row, words[word], words.get(said[slot], -2) if slot in said else -1))
    if slots and len(words) < len(regions):
        raise ConfigError(
            f"protocol paper tells regions apart by the first word of their names, and these do not differ in it: "
            f"{', '.join(regions)}. Fix: use --protocol strict, which compares full names"
        )
    return _recognition(slots, [], regions)


def _recognition(
    slots: Sequence[tuple[int, int, int]], surplus: Sequence[tuple[int, int]], regions: Sequence[str]
) -> Recognition | None:
    if not slots:
        return None
    rows, given, named = np.asarray(slots, dtype=np.intp).T
    further = np.asarray(surplus, dtype=np.intp).reshape(-1, 2).T
    return Recognition(rows, given, named, tuple(regions), further[0], further[1])


def recognition_statistics(found: Recognition, protocol: Protocol, studies: int) -> list[Statistic]:
    """Accuracy, and precision, recall and F1 over all regions and of each."""
    text = _TEXT[protocol.reading]
    right = found.given == found.named
    each = f"mean over studies of the share of slots; {text}"
    statistics = [_accuracy("Recognition accuracy", each, found.rows, right, studies)]
    counts = _counts(found, studies)
    present = [place for place in range(len(found.regions)) if (found.given == place).any()]
    # Recall cannot be raised by leaving a paragraph out; precision can, so that F1 is shown and not ranked by.
    statistics.append(
        Statistic(
            "regions",
            REPORT,
            "Recognition (mean over regions)",
            f"mean over regions of the share of their slots; {text}",
            counts[:, present][..., [0, 2]].reshape(studies, -1),
            _mean_share(len(present)),
            len(found.rows),
        )
    )
    scopes: list[tuple[str, list[int], str]] = [("", present, f"mean over regions; {text}")]
    if protocol.left_out:
        kept = [place for place in present if found.regions[place] not in protocol.left_out]
        names = " and ".join(protocol.left_out)
        if kept and len(kept) < len(present):
            scopes.append((f", without {names}", kept, f"mean over regions without {names}, as published; {text}"))
            merged, definition = _merged(found, protocol.left_out), f"{names} count as one region; {text}"
            name = f"Recognition accuracy, {names} merged"
            statistics.append(_accuracy(name, definition, found.rows, merged, studies))
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
    statistics += _names(found, protocol, studies)
    for place in present:
        units = counts[:, place]
        statistics += [
            Statistic(
                "regions",
                found.regions[place],
                f"Recognition {figure}",
                f"slots of this region; {text}",
                units,
                figure_at(i),
                int((found.given == place).sum()),
                score=figure == "recall",
            )
            for i, figure in enumerate(_FIGURES)
        ]
    return statistics


def _counts(found: Recognition, studies: int) -> Array:
    """(studies, regions, 3) rightly named, wrongly named, and not named where they stand."""
    size, right = len(found.regions), found.given == found.named
    wrong, further = ~right & (found.named >= 0), found.surplus >= 0
    parts = (
        (found.rows[right], found.given[right]),
        (
            np.concatenate([found.rows[wrong], found.surplus_rows[further]]),
            np.concatenate([found.named[wrong], found.surplus[further]]),
        ),
        (found.rows[~right], found.given[~right]),
    )
    tables = [np.bincount(row * size + place, minlength=studies * size) for row, place in parts]
    return np.stack([table.reshape(studies, size) for table in tables], axis=-1).astype(np.float64)


def _names(found: Recognition, protocol: Protocol, studies: int) -> list[Statistic]:
    """How often reports leave a name out, repeat one, or name something that was not asked for."""
    if protocol.reading == "published":
        return []
    rows = np.arange(studies)
    kinds = (
        ("Missing names per report", "slots whose region is not named at all", found.rows[found.named == -1]),
        ("Unknown names per report", "slots with a name that no region has", found.rows[found.named == -2]),
        (
            "Surplus names per report",
            "names of regions that were named before, and of slots that were named before or not given",
            found.surplus_rows,
        ),
    )
    return [
        mean_statistic(
            "regions",
            REPORT,
            name,
            text,
            rows=rows,
            values=np.bincount(which, minlength=studies).astype(np.float64),
            studies=studies,
            score=False,
        )
        for name, text, which in kinds
    ]


def confusion(found: Recognition) -> Confusion:
    """Counts of named regions by given ones."""
    columns = (*found.regions, *OTHERS)
    counts = np.zeros((len(found.regions), len(columns)), dtype=int)
    place = np.where(found.named >= 0, found.named, len(found.regions) - 1 - found.named)
    np.add.at(counts, (found.given, place), 1)
    if not counts[:, -1].any():  # only the strict reading knows repeated names
        columns, counts = columns[:-1], counts[:, :-1]
    present = [row for row in range(len(found.regions)) if counts[row].any()]
    return Confusion(
        tuple(found.regions[row] for row in present), columns, tuple(tuple(map(int, counts[row])) for row in present)
    )


def accuracy_by_study(found: Recognition) -> tuple[NDArray[np.intp], Array]:
    """Rows of the studies that have slots, and the share of these that is recognised."""
    return _shares(found.rows, found.given == found.named)


def _shares(rows: NDArray[np.intp], right: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Array]:
    slots, hits = np.bincount(rows), np.bincount(rows, weights=right)
    seen = np.flatnonzero(slots)
    return seen, hits[seen] / slots[seen]


def _accuracy(name: str, text: str, rows: NDArray[np.intp], right: NDArray[np.bool_], studies: int) -> Statistic:
    seen, shares = _shares(rows, right)
    return mean_statistic("regions", REPORT, name, text, rows=seen, values=shares, studies=studies)


def _merged(found: Recognition, names: Sequence[str]) -> NDArray[np.bool_]:
    places = [found.regions.index(name) for name in names if name in found.regions]
    both = np.isin(found.given, places) & np.isin(found.named, places)
    merged: NDArray[np.bool_] = (found.given == found.named) | both
    return merged


def _mean_figure(regions: int, index: int) -> Callable[[Array], Array]:
    return lambda sums: precision_recall_f1(sums.reshape(*sums.shape[:-1], regions, 3))[..., index].mean(axis=-1)


def _mean_share(regions: int) -> Callable[[Array], Array]:
    def value(sums: Array) -> Array:
        pairs = sums.reshape(*sums.shape[:-1], regions, 2)
        total = pairs.sum(axis=-1)
        # A resample may lack a rare region: it is left out of that resample's mean.
        seen = total > 0
        share = np.divide(pairs[..., 0], total, out=np.zeros_like(total), where=seen)
        with np.errstate(invalid="ignore"):
            return np.asarray(share.sum(axis=-1) / seen.sum(axis=-1))

    return value
