"""Text from outside, cleaned before anything is computed of it: what no report says and no file can hold.

Decoders of byte-level tokens leave halves of surrogate pairs, spreadsheets their escapes of line ends, copied terminals
their colours. Such signs count as words, and some of them end the writing of a file after minutes of work. Everything
else stays as it is: text is text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

_ESCAPE = re.compile(r"_x000[Dd]_\n?|_x00([01][0-9A-Fa-f]|7[Ff])_")
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_BREAK = re.compile(r"[\x0b\x0c\x1c-\x1f\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")
_MARK = re.compile("\ufeff")
_HALF = re.compile(r"[\ud800-\udfff]")

MOSTLY_FOREIGN = 0.5
"""Share of `foreign_share` above which what is made for English says nothing of a text."""


def foreign_share(text: str) -> float:
    """Share of a text's letters that are none of a-z."""
    if text.isascii():
        return 0.0
    counts = {letter: count for letter, count in Counter(text.lower()).items() if letter.isalpha()}
    return sum(n for letter, n in counts.items() if not letter.isascii()) / max(1, sum(counts.values()))


UNWRITTEN = re.compile(f"{_CONTROL.pattern}|{_MARK.pattern}|_x00")
"""Where a text is not what `TextGate` lets through. What is taken out would join what stands beside it."""


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] is None else chr(int(found[1], 16))


_STEPS: tuple[tuple[str, re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    ("escapes of a spreadsheet (_x000D_)", _ESCAPE, _unescaped),
    ("escapes of a terminal", _TERMINAL, ""),
    ("line separators", _BREAK, " "),
    ("control characters", _CONTROL, ""),
    ("byte-order marks", _MARK, ""),
    ("halves of surrogate pairs (now U+FFFD)", _HALF, "\ufffd"),
)


class TextGate:
    """Cleans texts and counts them; `told` says what was done.

    Attributes:
        texts: how many texts were changed.
        kinds: what was found -> in how many texts.
    """

    def __init__(self) -> None:
        self.texts = 0
        self.kinds: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        """The text without what no report says; halves of surrogate pairs that belong together are one sign again."""
        if text.isprintable() and "_x00" not in text:  # nearly all: none of the signs below is printable
            return text
        cleaned, kinds = text, set()
        if _HALF.search(text):  # two halves that stand together are one sign: UTF-16 joins them
            cleaned = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        for kind, pattern, instead in _STEPS:
            replaced = pattern.sub(instead, cleaned)
            if replaced != cleaned:
                kinds.add(kind)
                cleaned = replaced
        self.kinds.update(kinds)
        self.texts += bool(kinds)
        return cleaned

    def told(self, source: str) -> list[str]:
        """One sentence on what was cleaned, or none.

        Args:
            source: the name of the file.
        """
        if not self.texts:
            return []
        listed = ", ".join(f"{kind} in {count:,}" for kind, count in self.kinds.most_common())
        return [f"{source}: {self.texts:,} texts were cleaned before anything was computed: {listed}."]


def clean_text(text: str) -> str:
    """A text as `TextGate` lets it through."""
    return TextGate()(text)
