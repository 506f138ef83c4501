"""Keeps a step that is not finite away from the weights, and ends a run in which there is one after another."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from reg2rg.core.errors import Reg2RGError
from reg2rg.data.batch import Batch
from reg2rg.data.prompt import IGNORED

log = logging.getLogger(__name__)

IN_A_ROW = 3


class NonFiniteLossError(Reg2RGError):
    """The loss or its gradient was NaN or infinite several times in a row; the message names the studies."""


class StepGuard:
    """Looks at the losses and gradients of one optimiser step, which may have several batches.

    Attributes:
        skipped: steps skipped so far in the run.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._in_a_row = 0
        self._losses_are_finite = True
        self._suspects: list[str] = []

    def see(self, batch: Batch, nll: Tensor, total: Tensor) -> bool:
        """Look at the loss of one batch.

        Args:
            batch: the batch.
            nll: (K,) its losses on this process.
            total: their sum over all processes, so that all come to the same verdict.

        Returns:
            whether it is finite.
        """
        finite = bool(torch.isfinite(total))
        if not finite:
            self._losses_are_finite = False
            self._suspects += _non_finite_studies(batch, nll)
        return finite

    def clear(
        self, optimizer: Optimizer, step: int, check_gradients: bool = True, agreed: Callable[[bool], bool] = bool
    ) -> None:
        """Before a step: take the gradients away if something is not finite; AdamW then changes nothing.

        Args:
            optimizer: holds the parameters.
            step: number of the step, for messages.
            check_gradients: also look at the gradients. Off for float16, whose loss scaling makes infinite ones on
                purpose and skips their steps by itself.
            agreed: what all processes make of one's verdict, where each has a share of the gradients.

        Raises:
            NonFiniteLossError: the third such step in a row.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        finite = self._losses_are_finite
        if finite and check_gradients and gradients:
            finite = math.isfinite(float(torch.nn.utils.get_total_norm(gradients)))
        finite = agreed(finite)
        if not finite:
            for parameter in parameters:
                parameter.grad = None
        self.count(finite, step)

    def count(self, finite: bool, step: int) -> None:
        """Count a step that was or will be taken, or was skipped.

        Args:
            finite: it is taken.
            step: number of the step, for messages.

        Raises:
            NonFiniteLossError: the third in a row that is not.
        """
        suspects, self._suspects, self._losses_are_finite = self._suspects, [], True
        if finite:
            self._in_a_row = 0
            return
        self.skipped += 1
        self._in_a_row += 1
        studies = ", ".join(dict.fromkeys(suspects)) or "none by itself: the gradient is at fault"
        log.warning("Step %d was skipped: loss or gradient not finite. Studies: %s", step, studies)
        if self._in_a_row >= IN_A_ROW:
            raise NonFiniteLossError(
                f"loss or gradient were not finite {self._in_a_row} times in a row, the last time at step {step} "
                f"(studies: {studies}). The weights are those from before. Fix: look at these studies with "
                "`reg2rg data check`, lower model.optimizer.lr, or use bf16 instead of fp16"
            )


def _non_finite_studies(batch: Batch, nll: Tensor) -> list[str]:
    """Studies of a batch whose own losses are not finite."""
    row_of_label = (batch.labels != IGNORED).nonzero(as_tuple=True)[0]
    rows = row_of_label[~torch.isfinite(nll.detach())].tolist()
    return [batch.study_ids[row] for row in dict.fromkeys(rows)]
