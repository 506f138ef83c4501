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

from reg2rg.evaluation.bootstrap import Array
from reg2rg.evaluation.metrics.base import METRICS, TextMetric
from reg2rg.evaluation.metrics.bleu import ORDERS, Bag, check_pairs, pair_ngrams, token_ids

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

__all__ = ["CIDEr", "CiderVariant", "cider"]

FloatArray = NDArray[np.float64]
CiderVariant = Literal["cider-d", "cider"]

_SIGMA = 6.0
"""Standard deviation of the length penalty, in bigrams; the paper's value."""
_SCALE = 10.0
"""Brings scores near the range of other metrics; the authors' code applies it to both variants."""


def _weigh(bag: Bag, rarity: FloatArray, pairs: int) -> tuple[FloatArray, FloatArray]:
    """(m,) weight of every n-gram of the bag, and (pairs,) length of each text's vector of them."""
    weights = bag.count * rarity[bag.gram]
    return weights, np.sqrt(np.bincount(bag.pair, weights**2, minlength=pairs))


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
        ValueError: an unknown variant, or see :func:`reg2rg.evaluation.metrics.bleu.check_pairs`.
    """
    if variant not in ("cider-d", "cider"):
        raise ValueError(f"variant {variant!r} is unknown; expected 'cider-d' or 'cider'")
    check_pairs(references, predictions)
    n = len(references)
    ids, lengths = token_ids([text.split() for side in (references, predictions) for text in side])
    total = np.zeros(n)
    for grams in pair_ngrams(ids, lengths):
        holders = np.bincount(grams.reference.gram, minlength=grams.kinds)
        rarity = np.log(max(n, 1)) - np.log(np.maximum(holders, 1))
        given, norm_given = _weigh(grams.reference, rarity, n)
        said, norm_said = _weigh(grams.prediction, rarity, n)
        left, right = grams.common
        overlap = np.minimum(said[right], given[left]) if variant == "cider-d" else said[right]
        product = np.bincount(grams.reference.pair[left], overlap * given[left], minlength=n)
        norm = norm_given * norm_said
        total += np.divide(product, norm, out=np.zeros(n), where=norm > 0)
    if variant == "cider-d":
        bigrams = np.maximum(lengths - 1, 0)
        total *= np.exp(-((bigrams[n:] - bigrams[:n]) ** 2) / (2 * _SIGMA**2))
    return _SCALE * total / ORDERS


@METRICS.register
class CIDEr(TextMetric):
    """CIDEr-D of pycocoevalcap, under the name that the protocol gives it."""

    place, always, depends_on_set = 40, True, True
    keys = ("CIDEr", "CIDEr-D")
    logged: ClassVar = {"CIDEr": "cider", "CIDEr-D": "cider"}
    headline = (("CIDEr", "CIDEr-D"),)
    plotted = ("CIDEr", "CIDEr-D")

    def measure(self, references: Sequence[str], predictions: Sequence[str], cohort: Cohort) -> NDArray[Any]:
        """(n, 1) scores."""
        return cider(references, predictions)[:, None]

    def values(self, measured: NDArray[Any], cohort: Cohort) -> Mapping[str, Array]:
        """The scores."""
        return {cohort.protocol.cider: measured[:, 0]}

    def definition(self, cohort: Cohort) -> str:
        """Which variant, on which words."""
        return "CIDEr-D of pycocoevalcap on raw words, document frequencies from the scored references"
