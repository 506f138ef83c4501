"""A cache of keys and values whose memory is taken once, for a batch whose rows end one after another."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class ReservedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed here
    """Keys and values of one layer in buffers that are allocated once, instead of being copied at each token.

    Args:
        reserve: tokens to hold room for behind the prompt.
        turned: let memory run along positions instead of along the width of a head, as `row_attention` reads it.
    """

    def __init__(self, reserve: int, turned: bool = False) -> None:
        super().__init__()
        self.reserve, self.turned = reserve, turned
        self._buffers: tuple[Tensor, Tensor] | None = None

    def place(self, at: list[int], rows: int, length: int, key_states: Tensor, value_states: Tensor) -> None:
        """Take in what some prompts gave, (n, heads, their length, width): the ends of n of `rows` rows of `length`."""
        if self._buffers is None:
            self.lazy_initialization(key_states, value_states)
            # Zeros: nothing looks at what stands before a shorter prompt, but a NaN there would come through.
            keys, values = (self._zeros(states, rows, length + self.reserve) for states in (key_states, value_states))
            self._buffers = keys, values
            self.keys, self.values = keys[:, :, :length], values[:, :, :length]
        start = length - key_states.shape[-2]
        self.keys[at, :, start:], self.values[at, :, start:] = key_states, value_states

    def _zeros(self, states: Tensor, rows: int, length: int) -> Tensor:
        heads, width = states.shape[1], states.shape[3]
        if self.turned:
            return states.new_zeros(rows, heads, width, length).transpose(2, 3)
        return states.new_zeros(rows, heads, length, width)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, heads, new, width) and return everything so far."""
        new = key_states.shape[-2]
        before = self.get_seq_length()
        if self._buffers is None or before + new > self._buffers[0].shape[-2]:
            self._buffers = self._grown(key_states, value_states, before + new + self.reserve)
        keys, values = self._buffers
        keys[:, :, before : before + new] = key_states
        values[:, :, before : before + new] = value_states
        self.keys, self.values = keys[:, :, : before + new], values[:, :, : before + new]
        return (key_states, value_states) if before == 0 else (self.keys, self.values)

    def _grown(self, key_states: Tensor, value_states: Tensor, length: int) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        grown = []
        for states, so_far in ((key_states, self.keys), (value_states, self.values)):
            rows, heads, _, width = states.shape
            buffer = states.new_empty(rows, heads, length, width)
            if so_far.numel():
                buffer[:, :, : so_far.shape[-2]] = so_far
            grown.append(buffer)
        return grown[0], grown[1]

    def forked(self, row: int) -> DynamicLayer:
        """A plain layer with a copy of one row."""
        layer = DynamicLayer()
        layer.update(self.keys[row : row + 1], self.values[row : row + 1])
        return layer

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, or repeat them: none is copied but those that move, in an order of `closed_up`."""
        if self._buffers is not None:
            length = self.get_seq_length()
            self._buffers = reordered(self._buffers, beam_idx, length)
            self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def reordered(buffers: tuple[Tensor, Tensor], order: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Keys and values with their rows in another order: some of them, or some repeated.

    Args:
        buffers: (B, heads, L, width) each.
        order: (R,) for each row that is wanted the one that it was.
        length: positions that are filled.

    Returns:
        (R, heads, L, width) each; the buffers themselves where each row can be moved before it is written over, as in
        any order that `closed_up` gives, of which few rows move.
    """
    rows = order.tolist()
    if any(row < place for place, row in enumerate(rows)):
        return buffers[0][order], buffers[1][order]
    for place, row in enumerate(rows):
        if place != row:
            for buffer in buffers:
                buffer[place, :, :length] = buffer[row, :, :length]
    return buffers[0][: len(rows)], buffers[1][: len(rows)]


def reserved_cache(config: Any, reserve: int, turned: bool = False) -> DynamicCache:
    """A cache for a model of `config`; layers with a sliding window keep the class that they need."""
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer(reserve, turned) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if not cache.layers:
        cache.layer_class_to_replicate = lambda: ReservedLayer(reserve, turned)
    return cache


def forked(cache: DynamicCache, row: int) -> DynamicCache:
    """A cache of one row, to read on beside it; its rows may be repeated by `reorder_cache`."""
    fork = copy.copy(cache)
    fork.layers = [layer.forked(row) if hasattr(layer, "forked") else _alone(layer, row) for layer in cache.layers]
    return fork


def _alone(layer: Any, row: int) -> Any:
    layer = copy.deepcopy(layer)
    layer.reorder_cache(torch.tensor([row]))
    return layer


def closed_up(places: Sequence[int]) -> list[int]:
    """The order in which rows that go on stay where they are, and the last ones fill what the others left.

    >>> closed_up([0, 2, 3, 4])
    [0, 4, 2, 3]
    """
    count, last = len(places), sorted(places)
    return [place if place in places else last.pop() for place in range(count)]
