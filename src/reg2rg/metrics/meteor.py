"""METEOR as NLTK computes it, which is what the published figures were made with, and many times as fast.

It is not METEOR 1.5 of the Java program, whose values are lower by about 0.2 on these reports. Synonyms are looked up
for Porter stems, as NLTK does; so many are missed, but the figures stay comparable.

Sources: Lavie and Agarwal, "METEOR: an automatic metric for MT evaluation with high levels of correlation with human
judgments", WMT 2007, with NLTK's parameters; Kiss and Strunk, "Unsupervised multilingual sentence boundary detection",
2006 (Punkt).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg2rg.metrics.bleu import check_pairs
from reg2rg.metrics.synonyms import Names, SynonymSource, names_of

__all__ = ["meteor", "meteor_tokens"]

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
_TWO_IN_ONE = frozenset({"cannot", "gimme", "gonna", "gotta", "lemme", "wanna"})
"""Words of letters alone that the tokenizer cuts in two."""


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
    if word.isalpha() and word.lower() not in _TWO_IN_ONE:
        return (word.lower(),)
    return _cut(f"{word} x")[:-1]


_last_tokens = lru_cache(maxsize=2**16)(_cut)


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


def _match(
    found: list[int], wanted: list[tuple[int, str]], offered: list[tuple[int, str]]
) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Match equal words from the end: each word of the prediction takes the last free one of the reference.

    Args:
        found: place in the prediction -> place in the reference, -1 where there is none yet; filled in here.
        wanted: places and words of the prediction, last place first.
        offered: places and words of the reference, first place first.

    Returns:
        What is left of ``wanted`` and of ``offered``, in the same orders.
    """
    free = _places(offered)
    left, taken = [], set()
    for item in wanted:
        places = free.get(item[1])
        if places:
            found[item[0]] = place = places.pop()
            taken.add(place)
        else:
            left.append(item)
    return left, [item for item in offered if item[0] not in taken]


def _places(offered: list[tuple[int, str]]) -> dict[str, list[int]]:
    """Word -> its places, first place first."""
    places: dict[str, list[int]] = {}
    for place, word in offered:
        places.setdefault(word, []).append(place)
    return places


def _match_synonyms(
    found: list[int], wanted: list[tuple[int, str]], offered: list[tuple[int, str]], names: Names
) -> None:
    """Match words with synonyms, again from the end and to the last free place; arguments as of :func:`_match`."""
    free = _places(offered)
    for place, word in wanted:
        choices = [free[other] for other in free.keys() & (names(word) | {word})]
        if choices:
            places = max(choices, key=lambda places: places[-1])
            found[place] = places.pop()
            if not places:
                free = {other: rest for other, rest in free.items() if rest}


def _score(reference: Sequence[str], prediction: Sequence[str], stem: Stem, names: Names | None) -> float:
    """METEOR of lower-case tokens."""
    found = [-1] * len(prediction)
    wanted, offered = _match(found, list(enumerate(prediction))[::-1], list(enumerate(reference)))
    wanted, offered = _match(
        found, [(place, stem(word)) for place, word in wanted], [(place, stem(word)) for place, word in offered]
    )
    if names is not None and wanted and offered:
        _match_synonyms(found, wanted, offered, names)
    matches = chunks = 0
    before = -2  # neither a place nor the mark of no match
    for place in found:
        if place >= 0:
            matches += 1
            chunks += place != before + 1
            before = place
        else:
            before = -2
    if not matches:
        return 0.0
    precision, recall = matches / len(prediction), matches / len(reference)
    mean = (precision * recall) / (ALPHA * precision + (1 - ALPHA) * recall)
    scattered: float = (chunks / matches) ** BETA
    return (1 - GAMMA * scattered) * mean


def meteor(references: Sequence[str], predictions: Sequence[str], synonyms: SynonymSource = "bundled") -> FloatArray:
    """Score pairs of texts. Case is ignored; equal texts score a little less than 1.

    Args:
        references: n texts.
        predictions: n texts, in the same order.
        synonyms: where synonyms come from, see :func:`reg2rg.metrics.synonyms.names_of`. With ``None`` only equal words
            and equal stems match; call that METEOR-es, since its figures are lower.

    Returns:
        (n,) scores from 0 to 1; 0 where nothing matches.

    Raises:
        ConfigError: the synonyms are missing.
        ValueError: see :func:`reg2rg.metrics.bleu.check_pairs`.
    """
    check_pairs(references, predictions)
    names, stem = names_of(synonyms), _stemmer()
    pairs = zip(references, predictions, strict=True)
    return np.array([_score(meteor_tokens(a), meteor_tokens(b), stem, names) for a, b in pairs], np.float64)
