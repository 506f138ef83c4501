"""Referring probability: how probable each name of the region set is where a frame names its region.

At each token of a frame the model's probabilities are those of the tokens that go on with some name, brought to a sum
of one; a name has the probability of all ways to write it. So decoding that is held to whole names would draw them at
temperature 1. What a token shared by several names leads to is read with the model, branch by branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from reg2rg.models.constrained.frames import Frames
from reg2rg.models.llm.base import Branches

SPARED = 1e-3
"""Probability, at most, that is spread evenly over the names of branches which are not worth a reading."""


@dataclass(frozen=True, slots=True)
class _Branch:
    parent: int
    token: int
    begun: str
    names: tuple[int, ...]
    mass: float


class Referring:
    """The distribution over names of one frame, gathered while it is written."""

    def __init__(self, frames: Frames, slot: int) -> None:
        self._frames, self._slot = frames, slot
        self._shares = [0.0] * len(frames.names)
        self._mass = 1.0
        self._seen = False

    def read(
        self, begun: str, leads: tuple[str, ...], token: int, logits: Tensor, branches: Callable[[], Branches]
    ) -> None:
        """Take in what the model says at one place of the frame.

        Args:
            begun: the frame's text so far.
            leads: see `Frames.options`.
            token: what is written next.
            logits: (V,) of the model there.
            branches: begins to read beside what is written.
        """
        options = self._frames.options(self._slot, begun, leads)
        if not options.splits or token not in options.tokens:
            return
        self._seen = True
        found = self._split(-1, begun, leads, logits, self._mass)
        ahead = [branch for branch in found if branch.token != token]
        self._explore(ahead, leads, branches)
        place = options.tokens.index(token)
        shares = _shares(logits, options.tokens)
        self._mass *= shares[place]

    def _split(self, parent: int, begun: str, leads: tuple[str, ...], logits: Tensor, mass: float) -> list[_Branch]:
        """Give tokens of one name to that name; the others are branches."""
        options = self._frames.options(self._slot, begun, leads)
        branches = []
        for token, text, names, share in zip(
            options.tokens, options.texts, options.names, _shares(logits, options.tokens), strict=True
        ):
            if len(names) == 1:
                self._shares[names[0]] += mass * share
            else:
                branches.append(_Branch(parent, token, begun + text, names, mass * share))
        return branches

    def _explore(self, branches: list[_Branch], leads: tuple[str, ...], begin: Callable[[], Branches]) -> None:
        spared, read = 0.0, None
        while branches:
            branches.sort(key=lambda branch: -branch.mass)
            while branches and spared + branches[-1].mass <= SPARED:
                last = branches.pop()
                spared += last.mass
                for name in last.names:
                    self._shares[name] += last.mass / len(last.names)
            if not branches:
                return
            read = read or begin()
            logits = read([max(branch.parent, 0) for branch in branches], [branch.token for branch in branches])
            branches = [
                below
                for place, branch in enumerate(branches)
                for below in self._split(place, branch.begun, leads, logits[place], branch.mass)
            ]

    def probabilities(self) -> dict[str, float]:
        """Name -> probability; they sum to one. Empty where nothing was read."""
        whole = self._seen and abs(sum(self._shares) - 1) < 1e-6  # not where the answer ended inside the frame
        return dict(zip(self._frames.names, self._shares, strict=True)) if whole else {}


def _shares(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    shares: list[float] = logits[list(tokens)].double().softmax(-1).tolist()
    return shares
