"""YAML and JSON from files: read here and nowhere else, within bounds, and records that hold their own digest.

A few lines of YAML can stand for more values than a memory holds (an alias of aliases of aliases), and brackets inside
brackets end a recursive reader. What goes beyond the bounds is refused while it is read, with one error that names file
and line. Nothing that is read here can run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import yaml

from reg2rg.core.errors import ConfigError
from reg2rg.core.files import atomic_write, write_json

MAX_DEPTH: Final = 64
"""Levels of lists and mappings inside each other; a config has about ten."""
MAX_VALUES: Final = 100_000
"""Values of a YAML file with its aliases written out; a long text counts for one a hundred characters."""
MAX_YAML: Final = 1 << 20
"""Characters of a YAML file."""
MAX_JSON: Final = 1 << 30
"""Bytes of a JSON file."""
DIGEST = "sha256"
"""The key of a record that holds the digest of the others."""
_LONG_NUMBER = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_CORRECT = "correct the file"


class DocumentError(ConfigError):
    """A file of YAML or JSON that cannot be read, goes beyond the bounds, or is not as it was written."""


class Loader(yaml.SafeLoader):
    """SafeLoader within the bounds, which says where it stopped, and reads no dates.

    Args:
        text: the YAML.
        where: what messages call its source.
        fix: remedy of a file beyond the bounds.
    """

    def __init__(self, text: str, where: str, fix: str = _CORRECT) -> None:
        self.where, self.fix = where, fix
        self._level = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # id of a finished node -> values and levels in it
        if len(text) > MAX_YAML:
            raise DocumentError(f"{where}: {len(text)} characters (expected at most {MAX_YAML}). Fix: {fix}")
        super().__init__(text)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, whose size is known once its parts are."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._level += 1
        if self._level > MAX_DEPTH:
            raise self._beyond(event, f"lists and mappings stand more than {MAX_DEPTH} levels deep in each other")
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._sizes:
            raise self._beyond(event, f"the alias *{event.anchor} stands inside what it names")
        if node is not None and id(node) not in self._sizes:
            self._sizes[id(node)] = self._measured(node)
        values, levels = self._sizes.get(id(node), (0, 0))
        if values > MAX_VALUES:
            raise self._beyond(event, f"its aliases stand for more than {MAX_VALUES} values")
        if self._level + levels - 1 > MAX_DEPTH:
            raise self._beyond(event, f"its aliases stand more than {MAX_DEPTH} levels deep in each other")
        self._level -= 1
        return node

    def _measured(self, node: yaml.Node) -> tuple[int, int]:
        if not isinstance(node, yaml.CollectionNode):
            return 1 + len(node.value) // 100, 1
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        sizes = [self._sizes[id(part)] for part in parts]
        return 1 + sum(values for values, _ in sizes), 1 + max((levels for _, levels in sizes), default=0)

    def _beyond(self, event: Any, what: str) -> DocumentError:
        return DocumentError(f"{self.where}:{event.start_mark.line + 1}: {what}. Fix: {self.fix}")

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A node's value; a scalar that is not what its tag says is a mistake with its place."""
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > _LONG_NUMBER:
                told = f"a number of {len(node.value)} digits"
                raise yaml.constructor.ConstructorError(None, None, told, node.start_mark)
            try:
                return super().construct_object(node, deep)
            except (ValueError, LookupError, AttributeError):
                told = f"{node.value[:40]!r} is no {node.tag.rpartition(':')[2]}"
                raise yaml.constructor.ConstructorError(None, None, told, node.start_mark) from None
        return super().construct_object(node, deep)


Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in pairs if not tag.endswith(":timestamp")]
    for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, where: str, fix: str = _CORRECT) -> Any:
    """Plain values of a YAML text.

    Args:
        text: the YAML.
        where: what messages call its source.
        fix: remedy.

    Raises:
        DocumentError: not YAML, or beyond the bounds.
    """
    try:
        loader = Loader(text, where, fix)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise DocumentError(f"{where}{line}: {error.problem or error.context}. Fix: {fix}") from None
    except yaml.YAMLError as error:  # a character that YAML forbids
        raise DocumentError(f"{where}: not YAML ({' '.join(str(error).split())[:200]}). Fix: {fix}") from None


