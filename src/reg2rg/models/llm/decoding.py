"""Decoding of a batch over a Hugging Face causal language model, without what a general generator carries along.

Each prompt is read once, by itself, and of prompts that begin alike the beginning once; keys and values of all stand
left-padded in buffers with room for the whole answers, or once for all answers to one prompt (`shared_prompts`); a row
that ends leaves the batch. Greedy tokens equal those of ``model.generate(do_sample=False)``; those
drawn have the probabilities of ``model.generate(do_sample=True)``, and what a row draws does not depend on the others.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from reg2rg.models.llm.base import END, Branches, Decoding, Generation, Guide, Sampling
from reg2rg.models.llm.cache import closed_up, forked
from reg2rg.models.llm.decode_attention import reads_rows, row_attention
from reg2rg.models.llm.reading import Beginning, Reader, beginnings, cache_argument, left_padded, read_prompts, takes
from reg2rg.models.llm.shared_prompts import attending, shared_cache

_RESERVED = 64
"""Tokens, at most, that answers to shared prompts hold room for from the start."""


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


@torch.no_grad()
def generated(
    model: nn.Module,
    embeddings: Tensor,
    attention_mask: Tensor,
    eos: frozenset[int],
    decoding: Decoding,
    guides: Sequence[Guide] = (),
    names: Sequence[str] = (),
    prompts: Sequence[int] = (),
    shares: Callable[[], bool] | None = None,
) -> list[Generation]:
    """Decode a batch.

    Args:
        model: a Hugging Face causal language model in eval mode.
        embeddings: (B, L, E) prompts, padded on either side.
        attention_mask: (B, L), 1 at real positions.
        eos: ids that end an answer.
        decoding: limits, and whether tokens are drawn.
        guides: one an answer; without them answers are free.
        names: of the answers; what an answer draws follows from its name.
        prompts: for each answer the row of its prompt; its own row if not given.
        shares: asked where answers have a prompt, or prompts their beginning in common: whether the model may read and
            keep that once (`reg2rg.models.llm.family.shares_prompts`); never if not given.
    """
    inputs, mask = left_padded(embeddings, attention_mask)
    rows = list(prompts) or list(range(len(inputs)))
    names = names or [str(row) for row in range(len(rows))]
    draws = None if decoding.sampling is None else _Draws(decoding.sampling, names)
    guides = guides or [FreeAnswer(decoding) for _ in names]
    begun = beginnings(inputs, mask) if shares is not None else []
    like = [begun[row].like for row in rows] if begun else rows  # prompts that are equal are one
    common = len(set(like)) < len(rows) or any(one.length for one in begun)
    if shares is None or not common or not shares():
        begun = [Beginning(row) for row in range(len(inputs))]
    elif len(set(like)) < len(rows):
        return _shared(model, inputs, mask, like, _Rows(guides, eos, draws), begun)
    cache, logits = read_prompts(model, inputs, mask, decoding.max_new_tokens, rows, begun)
    with row_attention(model) if reads_rows(model, inputs) else nullcontext():
        _write_answers(model, cache, logits, mask[rows], _Rows(guides, eos, draws))
    return [Generation(guide.ids, guide.truncated) for guide in guides]


def _shared(
    model: Any, inputs: Tensor, mask: Tensor, rows: list[int], answers: _Rows, begun: Sequence[Beginning]
) -> list[Generation]:
    """Answers of which some have a prompt in common; `generated` says of what."""
    asked = sorted(set(rows))
    read = Reader(model, inputs, mask, begun)
    found = [read(row) for row in asked]
    at = [asked.index(row) for row in rows]
    reserve = max(guide.most for guide in answers.guides)
    cache = shared_cache([own for own, _ in found], at, min(reserve, _RESERVED))
    logits = torch.stack([found[place][1] for place in at])
    lengths = mask.sum(1)[rows]
    with attending(model):
        _write_answers(model, cache, logits, None, answers, lengths)
    return [Generation(guide.ids, guide.truncated) for guide in answers.guides]


def one_by_one(
    model: nn.Module,
    embeddings: Tensor,
    attention_mask: Tensor,
    eos: frozenset[int],
    decoding: Decoding,
    guides: Sequence[Guide] = (),
    names: Sequence[str] = (),
    prompts: Sequence[int] = (),
    shares: Callable[[], bool] | None = None,
) -> list[Generation]:
    """Decode the answers of a batch each alone, for models that mind padding; see `generated`."""
    rows = list(prompts) or list(range(len(embeddings)))
    answers = []
    for place, name in enumerate(names or [str(place) for place in range(len(rows))]):
        alone = attention_mask[rows[place]].bool()
        inputs, mask = embeddings[rows[place], alone][None], attention_mask[rows[place], alone][None]
        answers += generated(model, inputs, mask, eos, decoding, guides[place : place + 1], [name])
    return answers


def _write_answers(
    model: Any, cache: DynamicCache, logits: Tensor, mask: Tensor | None, rows: _Rows, lengths: Tensor | None = None
) -> None:
    """Append tokens to `rows` until all have ended.

    Args:
        model: reads them.
        cache: of the prompts.
        logits: (B, V) behind the prompts.
        mask: (B, L) of prompts that are padded on the left, or ``None`` where the cache holds no padding.
        rows: of B answers.
        lengths: (B,) of the prompts, where there is no mask.
    """
    limit = max(guide.most for guide in rows.guides)
    if mask is None:
        assert lengths is not None
        positions = lengths[:, None] + torch.arange(limit, device=lengths.device)
        seen: Tensor | None = None
    else:
        prompt = mask.shape[1]
        mask = torch.cat([mask, mask.new_ones(len(mask), limit)], dim=1)
        positions = (mask.cumsum(1) - 1).clamp_(min=0)[:, prompt:]
    for step in range(limit):
        seen = None if mask is None else mask[:, : prompt + step + 1]
        beside = functools.partial(_Beside, model, cache, seen, positions[:, step])
        chosen = rows.choose(logits, beside)
        places = rows.take(chosen)
        if not places:
            return
        tokens = torch.tensor([chosen[place] for place in places], device=logits.device)
        if len(places) < len(chosen):
            keep = torch.tensor(places, device=tokens.device)
            cache.reorder_cache(keep)
            positions = positions[keep]
            mask = None if mask is None else mask[keep]
        seen = None if mask is None else mask[:, : prompt + step + 1]
        logits = _next_logits(model, cache, tokens, seen, positions[:, step])


def _next_logits(model: Any, cache: DynamicCache, tokens: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
    """Logits (n, V) behind one more token (n,) a row, at its position (n,), under the mask (n, L) that includes it."""
    feed = {"position_ids": positions[:, None]} if takes(model, "position_ids") else {}
    options = {"attention_mask": mask, cache_argument(model): cache, "use_cache": True}
    logits: Tensor = model(input_ids=tokens.unsqueeze(1), **options, **feed).logits[:, -1]
    return logits


class _Beside:
    """Reads tokens behind an answer without writing them: `Branches` over a copy of one row's cache."""

    def __init__(self, model: Any, cache: DynamicCache, mask: Tensor | None, positions: Tensor, place: int) -> None:
        self._model, self._cache = model, forked(cache, place)
        self._mask = None if mask is None else mask[place : place + 1]
        self._position = positions[place : place + 1]
        self._own: list[tuple[DynamicCache, _State]] = [(self._cache, own)] if (own := _own_state(model)) else []

    def __call__(self, parents: Sequence[int], tokens: Sequence[int]) -> Tensor:
        device = self._position.device
        read = torch.tensor(list(tokens), device=device)
        if self._own:
            logits = self._one_by_one(parents, read)
        else:
            self._cache.reorder_cache(torch.tensor(list(parents), device=device))
            mask = None if self._mask is None else self._mask.expand(len(tokens), -1)
            positions = self._position.expand(len(tokens))
            logits = _next_logits(self._model, self._cache, read, mask, positions)
        if self._mask is not None:
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
