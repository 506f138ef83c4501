"""Several texts behind one prompt, in one row: each sees the prompt and itself, at positions that follow the prompt.

A row of `blocks` says what each position is: 0 in the prompt, which stands first, then the number of the text, from 1;
-1 in padding, which stands last.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from reg2rg.core.errors import ConfigError


def block_positions(blocks: Tensor) -> Tensor:
    """Position of each token, (B, L) -> (B, L): every text goes on where the prompt ends. 0 in padding."""
    place = torch.arange(blocks.shape[1], device=blocks.device).expand_as(blocks)
    prompt = (blocks == 0).sum(1, keepdim=True)
    return torch.where(blocks == 0, place, prompt + place - _begins(blocks)).masked_fill(blocks < 0, 0)


def block_mask(blocks: Tensor) -> Tensor:
    """(B, L) -> (B, 1, L, L) bool: whether a position (third axis) sees another (fourth)."""
    place = torch.arange(blocks.shape[1], device=blocks.device)
    seen = (blocks[:, None, :] == 0) | (blocks[:, None, :] == blocks[:, :, None])
    return (seen & (place <= place[:, None])).unsqueeze(1)


def predicted_from(blocks: Tensor) -> Tensor:
    """(B, L) -> (B, L): the place whose logits predict each position; of a text's first the prompt's last."""
    place = torch.arange(blocks.shape[1], device=blocks.device).expand_as(blocks)
    prompt = (blocks == 0).sum(1, keepdim=True)
    first = (place == _begins(blocks)) & (blocks > 0)
    return torch.where(first, prompt - 1, place - 1)


def _begins(blocks: Tensor) -> Tensor:
    """(B, L) -> (B, L): where the block of each position begins."""
    place = torch.arange(1, blocks.shape[1], device=blocks.device)
    starts = torch.where(blocks[:, 1:] != blocks[:, :-1], place, 0)
    return torch.cat([torch.zeros_like(starts[:, :1]), starts], dim=1).cummax(1).values


def block_options(model: Any, blocks: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """What a Hugging Face model is told of blocks: a mask as its attention takes it, and positions."""
    mask = block_mask(blocks)
    if getattr(model.config, "_attn_implementation", None) != "sdpa":  # plain attention adds its mask to the logits
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    return {"attention_mask": mask, "position_ids": block_positions(blocks)}


def require_full_attention(model: Any, path: str, length: int) -> None:
    """Refuse a family whose layers do not all look at everything before a token, by name.

    Args:
        model: a Hugging Face causal language model.
        path: for the message.
        length: positions that it reads. A window as wide makes no difference.

    Raises:
        ConfigError: with the reason.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise refused(path, type(model).__name__, "it takes no positions, and texts behind one prompt need their own")
    if "local" in getattr(
        model.config, "attention_layers", ()
    ):  # GPT-Neo counts a row's places, whatever the mask says
        raise refused(path, type(model).__name__, "some layers of it look at a window of the row")
    for layer in DynamicCache(config=model.config).layers:
        window = getattr(layer, "sliding_window", None) if type(layer) is DynamicSlidingWindowLayer else None
        if window is not None and window < length:
            raise refused(
                path, type(model).__name__, f"layers of it look at {window} positions of {length}", "a shorter prompt"
            )
        if window is None and type(layer) is not DynamicLayer:
            kind = type(layer).__name__.removeprefix("Dynamic")
            raise refused(path, type(model).__name__, f"it has layers without full attention ({kind})")


def refused(path: str, family: str, why: str, remedy: str = "") -> ConfigError:
    """The error of a family that cannot read texts behind one prompt."""
    return ConfigError(
        f"language model {path}: {family} cannot read paragraphs that see the prompt and themselves alone: {why} "
        "(expected full attention in every layer, with a mask and positions of one's own). Fix: "
        f"{remedy + ', ' if remedy else ''}a family such as Llama, Qwen 2 or GPT-2, or task.independent_paragraphs: "
        "false"
    )


@torch.no_grad()
def reads_blocks(model: Any, embedded: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Logits of two texts behind a prompt, read in one row and one by one, (n, V) each.

    Args:
        model: in eval mode.
        embedded: prompt and two texts, (n, E) each.
    """
    prompt, *texts = embedded
    numbers = [torch.full((len(part),), number, device=prompt.device) for number, part in enumerate(embedded)]
    blocks = torch.cat(numbers)[None]
    row = torch.cat(embedded)[None]
    together = model(inputs_embeds=row, use_cache=False, **block_options(model, blocks, row.dtype)).logits[0]
    alone = []
    for text in texts:
        read = model(inputs_embeds=torch.cat([prompt, text])[None], use_cache=False).logits[0]
        alone.append(read[len(prompt) :])
    return together[len(prompt) :].float(), torch.cat(alone).float()