def parse_json(text: str, where: str, fix: str = _CORRECT) -> Any:
    """Plain values of a JSON text.

    Args:
        text: the JSON.
        where: what messages call its source.
        fix: remedy.

    Raises:
        DocumentError: not JSON, or beyond the bounds.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise DocumentError(f"{where}: {_TOO_DEEP}. Fix: {fix}") from None
    except ValueError as error:
        raise DocumentError(f"{where}: not JSON ({str(error)[:200]}). Fix: {fix}") from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            part
            for item in level
            if isinstance(item, dict | list)
            for part in (item.values() if isinstance(item, dict) else item)
            if isinstance(part, dict | list)
        ]
        if not level:
            return value
    raise DocumentError(f"{where}: {_TOO_DEEP}. Fix: {fix}")


_TOO_DEEP = f"lists and objects stand more than {MAX_DEPTH} levels deep in each other"


def read_yaml(path: str | Path, fix: str = _CORRECT) -> Any:
    """Plain values of a YAML file.

    Raises:
        FileNotFoundError: no such file.
        DocumentError: it cannot be read, is no YAML, or goes beyond the bounds.
    """
    return parse_yaml(read_text(path, MAX_YAML, fix), str(path), fix)


def read_json(path: str | Path, fix: str = _CORRECT) -> Any:
    """Plain values of a JSON file.

    Raises:
        FileNotFoundError: no such file.
        DocumentError: it cannot be read, is no JSON, or goes beyond the bounds.
    """
    return parse_json(read_text(path, MAX_JSON, fix), str(path), fix)


def read_text(path: str | Path, most: int = MAX_YAML, fix: str = _CORRECT) -> str:
    """Text of a UTF-8 file, with or without a byte order mark.

    Args:
        path: the file; a pipe will do.
        most: bytes that are read of it.
        fix: remedy.

    Raises:
        FileNotFoundError: no such file.
        DocumentError: it cannot be read, is larger, or is not in UTF-8.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(most + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read ({error.strerror or error}). Fix: {fix}") from None
    if len(content) > most:
        raise DocumentError(f"{path}: more than {most} bytes (expected at most that many). Fix: {fix}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"{path}: cannot be read: byte {error.start} is no UTF-8 ({error.reason}). Fix: {fix}"
        ) from None


def write_record(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, atomically, with the digest of its content as one more key."""
    write_json(path, {**values, DIGEST: _digest(values)})


def read_record(path: str | Path, fix: str) -> dict[str, Any]:
    """What `write_record` was given, if it is that still.

    Args:
        path: the file.
        fix: remedy of a damaged one.

    Raises:
        FileNotFoundError: no such file.
        DocumentError: it cannot be read, or is not as it was written.
    """
    values = read_json(path, fix)
    if not isinstance(values, dict) or not isinstance(values.get(DIGEST), str):
        raise DocumentError(f"{path}: holds no digest of its content ('{DIGEST}'). Fix: {fix}")
    written = values.pop(DIGEST)
    if written != (found := _digest(values)):
        raise DocumentError(
            f"{path}: the SHA-256 of its content is {found[:16]}..., written was {written[:16]}...: it was damaged or "
            f"changed after it was written. Fix: {fix}"
        )
    return values


def write_record_lines(path: str | Path, header: Mapping[str, Any], lines: Iterable[Any]) -> None:
    """Write a mapping and many values, one a line of JSON, atomically; the last line is the digest of the others."""
    digest = hashlib.blake2b(digest_size=32)
    with atomic_write(path) as stream:
        for value in itertools.chain([header], lines):
            line = json.dumps(value, allow_nan=False).encode() + b"\n"
            digest.update(line)
            stream.write(line)
        stream.write(json.dumps(digest.hexdigest()).encode() + b"\n")


class RecordLines:
    """What `write_record_lines` was given, one value after the other, in memory that does not grow with their number.

    Whether the file is as it was written is known at its end: what was made of the values counts only then.

    Args:
        path: the file; open while this is entered.
        fix: remedy of a damaged one.

    Attributes:
        header: the mapping; there once this is entered.

    Raises:
        FileNotFoundError: no such file.
        DocumentError: it cannot be read, or is not as it was written; while entered or read.
    """

    def __init__(self, path: str | Path, fix: str) -> None:
        self.path, self.fix = path, fix
        self.header: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._files = contextlib.ExitStack()
        try:
            self._stream = self._files.enter_context(open(self.path, "rb"))
            first = self._stream.readline(MAX_JSON)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DocumentError(f"{self.path}: cannot be read ({error.strerror or error}). Fix: {self.fix}") from None
        self._digest = hashlib.blake2b(first, digest_size=32)
        header = self.value(first)
        if not isinstance(header, dict):
            raise self._damaged()
        self.header = header
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def __iter__(self) -> Iterator[Any]:
        return map(self.value, self.lines())

    def lines(self) -> Iterator[bytes]:
        """The lines as they stand; `value` of one is what was written."""
        digest = self._digest
        line = self._stream.readline(MAX_JSON)
        for following in self._stream:
            digest.update(line)
            yield line
            line = following
        if line != json.dumps(digest.hexdigest()).encode() + b"\n":
            raise self._damaged()

    def value(self, line: bytes) -> Any:
        """What a line holds."""
        try:
            return _scan(line.decode(), 0)[0]
        except (ValueError, RecursionError, StopIteration):
            raise self._damaged() from None

    def _damaged(self) -> DocumentError:
        return DocumentError(f"{self.path}: it was damaged or changed after it was written. Fix: {self.fix}")


_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # of C, without two calls of Python around it


def _digest(values: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(values, allow_nan=False))  # what a reader will find: keys are texts, tuples lists
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
