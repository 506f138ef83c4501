"""How somebody's files of features lie: what their axes are, and which channel of a mask file is which organ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.registry import did_you_mean
from reg2rg.core.task import Views
from reg2rg.core.types import PositiveInt

_PAIRS = ("LR", "PA", "IS")
Size = tuple[PositiveInt, PositiveInt, PositiveInt]


@dataclass(frozen=True)  # no slots: jsonargparse reads a default through vars()
class GridLayout:
    """Files of features: one array a study, or one row of an array of many.

    Attributes:
        encoder: what made the features; ``task.views.features`` says the same word.
        cells: of the grid from left to right, back to front, bottom to top, whatever their order in files.
        channels: numbers a cell.
        axes: the axes of an array in their order: ``C`` for channels, and for each other one the direction of the
            patient that it points to, as ``RASC``. Cells in one row after another, as of shape (216, 768), come in the
            order of these axes, the last one fastest. Axes of length 1 may be there or not.
        key: name of the array in .npz files of features.
        mask_axes: the same for mask files, with ``C`` for organs.
        mask_key: name of the array in .npz mask files.
        organs: what the channels of a mask file are, in their order.
        regions: region -> organs whose union it is; left out, an organ is the region of its name.
        order: what is known of the places of organs, to tell a wrong order of axes: of ``[airway, S, upper abdomen]``
            the first lies further in direction S than the last, in every patient.
    """

    encoder: str = ""
    cells: Size = (24, 24, 24)
    channels: PositiveInt = 768
    axes: str = "RASC"
    key: str = "arr"
    mask_axes: str = "CRAS"
    mask_key: str = "masks"
    organs: tuple[str, ...] = ()
    regions: dict[str, list[str]] = field(default_factory=dict)
    order: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, text in (("axes", self.axes), ("mask_axes", self.mask_axes)):
            if len(text) != 4 or text.count("C") != 1 or any(sum(one in text for one in pair) != 1 for pair in _PAIRS):
                raise ConfigError(
                    f"read.grid.{name} is {text!r} (expected C for channels and one letter each of LR, PA and IS, in "
                    "the order of the array's axes, as RASC)"
                )
        known = set(self.organs)
        if len(known) < len(self.organs):
            twice = next(name for name in self.organs if self.organs.count(name) > 1)
            raise ConfigError(f"read.grid.organs names {twice!r} twice. Fix: one name a channel")
        named = [(f"regions.{region}", organ) for region, organs in self.regions.items() for organ in organs]
        named += [("order", organ) for first, _, last in self.order for organ in (first, last)]
        for where, organ in named:
            if organ not in known:
                raise ConfigError(
                    f"read.grid.{where} names the organ {organ!r}, which is no channel of the masks."
                    f"{did_you_mean(organ, self.organs)} Known: {', '.join(self.organs) or 'none'}"
                )
        for _, direction, _ in self.order:
            if direction not in "LRPAIS" or len(direction) != 1:
                raise ConfigError(f"read.grid.order has the direction {direction!r} (expected one of L, R, P, A, I, S)")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The layout of plain values, as a config has them."""
        tuples = {name: tuple(values[name]) for name in ("cells", "organs") if name in values}
        return cls(**{**values, **tuples})

    def check(self, views: Views) -> None:
        """Refuse files of other features than a model's views are of.

        Raises:
            ConfigError: what differs.
        """
        pairs = {
            "encoder": (self.encoder, "features", views.features),
            "cells": (tuple(self.cells), "size", tuple(views.size)),
            "channels": (self.channels, "channels", views.channels),
        }
        for name, (mine, theirs, value) in pairs.items():
            if mine != value or not mine:
                raise ConfigError(
                    f"data.read.grid.{name} is {mine!r}, but task.views.{theirs} is {value!r}: features of one encoder "
                    f"are no input for a model of another. Fix: say both alike; {name}: ${{task.views.{theirs}}}"
                )

    def shape(self, axes: str, channels: int, cells: Sequence[int]) -> tuple[int, ...]:
        """Shape of an array with these axes."""
        return tuple(channels if one == "C" else cells[_axis(one)] for one in axes)

    @property
    def numbers(self) -> int:
        """Numbers of one study."""
        return math.prod(self.cells) * self.channels

    def channels_of(self, regions: RegionSet) -> Mapping[str, tuple[int, ...]]:
        """Region -> channels of the masks that make it up, in the order of the set; without those that none does.

        Raises:
            ConfigError: an unknown region, or no organ that is a region.
        """
        named = {regions.canonical(region): tuple(organs) for region, organs in self.regions.items()}
        if not self.regions:
            named = {regions.canonical(organ): (organ,) for organ in self.organs if organ in regions}
        if not named:
            raise ConfigError(
                f"read.grid: none of the organs {', '.join(self.organs) or '(none)'} is a region of the set "
                f"'{regions.name}' ({', '.join(regions.names)}). Fix: say in read.grid.regions which organs it is of"
            )
        places = {organ: place for place, organ in enumerate(self.organs)}
        return {name: tuple(places[organ] for organ in named[name]) for name in regions.names if name in named}


def _axis(letter: str) -> int:
    """The RAS axis that a direction lies along."""
    return next(place for place, pair in enumerate(_PAIRS) if letter in pair)


def to_ras(axes: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How an array with these axes becomes (R, A, S, C): its axes in that order, and which of the result to reverse."""
    order = [next(place for place, letter in enumerate(axes) if letter in pair) for pair in _PAIRS]
    flips = tuple(axis for axis, place in enumerate(order) if axes[place] not in "RAS")
    return (*order, axes.index("C")), flips


def towards(direction: str) -> tuple[int, int]:
    """RAS axis of a direction, and the sign in which it runs along it."""
    return _axis(direction), 1 if direction in "RAS" else -1
