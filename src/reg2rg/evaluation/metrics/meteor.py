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
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from reg2rg.evaluation.bootstrap import Array
from reg2rg.evaluation.metrics.base import METRICS, SharedTextMetric
from reg2rg.evaluation.metrics.ngrams import Distinct, IntArray, TextSet, Tokens, blocks, csr
from reg2rg.evaluation.metrics.synonyms import Names, SynonymSource, names_of

if TYPE_CHECKING:
    from reg2rg.evaluation.cohort import Cohort

__all__ = ["METEOR", "meteor", "meteor_tokens"]

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
class _Words:
    """The words of distinct texts.

    Attributes:
        turns: (texts, turns) place in its text, counted from 1, of each token. A column is a word and how often it
            comes again behind that place, so that a text has none twice: its last "lung" meets the other's last one.
        word: (turns,) number of the word.
        lengths: (texts,) tokens of each text.
        stems: number of a word -> its stem.
    """

    turns: sparse.csr_array
    word: IntArray
    lengths: IntArray
    stems: Sequence[str]

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Words:
        """Cut texts and number their words."""
        tokens = Tokens.of(texts, meteor_tokens)
        owner = np.repeat(np.arange(len(texts)), tokens.lengths)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(tokens.lengths) - tokens.lengths, tokens.lengths)
        again = _again(owner, tokens.ids, len(tokens.tokens))
        longest = int(again.max(initial=0)) + 1
        column, known = pd.factorize(tokens.ids * longest + again, sort=True)
        order = np.lexsort((column, owner))
        starts = np.concatenate([[0], np.cumsum(tokens.lengths)])
        shape = len(texts), max(1, len(known))
        turns = csr((place[order] + 1).astype(np.int32), column[order].astype(np.int32), starts, shape)
        return cls(turns, np.asarray(known) // longest, tokens.lengths, [*map(_stemmer(), tokens.tokens)])


def _again(pair: IntArray, words: IntArray, kinds: int) -> IntArray:
    """(k,) how often the same word comes again behind each token of a text; tokens in ascending order."""
    keys = pair * max(1, kinds) + words
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    last = np.append(np.flatnonzero(np.diff(ascending)), len(ascending) - 1) if len(keys) else keys
    again = np.empty_like(keys)
    again[order] = np.repeat(last, np.diff(last, prepend=-1)) - np.arange(len(keys))
    return again


@dataclass(frozen=True, slots=True)
class _Left:
    """Tokens of one side that have no match yet, ordered by pair and place.

    Attributes:
        pair: (k,) which pair.
        place: (k,) place in its text, counted from 1.
        word: (k,) number of the word.
    """

    pair: IntArray
    place: IntArray
    word: IntArray

    @classmethod
    def of(cls, side: sparse.csr_array, matched: sparse.csr_array, word: IntArray) -> _Left:
        """What `matched` does not hold."""
        rest = side - matched  # places are the same in both
        rest.eliminate_zeros()
        pair = np.repeat(np.arange(rest.shape[0]), np.diff(rest.indptr))
        order = np.lexsort((rest.data, pair))
        return cls(pair[order], rest.data[order].astype(np.int64), word[rest.indices[order]])

    def only(self, where: NDArray[Any]) -> _Left:
        """Some of them."""
        return _Left(self.pair[where], self.place[where], self.word[where])


Found = tuple[IntArray, IntArray, IntArray]
"""Pair, place in the prediction and place in the reference of matches."""


def _match_stems(wanted: _Left, offered: _Left, by_stem: IntArray) -> tuple[Found, _Left, _Left]:
    """Match equal stems, each text from its end, as NLTK does.

    Returns:
        matches, and what is left of both sides.
    """
    kinds = int(by_stem.max(initial=0)) + 1
    # Equal words have found each other: only stems of several words can match.
    several = np.bincount(by_stem, minlength=kinds) > 1
    keys = []
    places = [np.flatnonzero(several[by_stem[side.word]]) for side in (wanted, offered)]
    for side, where in zip((wanted, offered), places, strict=True):
        some = side.only(where)
        stem = by_stem[some.word]
        keys.append((some.pair * kinds + stem, _again(some.pair, stem, kinds)))
    longest = max((int(again.max(initial=0)) for _, again in keys), default=0) + 1
    ours, theirs = (key * longest + again for key, again in keys)
    _, left, right = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    left, right = places[0][left], places[1][right]
    found = wanted.pair[left], wanted.place[left], offered.place[right]
    rest = (np.delete(np.arange(len(side.pair)), done) for side, done in ((wanted, left), (offered, right)))
    return found, wanted.only(next(rest)), offered.only(next(rest))


def _match_synonyms(wanted: _Left, offered: _Left, stems: Sequence[str], names: Names) -> Found:
    """Match stems with synonyms, again from the end and to the last free place."""
    known = {stems[word] for word in np.unique(offered.word).tolist()}
    # Equal stems have found each other before. Most stems have no synonym in any text.
    near = {word: (names(stems[word]) & known) - {stems[word]} for word in np.unique(wanted.word).tolist()}
    near = {word: others for word, others in near.items() if others}
    answers = set().union(*near.values())
    free: dict[int, dict[str, list[int]]] = {}
    asking = np.isin(wanted.word, [*near])
    able = np.array([stem in answers for stem in stems], np.bool_)
    some = offered.only(able[offered.word] & np.isin(offered.pair, wanted.pair[asking]))
    for pair, place, word in zip(some.pair.tolist(), some.place.tolist(), some.word.tolist(), strict=True):
        free.setdefault(pair, {}).setdefault(stems[word], []).append(place)
    last_first = wanted.only(np.flatnonzero(asking)[::-1])
    found = []
    for pair, token, word in zip(
        *(part.tolist() for part in (last_first.pair, last_first.place, last_first.word)), strict=True
    ):
        places_of = free.get(pair, {})
        choices = [places_of[other] for other in near[word] if places_of.get(other)]
        if choices:
            found.append((pair, token, max(choices, key=lambda places: places[-1]).pop()))
    pairs, tokens, places = np.array(found, np.int64).reshape(-1, 3).T
    return pairs, tokens, places


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
        ValueError: see :func:`reg2rg.evaluation.metrics.ngrams.check_pairs`.
    """
    return _scores([(references, predictions)], synonyms)[0]


def _scores(sets: Sequence[TextSet], synonyms: SynonymSource) -> list[FloatArray]:
    """`meteor` of each set."""
    distinct, names = Distinct.of(sets), names_of(synonyms)
    words = _Words.of(distinct.texts)
    number_of_stem = {word: i for i, word in enumerate(dict.fromkeys(words.stems))}
    by_stem = np.fromiter(map(number_of_stem.__getitem__, words.stems), np.int64, len(words.stems))
    found = [np.zeros(len(references)) for references, _ in distinct.pairs]
    for scores, pairs in zip(found, distinct.pairs, strict=True):
        for part, references, predictions in blocks(pairs):
            matches = _matches(words, references, predictions, by_stem, names)
            scores[part] = _score(*matches, words.lengths[predictions], words.lengths[references])
    return found


def _matches(
    words: _Words, references: IntArray, predictions: IntArray, by_stem: IntArray, names: Names | None
) -> tuple[IntArray, IntArray]:
    """(n,) matches and (n,) chunks of matches that lie side by side in both texts, of pairs of texts."""
    given, said = words.turns[references], words.turns[predictions]
    in_said, in_given = said.multiply(given.astype(np.bool_)), given.multiply(said.astype(np.bool_))
    pair = np.repeat(np.arange(len(references)), np.diff(in_said.indptr))
    found = [(pair, in_said.data.astype(np.int64), in_given.data.astype(np.int64))]
    wanted, offered = _Left.of(said, in_said, words.word), _Left.of(given, in_given, words.word)
    stems, wanted, offered = _match_stems(wanted, offered, by_stem)
    found.append(stems)
    if names is not None:
        found.append(_match_synonyms(wanted, offered, words.stems, names))
    pair, token, place = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((token, pair))
    pair, token, place = pair[order], token[order], place[order]
    begins = np.ones(len(pair), np.bool_)
    begins[1:] = (np.diff(pair) != 0) | (np.diff(token) != 1) | (np.diff(place) != 1)
    n = len(references)
    return np.bincount(pair, minlength=n).astype(np.int64), np.bincount(pair[begins], minlength=n).astype(np.int64)


def _score(matches: IntArray, chunks: IntArray, predicted: IntArray, given: IntArray) -> FloatArray:
    """(n,) METEOR of counts; 0 where nothing matches."""
    some = np.maximum(matches, 1)
    precision, recall = some / np.maximum(predicted, 1), some / np.maximum(given, 1)
    mean = (precision * recall) / (ALPHA * precision + (1 - ALPHA) * recall)
    return np.where(matches > 0, (1 - GAMMA * (chunks / some) ** BETA) * mean, 0.0)


_TEXT = "NLTK, alpha .9, beta 3, gamma .5"
_SOURCES = {"bundled": "synonyms of WordNet 3.0", "nltk": "synonyms of NLTK's own WordNet"}


@METRICS.register
class METEOR(SharedTextMetric):
    """METEOR of NLTK; without synonyms, and beside the Java program's, it is another metric and is named so."""

    place, always, english = 20, True, True
    keys = ("METEOR", "METEOR-es", "METEOR (NLTK)", "METEOR-es (NLTK)")
    logged: ClassVar = {"METEOR": "meteor"}
    headline = (("METEOR", "METEOR-es", "METEOR (NLTK)"),)
    plotted = ("METEOR",)
    tabled = ("METEOR",)

    def together(self, sets: Sequence[TextSet], cohort: Cohort) -> Sequence[NDArray[Any]]:
        """(n, 1) scores of each set."""
        return [scores[:, None] for scores in _scores(sets, cohort.settings.synonyms)]

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
