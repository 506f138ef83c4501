"""Pre-training of a tiny language model on documents of report text."""

from __future__ import annotations

import logging
import math
import random
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reg2rg.core.progress import progress
from reg2rg.extras.tiny_llm.documents import Documents, DocumentWriter

log = logging.getLogger(__name__)

NAME_WEIGHT = 4.0
"""A region's name weighs as much as this many other words: it is one of many, and the one that is looked up."""

TURN_WEIGHT = 8.0
"""So does what follows a sentence: another one, the next paragraph, or the end. That a list of findings goes on, or
that no region is left, is one word of many; with a weight of 1, one document of eight went on after its last region.
All three weigh alike: where the ends of paragraphs alone did, lists of findings ended early."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how hard.

    Attributes:
        steps: optimizer steps; the work is bounded by them.
        tokens: ids a step, about.
        lr: peak learning rate, after a warm-up of a twentieth of the steps; falls to a twentieth along a cosine.
    """

    steps: int = 500
    tokens: int = 1024
    lr: float = 4e-3


WITH_CUES = Schedule(steps=1250, tokens=1536)
"""For models that read cues: lists come late, behind all else."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One line of the learning curve.

    Attributes:
        step: optimizer steps so far.
        seconds: wall time so far.
        loss: of held-out documents with all regions and full text, nats a token.
        lookup: share of names written rightly where the name stands in the region's place; chance is 1 / regions.
        naming: the same over all names, most of which can be told from the words alone.

    Both are ``None`` for documents without regions.
    """

    step: int
    seconds: float
    loss: float
    lookup: float | None
    naming: float | None


def pretrain(
    model: Any,
    writer: DocumentWriter,
    schedule: Schedule,
    seed: int = 0,
    marks: int = 8,
    held_out: DocumentWriter | None = None,
) -> list[dict[str, float | None]]:
    """Train `model` in place; returns the learning curve. The same seed and threads give the same weights.

    Args:
        model: a Hugging Face causal language model.
        writer: of the documents.
        schedule: how long and how hard.
        seed: of the documents.
        marks: lines of the curve.
        held_out: a writer of documents that are not trained on; by default, other documents of `writer`.
    """
    rng, start, curve = random.Random(seed), time.monotonic(), []
    test = (held_out or writer).batch(random.Random(seed + 1), writer.most_regions, 4096)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.98), fused=True)
    model.train()
    with progress("language model", schedule.steps) as advance:
        for step in range(schedule.steps):
            regions = rng.randint(1, writer.most_regions)
            batch = writer.batch(rng, regions, schedule.tokens)
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr * _rate(step, schedule.steps)
            loss, _ = _loss(model, batch)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if (step + 1) * marks // schedule.steps > step * marks // schedule.steps:
                mark = Mark(step + 1, round(time.monotonic() - start, 1), *_evaluate(model, test))
                log.info("step %d: loss %.3f, look-up %s, naming %s", mark.step, mark.loss, mark.lookup, mark.naming)
                curve.append(asdict(mark))
            advance()
    return curve


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / max(1.0, steps / 20))
    return warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _loss(model: Any, batch: Documents) -> tuple[Tensor, Tensor]:
    """Weighted loss and the greedy tokens at label positions. Padding is on the right: causality hides it."""
    embedded = batch.embed(model.get_input_embeddings().weight)
    hidden = model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    labelled = batch.labels[:, 1:] != -100
    logits, labels = model.lm_head(hidden[:, :-1][labelled]), batch.labels[:, 1:][labelled]
    names, turns = (marks[:, 1:][labelled].float() for marks in (batch.names, batch.turns))
    weights = 1 + (NAME_WEIGHT - 1) * names + (TURN_WEIGHT - 1) * turns
    loss = F.cross_entropy(logits.float(), labels, reduction="none")
    return (loss * weights).sum() / weights.sum(), logits.argmax(-1)


@torch.no_grad()
def _evaluate(model: Any, batch: Documents) -> tuple[float, float | None, float | None]:
    """Loss, look-up and naming, as in `Mark`."""
    model.eval()
    loss, guesses = _loss(model, batch)
    model.train()
    labelled = batch.labels[:, 1:] != -100
    right = (guesses == batch.labels[:, 1:][labelled]).float()
    told, names = right[batch.told[:, 1:][labelled]], right[batch.names[:, 1:][labelled]]
    return round(float(loss), 4), _share(told), _share(names)


def _share(right: Tensor) -> float | None:
    return round(float(right.mean()), 4) if len(right) else None
