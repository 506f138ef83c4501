"""Decoding of a batch over a Hugging Face causal language model, without what a general generator carries along.

Each prompt is read once, by itself; keys and values of all stand left-padded in buffers with room for the whole
answers; a row that ends leaves the batch. Greedy tokens equal those of ``model.generate(do_sample=False)``; those
drawn have the probabilities of ``model.generate(do_sample=True)``, and what a row draws does not depend on the others.
"""

from __future__ import annotations

import inspect
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from reg2rg.models.llm.base import Decoding, Generation, LogitsMask, Sampling
from reg2rg.models.llm.cache import ReservedLayer, closed_up, reserved_cache
from reg2rg.models.llm.decode_attention import reads_rows, row_attention

_AT_ONCE = 2048


def left_padded(embeddings: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the real positions of each row to its right end; (B, L, E), (B, L) -> the same shapes or shorter ones."""
    mask = attention_mask.bool()
    longest = int(mask.sum(1).max())
    order = torch.argsort(mask.to(torch.uint8), dim=1, stable=True)[:, mask.shape[1] - longest :]
    moved = embeddings.gather(1, order.unsqueeze(-1).expand(-1, -1, embeddings.shape[-1]))
    return moved, mask.gather(1, order).long()


def ends_in_loop(ids: Sequence[int], times: int, longest: int) -> bool:
    """Whether `ids` ends with one stretch of at most `longest` tokens written `times` times in a row.

    A stretch shorter than four tokens must fill as much as four tokens would: ``1 1 1 1`` alone is no loop yet.
    """
    for period in range(1, min(longest, len(ids) // times) + 1):
        span = period * max(times, -(-4 * times // period))
        if span <= len(ids) and ids[-1] == ids[-1 - period]:
            tail = ids[len(ids) - span :]
            if all(tail[i] == tail[i + period] for i in range(span - period)):
                return True
    return False


class _Rows:
    """The unfinished rows of a batch and the answers so far."""

    def __init__(self, batch: int, decoding: Decoding) -> None:
        self.decoding = decoding
        self.active = list(range(batch))
        self.ids: list[list[int]] = [[] for _ in range(batch)]
        self.truncated = [False] * batch

    def take(self, tokens: list[int], eos: frozenset[int]) -> list[int]:
        """Append one token to each active row; returns the places, among the active rows, that go on, `closed_up`."""
        places = []
        for place, (row, token) in enumerate(zip(self.active, tokens, strict=True)):
            if token in eos:
                continue
            answer, limits = self.ids[row], self.decoding
            answer.append(token)
            looped = limits.stop_on_loop > 1 and ends_in_loop(answer, limits.stop_on_loop, limits.longest_loop)
            if looped or len(answer) >= limits.max_new_tokens:
                self.truncated[row] = True
            else:
                places.append(place)
        places = closed_up(places)
        self.active = [self.active[place] for place in places]
        return places


def kept_probabilities(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """What may be drawn.

    Args:
        logits: (B, V).
        sampling: temperature, top-k, top-p, which act in this order.

    Returns:
        probabilities (B, K) that sum to one, falling, 0 for what is not kept; and the tokens (B, K) they belong to.
    """
    most = min(sampling.top_k, logits.shape[-1]) or logits.shape[-1]
    scores, tokens = (logits.float() / sampling.temperature).topk(most, dim=-1)
    shares = scores.softmax(-1)
    shares = shares.masked_fill(shares.cumsum(-1) - shares >= sampling.top_p, 0.0)  # the likeliest has 0 before it
    return shares / shares.sum(-1, keepdim=True), tokens


class _Draws:
    """One source of random numbers a row."""

    def __init__(self, sampling: Sampling, names: Sequence[str]) -> None:
        self.sampling = sampling
        self._sources = [random.Random(f"{sampling.seed}\x1f{name}") for name in names]  # hashed, equal everywhere

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        shares, tokens = kept_probabilities(logits, self.sampling)
        drawn = shares.new_tensor([self._sources[row].random() for row in rows]).unsqueeze(1)
        above = shares.cumsum(-1)
        place = torch.searchsorted(above, drawn * above[:, -1:], right=True)
        last = (shares > 0).sum(-1, keepdim=True) - 1
        return tokens.gather(1, torch.minimum(place, last)).squeeze(1)


def _read_prompts(model: Any, inputs: Tensor, mask: Tensor, reserve: int) -> tuple[DynamicCache, Tensor]:
    """A cache of left-padded prompts, with room for `reserve` more tokens, and the logits behind each prompt (B, V).

    Prompts are read alone, or with others of their length: without padding attention is plainly causal (half the
    work, and no mask), and memory holds the activations of few. Layers that keep a window need all at once.
    """
    rows, length = mask.shape
    turned = reads_rows(model, inputs)
    cache = reserved_cache(model.config, reserve, turned)
    options: dict[str, Any] = {"use_cache": True, "logits_to_keep": 1}
    name = cache_argument(model)
    if any(type(layer) is not ReservedLayer for layer in cache.layers):
        if _takes(model, "position_ids"):
            options["position_ids"] = (mask.cumsum(1) - 1).clamp_(min=0)
        options |= {"attention_mask": mask, name: cache}
        return cache, model(inputs_embeds=inputs, **options).logits[:, -1]
    logits: list[Tensor] = [inputs] * rows
    for together in _of_one_length(mask.sum(1).tolist()):
        start = length - int(mask[together[0]].sum())
        own = DynamicCache(config=model.config)
        output = model(inputs_embeds=inputs[together, start:], **{name: own}, **options)
        for row, found in zip(together, output.logits[:, -1], strict=True):
            logits[row] = found
        cache.layers = cache.layers or [ReservedLayer(reserve, turned) for _ in own.layers]
        for layer, found in zip(cache.layers, own.layers, strict=True):
            layer.place(together, rows, length, found.keys, found.values)
    return cache, torch.stack(logits)


def _of_one_length(lengths: list[int]) -> Iterator[list[int]]:
    """Rows of one length, as many as have `_AT_ONCE` positions together, but one at least."""
    same = defaultdict(list)
    for row, length in enumerate(lengths):
        same[length].append(row)
    for length, rows in same.items():
        count = max(1, _AT_ONCE // length)
        yield from (rows[first : first + count] for first in range(0, len(rows), count))


def _takes(model: nn.Module, argument: str) -> bool:
    return argument in inspect.signature(model.forward).parameters


def cache_argument(model: nn.Module) -> str:
    """What the model calls the cache that it is given: Transformers renames `past_key_values`, model by model."""
    return "cache" if _takes(model, "cache") else "past_key_values"


@torch.no_grad()
def generated(
    model: nn.Module,
    embeddings: Tensor,
    attention_mask: Tensor,
    eos: frozenset[int],
    decoding: Decoding,
    logits_mask: LogitsMask | None = None,
    names: Sequence[str] = (),
) -> list[Generation]:
    """Decode a batch.

    Args:
        model: a Hugging Face causal language model in eval mode.
        embeddings: (B, L, E) prompts, padded on either side.
        attention_mask: (B, L), 1 at real positions.
        eos: ids that end an answer.
        decoding: limits, and whether tokens are drawn.
        logits_mask: restricts the next token of each row.
        names: of the rows; what a row draws follows from its name.
    """
    inputs, mask = left_padded(embeddings, attention_mask)
    rows = _Rows(len(inputs), decoding)
    names = names or [str(row) for row in range(len(inputs))]
    draws = None if decoding.sampling is None else _Draws(decoding.sampling, names)
    cache, logits = _read_prompts(model, inputs, mask, decoding.max_new_tokens)
    with row_attention(model) if reads_rows(model, inputs) else nullcontext():
        _write_answers(model, cache, logits, mask, rows, eos, draws, logits_mask)
    return [Generation(ids, truncated) for ids, truncated in zip(rows.ids, rows.truncated, strict=True)]


def one_by_one(
    model: nn.Module,
    embeddings: Tensor,
    attention_mask: Tensor,
    eos: frozenset[int],
    decoding: Decoding,
    logits_mask: LogitsMask | None = None,
    names: Sequence[str] = (),
) -> list[Generation]:
    """Decode the rows of a batch each alone, for models that mind padding; see `generated`."""
    answers = []
    for row, name in enumerate(names or [str(row) for row in range(len(embeddings))]):
        allowed = None if logits_mask is None else _of_row(logits_mask, row)
        alone = attention_mask[row].bool()
        inputs, mask = embeddings[row, alone][None], attention_mask[row, alone][None]
        answers += generated(model, inputs, mask, eos, decoding, allowed, [name])
    return answers


def _of_row(logits_mask: LogitsMask, row: int) -> LogitsMask:
    """The mask of a batch as that of one of its rows."""
    return lambda step, rows, ids: logits_mask(step, [row for _ in rows], ids)


def _write_answers(
    model: Any,
    cache: DynamicCache,
    logits: Tensor,
    mask: Tensor,
    rows: _Rows,
    eos: frozenset[int],
    draws: _Draws | None,
    logits_mask: LogitsMask | None,
) -> None:
    """Append tokens to `rows` until all have ended; `logits` (B, V) stand behind the prompts of `mask` (B, L)."""
    prompt, limit = mask.shape[1], rows.decoding.max_new_tokens
    mask = torch.cat([mask, mask.new_ones(len(mask), limit)], dim=1)
    positions = (mask.cumsum(1) - 1).clamp_(min=0)
    takes_positions, name = _takes(model, "position_ids"), cache_argument(model)
    for step in range(limit):
        if logits_mask is not None:
            allowed = logits_mask(step, rows.active, [rows.ids[row] for row in rows.active])
            if allowed is not None:
                logits = logits.masked_fill(~allowed.to(logits.device), float("-inf"))
        tokens = logits.argmax(-1) if draws is None else draws(logits, rows.active)
        before = len(rows.active)
        places = rows.take(tokens.tolist(), eos)
        if not places:
            return
        if len(places) < before:
            keep = torch.tensor(places, device=tokens.device)
            cache.reorder_cache(keep)
            tokens, mask, positions = tokens[keep], mask[keep], positions[keep]
        end = prompt + step + 1
        feed = {"position_ids": positions[:, end - 1 : end]} if takes_positions else {}
        options = {"attention_mask": mask[:, :end], name: cache, "use_cache": True}
        logits = model(input_ids=tokens.unsqueeze(1), **options, **feed).logits[:, -1]
