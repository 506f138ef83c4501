"""What each token of a tokenizer adds to a text, found by decoding it beside another token.

What holds a text to a form must hold every spelling of it: ``The region 3`` may be three tokens, or seven, or begin
inside a token that ends a sentence. So texts are compared, never ids. Bytes are kept where a token ends inside a
character.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from transformers.convert_slow_tokenizer import bytes_to_unicode

from reg2rg.core.errors import ConfigError
from reg2rg.data.prompt import control_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNKNOWN = "\ufffe"
"""Stands in frames for what a vocabulary lacks; no text holds this character."""

_PROBE = "The region 0 is heart: hydropneumothorax, qzxjkv. No 1.5 cm zygapophysis; The region 12 is bone"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_OF_CHARACTER = {character: byte for byte, character in bytes_to_unicode().items()}


class Vocabulary:
    """Texts of tokens.

    Args:
        tokenizer: a fast Hugging Face tokenizer.

    Attributes:
        control: ids that are no text: special tokens, but for unk.
        unknown: the id of unk, -1 without one. In a text it is nothing, as in what the tokenizer decodes.
        added: bytes that each token adds to a text, in UTF-8.

    Raises:
        ConfigError: what a token adds depends on more than its neighbour.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.control = control_ids(tokenizer)
        unknown = tokenizer.unk_token_id
        self.unknown = -1 if unknown is None or unknown in self.control else int(unknown)
        self._backend = tokenizer.backend_tokenizer
        self.added = self._added()
        self._by_text: dict[str, list[int]] = defaultdict(list)
        for token, added in enumerate(self.added):
            if token not in self.control and token != self.unknown and added:
                with_errors = added.decode("utf-8", "replace")
                if with_errors.encode() == added:
                    self._by_text[with_errors].append(token)
        if self.unknown >= 0:
            self._by_text[UNKNOWN].append(self.unknown)
        self._sorted = sorted(self._by_text)

    def __len__(self) -> int:
        return len(self.added)

    def _added(self) -> list[bytes]:
        probe = self.ids(_PROBE)
        known = [token for token in reversed(probe) if token not in self.control and token != self.unknown]
        alone = {token: self._backend.decode([token], skip_special_tokens=False) for token in known}
        anchor = next((token for token, text in alone.items() if text.strip() and text == text.rstrip()), None)
        if anchor is None:
            raise self._refused(_PROBE, "")
        word = alone[anchor].strip()
        # Most tokens bring the blank before them; some vocabularies mark the ends of words, and bring the one behind.
        for behind in (True, False):
            wanted = self._beside(anchor, word, [[token for token in probe if token != self.unknown]], behind)[0]
            every = [[token] for token in range(len(self.tokenizer))]
            added = [self._bytes(*pair) for pair in enumerate(self._beside(anchor, word, every, behind))]
            if self.unknown >= 0:
                added[self.unknown] = b""
            told = b"".join(added[token] for token in probe).decode("utf-8", "replace")
            if told == wanted:
                return added
        raise self._refused(wanted, told)

    def _beside(self, anchor: int, word: str, texts: list[list[int]], behind: bool) -> list[str]:
        """What is decoded of ids behind an anchor, whose word is then taken off, or before it."""
        rows = [[anchor, *ids] if behind else [*ids, anchor] for ids in texts]
        found = self._backend.decode_batch(rows, skip_special_tokens=False)
        if behind:
            return [text.partition(word)[2] for text in found]
        return [text.rpartition(word)[0] for text in found]

    def _bytes(self, token: int, text: str) -> bytes:
        """The bytes of a token's text; of one that ends inside a character those of its name in the vocabulary."""
        if "\ufffd" not in text:
            return text.encode("utf-8", "replace")
        name = self._backend.id_to_token(token) or ""
        if match := _BYTE.fullmatch(name):
            return bytes([int(match[1], 16)])
        if all(character in _OF_CHARACTER for character in name):
            return bytes(_OF_CHARACTER[character] for character in name)
        return text.encode()

    def _refused(self, wanted: str, told: str) -> ConfigError:
        name = getattr(self.tokenizer, "name_or_path", "") or type(self.tokenizer).__name__
        return ConfigError(
            f"tokenizer {name}: what a token adds to a text cannot be told by itself ({told!r} for {wanted!r}), so "
            "that decoding cannot be held to the form of a report. Fix: model.decoding: free"
        )

    def ids(self, text: str) -> list[int]:
        """Ids of a text."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def spelled(self, text: str) -> str:
        """A text as its tokens give it back, without blanks at its ends: perhaps in lower case, spaced otherwise."""
        return "".join(self.in_frame(token) for token in self.ids(text)).strip()

    def tidied(self, text: str) -> str:
        """A text as the tokenizer gives it out: some take blanks before punctuation away, as `decode` does."""
        tokenizer, byte_pairs = self.tokenizer, type(self._backend.model).__name__ == "BPE"
        for_all = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
        cleans = getattr(tokenizer, "clean_up_tokenization_spaces", False)
        if not cleans or (byte_pairs and not getattr(tokenizer, for_all, False)):
            return text
        return str(tokenizer.clean_up_tokenization(text))

    def in_frame(self, token: int) -> str:
        """What a token adds to a frame; `UNKNOWN` for unk."""
        return UNKNOWN if token == self.unknown else self.added[token].decode("utf-8", "replace")

    def continuing(self, rests: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Tokens that go on with one of some texts, or complete it and go beyond, each with what it adds."""
        texts: set[str] = set()
        for rest in rests:
            texts.update(rest[:end] for end in range(1, len(rest) + 1) if rest[:end] in self._by_text)
            place = bisect_right(self._sorted, rest)
            while place < len(self._sorted) and self._sorted[place].startswith(rest):
                texts.add(self._sorted[place])
                place += 1
        for text in sorted(texts):
            yield from ((token, text) for token in self._by_text[text])


def joined(pending: bytes, added: bytes) -> tuple[str, bytes]:
    """The characters that some bytes complete, and the bytes that wait for more."""
    if not pending and added.isascii():
        return added.decode("ascii"), b""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(pending + added)
    return text, decoder.getstate()[0]
