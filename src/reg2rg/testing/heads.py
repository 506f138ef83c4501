"""Contract check of heads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from reg2rg.models.heads import Head, HeadInputs
from reg2rg.testing.contract import require
from reg2rg.testing.models import check_gradients, check_round_trip

_TEXTS = ("Cardiomegaly is observed.", "The heart is of normal size.", "")
_INPUTS = HeadInputs(width=16, tokens=3, image=2, regions=("heart", "lung"))


def check_head(build: Callable[[HeadInputs], Head], tolerance: float = 1e-5) -> None:
    """Check a head, or a factory of one, against the contract of `reg2rg.models.heads.Head`.

    Labels after construction; finite logits of the right shape for regions with and without tokens of the whole image;
    the same ones whatever else is in the batch (eval mode); targets of the right shape, the same for a text wherever it
    stands; no probability for what the training texts of a region never state; a gradient for every trainable
    parameter, none of which is a scalar; a state dict that restores the logits and what was learned.

    Args:
        build: makes the head; called several times.
        tolerance: largest difference between a region alone and the same region in a batch.

    Raises:
        ContractError: naming the first part that is broken.
    """
    torch.manual_seed(0)
    for inputs in (_INPUTS, HeadInputs(16, 3, 0, _INPUTS.regions), HeadInputs(16, 0, 2, _INPUTS.regions)):
        head = build(inputs).eval()
        require(isinstance(head, Head), head, "type", "no subclass of reg2rg.models.heads.Head", "one")
        found = f"{len(head.labels)} of which {len(set(head.labels))} differ"
        require(0 < len(head.labels) == len(set(head.labels)), head, "labels", found, "distinct names")
        given = _given(inputs, 5)
        with torch.no_grad():
            logits = head(*given)
            shape = (5, len(head.labels))
            require(tuple(logits.shape) == shape, head, "shape", str(tuple(logits.shape)), str(shape))
            require(bool(logits.isfinite().all()), head, "logits", "inf or nan", "finite numbers")
            alone = torch.cat([head(*(part[row : row + 1] for part in given)) for row in range(5)])
        gap = float((alone - logits).abs().max())
        require(gap <= tolerance, head, "batch composition", f"logits that move by {gap:.2g} with it", "none")
    head, given = build(_INPUTS), _given(_INPUTS, 5)
    _check_targets(head)
    check_gradients(head, lambda: head(*given))
    head.eval()
    _check_learning(head, given)
    check_round_trip(head, lambda: build(_INPUTS), lambda copy: _shares(copy, given))


def _given(inputs: HeadInputs, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens, image = torch.randn(count, inputs.tokens, inputs.width), torch.randn(count, inputs.image, inputs.width)
    return tokens, image, torch.arange(count) % len(inputs.regions)


def _shares(head: nn.Module, given: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    assert isinstance(head, Head)
    return head.probabilities(head(*given), given[2])


def _check_targets(head: Head) -> None:
    told = head.targets(_TEXTS)
    shape = (len(_TEXTS), len(head.labels))
    found = f"{told.dtype} {told.shape}"
    require(told.shape == shape and told.dtype == np.bool_, head, "targets", found, f"bool {shape}")
    again = head.targets(_TEXTS[::-1])[::-1]
    require(bool((again == told).all()), head, "targets", "those that depend on other texts", "a text's own")


def _check_learning(head: Head, given: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    stated = np.full((len(_INPUTS.regions), len(head.labels)), 40)
    stated[0, 0] = 0
    head.learn(stated, np.full(len(_INPUTS.regions), 100))
    require(bool(head.learned), head, "learned after `learn`", "false", "true; call the learn of the base class")
    with torch.no_grad():
        shares = head.probabilities(head(*given), given[2])
    never, others = shares[given[2] == 0, 0], shares[given[2] == 1]
    require(not never.any(), head, "probability of what a region never has", f"{float(never.max()):.3f}", "0")
    require(bool((others > 0).all()), head, "probability of what a region has", "0", "above 0")
