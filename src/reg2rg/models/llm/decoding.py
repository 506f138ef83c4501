"""Decoding of a batch over a Hugging Face causal language model, without what a general generator carries along.

Each prompt is read once, by itself; keys and values of all stand left-padded in buffers with room for the whole
answers; a row that ends leaves the batch. Greedy tokens equal those of ``model.generate(do_sample=False)``; those
drawn have the probabilities of ``model.generate(do_sample=True)``, and what a row draws does not depend on the others.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from reg2rg.models.llm.base import END, Branches, Decoding, Generation, Guide, Sampling
from reg2rg.models.llm.cache import ReservedLayer, closed_up, forked, reserved_cache
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


class FreeAnswer:
    """An answer that is what the model likes, within limits: a `Guide` that refuses nothing."""

    def __init__(self, decoding: Decoding) -> None:
        self.ids: list[int] = []
        self.truncated = False
        self.most = decoding.max_new_tokens
        self._decoding = decoding

    def allows(self, token: int) -> bool:
        """All may come."""
        return True

    def allowed(self) -> Sequence[int] | None:
        """Anything."""
        return None

    def look(self, token: int, logits: Tensor, branches: Callable[[], Branches]) -> None:
        """Nothing is asked."""

    def take(self, token: int) -> bool:
        """Write a token; whether the answer goes on."""
        if token == END:
            return False
        limits = self._decoding
        self.ids.append(token)
        looped = limits.stop_on_loop > 1 and ends_in_loop(self.ids, limits.stop_on_loop, limits.longest_loop)
        self.truncated = looped or len(self.ids) >= self.most
        return not self.truncated


class _Rows:
    """The unfinished rows of a batch; each answer is written by its guide."""

    def __init__(self, guides: Sequence[Guide], eos: frozenset[int], draws: _Draws | None) -> None:
        self.guides, self.draws = guides, draws
        self.active = list(range(len(guides)))
        self._eos = sorted(eos)

    def choose(self, logits: Tensor, beside: Callable[[int], Branches]) -> list[int]:
        """The next token of each active row from logits (n, V), `END` where it ends.

        Args:
            logits: of the active rows.
            beside: place among the active rows -> reading beside that row.
        """
        tokens = self._pick(logits, self.active).tolist()
        for place, row in enumerate(self.active):
            guide = self.guides[row]
            token = END if tokens[place] in self._eos else tokens[place]
            if not guide.allows(token):
                token = self._another(token, logits[place], row)
            guide.look(token, logits[place], functools.partial(beside, place))
            tokens[place] = token
        return tokens

    def take(self, tokens: Sequence[int]) -> list[int]:
        """Append one token to each active row; returns the places, among the active rows, that go on, `closed_up`."""
        goes_on = [self.guides[row].take(token) for row, token in zip(self.active, tokens, strict=True)]
        places = closed_up([place for place, on in enumerate(goes_on) if on])
        self.active = [self.active[place] for place in places]
        return places

    def _pick(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        return logits.argmax(-1) if self.draws is None else self.draws(logits, rows)

    def _another(self, token: int, logits: Tensor, row: int) -> int:
        """The likeliest token, or one drawn, of those that a row's guide allows; by logits (V,)."""
        guide, left = self.guides[row], logits.clone()
        while True:
            few = guide.allowed()
            if few is not None:
                token = few[int(self._pick(logits[list(few)][None], [row]))] if few else END
            else:
                left[self._eos if token == END else token] = float("-inf")
                token = int(self._pick(left[None], [row]))
                if token in self._eos or left[token] == float("-inf"):  # the latter where nothing is left
                    token = END
            if guide.allows(token) or (token == END and few is None and not left.isfinite().any()):
                return token


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
    guides: Sequence[Guide] = (),
    names: Sequence[str] = (),
) -> list[Generation]:
    """Decode a batch.

    Args:
        model: a Hugging Face causal language model in eval mode.
        embeddings: (B, L, E) prompts, padded on either side.
        attention_mask: (B, L), 1 at real positions.
        eos: ids that end an answer.
        decoding: limits, and whether tokens are drawn.
        guides: one a row; without them answers are free.
        names: of the rows; what a row draws follows from its name.
    """
    inputs, mask = left_padded(embeddings, attention_mask)
    names = names or [str(row) for row in range(len(inputs))]
    draws = None if decoding.sampling is None else _Draws(decoding.sampling, names)
    guides = guides or [FreeAnswer(decoding) for _ in names]
    cache, logits = _read_prompts(model, inputs, mask, decoding.max_new_tokens)
    with row_attention(model) if reads_rows(model, inputs) else nullcontext():
        _write_answers(model, cache, logits, mask, _Rows(guides, eos, draws))
    return [Generation(guide.ids, guide.truncated) for guide in guides]


