"""Columns of a manifest, and its JSON lines as rows of the same columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.registry import did_you_mean
from reg2rg.datasets.tables import Row, broken_rows, read_lines

PLAIN = ("id", "patient", "split", "image", "mask", "report")
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


def json_rows(path: Path, encoding: str) -> Iterator[Row]:
    """Rows of a JSON-lines file; all its broken lines are raised together after the last good one."""
    wrong: list[str] = []
    for line, text in read_lines(path, encoding):
        try:
            yield Row(line, _flat(json.loads(text)))
        except (ValueError, RecursionError) as error:
            wrong.append(f"line {line}: {str(error)[:120]}")
    if wrong:
        raise broken_rows(path, wrong, "one JSON object a line, of texts and numbers", "correct these lines")


def _flat(value: Any) -> dict[str, str]:
    """An object as the columns of a CSV: ``{"masks": {"lung": "a"}}`` -> ``{"mask:lung": "a"}``."""
    if not isinstance(value, dict):
        raise ValueError(f"an object is expected, not {type(value).__name__}")
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
        value.encode()  # half of a surrogate pair is no text: UnicodeEncodeError is a ValueError
        return value
    if isinstance(value, (int, float)):
        return str(value)
    raise ValueError(f"{name} holds {type(value).__name__}, a text or a number is expected")
