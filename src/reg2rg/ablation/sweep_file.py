"""A YAML file read key by key: every mistake is said with file, line, key and what is expected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reg2rg.config.reading import Key, Tree, lookup, read_tree
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean


class SweepFile:
    """One sweep file: values with their places.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.tree = path, read_tree(path)

    def wrong(self, key: Key, expected: str) -> ConfigError:
        """The error for a value that is not what it should be."""
        where = self.tree.origin(key) or self.path
        found = lookup(self.tree.values, key)
        return ConfigError(f"{where}: {'.'.join(map(str, key))}: expected {expected}, found {found!r}.")

    def keys(self, at: Key, known: Sequence[str]) -> dict[str, Any]:
        """The mapping at `at`, whose keys must be among `known`."""
        value = lookup(self.tree.values, at) if at else self.tree.values
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.wrong(at, "a mapping")
        for key in value:
            if key not in known:
                path = ".".join(map(str, (*at, key)))
                where = self.tree.origin((*at, key)) or self.path
                raise ConfigError(
                    f"{where}: {path}: a sweep has no key '{key}' here.{did_you_mean(str(key), list(known))} "
                    f"It takes: {', '.join(known)}."
                )
        return value

    def text(self, key: Key, default: str = "") -> str:
        """A text, or `default` where there is none."""
        value = lookup(self.tree.values, key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def flag(self, key: Key) -> bool:
        """True or false; false where there is none."""
        value = lookup(self.tree.values, key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return bool(value)

    def texts(self, key: Key) -> tuple[str, ...]:
        """A list of texts; one text stands for a list of one."""
        value = lookup(self.tree.values, key)
        value = [value] if isinstance(value, str) else value
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a text or a list of texts")
        return tuple(value)

    def choice(self, key: Key, known: Sequence[str], default: str) -> str:
        """One of the known words."""
        value = self.text(key, default)
        if value not in known:
            raise self.wrong(key, f"one of {', '.join(known)}")
        return value

    def below(self, key: Key) -> Tree:
        """The part at `key` as a config of its own, with the places of its values."""
        value = lookup(self.tree.values, key)
        if value is None:
            return Tree()
        if not isinstance(value, dict):
            raise self.wrong(key, "a mapping of config keys to values")
        size = len(key)
        origins = {k[size:]: origin for k, origin in self.tree.origins.items() if k[:size] == key and len(k) > size}
        return Tree(value, origins)
