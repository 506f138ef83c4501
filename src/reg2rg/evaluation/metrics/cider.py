"""CIDEr-D as the published figures have it, and plain CIDEr.

Both compare texts by n-grams weighted by how rare they are among the references *of the same call*. Hence the score of
a report depends on which others are scored with it: scores of parts must never be averaged, and a report scored alone
gets 0, since every n-gram is then as common as can be.

Source: Vedantam et al., "CIDEr: consensus-based image description evaluation", CVPR 2015. Behaviour as in pycocoevalcap
1.2 on raw text: split at blanks, so that "normal." and "normal" differ, and the length in the penalty is the number of
bigrams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from reg2rg.evaluation.bootstrap import Array
from reg2rg.evaluation.metrics.base import METRICS, SharedTextMetric
from reg2rg.evaluation.metrics.bleu import ORDERS
from reg2rg.evaluation.metrics.ngrams import Distinct, IntArray, TextSet, Tokens, blocks, csr

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

__all__ = ["CIDEr", "CiderVariant", "cider"]

FloatArray = NDArray[np.float64]
CiderVariant = Literal["cider-d", "cider"]

_SIGMA = 6.0
"""Standard deviation of the length penalty, in bigrams; the paper's value."""
_SCALE = 10.0
"""Brings scores near the range of other metrics; the authors' code applies it to both variants."""


def cider(references: Sequence[str], predictions: Sequence[str], variant: CiderVariant = "cider-d") -> FloatArray:
    """Score pairs of texts, all that belong together in one call.

    Args:
        references: n texts.
        predictions: n texts, in the same order.
        variant: ``"cider-d"`` clips weights to the reference's and punishes differences in length. ``"cider"`` is the
            plain mean cosine, on the same tokens and on the same scale.

    Returns:
        (n,) scores from 0 to 10.

    Raises:
        ValueError: an unknown variant, or see :func:`reg2rg.evaluation.metrics.ngrams.check_pairs`.
    """
    if variant not in ("cider-d", "cider"):
        raise ValueError(f"variant {variant!r} is unknown; expected 'cider-d' or 'cider'")
    return _scores([(references, predictions)], variant)[0]


def _scores(sets: Sequence[TextSet], variant: CiderVariant = "cider-d") -> list[FloatArray]:
    """`cider` of each set, which has its own frequencies."""
    distinct = Distinct.of(sets)
    tokens = Tokens.of(distinct.texts, str.split)
    totals = [np.zeros(len(references)) for references, _ in distinct.pairs]
    for grams in tokens.ngrams(ORDERS):
        for total, pairs in zip(totals, distinct.pairs, strict=True):
            total += _similarity(grams, pairs, variant)
    if variant == "cider-d":
        bigrams = np.maximum(tokens.lengths - 1, 0)
        for total, (references, predictions) in zip(totals, distinct.pairs, strict=True):
            total *= np.exp(-((bigrams[predictions] - bigrams[references]) ** 2) / (2 * _SIGMA**2))
    return [_SCALE * total / ORDERS for total in totals]


def _similarity(grams: sparse.csr_array, pairs: tuple[IntArray, IntArray], variant: CiderVariant) -> FloatArray:
    """(n,) cosine of the weighted n-grams of one order."""
    texts, kinds = grams.shape
    times = np.bincount(pairs[0], minlength=texts)  # a text may be the reference of several studies
    lengths = np.diff(grams.indptr)
    holders = np.bincount(grams.indices, np.repeat(times, lengths), minlength=kinds)
    rarity = np.log(max(len(pairs[0]), 1)) - np.log(np.maximum(holders, 1))
    weighted = csr(grams.data * rarity[grams.indices], grams.indices, grams.indptr, grams.shape)
    norms = np.sqrt(np.bincount(np.repeat(np.arange(texts), lengths), weighted.data**2, minlength=texts))
    product = np.zeros(len(pairs[0]))
    for part, references, predictions in blocks(pairs):
        given, said = weighted[references], weighted[predictions]
        overlap = said.minimum(given) if variant == "cider-d" else said
        product[part] = overlap.multiply(given).sum(axis=1)
    norm = norms[pairs[0]] * norms[pairs[1]]
    scores: FloatArray = np.divide(product, norm, out=np.zeros(len(norm)), where=norm > 0)
    return scores


@METRICS.register
class CIDEr(SharedTextMetric):
    """CIDEr-D of pycocoevalcap, under the name that the protocol gives it."""

    place, always, depends_on_set = 40, True, True
    keys = ("CIDEr", "CIDEr-D")
    logged: ClassVar = {"CIDEr": "cider", "CIDEr-D": "cider"}
    headline = (("CIDEr", "CIDEr-D"),)
    plotted = ("CIDEr", "CIDEr-D")

    def together(self, sets: Sequence[TextSet], cohort: Cohort) -> Sequence[NDArray[Any]]:
        """(n, 1) scores of each set."""
        return [scores[:, None] for scores in _scores(sets)]

    def values(self, measured: NDArray[Any], cohort: Cohort) -> Mapping[str, Array]:
        """The scores."""
        return {cohort.protocol.cider: measured[:, 0]}

    def definition(self, cohort: Cohort) -> str:
        """Which variant, on which words."""
        return "CIDEr-D of pycocoevalcap on raw words, document frequencies from the scored references"
