"""Labels by keyword rules: needs nothing, and everybody can see why it says what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.labels import FINDINGS
from reg2rg.evaluation.labelers.base import LABELERS, Labeler
from reg2rg.evaluation.labelers.keywords import KeywordReader


@LABELERS.register
class RuleLabeler(Labeler):
    """Labels by the transparent rules of `KeywordReader`; texts that come again are not read again.

    Args:
        uncertain: what a finding counts as that is mentioned with doubt only.
    """

    name, english = "rules", True
    labels: tuple[str, ...] = FINDINGS

    def __init__(self, uncertain: Literal["present", "absent"] = "present") -> None:
        self.reader = KeywordReader(uncertain=uncertain)
        self.definition = (
            "A label is present if a clause of the text mentions it and does not deny it (keyword rules of reg2rg, not "
            f"a trained classifier; a finding mentioned with doubt counts as {uncertain})."
        )
        self._known: dict[str, bytes] = {}

    def label(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each label is present in each text, ``(texts, labels)``."""
        rows = []
        for text in texts:
            known = self._known.get(text)
            if known is None:
                known = self._known[text] = bytes(self.reader.read(text).values())
            rows.append(known)
        return np.frombuffer(b"".join(rows), np.bool_).reshape(len(rows), len(self.labels))
