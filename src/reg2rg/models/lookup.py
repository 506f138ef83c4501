"""Rows of a table, looked up so that training gives the same weights again."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def take(table: Tensor, places: Tensor) -> Tensor:
    """``table[places]``, (V, ...) and any shape of whole numbers to (*places, ...).

    The gradient of rows that are taken more than once is summed in one order. That of ``table[places]`` is not, on a
    CPU with more than one thread: equal seeds then give other weights.
    """
    return F.embedding(places, table.flatten(1)).reshape(*places.shape, *table.shape[1:])
