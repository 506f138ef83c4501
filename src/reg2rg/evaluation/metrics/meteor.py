"""METEOR as NLTK computes it, which is what the published figures were made with, and many times as fast.

It is not METEOR 1.5 of the Java program, whose values are lower by about 0.2 on these reports. Synonyms are looked up
for Porter stems, as NLTK does; so many are missed, but the figures stay comparable.

Sources: Lavie and Agarwal, "METEOR: an automatic metric for MT evaluation with high levels of correlation with human
judgments", WMT 2007, with NLTK's parameters; Kiss and Strunk, "Unsupervised multilingual sentence boundary detection",
2006 (Punkt).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from reg2rg.evaluation.bootstrap import Array
from reg2rg.evaluation.metrics.base import METRICS, TextMetric
from reg2rg.evaluation.metrics.bleu import check_pairs
from reg2rg.evaluation.metrics.synonyms import Names, SynonymSource, names_of

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

__all__ = ["METEOR", "meteor", "meteor_tokens"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Stem = Callable[[str], str]

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
"""Weight of recall over precision, steepness and weight of the penalty for scattered matches: NLTK's."""

_ABBREVIATIONS = frozenset({"ct"})
_STARTERS = frozenset({"both", "in", "it", "the", "there"})
"""What Punkt's English model knows that matters in reports: "CT." ends a sentence only before one of these words. (It
takes "ct" for Connecticut.) The model itself needs no download this way, and sentences are cut as it cuts them."""

_ODD = re.compile(r"[^\n\t -~]|[.?!](?:[^\s.\w]|\s+[^\s\w])")
"""Where Punkt does more than judge the words on both sides of a mark: brackets and quotes after it, marks in a row."""
_CANDIDATE = re.compile(r"[.?!](?=\s+(\S+))")
_HARMLESS = re.compile(r"[A-Za-z0-9 .,:;()%+*/?!<>=-]+")
_EASY = re.compile(r"([A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*)([,;:]?)")
_EASY_LAST = re.compile(r"([A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*)(\.?)")
"""Words that the tokenizer leaves whole, but for the mark at their end: "non-specific", "4.5", "lung,"."""
_TWO_IN_ONE = frozenset({"cannot", "gimme", "gonna", "gotta", "lemme", "wanna"})
"""Words of letters alone that it cuts in two."""


@cache
def _split_sentences() -> Callable[[str], list[str]]:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer  # here: nltk imports all of itself

    parameters: Any = PunktParameters()
    parameters.abbrev_types = set(_ABBREVIATIONS)
    parameters.sent_starters = set(_STARTERS)
    splitter: Any = PunktSentenceTokenizer(parameters)
    # A full stop is judged by the words beside it alone, and in reports these are often the same.
    splitter.text_contains_sentbreak = is_end = lru_cache(maxsize=2**16)(splitter.text_contains_sentbreak)

    def split(text: str) -> list[str]:
        if _ODD.search(text):
            return list(splitter.tokenize(text))
        sentences, start, before = [], 0, 0
        for mark in _CANDIDATE.finditer(text):
            word = 1 + max(text.rfind(blank, before, mark.start()) for blank in " \n\t")
            if is_end(text[max(word, before) : mark.end(1)]):
                sentences.append(text[start : mark.end()])
                start = mark.start(1)
            before = mark.end()
        return [*sentences, text[start:]]

    return split


@cache
def _split_words() -> Callable[[str], list[str]]:
    from nltk.tokenize import NLTKWordTokenizer  # here: nltk imports all of itself

    tokenizer: Any = NLTKWordTokenizer()
    return lambda sentence: list(tokenizer.tokenize(sentence))


def _cut(text: str) -> tuple[str, ...]:
    return tuple(token.lower() for token in _split_words()(text))


@lru_cache(maxsize=2**17)
def _word_tokens(word: str) -> tuple[str, ...]:
    """Lower-case tokens of a word that is not the last of its sentence."""
    return _easy_tokens(_EASY.fullmatch(word)) or _cut(f"{word} x")[:-1]


@lru_cache(maxsize=2**16)
def _last_tokens(word: str) -> tuple[str, ...]:
    """Lower-case tokens of the last word of its sentence."""
    return _easy_tokens(_EASY_LAST.fullmatch(word)) or _cut(word)


def _easy_tokens(match: re.Match[str] | None) -> tuple[str, ...]:
    if match is None or not _TWO_IN_ONE.isdisjoint(re.split("[.-]", match[1].lower())):
        return ()
    return tuple(part.lower() for part in match.groups() if part)


