"""What language a text may be in, as far as letters tell: scripts are told apart, languages of one script are not."""

from __future__ import annotations

import re
from collections import Counter

_SCRIPTS: tuple[tuple[str, str], ...] = (
    ("Japanese (kana)", "\u3040-\u30ff"),
    ("Korean (Hangul)", "\uac00-\ud7af\u1100-\u11ff"),
    ("Chinese signs", "\u3400-\u4dbf\u4e00-\u9fff"),
    ("Cyrillic letters", "\u0400-\u052f"),
    ("Greek letters", "\u0370-\u03ff"),
    ("Arabic letters", "\u0600-\u06ff\u0750-\u077f"),
    ("Hebrew letters", "\u0590-\u05ff"),
    ("Thai letters", "\u0e00-\u0e7f"),
    ("Devanagari letters", "\u0900-\u097f"),
)
TURKISH, LATIN, NONE = "Turkish letters", "Latin letters", "no letters"
_KNOWN = [(name, re.compile(f"[{signs}]")) for name, signs in _SCRIPTS]
_LETTERS = re.compile(r"[^\W\d_]")
_PLAIN = re.compile(r"[A-Za-z]")
_TURKISH = re.compile("[\u011e\u011f\u0130\u0131\u015e\u015f]")
"""Letters of Turkish (and Azerbaijani) that no other usual language has."""
_LOOKED_AT = 2000
_KANA_SHARE, _TURKISH_SHARE = 0.05, 0.01


def script_of(text: str) -> str:
    """The script of most letters of a text, by its first 2,000 characters.

    Kana beside Chinese signs tell Japanese, and a hundredth of letters such as ğ, ş and ı Turkish. English, German or
    Spanish are all Latin letters: which it is cannot be told by letters, and is not guessed.
    """
    text = text[:_LOOKED_AT]
    letters = len(_LETTERS.findall(text))
    if not letters:
        return NONE
    counts = Counter({LATIN: len(_PLAIN.findall(text))})
    if counts[LATIN] < letters:
        counts.update({name: len(signs.findall(text)) for name, signs in _KNOWN})
    kana = _KNOWN[0][0]
    if counts[kana] >= _KANA_SHARE * letters:
        return kana
    script = counts.most_common(1)[0][0]
    return TURKISH if script == LATIN and len(_TURKISH.findall(text)) >= _TURKISH_SHARE * letters else script
