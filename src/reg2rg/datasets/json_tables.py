"""JSON as a table, told by its content and not by the file's name: lists, lines, and mappings of ids to texts."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from reg2rg.core.errors import DataFault
from reg2rg.core.text import TextGate
from reg2rg.datasets.tables import DELIMITERS, broken_rows, read_lines

_SUFFIXES = (".json", ".jsonl", ".ndjson")
_BEGINS = re.compile(r'\s*(?:\{\s*["}]|\[\s*[\[{"\]])')
_HEAD = 4096
ID_NAMES = frozenset({
    "id", "study", "study_id", "accnum", "accessionno", "volumename", "image", "image_id",
    "input_image_name", "filename",
})  # fmt: skip
"""Keys, in small letters, by which an object is told to be a row and no mapping of ids."""
ID, TEXT = "id", "report"
"""Columns of a mapping of ids to texts."""

JsonRow = tuple[int, dict[str, Any]]


def is_json(path: Path, encoding: str) -> bool:
    """Whether a file is to be read as JSON: it begins as a list or object does, as no header of a table does.

    Where the beginning does not tell, the name does.
    """
    try:
        with open(path, encoding=encoding, errors="replace") as stream:
            head = stream.read(_HEAD)
    except (OSError, ValueError):
        return False
    if _BEGINS.match(head) is not None:
        return True
    delimited = any(mark in head.partition("\n")[0] for mark in DELIMITERS) and head.lstrip("\ufeff \n")[:1] not in "[{"
    return path.suffix.lower() in _SUFFIXES and not delimited


def read_json(
    path: Path,
    encoding: str,
    names: Collection[str] = (),
    gate: TextGate | None = None,
    wrong: list[str] | None = None,
) -> list[JsonRow]:
    """Rows of a JSON file: a list of objects, an object a line, or a mapping of ids to texts or objects.

    Args:
        path: the file.
        encoding: of its bytes.
        names: further keys by which one object is told to be a row.
        gate: cleans every text, and counts; a new one if ``None``.
        wrong: gets what is wrong with lines, for who has more to say of them; ``None`` raises it here.

    Returns:
        Line (of a list the place, from 1) and cells of each row.

    Raises:
        DataFault: ``TABLE_MISSING``, ``TABLE_ENCODING``; ``TABLE_JSON`` for a file that is no table;
            ``TABLE_ROWS`` for broken lines.
    """
    gate = gate or TextGate()
    lines = list(read_lines(path, encoding))
    if not lines:
        return []
    try:
        value = _loads("\n".join(text for _, text in lines))
    except (ValueError, RecursionError) as error:
        rows, faults = _by_line(path, lines, error)
        if wrong is not None:
            wrong += faults
        elif faults:
            raise broken_rows(path, faults, "one JSON object a line, column -> text", "correct these lines") from None
    else:
        single = len(lines) == 1
        rows = _of_value(path, value, {name.lower() for name in names} | ID_NAMES, single)
    return [(line, {gate(str(key)): clean_value(item, gate) for key, item in row.items()}) for line, row in rows]


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    doubled = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"the key {doubled!r} stands there twice")


def _of_value(path: Path, value: Any, names: Collection[str], single: bool) -> list[JsonRow]:
    reports = _generated_reports(value)
    if reports is not None:
        value = reports
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return list(enumerate(value, start=1))
    if isinstance(value, dict) and value:
        if any(str(key).lower() in names for key in value):
            if single:
                return [(1, value)]
        elif all(isinstance(item, dict) for item in value.values()):
            return [(line, {ID: key, **item}) for line, (key, item) in enumerate(value.items(), start=1)]
        elif all(item is None or isinstance(item, str | list) for item in value.values()):
            return [(line, {ID: key, TEXT: item}) for line, (key, item) in enumerate(value.items(), start=1)]
    kinds = sorted({type(row).__name__ for row in value}) if isinstance(value, list) else [type(value).__name__]
    raise DataFault.of(
        "TABLE_JSON",
        path=path,
        found=f"holds {'a list of ' if isinstance(value, list) else ''}{', '.join(kinds) or 'nothing'}",
        expected="a list of objects, column -> text, one a study; one object a line; or one object, id -> text",
        fix="write the file in one of these forms",
    )


def _by_line(path: Path, lines: Sequence[tuple[int, str]], error: Exception) -> tuple[list[JsonRow], list[str]]:
    """An object a line, and what is wrong; a file that was meant as one value has one message, where it breaks."""
    rows: list[JsonRow] = []
    wrong: list[str] = []
    for line, text in lines:
        try:
            value = _loads(text)
        except (ValueError, RecursionError) as fault:
            wrong.append(f"line {line} is not JSON ({str(fault).partition(': line')[0][:120]})")
            continue
        if isinstance(value, dict):
            rows.append((line, value))
        else:
            wrong.append(f"line {line} is a {type(value).__name__}, no object")
    if wrong and not rows:
        raise DataFault.of(
            "TABLE_JSON",
            path=path,
            found=f"is not JSON as a whole ({str(error)[:120]}), and line {lines[0][0]} alone is none either",
            expected="a list of objects, an object a line, or an object id -> text",
            fix="write the file anew; a download may have been cut",
        )
    return rows, wrong


def _generated_reports(value: Any) -> Any:
    """The list that the VLM3D challenge wraps, of predictions or of references; ``None`` for anything else."""
    if isinstance(value, dict):
        return value.get("generated_reports")
    try:
        return value[0]["outputs"][0]["value"]["generated_reports"]
    except (LookupError, TypeError):
        return None


def clean_value(value: Any, gate: TextGate) -> Any:
    """A value of JSON with all its texts cleaned, keys of inner objects too."""
    if isinstance(value, str):
        return gate(value)
    if isinstance(value, list):
        return [clean_value(item, gate) for item in value]
    if isinstance(value, dict):
        return {gate(str(key)): clean_value(item, gate) for key, item in value.items()}
    return value