@lru_cache(maxsize=2**16)
def _sentence_tokens(sentence: str) -> tuple[str, ...]:
    """Lower-case tokens of a sentence.

    The tokenizer's rules act inside words, but for those about quotes and about the full stop at the end. So where
    there are only letters, digits and harmless marks, words are cut one by one, and few are new.
    """
    words = sentence.split()
    if words and _HARMLESS.fullmatch(sentence) and any(map(str.isalnum, words[-1])):
        return (*chain.from_iterable(map(_word_tokens, words[:-1])), *_last_tokens(words[-1]))
    return _cut(sentence)


@cache
def _stemmer() -> Stem:
    from nltk.stem.porter import PorterStemmer  # here: nltk imports all of itself

    stemmer: Any = PorterStemmer()
    return lru_cache(maxsize=2**17)(lambda word: str(stemmer.stem(word)))


def meteor_tokens(text: str) -> list[str]:
    """Cut a text into sentences and these into words, as ``nltk.word_tokenize`` does, in lower case."""
    return [token for sentence in _split_sentences()(text) for token in _sentence_tokens(sentence)]


@dataclass(frozen=True, slots=True)
class _Side:
    """The tokens of all references, or of all predictions, one text after another.

    Attributes:
        pair: (m,) row of the text.
        place: (m,) place in the text.
        word: (m,) number of the word.
        lengths: (n,) tokens of each text.
    """

    pair: IntArray
    place: IntArray
    word: IntArray
    lengths: IntArray

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]], number: Mapping[str, int]) -> _Side:
        """Number the words of texts."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        pair = np.repeat(np.arange(len(texts)), lengths)
        place = np.arange(len(pair)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        word = np.fromiter(map(number.__getitem__, chain.from_iterable(texts)), np.int64, len(pair))
        return cls(pair, place, word, lengths)

    def turns(self, rows: IntArray, words: IntArray, kinds: int, longest: int) -> IntArray:
        """(k,) one number for pair, word, and how often the word comes again behind this place. No two are equal.

        Args:
            rows: (k,) which tokens, in ascending order.
            words: (k,) numbers that stand for their words, below `kinds`.
            kinds: how many numbers there are.
            longest: more tokens than any text has.
        """
        keys = self.pair[rows] * kinds + words
        order = np.argsort(keys, kind="stable")
        ascending = keys[order]
        last = np.append(np.flatnonzero(np.diff(ascending)), len(ascending) - 1) if len(keys) else keys
        again = np.empty_like(keys)
        again[order] = np.repeat(last, np.diff(last, prepend=-1)) - np.arange(len(keys))
        return keys * longest + again


def _match_equal(
    found: IntArray, wanted: IntArray, offered: IntArray, sides: tuple[_Side, _Side], words: IntArray
) -> tuple[IntArray, IntArray]:
    """Match equal words of all pairs, each text from its end, as NLTK does.

    A word's last token in the prediction takes its last one in the reference, the last but one the last but one.

    Args:
        found: (m,) token of the predictions -> place in its reference, -1 where there is none yet; filled in here.
        wanted: tokens of the predictions that have no match yet.
        offered: tokens of the references that are free.
        sides: references and predictions.
        words: number of a word -> number that words to be matched have in common.

    Returns:
        What is left of ``wanted`` and of ``offered``.
    """
    reference, prediction = sides
    kinds = int(words.max(initial=0)) + 1
    longest = int(max(side.lengths.max(initial=0) for side in sides)) + 1
    ours = prediction.turns(wanted, words[prediction.word[wanted]], kinds, longest)
    theirs = reference.turns(offered, words[reference.word[offered]], kinds, longest)
    _, left, right = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    found[wanted[left]] = reference.place[offered[right]]
    return np.delete(wanted, left), np.delete(offered, right)


def _match_synonyms(
    found: IntArray, wanted: IntArray, offered: IntArray, sides: tuple[_Side, _Side], stems: Sequence[str], names: Names
) -> None:
    """Match stems with synonyms, again from the end and to the last free place.

    Args:
        found: as of :func:`_match_equal`.
        wanted: likewise.
        offered: likewise.
        sides: likewise.
        stems: number of a word -> its stem.
        names: stem -> its synonyms.
    """
    reference, prediction = sides
    known = {stems[word] for word in np.unique(reference.word[offered])}
    # Equal stems have found each other before. Most stems have no synonym in any text.
    near = {word: (names(stems[word]) & known) - {stems[word]} for word in np.unique(prediction.word[wanted]).tolist()}
    some = np.zeros(len(stems), np.bool_)
    some[[word for word, others in near.items() if others]] = True
    free: dict[int, dict[str, list[int]]] = {}
    rows = zip(*(side[offered].tolist() for side in (reference.pair, reference.place, reference.word)), strict=True)
    for pair, place, word in rows:
        free.setdefault(pair, {}).setdefault(stems[word], []).append(place)
    last_first = wanted[some[prediction.word[wanted]]][::-1]
    rows = zip(last_first.tolist(), *(s[last_first].tolist() for s in (prediction.pair, prediction.word)), strict=True)
    for token, pair, word in rows:
        places_of = free.get(pair, {})
        choices = [places_of[other] for other in near[word] if places_of.get(other)]
        if choices:
            found[token] = max(choices, key=lambda places: places[-1]).pop()


def _score(matches: int, chunks: int, predicted: int, given: int) -> float:
    """METEOR of counts."""
    if not matches:
        return 0.0
    precision, recall = matches / predicted, matches / given
    mean = (precision * recall) / (ALPHA * precision + (1 - ALPHA) * recall)
    scattered: float = (chunks / matches) ** BETA
    return (1 - GAMMA * scattered) * mean


def meteor(references: Sequence[str], predictions: Sequence[str], synonyms: SynonymSource = "bundled") -> FloatArray:
    """Score pairs of texts. Case is ignored; equal texts score a little less than 1.

    Args:
        references: n texts.
        predictions: n texts, in the same order.
        synonyms: where synonyms come from, see :func:`reg2rg.evaluation.metrics.synonyms.names_of`. With ``None``
            only equal words and equal stems match; call that METEOR-es, since its figures are lower.

    Returns:
        (n,) scores from 0 to 1; 0 where nothing matches.

    Raises:
        ConfigError: the synonyms are missing.
        ValueError: see :func:`reg2rg.evaluation.metrics.bleu.check_pairs`.
    """
    check_pairs(references, predictions)
    names, stem, n = names_of(synonyms), _stemmer(), len(references)
    texts = [[meteor_tokens(text) for text in side] for side in (references, predictions)]
    number = {word: i for i, word in enumerate(dict.fromkeys(chain.from_iterable(chain.from_iterable(texts))))}
    stems = [stem(word) for word in number]
    number_of_stem = {word: i for i, word in enumerate(dict.fromkeys(stems))}
    sides = reference, prediction = _Side.of(texts[0], number), _Side.of(texts[1], number)
    found = np.full(len(prediction.pair), -1)
    wanted, offered = np.arange(len(prediction.pair)), np.arange(len(reference.pair))
    wanted, offered = _match_equal(found, wanted, offered, sides, np.arange(len(number)))
    by_stem = np.fromiter(map(number_of_stem.__getitem__, stems), np.int64, len(stems))
    wanted, offered = _match_equal(found, wanted, offered, sides, by_stem)
    if names is not None:
        _match_synonyms(found, wanted, offered, sides, stems, names)
    matched = found >= 0
    before = np.where(prediction.place > 0, np.concatenate([[-1], found[:-1]]), -1)[: len(found)]
    begins = matched & ((before < 0) | (found != before + 1))
    counts = (np.bincount(prediction.pair[flags], minlength=n).tolist() for flags in (matched, begins))
    lengths = prediction.lengths.tolist(), reference.lengths.tolist()
    return np.array([_score(*row) for row in zip(*counts, *lengths, strict=True)], np.float64)


_TEXT = "NLTK, alpha .9, beta 3, gamma .5"
_SOURCES = {"bundled": "synonyms of WordNet 3.0", "nltk": "synonyms of NLTK's own WordNet"}


@METRICS.register
class METEOR(TextMetric):
    """METEOR of NLTK; without synonyms, and beside the Java program's, it is another metric and is named so."""

    place, always, english = 20, True, True
    keys = ("METEOR", "METEOR-es", "METEOR (NLTK)", "METEOR-es (NLTK)")
    logged: ClassVar = {"METEOR": "meteor"}
    headline = (("METEOR", "METEOR-es", "METEOR (NLTK)"),)
    plotted = ("METEOR",)
    tabled = ("METEOR",)

    def measure(self, references: Sequence[str], predictions: Sequence[str], cohort: Cohort) -> NDArray[Any]:
        """(n, 1) scores."""
        return meteor(references, predictions, cohort.settings.synonyms)[:, None]

    def values(self, measured: NDArray[Any], cohort: Cohort) -> Mapping[str, Array]:
        """The scores under the name that they deserve."""
        name = "METEOR" if cohort.settings.synonyms is not None else "METEOR-es"
        return {f"{name} (NLTK)" if cohort.protocol.coco else name: measured[:, 0]}

    def definition(self, cohort: Cohort) -> str:
        """Parameters, and whose synonyms."""
        synonyms = cohort.settings.synonyms
        if synonyms is None:
            return f"{_TEXT}, equal words and equal stems only, no synonyms"
        return f"{_TEXT}, {_SOURCES.get(str(synonyms)) or f'synonyms of {Path(str(synonyms)).name}'}"
