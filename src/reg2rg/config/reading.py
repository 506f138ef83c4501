"""One YAML file -> plain values, each with the line it stands on.

PyYAML keeps the last of two equal keys in silence; here that is an error. Numbers are read the way jsonargparse reads
them (``5e-5`` is a float), so that a folded config means what its files say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from reg2rg.core.documents import Loader, read_text
from reg2rg.core.errors import ConfigError

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a file and a line, or the command line."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


COMMAND_LINE = Origin("command line")
_WRITE_OUT = "write the values out, less deep"


@dataclass(slots=True)
class Tree:
    """Config values with their origins.

    Attributes:
        values: nested dicts, lists and scalars.
        origins: path of keys and list positions -> where the key was written.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, Origin] = field(default_factory=dict)

    @classmethod
    def of(cls, values: dict[str, Any], name: str) -> Self:
        """Values that stand in no file.

        Args:
            values: the config.
            name: what messages call the place.
        """
        return cls(values, {(key,): Origin(name) for key in values})

    def origin(self, key: Key) -> Origin | None:
        """Origin of `key` or of the nearest thing that contains it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.origins:
                return self.origins[key[:length]]
        return None

    def say(self, key: Key, text: str, below: Key = ()) -> str:
        """`text` behind the place and the name of `key`, as every mistake in a config is said.

        Args:
            key: what the mistake is about.
            text: the rest of the sentence.
            below: what below `key` stands on the line that is named.
        """
        return f"{self.origin((*key, *below)) or COMMAND_LINE}: {'.'.join(map(str, key))}: {text}"

    def drop_copy(self, key: Key, of: Key) -> None:
        """Remove `key` if it says the same as `of`: a saved config spells out what code fills in anyway."""
        if key in self.origins and lookup(self.values, key) == lookup(self.values, of):
            holder = lookup(self.values, key[:-1])
            del holder[key[-1]], self.origins[key]


def lookup(values: Any, path: Key) -> Any:
    """The value at `path` of nested dicts and lists, or ``None``."""
    for part in path:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return None
    return values


def walk(value: Any, at: Key = ()) -> Iterator[tuple[Key, Any]]:
    """`value` and everything below it, each with its path: mappings, lists and scalars."""
    yield at, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, (*at, key))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from walk(item, (*at, position))


class _Loader(Loader):
    """The loader of all files, with floats that need no decimal point."""


_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |\.[0-9_]+(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in pairs if not tag.endswith(":float")]
    for letter, pairs in Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_tree(path: Path) -> Tree:
    """Read one config file.

    Raises:
        ConfigError: not readable, not YAML, beyond the bounds, a key twice, or not a mapping at the top.
    """
    text = read_text(path, fix="give a YAML file in UTF-8")
    loader = _Loader(text, str(path), _WRITE_OUT)
    try:
        node = loader.get_single_node()
        if node is None:
            return Tree()
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(
                f"{path}:{node.start_mark.line + 1}: a config is a mapping of keys to values, such as 'model: ...'; "
                f"this file holds {_shape(node)}."
            )
        tree = Tree()
        tree.values = _mapping(loader, node, (), str(path), tree.origins)
        return tree
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        found = f"{error.problem or error.context}{_hint(text, mark, path)}"
        expected = "Expected 'key: value' lines, indented by spaces."
        raise ConfigError(f"{path}{line}: not valid YAML: {found} {expected}") from None
    except yaml.YAMLError as error:  # a character that YAML forbids
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    finally:
        loader.dispose()


def _mapping(loader: _Loader, node: yaml.MappingNode, at: Key, file: str, origins: dict[Key, Origin]) -> dict[str, Any]:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in seen and key != "<<":
            raise ConfigError(
                f"{file}:{line}: the key '{'.'.join(map(str, (*at, key)))}' stands twice, here and in line {seen[key]}."
                " Keep one of them."
            )
        seen[key] = line
    loader.flatten_mapping(node)  # brings in what '<<' names
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        origins[*at, key] = Origin(file, key_node.start_mark.line + 1)
        values[key] = _value(loader, value_node, (*at, key), file, origins)
    return values


def _value(loader: _Loader, node: yaml.Node, at: Key, file: str, origins: dict[Key, Origin]) -> Any:
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        return _mapping(loader, node, at, file, origins)
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        items = []
        for position, item in enumerate(node.value):
            origins[*at, position] = Origin(file, item.start_mark.line + 1)
            items.append(_value(loader, item, (*at, position), file, origins))
        return items
    return loader.construct_object(node, deep=True)


def _shape(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _hint(text: str, mark: yaml.Mark | None, path: Path) -> str:
    """The offending line of a config, and the usual culprit if it is there; nothing of a file of another kind."""
    lines = text.splitlines()
    if mark is None or mark.line >= len(lines) or path.suffix.lower() not in (".yaml", ".yml"):
        return "."
    line = lines[mark.line]
    tab = " (the line is indented by a tab)" if line.startswith("\t") or "\t" in line[: mark.column + 1] else ""
    return f" in '{line.strip()[:80]}'{tab}."


def parse_value(text: str) -> Any:
    """A value as typed on the command line; ``null``, ``3``, ``[1, 2]``, ``{rank: 8}`` mean what they do in a file."""
    if "${" in text and not text.startswith(("[", "{")):
        return text  # a reference, not a flow mapping
    loader = _Loader(text, COMMAND_LINE.file, _WRITE_OUT)
    try:
        node = loader.get_single_node()
        if node is None:
            return text
        if isinstance(node, yaml.ScalarNode | yaml.CollectionNode):
            return _value(loader, node, (), "command line", {})
        return text
    finally:
        loader.dispose()
