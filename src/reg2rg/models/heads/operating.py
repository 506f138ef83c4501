"""Where a probability becomes a finding: thresholds per region and label, from validation, kept with the weights.

Counts over a fixed grid of thresholds are kept, so that any operating point can be asked for later. A label with few
positives among the validation studies borrows from all labels together: its counts stand beside `BORROWED` positives
that are found and claimed as all labels' are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from reg2rg.core.errors import ConfigError
from reg2rg.models.heads.exact import ExactBuffers

BORROWED = 8.0
"""Positives that the curve of all labels counts as beside each label's own."""
_GRID = torch.cat([torch.zeros(1), torch.linspace(-7, 7, 113).sigmoid()])  # from 0, where all that can be is named
THRESHOLDS = len(_GRID)
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What thresholds aim at.

    Attributes:
        kind: the highest F1, or so much precision or recall at the best of the other.
        target: of precision or recall.
    """

    kind: Literal["f1", "precision", "recall"]
    target: float = 0.0

    def __str__(self) -> str:
        return self.kind if self.kind == "f1" else f"{self.kind}={self.target:g}"

    @classmethod
    def of(cls, text: str) -> Self:
        """``f1``, ``precision=.9`` or ``recall=.9``.

        Raises:
            ConfigError: anything else.
        """
        found = re.fullmatch(r"(precision|recall)=(0?\.\d+|1\.0*|1)|f1", text.strip().lower())
        if found is None:
            raise ConfigError(
                f"operating point '{text}' (expected f1, or precision= or recall= with a number between 0 and 1). "
                "Fix: for example precision=0.9"
            )
        if found[1] is None:
            return cls("f1")
        return cls("precision" if found[1] == "precision" else "recall", float(found[2]))


class OperatingPoints(ExactBuffers):
    """Counts of validation over a grid of thresholds, and the thresholds that follow.

    Args:
        regions: R of the region set.
        labels: L.

    Attributes:
        found: (R, L, G) positives at or above each threshold.
        claimed: (R, L, G) all at or above it.
        present: (R, L) positives.
    """

    found: Tensor
    claimed: Tensor
    present: Tensor
    grid: Tensor

    def __init__(self, regions: int, labels: int) -> None:
        super().__init__()
        self.register_buffer("found", torch.zeros(regions, labels, THRESHOLDS))
        self.register_buffer("claimed", torch.zeros(regions, labels, THRESHOLDS))
        self.register_buffer("present", torch.zeros(regions, labels))
        self.register_buffer("grid", _GRID.clone(), persistent=False)

    @torch.no_grad()
    def count(self, probabilities: Tensor, region: Tensor, targets: Tensor, possible: Tensor) -> None:
        """Take the counts of validation.

        Args:
            probabilities: (N, L), calibrated.
            region: (N,).
            targets: (N, L) bool.
            possible: (R, L) bool, what a region can have. The rest is never named, and not claimed at a threshold of 0.
        """
        grid = self.grid.to(probabilities)
        can = possible[region]
        targets, above = targets & can, ((probabilities[..., None] >= grid) & can[..., None]).float()
        for name, counted in (("found", above * targets[..., None]), ("claimed", above), ("present", targets.float())):
            own = getattr(self, name)
            own.zero_().index_add_(0, region.to(own.device), counted.to(own.device))

    def thresholds(self, point: OperatingPoint) -> Tensor:
        """(R, L), one for each region and label; a half before anything was counted.

        A precision that no threshold reaches takes the highest one. The lowest threshold is 0, which finds everything:
        a precision that guessing reaches names all that a region can have.
        """
        total = self.present.sum()
        if not total:
            return torch.full_like(self.present, _HALF)
        share_found, share_claimed = self.found.sum((0, 1)) / total, self.claimed.sum((0, 1)) / total
        found = self.found + BORROWED * share_found
        claimed = self.claimed + BORROWED * share_claimed
        present = (self.present + BORROWED)[..., None]
        if point.kind == "f1":
            places = (2 * found / (claimed + present)).argmax(-1)
        elif point.kind == "precision":
            good = found / claimed.clamp(min=1e-9) >= point.target
            places = torch.where(good.any(-1), good.int().argmax(-1), THRESHOLDS - 1)
        else:
            good = (found / present >= point.target).flip(-1)
            places = THRESHOLDS - 1 - good.int().argmax(-1)
        return self.grid[places]
