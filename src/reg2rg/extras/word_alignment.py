"""Word alignment: a training loss that lets visual tokens show at once the words that will be said of them.

An encoder that starts from nothing learns findings late when its only teacher is a language model: the gradient reaches
it through attention that does not look at it yet. Predicting which words a caption holds teaches an encoder directly
(Joulin et al., 2016, "Learning visual features from large weakly supervised data"). Here the predictor is the language
model's own token table, so that the visual tokens move to where it already reads those words from. A region's tokens
show the words of its paragraph; in a model without regions those of the whole image show the words of the report. The
target is the text that the language model is trained to write; nothing else is told. The published model has no such
loss: its encoder comes pretrained.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reg2rg.core.types import NonNegativeFloat, NonNegativeInt
from reg2rg.data.batch import Batch
from reg2rg.data.prompt import IGNORED, TAGS
from reg2rg.models.auxiliary import AuxiliaryLoss
from reg2rg.models.reporter import RegionReporter
from reg2rg.training.module import Reg2RG

log = logging.getLogger(__name__)

_NAME = "word"
_START_LOGIT = -4.0
_START_SCALE = 3.0
_BIAS_SCALE = 10.0


class WordAlignment(L.Callback):
    """Trains a `Reg2RG` with a `WordLoss` too, and at first with that alone; for encoders that start from nothing.

    Args:
        weight: of the loss; 0 leaves it out.
        steps: optimiser steps at the start that train by it alone and leave the language model out; several times
            cheaper than the others. A run on several processes with DDP then looks for parameters without a gradient
            (``find_unused_parameters``) at every step.
    """

    def __init__(self, weight: NonNegativeFloat = 0.5, steps: NonNegativeInt = 0) -> None:
        self.weight, self.steps = weight, steps

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the model its loss, once; one without visual tokens has nothing to align."""
        assert isinstance(pl_module, Reg2RG)
        reporter, counts = pl_module.reporter, pl_module.token_counts
        if stage != "fit" or not self.weight or not (counts.region or counts.global_):
            return
        known = dict(reporter.auxiliary.items()).get(_NAME)
        loss = known if isinstance(known, WordLoss) else WordLoss(len(reporter.llm.tokenizer))
        loss.weight, loss.alone = self.weight, self.steps
        reporter.auxiliary[_NAME] = loss

    def state_dict(self) -> dict[str, Any]:
        """Its settings, which a run that goes on is held against."""
        return {"weight": self.weight, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Say what differs from the checkpoint's settings."""
        if state_dict != self.state_dict():
            log.warning("WordAlignment: other settings than the checkpoint's: %s -> %s", state_dict, self.state_dict())


class WordLoss(AuxiliaryLoss):
    """Cross-entropy of each vocabulary entry's presence in a text, from the visual tokens of what it describes.

    The logit of a word is the log-sum-exp over the tokens of their scaled dot product with the word's
    embedding, plus a bias of the word: one token is enough to show it.

    Args:
        vocabulary: entries of the token table.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        # A tenth of the bias, so that one learning rate moves rare words' odds as fast as it moves everything else.
        self.bias = nn.Parameter(torch.full((vocabulary,), _START_LOGIT / _BIAS_SCALE))
        self.scale = nn.Parameter(torch.tensor([_START_SCALE]).log())  # DeepSpeed and FSDP refuse scalars

    def forward(self, reporter: RegionReporter, batch: Batch, table: Tensor) -> Tensor:
        """Each region's tokens with its paragraph; without tokens of regions the image's with the whole report."""
        counts = reporter.token_counts
        vocabulary = reporter.llm.embed(torch.arange(len(self.bias), device=table.device)[None])[0]
        is_label = batch.labels != IGNORED
        if counts.region:
            tokens = table[TAGS + len(batch) * counts.global_ :].view(-1, counts.region, table.shape[1])
            label_text = batch.label_region
        else:
            tokens = table[TAGS:].view(len(batch), counts.global_, table.shape[1])
            label_text = is_label.nonzero()[:, 0]
        return self.cross_entropy(tokens, vocabulary, batch.labels[is_label], label_text)

    def cross_entropy(self, tokens: Tensor, table: Tensor, labels: Tensor, label_text: Tensor) -> Tensor:
        """Sum over texts and vocabulary.

        Args:
            tokens: (N, T, E) visual tokens of N regions or images, as the language model gets them.
            table: (V, E) embeddings of the vocabulary; no gradient reaches them.
            labels: (K,) token ids of the targets.
            label_text: (K,) which of the N texts each belongs to; -1 belongs to none.

        Returns:
            scalar, nats.
        """
        exact = torch.promote_types(tokens.dtype, torch.float32)
        present = torch.zeros(len(tokens), len(self.bias), device=tokens.device, dtype=exact)
        belongs = label_text >= 0
        present[label_text[belongs], labels[belongs]] = 1.0
        scale = self.scale.to(exact).exp() / math.sqrt(tokens.shape[-1])
        shown = (tokens.to(exact) @ table.detach().to(exact).T) * scale  # (N, T, V)
        logits = shown.logsumexp(1) - math.log(tokens.shape[1]) + self.bias.to(exact) * _BIAS_SCALE
        return F.binary_cross_entropy_with_logits(logits, present, reduction="sum")
