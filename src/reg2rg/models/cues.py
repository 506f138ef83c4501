"""Detected findings as words of the prompt, behind the visual tokens of their region.

    The region 3 is <region>. The region 3 is with cardiomegaly. The region 3 is with pericardial effusion. The region
    4 is <region>. The region 4 is with no finding. ...

In training the words are what the labels of the region's own text say, in the order of the text, and are left out at
random, so that the model does not stop to look; when a report is generated they are what the head detects, in the
order of the labels. The number stands before each finding again: small language models look up by number, and what
stands right behind it. They learn to go on to the next finding where the order of the text is that of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.report import SENTENCE_BREAK

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WITH, WITHOUT = ". The region {slot} is with {label}", ". The region {slot} is with no finding"


def cue_text(slot: int, labels: Sequence[str]) -> str:
    """What the prompt says of the region in a slot with these findings."""
    return "".join(WITH.format(slot=slot, label=label.lower()) for label in labels) or WITHOUT.format(slot=slot)


def order_in_text(text: str, read: Callable[[Sequence[str]], NDArray[np.bool_]]) -> list[int]:
    """Places of the labels that a text states, as its sentences come to them; those of one sentence in label order.

    Args:
        text: of a region.
        read: texts -> (N, L) bool, the labels that each states.
    """
    ends = [*(found.start() for found in SENTENCE_BREAK.finditer(text)), len(text)]
    rows = read([text[:end] for end in ends])
    since = rows.argmax(0)
    return sorted(np.flatnonzero(rows[-1]).tolist(), key=lambda place: int(since[place]))


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
