"""ROUGE-1, ROUGE-2 and ROUGE-L, bit for bit those of Google's ``rouge_score`` 0.1.2, some thirty times as fast.

And ROUGE-L as pycocoevalcap 1.2 computes it, which is another number.

Source: Lin, "ROUGE: a package for automatic evaluation of summaries", 2004, F of precision and recall with beta 1.
Longest common subsequences come from rapidfuzz's bit-parallel algorithm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rapidfuzz.distance import LCSseq

from reg2rg.evaluation.bootstrap import Array, Statistic, mean_statistic
from reg2rg.evaluation.metrics.base import METRICS, TextMetric
from reg2rg.evaluation.metrics.bleu import check_pairs, pair_ngrams, token_ids

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

__all__ = ["ROUGE", "coco_rouge_l", "hf_overall", "rouge"]

FloatArray = NDArray[np.float64]

_WORD = re.compile("[a-z0-9]+")
_RESAMPLES = 1000
_COCO_BETA = 1.2
_SHORT = 3
"""Words of up to so many letters keep their ending."""


@cache
def _stemmer() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer  # here: nltk imports all of itself

    stem: Callable[[str], str] = PorterStemmer().stem
    return lru_cache(maxsize=2**17)(stem)


def _f(matches: NDArray[np.int64], predicted: NDArray[np.int64], given: NDArray[np.int64]) -> FloatArray:
    """(n,) F of matches / predicted and matches / given; 0 where nothing matches."""
    precision, recall = matches / np.maximum(predicted, 1), matches / np.maximum(given, 1)
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros(len(total)), where=total > 0)


def rouge(references: Sequence[str], predictions: Sequence[str], stemmer: bool = False) -> FloatArray:
    """Score pairs of texts. Case and everything but a-z and 0-9 are ignored.

    Args:
        references: n texts.
        predictions: n texts, in the same order.
        stemmer: reduce words of more than three letters to their Porter stems first; the published figures do not.

    Returns:
        (n, 3) F of ROUGE-1, ROUGE-2 and ROUGE-L, from 0 to 1; 0 where a text has no word.

    Raises:
        ValueError: see :func:`reg2rg.evaluation.metrics.bleu.check_pairs`.
    """
    check_pairs(references, predictions)
    n = len(references)
    texts = [_WORD.findall(text.lower()) for side in (references, predictions) for text in side]
    if stemmer:
        stem = _stemmer()
        texts = [[stem(word) if len(word) > _SHORT else word for word in words] for words in texts]
    ids, lengths = token_ids(texts)
    given, predicted = lengths[:n], lengths[n:]
    scores = np.zeros((n, 3))
    for order, grams in enumerate(pair_ngrams(ids, lengths, orders=2)):
        scores[:, order] = _f(grams.matches(n), np.maximum(predicted - order, 0), np.maximum(given - order, 0))
    scores[:, 2] = _f(_common(ids, lengths), predicted, given)
    return scores


def _common(ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) longest common subsequence of each pair; ids and lengths as of `token_ids`, references first."""
    n = len(lengths) // 2
    numbers = [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] if n else []
    return np.array([LCSseq.similarity(numbers[row], numbers[n + row]) for row in range(n)], np.int64)


def coco_rouge_l(references: Sequence[str], predictions: Sequence[str]) -> FloatArray:
    """ROUGE-L of pycocoevalcap: words between single blanks, case and marks kept, recall counted more (beta 1.2).

    Args:
        references: n texts.
        predictions: n texts, in the same order.

    Returns:
        (n,) scores from 0 to 1; 0 for an empty prediction.

    Raises:
        ValueError: see :func:`reg2rg.evaluation.metrics.bleu.check_pairs`.
    """
    check_pairs(references, predictions)
    n = len(references)
    ids, lengths = token_ids([text.split(" ") if text else [] for side in (references, predictions) for text in side])
    common = _common(ids, lengths)
    recall, precision = common / np.maximum(lengths[:n], 1), common / np.maximum(lengths[n:], 1)
    under = recall + _COCO_BETA**2 * precision
    return np.divide((1 + _COCO_BETA**2) * precision * recall, under, out=np.zeros(n), where=under > 0)


def hf_overall(scores: ArrayLike, seed: int = 42) -> FloatArray:
    """The "Overall" ROUGE of the published tables: no mean, but the median of the means of 1,000 resamples.

    It is random but for the seed, and near the mean; report the mean, and use this to compare with those tables.

    Args:
        scores: (n, 3) as of :func:`rouge`.
        seed: of numpy's legacy generator, which the published figures were drawn with.

    Returns:
        (3,) medians.

    Raises:
        ValueError: another shape, or no row.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or table.shape[1] != 3 or not len(table):
        raise ValueError(f"scores have the shape {table.shape}; expected (n, 3) with at least one row, as rouge makes")
    random = np.random.RandomState(seed)
    n = len(table)
    means = [[column[random.randint(0, n, n)].mean() for _ in range(_RESAMPLES)] for column in table.T]
    return np.percentile(np.array(means), 50, axis=1)


_NAMES = ("ROUGE-1", "ROUGE-2", "ROUGE-L")
_TEXT = "F of rouge_score 0.1.2 without stemmer"
_COCO_TEXT = "F with beta 1.2 of pycocoevalcap on {}"


@METRICS.register
class ROUGE(TextMetric):
    """ROUGE-1, ROUGE-2 and ROUGE-L of rouge_score, or ROUGE-L of pycocoevalcap, as the protocol says."""

    place, always, english = 30, True, True
    keys = (*_NAMES, "ROUGE-[12L] (overall)")
    logged: ClassVar = {"ROUGE-L": "rouge_l"}
    headline = (("ROUGE-L", "ROUGE-L (overall)"),)
    plotted = ("ROUGE-L",)
    tabled = ("ROUGE-L",)

    def measure(self, references: Sequence[str], predictions: Sequence[str], cohort: Cohort) -> NDArray[Any]:
        """(n, 3) scores, or (n, 1) of ROUGE-L alone."""
        if cohort.protocol.coco:
            return coco_rouge_l(references, predictions)[:, None]
        return rouge(references, predictions)

    def values(self, measured: NDArray[Any], cohort: Cohort) -> Mapping[str, Array]:
        """The scores."""
        return dict(zip(_NAMES[2:] if cohort.protocol.coco else _NAMES, measured.T, strict=True))

    def covers(self, cohort: Cohort) -> bool:
        """Google's tokens are a-z and 0-9; pycocoevalcap's are whatever the protocol cuts."""
        return cohort.protocol.coco or super().covers(cohort)

    def definition(self, cohort: Cohort) -> str:
        """Whose implementation."""
        return _COCO_TEXT.format(cohort.protocol.words) if cohort.protocol.coco else _TEXT

    def statistics(
        self, scope: str, measured: NDArray[Any], rows: NDArray[np.intp], unit: str, cohort: Cohort
    ) -> list[Statistic]:
        """Means over units, and the published medians of resamples where the protocol prints them."""
        found = super().statistics(scope, measured, rows, unit, cohort)
        if cohort.protocol.rouge_overall:
            text = f"median of 1,000 resamples of {unit}s (seed 42) as published; {_TEXT}"
            found += [
                mean_statistic(
                    self.group,
                    scope,
                    f"{name} (overall)",
                    text,
                    rows=rows,
                    values=values,
                    studies=len(cohort.pairs),
                    point=float(point),
                )
                for name, values, point in zip(_NAMES, measured.T, hf_overall(measured), strict=True)
            ]
        return found
