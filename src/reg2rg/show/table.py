"""A table as data, from which `reg2rg.show.render` makes every form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from reg2rg.core.progress import MISSING

MARK = "!"
Style = Literal["", "marked", "strong", "soft", "noise"]
"""Of a cell: a score that does not exceed its floor, one that stands out, one of less weight, the noise floor."""
Kind = Literal["", "words", "prose"]
"""Of a column: numbers, words, or sentences, which wrap."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: as printed, its marks included.
        value: what the cell is sorted by, where it is a number.
        style: how it stands out; no form but the text's own marks needs it.
    """

    text: str
    value: float | None = None
    style: Style = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, and what it holds."""

    title: str
    kind: Kind = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        cells: one a column.
        group: heading, printed where it changes.
        rule: a rule stands above the row.
    """

    cells: tuple[Cell, ...]
    group: str = ""
    rule: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    Attributes:
        key: short name: the anchor on a page.
        title: heading.
        columns: the first one names the rows.
        rows: in the order of reading.
        notes: what the numbers are, one sentence each.
        lengthy: holds texts or many rows, for a page only.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    lengthy: bool = False

    def grouped(self) -> Iterator[tuple[str, Row]]:
        """Its rows, each after the heading that stands above it, or ``""``."""
        for before, row in zip((None, *self.rows), self.rows, strict=False):
            yield row.group if row.group != (before.group if before else "") else "", row

    def frame(self) -> pd.DataFrame:
        """The cells as printed."""
        return pd.DataFrame([[c.text for c in row.cells] for row in self.rows], columns=[c.title for c in self.columns])


def make_table(
    key: str,
    title: str,
    heads: Sequence[str | Column],
    rows: Iterable[Row | Sequence[object]],
    notes: Iterable[str] = (),
    lengthy: bool = False,
) -> Table:
    """A table of plain values; see `Table` and `cell`."""
    columns = tuple(head if isinstance(head, Column) else Column(head) for head in heads)
    made = tuple(row if isinstance(row, Row) else make_row(row) for row in rows)
    return Table(key, title, columns, made, tuple(notes), lengthy)


def make_row(values: Iterable[object], group: str = "", style: Style = "", rule: bool = False) -> Row:
    """A row of cells and plain values; `style` is that of the plain ones."""
    return Row(tuple(value if isinstance(value, Cell) else cell(value, style) for value in values), group, rule)


def cell(value: Any, style: Style = "", after: str = "") -> Cell:
    """A value as a cell: numbers by their size, true as yes, a dash for what is missing.

    Args:
        value: of any type.
        style: of the cell; a marked one begins with `MARK`.
        after: what follows the value, such as its interval.
    """
    if isinstance(value, np.generic):
        value = value.item()
    number = None
    if pd.api.types.is_scalar(value) and pd.isna(value):
        text = MISSING
    elif isinstance(value, bool):
        text, number = "yes" if value else "no", float(value)
    elif isinstance(value, int):
        text, number = f"{value:,}", float(value)
    elif isinstance(value, float):
        text, number = format_value(value), value if math.isfinite(value) else None
    else:
        text = str(value)
    parts = (MARK if style == "marked" else "", text, after)
    return Cell(" ".join(part for part in parts if part), number, style)


def format_value(value: float | None) -> str:
    """A number at the precision that its size deserves; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return f"{value:,.{digits}f}"
