"""BLEU from counts, and the n-gram counting that ROUGE and CIDEr share with it.

A report's counts are ten integers. Sums of them are a corpus's counts, so that one function turns them into scores of
reports, of corpora and of bootstrap samples alike.

Sources: Papineni et al., ACL 2002 (BLEU); Lin and Och, COLING 2004 (adding one to orders above the first); Post, WMT
2018 (sacrebleu and its 13a tokens). The default smoothing is the one that the published figures of Reg2RG were made
with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reg2rg.evaluation.bootstrap import Array, Statistic, summed
from reg2rg.evaluation.metrics.base import METRICS, TextMetric

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

__all__ = [
    "BLEU",
    "ORDERS",
    "Bag",
    "Grams",
    "Smoothing",
    "Tokens",
    "bleu_counts",
    "bleu_from_counts",
    "check_pairs",
    "pair_ngrams",
]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Smoothing = Literal["hf", "lin-och", "none"]
Tokens = Literal["13a", "words"]

ORDERS = 4
"""n-grams of one to four tokens, in BLEU and in CIDEr."""


def check_pairs(references: Sequence[str], predictions: Sequence[str]) -> None:
    """Refuse what no metric can score.

    Raises:
        ValueError: the lists differ in length, one of them is a single text, or an element is no text (a table read
            without ``keep_default_na=False`` holds numbers where cells are empty or say "None").
    """
    for name, texts in (("references", references), ("predictions", predictions)):
        if isinstance(texts, str):
            raise ValueError(f"{name} is one text; expected a sequence of texts. Put it into a list.")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(
                    f"{name}[{index}] is {text!r} of type {type(text).__name__}; expected a text. "
                    f"Read tables with pandas' keep_default_na=False and dtype=str, and give '' for an empty report."
                )
    if len(references) != len(predictions):
        raise ValueError(
            f"{len(references)} references and {len(predictions)} predictions; expected one prediction for each "
            f"reference, in the same order. Give '' for a report that was not generated."
        )


@dataclass(frozen=True, slots=True)
class Bag:
    """The distinct n-grams of every text of one side, ordered by text and then by n-gram.

    Attributes:
        pair: (m,) row of the text.
        gram: (m,) id of the n-gram, the same on both sides.
        count: (m,) how often it stands in the text.
    """

    pair: IntArray
    gram: IntArray
    count: IntArray


@dataclass(frozen=True, slots=True)
class Grams:
    """n-grams of one order in all pairs.

    Attributes:
        reference: those of the references.
        prediction: those of the predictions.
        common: (k,) places in ``reference`` and (k,) places in ``prediction`` of what both texts of a pair hold.
        kinds: ids run from 0 to ``kinds - 1``.
    """

    reference: Bag
    prediction: Bag
    common: tuple[IntArray, IntArray]
    kinds: int

    def matches(self, pairs: int) -> IntArray:
        """(pairs,) n-grams that both texts of a pair hold, each counted as often as in the poorer text."""
        left, right = self.common
        shared = np.minimum(self.reference.count[left], self.prediction.count[right])
        return np.bincount(self.reference.pair[left], shared, minlength=pairs).astype(np.int64)


def token_ids(texts: Sequence[Sequence[str]]) -> tuple[IntArray, IntArray]:
    """Number the tokens of all texts.

    Returns:
        (tokens,) ids of all texts one after another, equal for equal tokens; (texts,) number of tokens of each text.
    """
    tokens = list(chain.from_iterable(texts))
    number = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    ids = np.fromiter(map(number.__getitem__, tokens), np.int64, len(tokens))
    return ids, np.fromiter(map(len, texts), np.int64, len(texts))


def _ranks(values: IntArray) -> tuple[IntArray, int]:
    """(m,) which of the distinct values, in ascending order, each is, and how many there are.

    ``np.unique`` with ``return_inverse`` says the same in twice the time.
    """
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    first = np.ones(len(values), np.int64)
    first[1:] = ascending[1:] != ascending[:-1]
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.cumsum(first) - 1
    return ranks, int(first.sum())


def pair_ngrams(ids: IntArray, lengths: IntArray, orders: int = ORDERS) -> Iterator[Grams]:
    """Count the n-grams of references and predictions, order by order.

    Args:
        ids: (tokens,) as of :func:`token_ids`, all references and then all predictions.
        lengths: (2 n,) tokens of each text.
        orders: highest order.

    Yields:
        The n-grams of order 1, 2, ... ``orders``.
    """
    pairs = len(lengths) // 2
    owner = np.repeat(np.arange(2 * pairs), lengths)
    end = np.cumsum(lengths)[owner]
    words = int(ids.max(initial=0)) + 1
    start, gram, kinds = np.arange(len(ids)), ids, words
    for order in range(1, orders + 1):
        if order > 1:
            inside = start + order <= end[start]
            start = start[inside]
            # Numbered anew at every order: ids stay below the number of tokens, and the product inside 64 bits.
            gram, kinds = _ranks(gram[inside] * words + ids[start + order - 1])
        key, count = np.unique(owner[start] * kinds + gram, return_counts=True)
        middle = int(np.searchsorted(key, pairs * kinds))
        left, right = key[:middle], key[middle:] - pairs * kinds
        place = np.searchsorted(left, right)
        in_right = np.flatnonzero(np.append(left, -1)[place] == right)
        reference = Bag(left // kinds, left % kinds, count[:middle])
        prediction = Bag(right // kinds, right % kinds, count[middle:])
        yield Grams(reference, prediction, (place[in_right], in_right), kinds)


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
    references: Sequence[str], predictions: Sequence[str], lowercase: bool = False, tokens: Tokens = "13a"
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
        ValueError: see :func:`check_pairs`.
    """
    check_pairs(references, predictions)
    n = len(references)
    cut = _tokens if tokens == "13a" else str.split
    ids, lengths = token_ids(
        [cut(text.lower() if lowercase else text) for side in (references, predictions) for text in side]
    )
    counts = np.zeros((n, 2 * ORDERS + 2), np.int64)
    for order, grams in enumerate(pair_ngrams(ids, lengths)):
        counts[:, order] = grams.matches(n)
        counts[:, ORDERS + order] = np.maximum(lengths[n:] - order, 0)
    counts[:, -2], counts[:, -1] = lengths[n:], lengths[:n]
    return counts


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
class BLEU(TextMetric):
    """BLEU-1 to BLEU-4: of each text, then the mean; or of the counts of all texts; as the protocol says."""

    place, always = 10, True
    keys = (*_NAMES, "BLEU-[1-4] (corpus)", "BLEU mean (corpus)")
    logged: ClassVar = {"BLEU-4": "bleu4", "BLEU-4 (corpus)": "bleu4_corpus"}
    headline = (("BLEU-4", "BLEU-4 (corpus)"),)
    plotted = ("BLEU-4", "BLEU-4 (corpus)")
    tabled = ("BLEU-4",)

    def measure(self, references: Sequence[str], predictions: Sequence[str], cohort: Cohort) -> NDArray[Any]:
        """(n, 10) counts."""
        return bleu_counts(references, predictions, tokens="words" if cohort.protocol.coco else "13a")

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
