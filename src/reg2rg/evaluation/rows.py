"""Rows of a table: CSV in any encoding and separator, JSON lines, JSON lists; every fault with its line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reg2rg.core.errors import ConfigError
from reg2rg.datasets.tables import read_lines, read_rows

_JSON = (".jsonl", ".ndjson", ".json")
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_NO_TEXT = (
    (b"PK\x03\x04", "an Excel workbook or zip archive"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"PAR1", "a Parquet file"),
    (b"\x80\x04", "a Python pickle"),
)

Rows = Sequence[tuple[int, Mapping[str, Any]]]
"""Line and cells of each row; a cell of JSON may be no text."""


def table_rows(path: Path, encoding: str | None) -> Rows:
    """All rows of a table.

    Args:
        path: ``.json``, ``.jsonl`` or ``.ndjson``; anything else is read as a delimited table.
        encoding: ``None``: UTF-8, or UTF-16 where a byte-order mark says so.

    Raises:
        ConfigError: a file of another kind, or JSON that is no table.
        DataFault: bytes or rows that are broken, with the line.
    """
    encoding = encoding or _guessed(path)
    if path.suffix.lower() in _JSON:
        return _json_rows(path, encoding)
    return [(row.line, row.values) for row in read_rows(path, encoding=encoding)]


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


def _json_rows(path: Path, encoding: str) -> Rows:
    lines = list(read_lines(path, encoding))
    found = _listed(path, lines) or _by_line(path, lines)
    columns = dict.fromkeys(column for _, row in found for column in row)
    return [(line, {column: row.get(column, "") for column in columns}) for line, row in found]


def _listed(path: Path, lines: Sequence[tuple[int, str]]) -> list[tuple[int, dict[str, Any]]]:
    """Rows of a file that is one JSON value: a list of objects, or the VLM3D challenge's form. Else nothing."""
    if not lines:
        return []
    try:
        value = json.loads("\n".join(text for _, text in lines))
    except (ValueError, RecursionError):
        return []
    reports = _generated_reports(value)
    if reports is not None:
        value = reports
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return [(number, {str(key): item for key, item in row.items()}) for number, row in enumerate(value, start=1)]
    if isinstance(value, dict) and len(lines) == 1:
        return []  # JSON lines of one line
    kinds = sorted({type(row).__name__ for row in value}) if isinstance(value, list) else [type(value).__name__]
    raise ConfigError(
        f"{path}: holds {'a list of ' if isinstance(value, list) else ''}{', '.join(kinds) or 'nothing'} (expected a "
        "list of objects, column -> text, one a study; or one object a line). Fix: write the file in one of these forms"
    )


def _generated_reports(value: Any) -> Any:
    """The list that the VLM3D challenge wraps, of predictions or of references; ``None`` for anything else."""
    if isinstance(value, dict):
        return value.get("generated_reports")
    try:
        return value[0]["outputs"][0]["value"]["generated_reports"]
    except (LookupError, TypeError):
        return None


def _by_line(path: Path, lines: Sequence[tuple[int, str]]) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for line, text in lines:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{path}: line {line} is not JSON ({error}) (expected JSON lines: one object a line; or one list of "
                "objects). Fix: write the file with one object a line"
            ) from None
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: line {line} is a {type(value).__name__} (expected an object: column -> text)")
        found.append((line, {str(key): item for key, item in value.items()}))
    return found


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
