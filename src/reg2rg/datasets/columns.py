"""Columns of a manifest, and its JSON as rows of the same columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.registry import did_you_mean
from reg2rg.core.text import TextGate
from reg2rg.datasets.json_tables import is_json, read_json
from reg2rg.datasets.tables import Row, broken_rows, check_header, read_rows

PLAIN = ("id", "patient", "split", "image", "mask", "report", "other")
"""Columns by their whole name; ``other`` has what a splitter put under no region, and is not read."""
PREFIXES = ("mask", "report", "finding")
_NESTED = {"masks": "mask", "reports": "report", "findings": "finding"}


@dataclass(frozen=True, slots=True)
class Key:
    """A column: its kind and, after the colon, the region or label."""

    kind: str
    item: str = ""


class Keys:
    """Names of columns -> what they hold; each name is understood once.

    Args:
        path: the table, for messages.
        columns: name in the table -> name here, where they differ.
        regions: the region set.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], regions: RegionSet) -> None:
        self.path, self.columns, self.regions = path, columns, regions
        self.unused: list[str] = []
        self._keys: dict[str, Key | None] = {}

    def __getitem__(self, name: str) -> Key | None:
        """What the column holds, None if it is no business of ours.

        Raises:
            ConfigError: a column that is meant for us but names an unknown region or kind, or the same as another one.
        """
        if name not in self._keys:
            key = _parse_key(self.columns.get(name, name), self.regions, self.path)
            twin = next((other for other, known in self._keys.items() if key is not None and known == key), None)
            if twin is not None:
                raise ConfigError(f"{self.path}: the columns {twin!r} and {name!r} mean the same. Fix: keep one.")
            if key is None:
                self.unused.append(name)
            self._keys[name] = key
        return self._keys[name]


def _parse_key(name: str, regions: RegionSet, path: Path) -> Key | None:
    """What a column holds, None if it is no business of ours.

    Raises:
        ConfigError: a column that is meant for us but names an unknown region or kind.
    """
    kind, colon, item = (part.strip() for part in name.partition(":"))
    if not colon:
        return Key(kind) if kind in PLAIN else None
    if kind not in PREFIXES:
        hint = did_you_mean(kind, list(PREFIXES))
        if not hint:
            return None
        raise ConfigError(f"{path}: column {name!r} starts with an unknown word.{hint} Known: {', '.join(PREFIXES)}.")
    if kind == "finding":
        return Key(kind, item)
    try:
        return Key(kind, regions.canonical(item))
    except ConfigError as error:
        raise ConfigError(f"{path}: column {name!r}: {error}") from None


def any_rows(path: Path, needed: Sequence[str], encoding: str, gate: TextGate) -> Iterator[Row]:
    """Rows of a CSV, or of JSON in any form, which is told by the file's content.

    Args:
        path: the table.
        needed: columns that must be there; a row of JSON may leave some out.
        encoding: of its bytes.
        gate: cleans every cell, and counts.

    Raises:
        DataFault: as `reg2rg.datasets.tables.read_rows` and `reg2rg.datasets.json_tables.read_json`.
    """
    if not is_json(path, encoding):
        yield from read_rows(path, needed, encoding, gate)
        return
    names: dict[str, None] = {}
    for row in _json_rows(path, encoding, gate):
        names.update(dict.fromkeys(row.values))
        yield Row(row.line, dict.fromkeys(needed, "") | dict(row.values))
    if names:
        check_header(list(names), path, needed)


def _json_rows(path: Path, encoding: str, gate: TextGate) -> Iterator[Row]:
    """Rows of JSON as of a CSV; all that is wrong is raised together after the last good one."""
    wrong: list[str] = []
    for line, value in read_json(path, encoding, PLAIN, gate, wrong):
        try:
            yield Row(line, _flat(value))
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
    if wrong:
        raise broken_rows(path, wrong, "JSON objects of texts and numbers", "correct these rows")


def _flat(value: Mapping[str, Any]) -> dict[str, str]:
    """An object as the columns of a CSV: ``{"masks": {"lung": "a"}}`` -> ``{"mask:lung": "a"}``."""
    flat: dict[str, str] = {}
    for name, item in value.items():
        if name in _NESTED and isinstance(item, dict):
            flat |= {f"{_NESTED[name]}:{key}": _text(name, inner) for key, inner in item.items()}
        else:
            flat[name] = _text(name, item)
    return flat


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    raise ValueError(f"{name} holds {type(value).__name__}, a text or a number is expected")
