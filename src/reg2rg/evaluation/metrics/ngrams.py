"""n-grams of many pairs of texts, counted once for each distinct text, in however many pairs and sets it stands.

A report is compared with the prediction, with that of another study, with the commonest report: its own n-grams are the
same. Rows of a sparse matrix are distinct texts, its columns n-grams; what two texts share is the minimum of two rows.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

IntArray = NDArray[np.int64]
TextSet = tuple[Sequence[str], Sequence[str]]
"""References and predictions in the same order."""

_PAIRS_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Distinct:
    """Distinct texts of sets of pairs.

    Attributes:
        texts: each text once.
        pairs: of each set (n,) rows of the references and (n,) rows of the predictions in ``texts``.
    """

    texts: Sequence[str]
    pairs: Sequence[tuple[IntArray, IntArray]]

    @classmethod
    def of(cls, sets: Sequence[TextSet]) -> Distinct:
        """Find what is equal."""
        row: dict[str, int] = {}
        pairs = []
        for sides in sets:
            check_pairs(*sides)
            both = (np.array([row.setdefault(text, len(row)) for text in side], np.int64) for side in sides)
            pairs.append((next(both), next(both)))
        return cls([*row], pairs)


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
class Tokens:
    """Tokens of distinct texts, one text after another.

    Attributes:
        ids: (tokens,) equal for equal tokens.
        lengths: (texts,) tokens of each text.
        tokens: number of a token -> token.
    """

    ids: IntArray
    lengths: IntArray
    tokens: Sequence[str]

    @classmethod
    def of(cls, texts: Sequence[str], cut: Callable[[str], Sequence[str]]) -> Tokens:
        """Cut and number."""
        numbers: defaultdict[str, int] = defaultdict()
        numbers.default_factory = numbers.__len__
        ids, lengths = array("i"), np.zeros(len(texts), np.int64)
        for row, text in enumerate(texts):
            tokens = cut(text)
            ids.extend(map(numbers.__getitem__, tokens))
            lengths[row] = len(tokens)
        return cls(np.array(ids, np.int64), lengths, [*numbers])

    def ngrams(self, orders: int) -> Iterator[sparse.csr_array]:
        """How often each n-gram stands in each text: of order 1, 2, ... ``orders``, (texts, n-grams)."""
        texts = len(self.lengths)
        owner = np.repeat(np.arange(texts), self.lengths)
        end = np.cumsum(self.lengths)[owner]
        words = int(self.ids.max(initial=0)) + 1
        start, gram, kinds = np.arange(len(self.ids)), self.ids, words
        for order in range(1, orders + 1):
            if order > 1:
                inside = start + order <= end[start]
                start = start[inside]
                # Numbered anew at every order: ids stay below the number of tokens, and the product inside 64 bits.
                gram, known = pd.factorize(gram[inside] * words + self.ids[start + order - 1])
                kinds = len(known)
            yield counted(owner[start], gram, texts, kinds)


def counted(rows: IntArray, columns: IntArray, height: int, width: int) -> sparse.csr_array:
    """(height, width) how often each pair of row and column comes."""
    width = max(width, 1)
    key, count = np.unique(rows * width + columns, return_counts=True)
    starts = np.searchsorted(key, np.arange(height + 1) * width)
    return csr(count.astype(np.int32), (key % width).astype(np.int32), starts, (height, width))


def csr(
    data: NDArray[Any], columns: NDArray[np.int32], starts: NDArray[Any], shape: tuple[int, int]
) -> sparse.csr_array:
    """A matrix of rows in order, with ascending columns, each once."""
    matrix = sparse.csr_array((data, columns, starts.astype(np.int32)), shape=shape)
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    return matrix


def blocks(pairs: tuple[IntArray, IntArray]) -> Iterator[tuple[slice, IntArray, IntArray]]:
    """Some pairs at a time, so that memory stays flat: which, and rows of their references and predictions."""
    for start in range(0, len(pairs[0]), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        yield part, pairs[0][part], pairs[1][part]


def shared(grams: sparse.csr_array, pairs: tuple[IntArray, IntArray]) -> IntArray:
    """(n,) n-grams that both texts of a pair hold, each counted as often as in the poorer text."""
    found = np.zeros(len(pairs[0]), np.int64)
    for part, references, predictions in blocks(pairs):
        found[part] = grams[references].minimum(grams[predictions]).sum(axis=1)
    return found
