"""What labels texts: a class with a name, a sentence that says how it decides, and its labels.

Clinical efficacy compares the labels of a generated report with those of its reference, so the number depends on who
labels. The sentence belongs into every output beside the number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.registry import Registry


class Labeler(ABC):
    """Gives each text its labels. Registered in `LABELERS`, it is chosen by its class name.

    Attributes:
        name: short name, for columns and definitions.
        definition: one sentence that says when a label counts as present; it goes into every output.
        labels: the labels, in the order of the columns.
        english: knows English alone: of texts in other scripts its figures are not available.
    """

    name: str
    definition: str
    labels: tuple[str, ...]
    english: ClassVar[bool] = False

    @abstractmethod
    def label(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each label is present in each text, ``(texts, labels)``. A text's labels depend on it alone."""


LABELERS: Registry[Labeler] = Registry("labeler", Labeler)  # type: ignore[type-abstract]


def stack(rows: Sequence[NDArray[np.bool_]], width: int) -> NDArray[np.bool_]:
    """Rows of labels as one array, ``(rows, width)``, also of no rows."""
    return np.stack(rows) if rows else np.zeros((0, width), dtype=np.bool_)


def some(items: Sequence[str], most: int = 20) -> str:
    """The first of many names, for messages."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
