"""Rows of a table: CSV in any encoding and separator, or JSON in any form; every fault with its line."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from reg2rg.core.errors import ConfigError
from reg2rg.core.text import TextGate
from reg2rg.datasets.json_tables import is_json, read_json
from reg2rg.datasets.tables import read_rows

_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_NO_TEXT = (
    (b"PK\x03\x04", "an Excel workbook or zip archive"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"PAR1", "a Parquet file"),
    (b"\x80\x04", "a Python pickle"),
)

Rows = Sequence[tuple[int, Mapping[str, Any]]]
"""Line and cells of each row; a cell of JSON may be no text."""


def table_rows(path: Path, encoding: str | None, names: Collection[str] = (), gate: TextGate | None = None) -> Rows:
    """All rows of a table; JSON is told by its content, whatever the file is called.

    Args:
        path: the table.
        encoding: ``None``: UTF-8, or UTF-16 where a byte-order mark says so.
        names: further keys by which a single JSON object is told to be a row.
        gate: cleans every text, and counts; a new one if ``None``.

    Raises:
        ConfigError: a file of another kind.
        DataFault: bytes or rows that are broken, with the line; JSON that is no table.
    """
    encoding = encoding or _guessed(path)
    if not is_json(path, encoding):
        return [(row.line, row.values) for row in read_rows(path, encoding=encoding, gate=gate)]
    found = read_json(path, encoding, names, gate)
    columns = dict.fromkeys(column for _, row in found for column in row)
    return [(line, {column: row.get(column, "") for column in columns}) for line, row in found]


def _guessed(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            first = stream.read(4)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Fix: check the path and its permissions"
        ) from None
    for mark, what in _NO_TEXT:
        if first.startswith(mark):
            raise ConfigError(f"{path}: is {what} (expected a CSV or JSON-lines file). Fix: save the table as CSV")
    return next((encoding for mark, encoding in _MARKS if first.startswith(mark)), "utf-8-sig")


def cell_text(value: Any, path: Path, line: int, column: str) -> str:
    """The text of a cell. Nothing is empty; a list of one text, as some tools write references, is that text."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list) and len(value) <= 1 and all(isinstance(item, str) for item in value):
        return "".join(value)
    what = f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
    raise ConfigError(
        f"{path}: line {line}: '{column}' is {what} (expected one text). Fix: write one text a study, or name another "
        "column"
    )
