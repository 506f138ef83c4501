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
from reg2rg.evaluation.metrics.base import METRICS, SharedTextMetric
from reg2rg.evaluation.metrics.ngrams import Distinct, IntArray, TextSet, Tokens, shared

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
        ValueError: see :func:`reg2rg.evaluation.metrics.ngrams.check_pairs`.
    """
    return _scores([(references, predictions)], stemmer)[0]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _stems(text: str) -> list[str]:
    stem = _stemmer()
    return [stem(word) if len(word) > _SHORT else word for word in _words(text)]


def _scores(sets: Sequence[TextSet], stemmer: bool = False) -> list[FloatArray]:
    """`rouge` of each set."""
    distinct = Distinct.of(sets)
    tokens = Tokens.of(distinct.texts, _stems if stemmer else _words)
    found = [np.zeros((len(references), 3)) for references, _ in distinct.pairs]
    for order, grams in enumerate(tokens.ngrams(2)):
        lengths = np.maximum(tokens.lengths - order, 0)
        for scores, pairs in zip(found, distinct.pairs, strict=True):
            scores[:, order] = _f(shared(grams, pairs), lengths[pairs[1]], lengths[pairs[0]])
    for scores, pairs in zip(found, distinct.pairs, strict=True):
        scores[:, 2] = _f(_common(tokens, pairs), tokens.lengths[pairs[1]], tokens.lengths[pairs[0]])
    return found


def _common(tokens: Tokens, pairs: tuple[IntArray, IntArray]) -> IntArray:
    """(n,) longest common subsequence of each pair."""
    texts = [part.tolist() for part in np.split(tokens.ids, np.cumsum(tokens.lengths)[:-1])]
    rows = zip(*(side.tolist() for side in pairs), strict=True)
    return np.array([LCSseq.similarity(texts[one], texts[other]) for one, other in rows], np.int64)


def coco_rouge_l(references: Sequence[str], predictions: Sequence[str]) -> FloatArray:
    """ROUGE-L of pycocoevalcap: words between single blanks, case and marks kept, recall counted more (beta 1.2).

    Args:
        references: n texts.
        predictions: n texts, in the same order.

    Returns:
        (n,) scores from 0 to 1; 0 for an empty prediction.

    Raises:
        ValueError: see :func:`reg2rg.evaluation.metrics.ngrams.check_pairs`.
    """
    return _coco_scores([(references, predictions)])[0]


def _coco_scores(sets: Sequence[TextSet]) -> list[FloatArray]:
    """`coco_rouge_l` of each set."""
    distinct = Distinct.of(sets)
    tokens = Tokens.of(distinct.texts, lambda text: text.split(" ") if text else [])
    found = []
    for pairs in distinct.pairs:
        given, said = (np.maximum(tokens.lengths[side], 1) for side in pairs)
        common = _common(tokens, pairs)
        recall, precision = common / given, common / said
        under = recall + _COCO_BETA**2 * precision
        scores = (1 + _COCO_BETA**2) * precision * recall
        found.append(np.divide(scores, under, out=np.zeros(len(under)), where=under > 0))
    return found


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
class ROUGE(SharedTextMetric):
    """ROUGE-1, ROUGE-2 and ROUGE-L of rouge_score, or ROUGE-L of pycocoevalcap, as the protocol says."""

    place, always, english = 30, True, True
    keys = (*_NAMES, "ROUGE-[12L] (overall)")
    logged: ClassVar = {"ROUGE-L": "rouge_l"}
    headline = (("ROUGE-L", "ROUGE-L (overall)"),)
    plotted = ("ROUGE-L",)
    tabled = ("ROUGE-L",)

    def together(self, sets: Sequence[TextSet], cohort: Cohort) -> Sequence[NDArray[Any]]:
        """(n, 3) scores of each set, or (n, 1) of ROUGE-L alone."""
        return [scores[:, None] for scores in _coco_scores(sets)] if cohort.protocol.coco else _scores(sets)

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
