"""Decoding of a batch over a Hugging Face causal language model, without what a general generator carries along.

The prompt is read once, left-padded; its keys and values stay in buffers with room for the whole answer; a row that
ends leaves the batch. Greedy tokens equal those of ``model.generate(do_sample=False)``; sampled ones have the
probabilities of ``model.generate(do_sample=True)``, drawn so that a row does not depend on the others.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from reg2rg.language.base import Decoding, Generation, LogitsMask, Sampling


class ReservedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed here
    """Keys and values of one layer in buffers that are allocated once, instead of being copied at each token.

    Args:
        reserve: tokens to hold room for behind the prompt.
    """

    def __init__(self, reserve: int) -> None:
        super().__init__()
        self.reserve = reserve
        self._buffers: tuple[Tensor, Tensor] | None = None

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

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, in that order."""
        if self._buffers is not None:
            length = self.get_seq_length()
            keys, values = (buffer.index_select(0, beam_idx.to(buffer.device)) for buffer in self._buffers)
            self._buffers = keys, values
            self.keys, self.values = keys[:, :, :length], values[:, :, :length]


def reserved_cache(config: Any, reserve: int) -> DynamicCache:
    """A cache for a model of `config`; layers with a sliding window keep the class that they need."""
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer(reserve) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if not cache.layers:
        cache.layer_class_to_replicate = lambda: ReservedLayer(reserve)
    return cache


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
        """Append one token to each active row; returns the places, among the active rows, that go on."""
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
    prompt = mask.shape[1]
    mask = torch.cat([mask, mask.new_ones(len(mask), decoding.max_new_tokens)], dim=1)
    positions = (mask.cumsum(1) - 1).clamp_(min=0)
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    cache = reserved_cache(model.config, decoding.max_new_tokens)
    feed: dict[str, Tensor] = {"inputs_embeds": inputs}
    for step in range(decoding.max_new_tokens):
        end = prompt + step
        if takes_positions:
            feed["position_ids"] = positions[:, end - 1 : end] if step else positions[:, :end]
        output = model(**feed, attention_mask=mask[:, :end], past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = output.logits[:, -1]
        if logits_mask is not None:
            allowed = logits_mask(step, rows.active, [rows.ids[row] for row in rows.active])
            if allowed is not None:
                logits = logits.masked_fill(~allowed.to(logits.device), float("-inf"))
        tokens = logits.argmax(-1) if draws is None else draws(logits, rows.active)
        before = len(rows.active)
        places = rows.take(tokens.tolist(), eos)
        if not places:
            break
        if len(places) < before:
            keep = torch.tensor(places, device=tokens.device)
            cache.reorder_cache(keep)
            tokens, mask, positions = tokens[keep], mask[keep], positions[keep]
        feed = {"input_ids": tokens.unsqueeze(1)}
    return [Generation(ids, truncated) for ids, truncated in zip(rows.ids, rows.truncated, strict=True)]
