"""Detected findings as words of the prompt, behind the visual tokens of their region.

    The region 3 is <region>. The region 3 is with hiatal hernia. The region 4 is <region>. The region 4 is with no
    finding. ...

In training the words are what the labels of the region's own text say, and are left out at random, so that the model
does not stop to look; when a report is generated they are what the head detects. The number stands before them again:
small language models look up by number, and what stands right behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WITH, WITHOUT = ". The region {slot} is with {labels}", ". The region {slot} is with no finding"


def cue_text(slot: int, labels: Sequence[str]) -> str:
    """What the prompt says of the region in a slot with these findings."""
    return (WITH if labels else WITHOUT).format(slot=slot, labels=", ".join(labels).lower())


class CueWriter:
    """Cues as token ids; each is tokenised on its own, as every text between two runs of slots is, and once.

    Args:
        tokenizer: the language model's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._known: dict[tuple[int, tuple[str, ...]], list[int]] = {}

    def ids(self, slot: int, labels: Sequence[str] | None) -> list[int]:
        """Token ids of the cue of the region in a slot; none for ``None``, a region of which nothing is said."""
        if labels is None:
            return []
        key = slot, tuple(labels)
        if key not in self._known:
            text = cue_text(*key)
            self._known[key] = list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
        return self._known[key]
