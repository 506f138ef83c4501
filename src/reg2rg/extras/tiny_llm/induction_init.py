"""Weights with which a small transformer looks things up from its first step on.

To name region 3, a decoder has to find what stands behind 'The region 3 is' in its prompt: one layer must tell each
position what stood shortly before it, a later one must compare that with the question. Small transformers learn the
pair late and suddenly, after a plateau, since neither half earns anything without the other. Like mimetic
initialisation (Trockman and Kolter, 2023), this starts both halves near what training would find; no data are involved:

- layer 0, head h looks back by a fixed offset (through biases of queries and keys, which rotary positions turn into a
  function of distance) and writes what stood there into a subspace of its own;
- layer 1, head h compares the subspace of the token just before (the question) with the one of its offset (the places),
  on the slow rotary frequencies, and copies what it finds;
- layer 2, half of the heads look for the last question (by a cue that stands before each) and copy what it found, so
  that a whole paragraph knows its region's words and not its first one alone; where it is told what ends a sentence,
  the other half look for words that began one shortly before, and take them away, so that a paragraph goes on to what
  it has not said yet;
- the output head starts as the scaled token table, so that what is copied gains in probability.

Training is free to change all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

OFFSETS = (1, 3, 4, 5, 6, 7, 8, 9)
"""Distances of the heads. 1 is the question's ('3 is'); 3 is an opening tag's ('3 is _ <open>'), then come slots."""

SHARPNESS = 22.0
"""Logit of a layer-0 head at its offset, over that of far tokens on average."""
MATCH = 1.5
"""Gain of queries and keys in layer 1."""
COPY = 1.0
"""Gain of what layer 1 copies."""
OUTPUT = 0.15
"""Output head, as a share of the token table (whose rows have unit variance)."""
CUE_OFFSET = 3
"""Distance of the cue from the question's end ('region _ 3 is')."""
RECALL = 4.0
"""Gain of the cue in layer 2."""
CARRY = 8.0
"""Gain of what layer 2 copies."""
HOLD_BACK = 4.0
"""Gain of what layer 2 takes away: the words that began a sentence of the paragraph."""
REACH = 400
"""Distance in tokens over which a match must survive rotation."""


