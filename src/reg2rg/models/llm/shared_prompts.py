"""Answers that have a prompt in common: its keys and values are kept once, and read once a step for all of them.

An answer's own tokens have keys and values of their own. Attention over a prompt is one product for all its answers,
where rows with copies would read the prompt once each; what is bound by memory becomes bound by arithmetic.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from reg2rg.models.llm.cache import reordered
from reg2rg.models.llm.decode_attention import EXTRAS

_NAME = "reg2rg_shared_prompts"
_BESIDE = 8  # tokens that branches of a name hold room for at first


class SharedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed here
    """Keys and values of one layer: of each prompt once, and of each row's own tokens.

    Args:
        prompts: keys and values (1, heads, P, width) of each prompt; of several lengths.
        rows: for each row its prompt.
        reserve: tokens to hold room for in each row.
    """

    def __init__(self, prompts: Sequence[tuple[Tensor, Tensor]], rows: Sequence[int], reserve: int) -> None:
        super().__init__()
        self.prompts, self.reserve = prompts, reserve
        self._answer(rows)
        keys, values = prompts[0]
        self.lazy_initialization(keys, values)
        self._buffers = self._empty(keys, reserve), self._empty(values, reserve)
        self.keys, self.values = (buffer[:, :, :0] for buffer in self._buffers)

    def _answer(self, rows: Sequence[int]) -> None:
        self.rows = list(rows)
        mine = {prompt: [place for place, one in enumerate(rows) if one == prompt] for prompt in sorted(set(rows))}
        self._groups: list[tuple[int, Any]] = [
            (prompt, places if len(mine) > 1 else slice(None)) for prompt, places in mine.items()
        ]

    def _empty(self, like: Tensor, length: int) -> Tensor:
        return like.new_empty(len(self.rows), like.shape[1], length, like.shape[3])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, heads, new, width) and return the rows' own tokens so far."""
        before, new = self.keys.shape[-2], key_states.shape[-2]
        if before + new > self._buffers[0].shape[-2]:
            larger = tuple(self._empty(buffer, before + new + self.reserve) for buffer in self._buffers)
            larger[0][:, :, :before], larger[1][:, :, :before] = self.keys, self.values
            self._buffers = larger[0], larger[1]
        keys, values = self._buffers
        keys[:, :, before : before + new], values[:, :, before : before + new] = key_states, value_states
        self.keys, self.values = keys[:, :, : before + new], values[:, :, : before + new]
        vars(self.keys)["of_layer"] = weakref.ref(self)  # by which `_attend` knows whose they are
        return self.keys, self.values

    def forked(self, row: int) -> SharedLayer:
        """A layer of one row, with a copy of its own tokens."""
        layer = SharedLayer(self.prompts, [self.rows[row]], min(self.reserve, _BESIDE))
        if self.keys.shape[-2]:
            layer.update(self.keys[row : row + 1], self.values[row : row + 1])
        return layer

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep some rows, or repeat them."""
        self._answer([self.rows[row] for row in beam_idx.tolist()])
        length = self.keys.shape[-2]
        self._buffers = reordered(self._buffers, beam_idx, length)
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)

    def attend(self, query: Tensor, scaling: float) -> Tensor:
        """Attention of new tokens to their prompt and to the row's own tokens up to them.

        Args:
            query: (B, heads, new, width), of the last tokens that were appended.
            scaling: of the logits.

        Returns:
            (B, heads, new, width of values).
        """
        rows, heads, new, width = query.shape
        groups, own = self.keys.shape[1], self.keys.shape[-2]
        packed = (query * scaling).view(rows, groups, -1, width)  # (B, groups, heads of a group * new, width)
        behind = torch.matmul(packed, self.keys.transpose(-1, -2))
        if new > 1:
            place = torch.arange(own, device=query.device)
            ahead = place > place[own - new :, None]
            behind.view(rows, heads, new, own).masked_fill_(ahead, float("-inf"))
        found = query.new_empty(rows, groups, packed.shape[2], self.values.shape[-1])
        for prompt, at in self._groups:
            found[at] = _attend_one(packed[at], *self.prompts[prompt], behind[at], self.values[at])
        return found.view(rows, heads, new, -1)


def _attend_one(packed: Tensor, keys: Tensor, values: Tensor, behind: Tensor, own: Tensor) -> Tensor:
    """Attention of rows that share a prompt.

    Args:
        packed: (R, groups, N, K) queries, scaled.
        keys: (1, groups, P, K) of the prompt.
        values: (1, groups, P, V) of the prompt.
        behind: (R, groups, N, T) logits of the rows' own tokens.
        own: (R, groups, T, V) their values.

    Returns:
        (R, groups, N, V).
    """
    rows, groups, count, width = packed.shape
    length = keys.shape[-2]
    together = packed.transpose(0, 1).reshape(groups, rows * count, width)
    before = torch.matmul(together, keys[0].transpose(-1, -2)).view(groups, rows, count, length).transpose(0, 1)
    weights = torch.cat([before, behind], dim=-1).softmax(-1, dtype=torch.float32).to(own.dtype)
    of_prompt = weights[..., :length].transpose(0, 1).reshape(groups, rows * count, length)
    found = torch.matmul(of_prompt, values[0]).view(groups, rows, count, -1).transpose(0, 1)
    return found + torch.matmul(weights[..., length:], own)


def shared_cache(prompts: Sequence[DynamicCache], rows: Sequence[int], reserve: int) -> DynamicCache:
    """A cache for rows that have prompts in common.

    Args:
        prompts: a cache of one row each, of plain layers.
        rows: for each row its prompt.
        reserve: tokens to hold room for behind the prompts.
    """
    cache = DynamicCache()
    cache.layers = [
        SharedLayer([(own.layers[place].keys, own.layers[place].values) for own in prompts], rows, reserve)
        for place in range(len(prompts[0].layers))
    ]
    return cache


def can_share(model: Any) -> bool:
    """Whether a family's attention may be replaced by its registered name, as `attending` does."""
    calls_registered = getattr(model, "_supports_attention_backend", False)
    return bool(calls_registered) and getattr(model.config, "_attn_implementation", None) == "sdpa"


@contextmanager
def attending(model: Any) -> Iterator[None]:
    """While active, a model's layers attend through the `SharedLayer` that gave them their keys."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    before = model.config._attn_implementation
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention function. No mask: a row's own tokens and its prompt are all that its layer holds."""
    layer = getattr(key, "of_layer", lambda: None)()
    if layer is None or dropout or any(options.get(name) is not None for name in EXTRAS):
        raise ValueError(f"{type(module).__name__} attends in a way of its own")
    found: Tensor = layer.attend(query, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return found.transpose(1, 2).contiguous(), None
