"""Training losses beside the report's: a callback gives them to the model when `fit` sets up, and only training knows.

They train with the model and stand in its checkpoints, under names of their own. Folders, and models that are built to
report, go without them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from reg2rg.data.batch import Batch

if TYPE_CHECKING:
    from reg2rg.models.reporter import RegionReporter

_PREFIX = "reporter.auxiliary."


class AuxiliaryLoss(nn.Module, ABC):
    """A loss of a batch's visual tokens; logged as ``train/NAME_loss``, with the name it has among `AuxiliaryLosses`.

    Args:
        weight: of the loss, which as the others is a sum over a step's batch, divided by its label tokens.
        alone: optimiser steps at the start that leave the language model out, several times cheaper than the others.
    """

    def __init__(self, weight: float = 1.0, alone: int = 0) -> None:
        super().__init__()
        self.weight, self.alone = weight, alone

    @abstractmethod
    def forward(self, reporter: RegionReporter, batch: Batch, table: Tensor) -> Tensor:
        """Sum over the batch.

        Args:
            reporter: the model.
            batch: scaled, on its device, with targets.
            table: of `RegionReporter.visual_table`.

        Returns:
            scalar, nats.
        """


class AuxiliaryLosses(nn.ModuleDict):
    """Name -> loss; empty unless a callback puts one in."""

    @property
    def alone(self) -> int:
        """Optimiser steps at the start that leave the language model out."""
        return max((one.alone for one in self._losses().values()), default=0)

    def forward(self, reporter: RegionReporter, batch: Batch, table: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Name -> weight and loss; arguments as `AuxiliaryLoss.forward`."""
        return {name: (one.weight, one(reporter, batch, table)) for name, one in self._losses().items()}

    def _losses(self) -> dict[str, AuxiliaryLoss]:
        return cast("dict[str, AuxiliaryLoss]", dict(self.items()))


def is_auxiliary(name: str) -> bool:
    """Whether a name of a `Reg2RG`'s state is an auxiliary loss's."""
    return name.startswith(_PREFIX)
