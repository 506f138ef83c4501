"""What an audit intervenes on: anything that gives a study's tokens and writes reports from tokens that it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from reg2rg.audit.plan import Case
from reg2rg.core.regions import RegionSet

Array = NDArray[np.float32]
TEXTURE, GEOMETRY, ATTRIBUTES = "texture", "geometry", "attributes"


@dataclass(frozen=True, slots=True)
class StudyTokens:
    """The visual tokens of one study, as the language model gets them.

    Attributes:
        study: its id.
        regions: names in slot order, R of them.
        own: part (``texture``, ``geometry``, ``attributes``) -> (R, T, E) tokens of the regions.
        image: (T, E) tokens of the whole image, or ``None``.
    """

    study: str
    regions: tuple[str, ...]
    own: Mapping[str, Array]
    image: Array | None = None

    def region(self, name: str) -> dict[str, Array]:
        """Part -> (T, E) tokens of one region."""
        slot = self.regions.index(name)
        return {part: tokens[slot] for part, tokens in self.own.items()}

    def with_region(self, name: str, parts: Mapping[str, Array]) -> Self:
        """The same with some parts of one region's tokens replaced by (T, E) others."""
        slot, own = self.regions.index(name), dict(self.own)
        for part, tokens in parts.items():
            own[part] = own[part].copy()
            own[part][slot] = tokens
        return replace(self, own=own)

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return sum(tokens.nbytes for tokens in (*self.own.values(), *([] if self.image is None else [self.image])))


@dataclass(frozen=True, slots=True)
class Emptiness:
    """Tokens of an empty view.

    Attributes:
        region: part -> (T, E).
        image: (T, E), or ``None``.
    """

    region: Mapping[str, Array] = field(default_factory=dict)
    image: Array | None = None


class Subject(Protocol):
    """A system that reports region by region and shows the tokens that it reads.

    `reg2rg.audit.model.ModelSubject` is one of a trained model. All calls give the same for the same arguments.
    """

    @property
    def cases(self) -> Sequence[Case]:
        """The studies."""

    @property
    def region_set(self) -> RegionSet:
        """Whose names the regions have."""

    def facts(self) -> dict[str, Any]:
        """What decides what it writes, plain values by name: records of another subject are not mixed with its own."""

    def able(self) -> tuple[tuple[str, ...], str]:
        """The interventions that can be made, and why the others cannot."""

    def read(self, study: str) -> StudyTokens:
        """The tokens of a study, from its scan and masks."""

    def empty(self) -> Emptiness:
        """The tokens of an empty view."""

    def noise(self, study: str, generator: np.random.Generator) -> Mapping[str, Mapping[str, Array]]:
        """Region of the study -> part -> (T, E) tokens of white noise."""

    def altered(self, study: str, how: str) -> Mapping[str, Mapping[str, Array]]:
        """Region of the study -> part -> (T, E) tokens under a changed mask; without regions whose mask vanishes."""

    def write(self, tokens: Sequence[StudyTokens], named: bool = False) -> list[tuple[str, ...]]:
        """The paragraph at each slot, ``""`` where there is none, of each study.

        Args:
            tokens: of one study or several, changed or not.
            named: the names of the regions are given, where the subject writes names.
        """