def start_lookup(
    model: Any,
    generator: torch.Generator,
    numbers: Sequence[int] = (),
    cue: int | None = None,
    offsets: Sequence[int] = OFFSETS,
    ends: Sequence[int] = (),
) -> None:
    """Set the weights of a fresh `LlamaForCausalLM` with attention biases and untied embeddings in place.

    Args:
        model: at least two layers; one offset a head is used, in turn.
        generator: of the random projections.
        numbers: ids of the tokens that number regions; they start orthogonal and are what is compared. As many as fit.
        cue: id of the token `CUE_OFFSET` before the end of each question; ``None`` sets nothing in layer 2.
        offsets: see `OFFSETS`; the first is the question's.
        ends: ids of tokens that a sentence begins behind; none of them, no heads that take away.

    Raises:
        ValueError: fewer than two layers.
    """
    config = model.config
    if config.num_hidden_layers < 2:
        raise ValueError("a look-up needs two layers of attention")
    width, heads, head_dim = config.hidden_size, config.num_attention_heads, config.head_dim
    frequencies = model.model.rotary_emb.inv_freq.float().cpu()
    half = head_dim // 2
    slow = [i for i in range(half) if frequencies[i] * REACH < 1.2]
    dims = torch.tensor(slow + [half + i for i in slow])
    basis = _orthogonal(width, width, generator)
    subspaces = [basis[i : i + len(dims)] for i in range(0, width - len(dims) + 1, len(dims))]
    with torch.no_grad():
        table = model.model.embed_tokens.weight
        table.copy_(torch.randn(table.shape, generator=generator))
        special = [*([] if cue is None else [cue]), *numbers][: len(dims)]
        content = _orthogonal(len(dims), width, generator)
        table[special] = content[: len(special)] * math.sqrt(width)
        model.lm_head.weight.copy_(table * OUTPUT)
        back, match = model.model.layers[0].self_attn, model.model.layers[1].self_attn
        for head in range(heads):
            rows = slice(head * head_dim, (head + 1) * head_dim)
            query, key = _offset_biases(offsets[head % len(offsets)], frequencies, head_dim)
            back.q_proj.bias[rows], back.k_proj.bias[rows] = query, key
            space = subspaces[head % len(subspaces)]
            back.v_proj.weight[rows] = _padded(content, head_dim)
            back.o_proj.weight[:, rows] = _padded(space, head_dim).T
            # Head h of layer 1 finds places by the subspace of head h + 1 of layer 0; all ask by that of head 0.
            found = subspaces[(head + 1) % heads % len(subspaces)]
            match.q_proj.weight[rows][dims] += MATCH * subspaces[0]
            match.k_proj.weight[rows][dims] += MATCH * found
            copied = _orthogonal(head_dim, width, generator)
            match.v_proj.weight[rows] = copied
            match.o_proj.weight[:, rows] = COPY * copied.T
        if cue is not None and config.num_hidden_layers > 2:
            direction = subspaces[list(offsets).index(CUE_OFFSET) % len(subspaces)][0]
            _start_recall(
                model.model.layers[2].self_attn, direction, frequencies, head_dim, range(heads // 2), basis, CARRY
            )
            if ends and len(dims) < head_dim and len(dims) * min(heads, len(subspaces)) < width:
                _hold_back(model, table[list(ends)], offsets.index(1), len(dims), frequencies, basis)


def _hold_back(model: Any, ends: Tensor, head: int, row: int, frequencies: Tensor, basis: Tensor) -> None:
    """Half of the heads of layer 2 attend to what stands behind one of the tokens (T, E) nearby, and take it away.

    The head of layer 0 that looks back by one says where that is, in a direction that is no part of what layer 1
    compares: ends of sentences are no places to look up.
    """
    heads, head_dim = model.config.num_attention_heads, model.config.head_dim
    back, place = model.model.layers[0].self_attn, head * head_dim + row
    back.v_proj.weight[place] = F.normalize(ends, dim=1).sum(0)
    back.o_proj.weight[:, place] = basis[-1]
    last = range(heads // 2, heads)
    _start_recall(model.model.layers[2].self_attn, basis[-1], frequencies, head_dim, last, basis, -HOLD_BACK)


def _start_recall(
    attention: Any, cue: Tensor, frequencies: Tensor, head_dim: int, heads: Sequence[int], basis: Tensor, gain: float
) -> None:
    """Some heads attend to the last positions that hold the direction `cue`, and copy them whole, times `gain`."""
    near = [i for i in range(head_dim // 2) if 0.001 < frequencies[i] < 0.04]
    size = math.sqrt(RECALL)
    for place, head in enumerate(heads):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        query, key = torch.zeros(head_dim), torch.zeros(head_dim, len(cue))
        query[near], key[near] = size, size * cue
        attention.q_proj.bias[rows], attention.k_proj.weight[rows] = query, key
        block = basis[torch.arange(place * head_dim, (place + 1) * head_dim) % len(basis)]
        attention.v_proj.weight[rows], attention.o_proj.weight[:, rows] = block, gain * block.T


def _offset_biases(offset: int, frequencies: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Constant query and key whose rotated product peaks at distance `offset`: a sum of cosines around it."""
    half = head_dim // 2
    fast = [i for i in range(half) if frequencies[i] > 0.04]
    size = math.sqrt(SHARPNESS * math.sqrt(head_dim) / len(fast))
    query, key = torch.zeros(head_dim), torch.zeros(head_dim)
    for i in fast:
        angle = float(frequencies[i]) * offset
        query[i] = size
        key[i], key[half + i] = size * math.cos(angle), size * math.sin(angle)
    return query, key


def _orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rows, columns) with orthonormal rows, or columns where there are fewer of them."""
    tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    orthonormal: Tensor = torch.linalg.qr(tall).Q
    return orthonormal if rows >= columns else orthonormal.T


def _padded(matrix: Tensor, rows: int) -> Tensor:
    """`matrix` (r, c) with zero rows below, up to (rows, c)."""
    return torch.cat([matrix, matrix.new_zeros(rows - len(matrix), matrix.shape[1])])
