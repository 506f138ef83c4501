"""Tokens that protocols share among their metrics: those of the usual caption tokenizer without Java, and characters.

`ptb_tokens` follows Stanford's PTBTokenizer 3.4.1 as pycocoevalcap 1.2 runs it (``-preserveLines -lowerCase``, then its
list of punctuation taken out), in what occurs in reports: words, numbers, units, hyphens, slashes, brackets, quotes,
contractions, abbreviations. Two of its habits change figures of chest CT and are kept: the list of punctuation is in
capitals while tokens are in small letters, so that brackets stay as ``-lrb-`` and ``-rrb-``; and "CT." is taken for
the abbreviation of Connecticut, so that "CT" and "CT." are two words. Addresses of mail and web, markup and signs of
currency are not treated.
"""

from __future__ import annotations

import re
from functools import lru_cache

_LETTER = r"[^\W\d_]"
_ALNUM = r"[^\W_]"
_DECIMAL = r"(?:\d*(?:[.,]\d+)+|\d+(?:[.:,]\d+)+)"
_ABBREVIATIONS = (
    # months, days, states, companies, titles and what stands before names and numbers, of the lexer's lists
    "jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu|thurs|fri|"
    "ala|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kans?|ky|md|mich|minn|mo|mont|neb|nev|okla|penn|tenn|va|vt|wisc?|wyo|"
    "inc|cos?|corp|ltd|jr|sr|mr|mrs|ms|dr|drs|prof|st|mt|messrs|gen|lt|col|maj|capt|sgt|gov|sens?|reps?|rev|"
    "vs|etc|al|seq|est|ext|figs?|dept|rt|e\\.g|i\\.e"
)
_TOKEN = re.compile(
    rf"""
    \d{{1,2}}[-/]\d{{1,2}}[-/]\d{{2,4}}                                            # dates
    | can(?=not(?!{_ALNUM})) | (?:{_LETTER}\.)+{_LETTER}\.(?!{_ALNUM})              # two words in one; acronyms
    | (?:{_ABBREVIATIONS}|{_LETTER})\.(?!{_ALNUM}) | nos?\.(?=\s+\d)               # abbreviations
    | o['’]clock
    | {_ALNUM}+(?:-{_LETTER}+){{0,2}}(?:/{_ALNUM}+(?:-{_LETTER}+){{0,2}}){{1,2}}     # and/or
    | {_LETTER}+(?=n['’]t(?!{_ALNUM})) | n['’]t(?!{_ALNUM}) | ['’](?:s|m|d|re|ve|ll)(?!{_ALNUM})
    | (?:[-+]?{_DECIMAL}|{_ALNUM}+)(?:[-_](?:{_DECIMAL}|{_ALNUM}+))+               # with hyphens
    | {_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)*                               # words
    | [-+]?{_DECIMAL} | {_ALNUM}+ | [-+]\d+                                        # numbers, with units or not
    | \.\.+ | -+ | [–—]+ | `` | '' | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NAMES = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "–": "--", "—": "--",
    "’": "'", "‘": "`", "“": "``", "”": "''", "…": "...", "....": "...",
}  # fmt: skip
_TAKEN_OUT = frozenset({
    "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", "-LRB-", "-RRB-", "-LCB-", "-RCB-", '"',
})  # fmt: skip
"""Of pycocoevalcap, with the double quote that stands for both of its forms. Those in capitals meet no token."""


@lru_cache(maxsize=2**14)
def _sentence(text: str) -> tuple[str, ...]:
    found = (_NAMES.get(token, token).lower() for token in _TOKEN.findall(text))
    return tuple(token for token in found if token not in _TAKEN_OUT)


def ptb_tokens(text: str) -> list[str]:
    """Tokens of the Penn Treebank in small letters, without punctuation, as most papers score texts."""
    return [*_sentence(text)]


def character_tokens(text: str) -> list[str]:
    """Every sign that is no blank, for scripts that write none between words; Latin words and numbers stay whole."""
    return _CHARACTERS.findall(text)


_CHARACTERS = re.compile(r"[A-Za-z]+|\d+(?:\.\d+)?|\S")
