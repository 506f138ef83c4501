"""The language metrics of pairs of reports, all at once: BLEU, METEOR, ROUGE and CIDEr, report by report.

How well a text resembles another says little about whether its findings are right; show these beside floors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reg2rg.evaluation.metrics.bleu import Tokens, bleu_counts, check_pairs
from reg2rg.evaluation.metrics.cider import CiderVariant, cider
from reg2rg.evaluation.metrics.meteor import meteor
from reg2rg.evaluation.metrics.rouge import rouge
from reg2rg.evaluation.metrics.synonyms import SynonymSource

__all__ = ["LanguageScores", "score_language"]


@dataclass(frozen=True, slots=True)
class LanguageScores:
    """What every report is worth, in the order in which the reports were given.

    Attributes:
        bleu_counts: (n, 10) for :func:`reg2rg.evaluation.metrics.bleu.bleu_from_counts`, single or summed.
        meteor: (n,) from 0 to 1.
        rouge: (n, 3) F of ROUGE-1, ROUGE-2 and ROUGE-L, from 0 to 1.
        cider: (n,) from 0 to 10; belongs to this very set of reports, never average it over parts of a set.
    """

    bleu_counts: NDArray[np.int64]
    meteor: NDArray[np.float64]
    rouge: NDArray[np.float64]
    cider: NDArray[np.float64]


def score_language(
    references: Sequence[str],
    predictions: Sequence[str],
    *,
    synonyms: SynonymSource = "bundled",
    lowercase: bool = False,
    stemmer: bool = False,
    cider_variant: CiderVariant = "cider-d",
    tokens: Tokens = "13a",
    progress: Callable[[str], None] | None = None,
) -> LanguageScores:
    """Score pairs of texts with every metric. The defaults are the settings of the published figures.

    Args:
        references: n texts.
        predictions: n texts, in the same order; ``""`` for a report that was not generated.
        synonyms: METEOR's, see :func:`reg2rg.evaluation.metrics.synonyms.names_of`; ``None`` makes it METEOR-es.
        lowercase: fold case for BLEU (METEOR and ROUGE ignore case, CIDEr heeds it).
        stemmer: compare Porter stems in ROUGE.
        cider_variant: see :func:`reg2rg.evaluation.metrics.cider.cider`.
        tokens: of BLEU, see :func:`reg2rg.evaluation.metrics.bleu.bleu_counts`.
        progress: called with the name of each metric before it is computed.

    Raises:
        ConfigError: the synonyms are missing.
        ValueError: the lists differ in length or hold something that is no text.
    """
    check_pairs(references, predictions)
    say = progress or (lambda _: None)
    say("METEOR")  # first: it is the one that may lack something
    meteor_scores = meteor(references, predictions, synonyms)
    say("BLEU")
    counts = bleu_counts(references, predictions, lowercase, tokens)
    say("ROUGE")
    rouge_scores = rouge(references, predictions, stemmer)
    say("CIDEr")
    return LanguageScores(counts, meteor_scores, rouge_scores, cider(references, predictions, cider_variant))
