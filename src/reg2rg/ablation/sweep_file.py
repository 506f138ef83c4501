"""A YAML file read key by key: every mistake is said with file, line, key and what is expected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from reg2rg.config.reading import Key, Tree, lookup, read_tree
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean

T = TypeVar("T")


class SweepFile:
    """One sweep file: values with their places.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.tree = path, read_tree(path)

    def wrong(self, key: Key, expected: str) -> ConfigError:
        """The error for a value that is not what it should be."""
        return ConfigError(self.tree.say(key, f"expected {expected}, found {lookup(self.tree.values, key)!r}."))

    def get(self, key: Key, kind: type[T], expected: str, default: T) -> T:
        """The value at `key`, which must be of `kind`; `default` where there is none."""
        value = lookup(self.tree.values, key)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise self.wrong(key, expected)
        return value

    def keys(self, at: Key, known: Sequence[str]) -> dict[str, Any]:
        """The mapping at `at`, whose keys must be among `known`."""
        value: dict[str, Any] = self.get(at, dict, "a mapping", {})
        for key in value:
            if key not in known:
                hint = did_you_mean(str(key), list(known))
                text = f"a sweep has no key '{key}' here.{hint} It takes: {', '.join(known)}."
                raise ConfigError(self.tree.say((*at, key), text))
        return value

    def text(self, key: Key, default: str = "") -> str:
        """A text, or `default` where there is none."""
        return self.get(key, str, "a text", default)

    def flag(self, key: Key) -> bool:
        """True or false; false where there is none."""
        return self.get(key, bool, "true or false", False)

    def texts(self, key: Key) -> tuple[str, ...]:
        """A list of texts; one text stands for a list of one."""
        value = lookup(self.tree.values, key)
        value = [value] if isinstance(value, str) else [] if value is None else value
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
        value: dict[str, Any] = self.get(key, dict, "a mapping of config keys to values", {})
        size = len(key)
        origins = {k[size:]: origin for k, origin in self.tree.origins.items() if k[:size] == key and len(k) > size}
        return Tree(value, origins)
