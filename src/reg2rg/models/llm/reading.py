"""Prompts of a batch read into a cache: each once, by itself, and of those that begin alike the beginning once."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from reg2rg.models.llm.cache import ReservedLayer, reserved_cache
from reg2rg.models.llm.decode_attention import reads_rows

_AT_ONCE = 2048
_WORTH = 32
"""Positions in common from which on prompts are read in two parts."""


def left_padded(embeddings: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the real positions of each row to its right end; (B, L, E), (B, L) -> the same shapes or shorter ones."""
    mask = attention_mask.bool()
    longest = int(mask.sum(1).max())
    order = torch.argsort(mask.to(torch.uint8), dim=1, stable=True)[:, mask.shape[1] - longest :]
    moved = embeddings.gather(1, order.unsqueeze(-1).expand(-1, -1, embeddings.shape[-1]))
    return moved, mask.gather(1, order).long()


def read_prompts(
    model: Any, inputs: Tensor, mask: Tensor, reserve: int, rows: list[int], begun: Sequence[Beginning]
) -> tuple[DynamicCache, Tensor]:
    """A cache of left-padded prompts, one for each of `rows`, with room for `reserve` more tokens, and logits (n, V).

    Prompts are read alone, or with others of their length: without padding attention is plainly causal (half the
    work, and no mask), and memory holds the activations of few. Layers that keep a window need all at once.
    """
    count, length = mask.shape
    turned = reads_rows(model, inputs)
    cache = reserved_cache(model.config, reserve, turned)
    name, order = cache_argument(model), torch.tensor(rows, device=inputs.device)
    if any(type(layer) is not ReservedLayer for layer in cache.layers):
        options: dict[str, Any] = {"use_cache": True, "logits_to_keep": 1}
        if takes(model, "position_ids"):
            options["position_ids"] = (mask.cumsum(1) - 1).clamp_(min=0)
        options |= {"attention_mask": mask, name: cache}
        logits = model(inputs_embeds=inputs, **options).logits[:, -1]
        if rows != list(range(count)):
            cache.reorder_cache(order)
        return cache, logits[order]
    answers = defaultdict(list)
    for place, row in enumerate(rows):
        answers[row].append(place)
    every: list[Tensor] = [inputs] * len(rows)
    for together, own, found in Reader(model, inputs, mask, begun).all(sorted(answers)):
        cache.layers = cache.layers or [ReservedLayer(reserve, turned) for _ in own.layers]
        places = [answers[row] for row in together]
        copies = [at for at, row in enumerate(together) for _ in answers[row]]
        flat = [place for own_places in places for place in own_places]
        for at, place in zip(copies, flat, strict=True):
            every[place] = found[at]
        for layer, read in zip(cache.layers, own.layers, strict=True):
            keys, values = (read.keys, read.values) if len(flat) == len(together) else _repeated(read, copies)
            layer.place(flat, len(rows), length, keys, values)
    return cache, torch.stack(every)


