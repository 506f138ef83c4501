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

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_START_LOGIT = -4.0
_START_SCALE = 3.0
_BIAS_SCALE = 10.0


class WordAlignment(nn.Module):
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

    def forward(self, tokens: Tensor, table: Tensor, labels: Tensor, label_text: Tensor) -> Tensor:
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
