"""BLEU from counts.

A report's counts are ten integers. Sums of them are a corpus's counts, so that one function turns them into scores of
reports, of corpora and of bootstrap samples alike.

Sources: Papineni et al., ACL 2002 (BLEU); Lin and Och, COLING 2004 (adding one to orders above the first); Post, WMT
2018 (sacrebleu and its 13a tokens). The default smoothing is the one that the published figures of Reg2RG were made
with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reg2rg.evaluation.bootstrap import Array, Statistic, summed
from reg2rg.evaluation.metrics.base import METRICS, SharedTextMetric
from reg2rg.evaluation.metrics.ngrams import Distinct, TextSet, Tokens, shared

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

__all__ = [
    "BLEU",
    "ORDERS",
    "Cut",
    "Smoothing",
    "bleu_counts",
    "bleu_from_counts",
]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Smoothing = Literal["hf", "lin-och", "none"]
Cut = Literal["13a", "words"]

ORDERS = 4
"""n-grams of one to four tokens, in BLEU and in CIDEr."""


@cache
def _tokenizer() -> Callable[[str], str]:
    from sacrebleu.tokenizers import tokenizer_13a  # here: it brings an XML parser along

    module: Any = tokenizer_13a  # its functions bear no types
    tokenizer = module.Tokenizer13a()
    return lambda text: str(tokenizer(text))


@lru_cache(maxsize=2**17)
def _word_tokens(word: str) -> tuple[str, ...]:
    return tuple(_tokenizer()(word).split())


def _tokens(text: str) -> list[str]:
    """13a tokens. Its rules look at one character beside a mark, so they act inside words, and words come again."""
    if "\n" in text or "<skipped>" in text:  # the two rules that join words
        return _tokenizer()(text).split()
    return list(chain.from_iterable(map(_word_tokens, text.split())))


def bleu_counts(
    references: Sequence[str], predictions: Sequence[str], lowercase: bool = False, tokens: Cut = "13a"
) -> IntArray:
    """Count what BLEU is made of.

    Args:
        references: n texts.
        predictions: n texts, in the same order.
        lowercase: fold case first; the published figures keep it.
        tokens: ``"13a"`` as sacreBLEU cuts them, ``"words"`` as blanks do, which is what pycocoevalcap takes.

    Returns:
        (n, 10) matching n-grams of orders 1 to 4 (clipped), n-grams of the prediction of orders 1 to 4, tokens of the
        prediction, tokens of the reference. Rows may be added up.

    Raises:
        ValueError: see :func:`reg2rg.evaluation.metrics.ngrams.check_pairs`.
    """
    return _counts([(references, predictions)], lowercase, tokens)[0]


def _counts(sets: Sequence[TextSet], lowercase: bool, cut: Cut) -> list[IntArray]:
    """`bleu_counts` of each set."""
    distinct, split = Distinct.of(sets), _tokens if cut == "13a" else str.split
    tokens = Tokens.of([text.lower() for text in distinct.texts] if lowercase else distinct.texts, split)
    found = [np.zeros((len(references), 2 * ORDERS + 2), np.int64) for references, _ in distinct.pairs]
    for order, grams in enumerate(tokens.ngrams(ORDERS)):
        for counts, pairs in zip(found, distinct.pairs, strict=True):
            counts[:, order] = shared(grams, pairs)
    for counts, (references, predictions) in zip(found, distinct.pairs, strict=True):
        counts[:, -2], counts[:, -1] = tokens.lengths[predictions], tokens.lengths[references]
        counts[:, ORDERS:-2] = np.maximum(counts[:, -2:-1] - np.arange(ORDERS), 0)
    return found


def bleu_from_counts(counts: ArrayLike, smoothing: Smoothing = "hf") -> FloatArray:
    """BLEU-1 to BLEU-4.

    Args:
        counts: (..., 10) as of :func:`bleu_counts`, of single reports or summed over reports.
        smoothing: ``"hf"`` adds one to the matches and totals of every order, unigrams too (what Hugging Face's
            ``bleu`` does with ``smooth=True``; it lifts short texts). ``"lin-och"`` spares unigrams, as in the paper.
            ``"none"`` is plain BLEU, equal to sacrebleu's: 0 as soon as one order has no match.

    Returns:
        (..., 4) scores from 0 to 1; an empty prediction scores 0.

    Raises:
        ValueError: another last axis, or an unknown smoothing.
    """
    table = np.asarray(counts, np.float64)
    if table.shape[-1:] != (2 * ORDERS + 2,):
        raise ValueError(
            f"counts have the shape {table.shape}; expected (..., {2 * ORDERS + 2}) as bleu_counts makes them"
        )
    plus = {"hf": np.ones(ORDERS), "lin-och": np.array([0.0, 1, 1, 1]), "none": np.zeros(ORDERS)}.get(smoothing)
    if plus is None:
        raise ValueError(f"smoothing {smoothing!r} is unknown; expected 'hf', 'lin-och' or 'none'")
    matches, totals = table[..., :ORDERS] + plus, table[..., ORDERS : 2 * ORDERS] + plus
    predicted, given = table[..., -2], table[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(totals > 0, matches / totals, 0.0)
        mean = np.exp(np.cumsum(np.log(precision), axis=-1) / np.arange(1, ORDERS + 1))
        brevity = np.where(predicted > given, 1.0, np.exp(1 - given / predicted))
    return np.where((predicted > 0)[..., None], brevity[..., None] * mean, 0.0)


_NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
_TEXT: Mapping[str, str] = {
    "hf": "13a tokens, one added to matches and totals of every order",
    "lin-och": "13a tokens, one added from bigrams on (Lin and Och)",
    "none": "13a tokens, no smoothing (sacreBLEU)",
}
_WORDS_TEXT = "{}, no smoothing (pycocoevalcap)"


@METRICS.register
class BLEU(SharedTextMetric):
    """BLEU-1 to BLEU-4: of each text, then the mean; or of the counts of all texts; as the protocol says."""

    place, always = 10, True
    keys = (*_NAMES, "BLEU-[1-4] (corpus)", "BLEU mean (corpus)")
    logged: ClassVar = {"BLEU-4": "bleu4", "BLEU-4 (corpus)": "bleu4_corpus"}
    headline = (("BLEU-4", "BLEU-4 (corpus)"),)
    plotted = ("BLEU-4", "BLEU-4 (corpus)")
    tabled = ("BLEU-4",)

    def together(self, sets: Sequence[TextSet], cohort: Cohort) -> Sequence[NDArray[Any]]:
        """(n, 10) counts of each set."""
        return _counts(sets, lowercase=False, cut="words" if cohort.protocol.coco else "13a")

    def values(self, measured: NDArray[Any], cohort: Cohort) -> Mapping[str, Array]:
        """Of each text; for reading, where the protocol's own figure is that of the whole corpus."""
        # Plain BLEU of one short text is mostly 0.
        plain = cohort.protocol.smoothing == "none"
        bleu = bleu_from_counts(measured, "lin-och" if plain else cohort.protocol.smoothing)
        return {f"{name} (smoothed)" if plain else name: bleu[:, i] for i, name in enumerate(_NAMES)}

    def definition(self, cohort: Cohort) -> str:
        """Tokens and smoothing."""
        return _WORDS_TEXT.format(cohort.protocol.words) if cohort.protocol.coco else _TEXT[cohort.protocol.smoothing]

    def statistics(
        self, scope: str, measured: NDArray[Any], rows: NDArray[np.intp], unit: str, cohort: Cohort
    ) -> list[Statistic]:
        """Means over units, and figures of summed counts."""
        protocol, found = cohort.protocol, []
        if protocol.bleu in ("each", "both"):
            found += super().statistics(scope, measured, rows, unit, cohort)
        if protocol.bleu in ("corpus", "both"):
            units, text = summed(rows, measured, len(cohort.pairs)), f"counts summed over {unit}s; "
            corpus = partial(Statistic, self.group, scope, units=units, n=len(rows))
            text += self.definition(cohort)
            found += [
                corpus(name=f"{name} (corpus)", definition=text, value=_order(protocol.smoothing, i))
                for i, name in enumerate(_NAMES)
            ]
            if protocol.coco:
                mean = _mean(protocol.smoothing)
                text = f"mean of BLEU-1 to BLEU-4; {text}"
                found.append(corpus(name="BLEU mean (corpus)", definition=text, value=mean))
        return found


def _order(smoothing: Smoothing, order: int) -> Callable[[Array], Array]:
    return lambda sums: bleu_from_counts(sums, smoothing)[..., order]


def _mean(smoothing: Smoothing) -> Callable[[Array], Array]:
    return lambda sums: bleu_from_counts(sums, smoothing).mean(axis=-1)