def _repeated(layer: Any, rows: list[int]) -> tuple[Tensor, Tensor]:
    return layer.keys[rows], layer.values[rows]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a prompt of a batch has in common with one before it.

    Attributes:
        like: the row of that prompt; its own where it begins by itself, or is not equal.
        source: the row whose beginning it has.
        length: positions in common; 0 where it begins by itself.
    """

    like: int
    source: int = 0
    length: int = 0


def beginnings(inputs: Tensor, mask: Tensor) -> list[Beginning]:
    """For each of the left-padded prompts (B, L, E), masked (B, L), what it shares with the first or the one before it.

    A beginning that is short, or less than an eighth of its prompt, is not worth the second reading.
    """
    lengths = mask.sum(1).tolist()
    pairs = [(row, other) for row in range(1, len(lengths)) for other in dict.fromkeys((row - 1, 0))]
    starts = [inputs[row, inputs.shape[1] - length :] for row, length in enumerate(lengths)]
    # One answer for all pairs: a GPU is waited for once.
    shared = torch.stack([_in_common(starts[row], starts[other]) for row, other in pairs]).tolist() if pairs else []
    by_pair = dict(zip(pairs, shared, strict=True))
    found: list[Beginning] = []
    for row, length in enumerate(lengths):
        best = Beginning(row)
        for other in dict.fromkeys((row - 1, 0)) if row else ():
            common = by_pair[row, other]
            if common == length == lengths[other]:
                best = Beginning(found[other].like)
                break
            common = min(common, length - 1)
            if common >= max(_WORTH, length // 8, best.length + 1):
                best = Beginning(row, found[other].like, common)
        found.append(best)
    return found


def _in_common(one: Tensor, other: Tensor) -> Tensor:
    """(L, E), (M, E) -> how many first positions are equal."""
    both = min(len(one), len(other))
    differ = (one[:both] != other[:both]).any(-1)
    return torch.where(differ.any(), differ.int().argmax(), both) if both else differ.new_zeros((), dtype=torch.long)


class Reader:
    """Reads prompts that are padded on the left, each once."""

    def __init__(self, model: Any, inputs: Tensor, mask: Tensor, begun: Sequence[Beginning]) -> None:
        self._model, self._inputs, self._begun = model, inputs, begun
        self._lengths = mask.sum(1).tolist()
        self._read: dict[int, tuple[DynamicCache, Tensor]] = {}
        self._kept = {one.source for one in begun if one.length}

    def all(self, rows: list[int]) -> Iterator[tuple[list[int], DynamicCache, Tensor]]:
        """Prompts of some rows, as many of one length together as are read at once, with caches and logits (n, V)."""
        alone = [row for row in rows if self._begun[row].length or row in self._kept]
        for row in alone:
            cache, logits = self(row)
            yield [row], cache, logits[None]
        others = [row for row in rows if row not in alone]
        for places in of_one_length([self._lengths[row] for row in others]):
            together = [others[place] for place in places]
            cache, logits = self._next(together, self._lengths[together[0]], DynamicCache(config=self._model.config))
            yield together, cache, logits

    def __call__(self, row: int) -> tuple[DynamicCache, Tensor]:
        """The prompt of a row, with its logits (V,)."""
        if row not in self._read:
            begun = self._begun[row]
            cache = DynamicCache(config=self._model.config)
            if begun.length:
                for place, layer in enumerate(self(begun.source)[0].layers):
                    cache.update(layer.keys[:, :, : begun.length], layer.values[:, :, : begun.length], place)
            cache, logits = self._next([row], self._lengths[row] - begun.length, cache)
            if row not in self._kept:
                return cache, logits[0]
            self._read[row] = cache, logits[0]
        return self._read[row]

    def _next(self, rows: list[int], count: int, cache: DynamicCache) -> tuple[DynamicCache, Tensor]:
        inputs = self._inputs[rows, self._inputs.shape[1] - count :]
        options = {cache_argument(self._model): cache, "use_cache": True, "logits_to_keep": 1}
        return cache, self._model(inputs_embeds=inputs, **options).logits[:, -1]


def of_one_length(lengths: list[int]) -> Iterator[list[int]]:
    """Rows of one length, as many as have `_AT_ONCE` positions together, but one at least."""
    same = defaultdict(list)
    for row, length in enumerate(lengths):
        same[length].append(row)
    for length, rows in same.items():
        count = max(1, _AT_ONCE // length)
        yield from (rows[first : first + count] for first in range(0, len(rows), count))


def takes(model: nn.Module, argument: str) -> bool:
    """Whether a model's ``forward`` has an argument."""
    return argument in inspect.signature(model.forward).parameters


def cache_argument(model: nn.Module) -> str:
    """What the model calls the cache that it is given: Transformers renames `past_key_values`, model by model."""
    return "cache" if takes(model, "cache") else "past_key_values"