def one_by_one(
    model: nn.Module,
    embeddings: Tensor,
    attention_mask: Tensor,
    eos: frozenset[int],
    decoding: Decoding,
    guides: Sequence[Guide] = (),
    names: Sequence[str] = (),
) -> list[Generation]:
    """Decode the rows of a batch each alone, for models that mind padding; see `generated`."""
    answers = []
    for row, name in enumerate(names or [str(row) for row in range(len(embeddings))]):
        alone = attention_mask[row].bool()
        inputs, mask = embeddings[row, alone][None], attention_mask[row, alone][None]
        answers += generated(model, inputs, mask, eos, decoding, guides[row : row + 1], [name])
    return answers


def _write_answers(model: Any, cache: DynamicCache, logits: Tensor, mask: Tensor, rows: _Rows) -> None:
    """Append tokens to `rows` until all have ended; `logits` (B, V) stand behind the prompts of `mask` (B, L)."""
    prompt, limit = mask.shape[1], max(guide.most for guide in rows.guides)
    mask = torch.cat([mask, mask.new_ones(len(mask), limit)], dim=1)
    positions = (mask.cumsum(1) - 1).clamp_(min=0)
    for step in range(limit):
        end = prompt + step + 1
        beside = functools.partial(_Beside, model, cache, mask[:, :end], positions[:, end - 1])
        chosen = rows.choose(logits, beside)
        places = rows.take(chosen)
        if not places:
            return
        tokens = torch.tensor([chosen[place] for place in places], device=logits.device)
        if len(places) < len(chosen):
            keep = torch.tensor(places, device=tokens.device)
            cache.reorder_cache(keep)
            mask, positions = mask[keep], positions[keep]
        logits = _next_logits(model, cache, tokens, mask[:, :end], positions[:, end - 1])


def _next_logits(model: Any, cache: DynamicCache, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Logits (n, V) behind one more token (n,) a row, at its position (n,), under the mask (n, L) that includes it."""
    feed = {"position_ids": positions[:, None]} if _takes(model, "position_ids") else {}
    options = {"attention_mask": mask, cache_argument(model): cache, "use_cache": True}
    logits: Tensor = model(input_ids=tokens.unsqueeze(1), **options, **feed).logits[:, -1]
    return logits


class _Beside:
    """Reads tokens behind an answer without writing them: `Branches` over a copy of one row's cache."""

    def __init__(self, model: Any, cache: DynamicCache, mask: Tensor, positions: Tensor, place: int) -> None:
        self._model, self._cache = model, forked(cache, place)
        self._mask, self._position = mask[place : place + 1], positions[place : place + 1]
        self._own: list[tuple[DynamicCache, _State]] = [(self._cache, own)] if (own := _own_state(model)) else []

    def __call__(self, parents: Sequence[int], tokens: Sequence[int]) -> Tensor:
        device = self._mask.device
        read = torch.tensor(list(tokens), device=device)
        if self._own:
            logits = self._one_by_one(parents, read)
        else:
            self._cache.reorder_cache(torch.tensor(list(parents), device=device))
            mask, positions = self._mask.expand(len(tokens), -1), self._position.expand(len(tokens))
            logits = _next_logits(self._model, self._cache, read, mask, positions)
        self._mask = torch.cat([self._mask, self._mask.new_ones(1, 1)], dim=1)
        self._position = self._position + 1
        return logits

    def _one_by_one(self, parents: Sequence[int], tokens: Tensor) -> Tensor:
        """Of a model that keeps part of its state in its modules, which gets it back."""
        before, now = self._own, _own_state(self._model)
        self._own, logits = [], []
        for place, parent in enumerate(parents):
            cache = forked(before[parent][0], 0)
            _restore(before[parent][1])
            logits.append(_next_logits(self._model, cache, tokens[place : place + 1], self._mask, self._position))
            self._own.append((cache, _own_state(self._model)))
        _restore(now)
        return torch.cat(logits)


_State = list[tuple[nn.Module, str, Tensor]]


def _own_state(model: nn.Module) -> _State:
    """Tensors that modules keep beside parameters and buffers, as RecurrentGemma does with its recurrent state."""
    return [
        (module, name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    ]


def _restore(state: _State) -> None:
    for module, name, value in state:
        setattr(module, name, value)
