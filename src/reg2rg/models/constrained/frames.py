"""How a tokenizer writes the frames of a report, and which tokens can go on with one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reg2rg.core.errors import ConfigError
from reg2rg.core.report import write_paragraph
from reg2rg.models.constrained.vocabulary import UNKNOWN, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Options:
    """Tokens that may follow in a frame.

    Attributes:
        tokens: their ids.
        texts: what each adds.
        names: for each, the places of the names that are still possible behind it.
        splits: some of them rule a name out.
    """

    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    names: tuple[tuple[int, ...], ...]
    splits: bool


class Frames:
    """Frames of a region set in the texts of one tokenizer's tokens.

    Args:
        tokenizer: the language model's.
        names: of the region set.
        identity: frames name their region.

    Raises:
        ConfigError: the tokenizer writes two names alike, or `Vocabulary` refuses it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, names: Sequence[str], identity: bool = True) -> None:
        self.vocabulary = Vocabulary(tokenizer)
        self.names, self.identity = tuple(names), identity
        self._texts: dict[tuple[int, str], str] = {}
        self._options: dict[tuple[int, str, tuple[str, ...]], Options] = {}
        self._lengths: dict[int, int] = {}
        if identity:
            self._require_distinct()
        heads = {"The region", self._head()} - {""}
        self.begins = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(heads)))})\s+\d")
        """Finds where a frame begins in a text, in this tokenizer's spelling or as a report is parsed."""

    def _head(self) -> str:
        """What stands before the number of every frame, "" where the tokenizer cannot write it."""
        first, second = (self.vocabulary.spelled(write_paragraph(slot, "", "", False)) for slot in (0, 1))
        same = next((end for end in range(len(first)) if first[: end + 1] != second[: end + 1]), len(first))
        return "" if UNKNOWN in first[:same] else first[:same].rstrip()

    def _require_distinct(self) -> None:
        spelled: dict[str, str] = {}
        for name in self.names:
            other = spelled.setdefault(self.text(0, name), name)
            if other != name:
                raise ConfigError(
                    f"the tokenizer writes the regions '{other}' and '{name}' alike ({self.text(0, name)!r}), so that "
                    "no model can tell them apart. Fix: a tokenizer with these words, or other names in the region set"
                )

    def text(self, slot: int, name: str) -> str:
        """The frame of a slot and a name, in the texts of tokens, without blanks at its ends."""
        key = slot, name if self.identity else ""
        if key not in self._texts:
            self._texts[key] = self.vocabulary.spelled(write_paragraph(slot, key[1], "", self.identity))
        return self._texts[key]

    def length(self, slot: int) -> int:
        """Tokens of the longest frame of a slot, as the tokenizer writes it by itself."""
        if slot not in self._lengths:
            texts = (write_paragraph(slot, name, "", self.identity).rstrip() for name in self.names or ("",))
            self._lengths[slot] = 1 + max(len(self.vocabulary.ids(text)) for text in texts)
        return self._lengths[slot]

    def options(self, slot: int, begun: str, leads: tuple[str, ...]) -> Options:
        """Tokens that can go on with the frame of a slot, over all names of the set.

        Args:
            slot: its number.
            begun: the frame's text so far.
            leads: blanks that may stand before the frame.
        """
        key = slot, begun, leads
        if key not in self._options:
            self._options[key] = self._find_options(slot, begun, leads)
        return self._options[key]

    def _find_options(self, slot: int, begun: str, leads: tuple[str, ...]) -> Options:
        names = self.names if self.identity else ("",)
        whole = [(place, lead + self.text(slot, name)) for place, name in enumerate(names) for lead in leads]
        whole = [(place, text) for place, text in whole if text.startswith(begun) and text != begun]
        rests = [(place, text[len(begun) :]) for place, text in whole]
        found = sorted(set(self.vocabulary.continuing([rest for _, rest in rests])))
        alive = [
            tuple(dict.fromkeys(place for place, rest in rests if rest.startswith(text) or text.startswith(rest)))
            for _, text in found
        ]
        every = len({place for place, _ in rests})
        return Options(
            tuple(token for token, _ in found),
            tuple(text for _, text in found),
            tuple(alive),
            any(len(names) < every for names in alive),
        )
