"""Detected findings as words of the prompt, before the visual tokens of their region.

    The region 3 is with hiatal hernia <region>. The region 4 is without findings <region>. ...

In training the words are what the labels of the region's own text say, and are left out at random, so that the model
does not stop to look; when a report is generated they are what the head detects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WITH, WITHOUT = "with {labels} ", "without findings "


def cue_text(labels: Sequence[str]) -> str:
    """What the prompt says of a region with these findings."""
    return WITH.format(labels=", ".join(labels).lower()) if labels else WITHOUT


class CueWriter:
    """Cues as token ids; each is tokenised on its own, as every text between two runs of slots is, and once.

    Args:
        tokenizer: the language model's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._known: dict[tuple[str, ...], list[int]] = {}

    def ids(self, labels: Sequence[str] | None) -> list[int]:
        """Token ids of a region's cue; none for ``None``, a region of which nothing is said."""
        if labels is None:
            return []
        key = tuple(labels)
        if key not in self._known:
            text = cue_text(key)
            self._known[key] = list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
        return self._known[key]
