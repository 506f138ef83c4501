"""Names in a config held against the signatures they must fit: keys, components, required arguments, dataclass fields.

jsonargparse checks these too, but reports the first mistake only, without a line, inside the text of the union of types
it tried. Here every mistake is found in one walk over the folded tree and said in one line each. Types of plain values
stay jsonargparse's business (`reg2rg.config.explain` words them).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from reg2rg.config.imports import find_object, home, is_allowed, refusal
from reg2rg.config.reading import Key, Tree, lookup
from reg2rg.core.registry import did_you_mean
from reg2rg.core.types import Bound

_SPEC = ("class_path", "init_args", "dict_kwargs")
_LISTED = 40
"""Most names that a message lists."""


class Checker:
    """Walks a tree and collects mistakes.

    Args:
        tree: the folded config.
        allowed: packages that a config may import.
        kinds: base class -> what its subclasses are called in messages.
    """

    def __init__(self, tree: Tree, allowed: Iterable[str], kinds: Mapping[type, str] | None = None) -> None:
        self.tree, self.allowed, self.kinds = tree, tuple(allowed), dict(kinds or {})
        self.linked: dict[str, str] = {}
        self.sections: dict[str, Any] = {}
        self.mistakes: list[str] = []
        self._out_of_bounds: set[Key] = set()

    def check(self, sections: Mapping[str, Any], linked: Mapping[str, str] | None = None) -> list[str]:
        """Check the whole tree.

        Args:
            sections: top-level key -> class whose constructor it fills, or ``None`` for a plain value.
            linked: dotted key that code fills -> where its value comes from.

        Returns:
            one line a mistake, in the order of the config.
        """
        self.linked, self.sections = dict(linked or {}), dict(sections)
        for key, value in self.tree.values.items():
            if key not in sections:
                self.unknown((key,), "key", sections)
            elif inspect.isclass(sections[key]):
                if value is None:
                    value = {}
                if isinstance(value, dict):
                    self._arguments(value, sections[key], (key,), required=False)
                else:
                    self._say((key,), f"expected a mapping of arguments, found {value!r}.")
        for key, cls in sections.items():
            if inspect.isclass(cls):
                given = self.tree.values.get(key)
                filled = {path.rpartition(".")[2] for path in self.linked if path.startswith(f"{key}.")}
                if given is None or isinstance(given, dict):
                    self._required(given or {}, cls, (key,), skip=filled)
        return self.mistakes

    def _say(self, path: Key, text: str) -> None:
        self.mistakes.append(self.tree.say(path, text))

    def unknown(self, path: Key, what: str, known: Iterable[str], owner: str = "") -> None:
        """Say that nothing takes a key: `known` are those that `owner` has, or that there are at all."""
        names = list(known)
        has = f"{owner} has no {what}" if owner else f"there is no {what}"
        listing = f" It takes: {', '.join(names) or 'none'}." if len(names) <= _LISTED else ""
        name = str(path[-1]).removesuffix("+")
        classes = self.sections.items() if len(path) == 2 else ()  # a key of a section
        elsewhere = [key for key, cls in classes if inspect.isclass(cls) and name in parameters(cls)[0]]
        hint = f" It stands in the section '{elsewhere[0]}'." if elsewhere else did_you_mean(str(path[-1]), names)
        self._say(path, f"{has} '{name}'.{hint}{listing}")

    def _arguments(self, values: dict[str, Any], cls: type, at: Key, skip: int = 0, required: bool = True) -> None:
        """The keys of `values` as arguments of `cls`; code gives the first `skip` positional ones."""
        known, open_ended = parameters(cls, skip)
        handed_on = _handed_on(cls) if open_ended else ()
        hints = type_hints(cls)
        for key, value in values.items():
            name = str(key).removesuffix("+")
            if name not in known:
                if handed_on is not None and name not in handed_on:
                    self.unknown((*at, key), "argument", dict.fromkeys([*known, *handed_on]), cls.__name__)
                continue
            source = self.linked.get(".".join(map(str, (*at, key))))
            if source:
                self._say((*at, key), f"is filled from {source}. Remove this line and set {source}.")
                continue
            self._value(value, hints.get(name, Any), (*at, key))
            self._bounds(value, hints.get(name, Any), (*at, key))
        if required:
            self._required(values, cls, at, skip=(), positional=skip)

    def _required(
        self, values: dict[str, Any], cls: type, at: Key, skip: Iterable[str] = (), positional: int = 0
    ) -> None:
        known, _ = parameters(cls, positional)
        missing = [
            name
            for name, parameter in known.items()
            if parameter.default is parameter.empty and name not in values and name not in skip
        ]
        if missing:
            keys = ", ".join(f"'{'.'.join(map(str, (*at, name)))}'" for name in missing)
            self._say(at, f"{cls.__name__} needs {keys}, which no config file and no option gives.")

    def _value(self, value: Any, hint: Any, at: Key) -> None:
        """One value against its annotation, as far as names are concerned."""
        if value is None or (isinstance(value, str) and "${" in value):
            return
        options = list(alternatives(hint))
        if isinstance(value, list):
            for position, item in enumerate(value):
                for option in options:
                    inner = typing.get_args(option)
                    if typing.get_origin(option) is not None and inner and components(alternatives(inner[0])):
                        self._value(item, inner[0], (*at, position))
                        break
            return
        bases = components(options)
        if isinstance(value, dict) and bases:
            self._component(value, bases, options, at)
        elif isinstance(value, str) and bases and not _accepts_text(value, options):
            self._component({"class_path": value}, bases, options, at)
        elif isinstance(value, dict):
            for option in options:
                if dataclasses.is_dataclass(option) and inspect.isclass(option):
                    self._record(value, option, at)

    def _bounds(self, value: Any, hint: Any, at: Key, written: Key = ()) -> None:
        """Numbers against the bounds in an annotation, those that a reference leads to as well; each is told once.

        Args:
            value: one argument.
            hint: its annotation.
            at: its place.
            written: where the value itself stands, if a reference leads there.
        """
        value, written = self._followed(value, written or at)
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated and isinstance(value, int | float) and not isinstance(value, bool):
            for bound in inner[1:]:
                if isinstance(bound, Bound) and not bound.holds(value) and written not in self._out_of_bounds:
                    self._out_of_bounds.add(written)
                    self._say(at, f"must be {bound}, found {value}.")
        elif origin in (typing.Union, types.UnionType):
            for part in inner:
                self._bounds(value, part, at, written)
        elif origin in (tuple, list) and isinstance(value, list | tuple):
            parts = inner if origin is tuple and Ellipsis not in inner else inner[:1] * len(value)
            for position, (item, part) in enumerate(zip(value, parts, strict=False)):
                self._bounds(item, part, (*at, position), (*written, position))

    def _followed(self, value: Any, at: Key) -> tuple[Any, Key]:
        """What a reference such as ``${data.batch_size}`` stands for, and where; circles were refused before."""
        for _ in range(_LISTED):
            match = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
            if match is None:
                break
            at = tuple(match[1].split("."))
            value = lookup(self.tree.values, at)
        return value, at

    def _record(self, value: dict[str, Any], cls: type, at: Key) -> None:
        """A dataclass written as a plain mapping of its fields (or with class_path, as print_config writes it)."""
        if "class_path" in value:
            at, value = (*at, "init_args"), value.get("init_args") or {}
        self._arguments(value, cls, at)

    def _component(self, value: dict[str, Any], bases: list[tuple[type, int]], options: list[Any], at: Key) -> None:
        kind = self._kind(bases[0][0])
        if "class_path" not in value:
            owner = f"expected 'class_path: Name' and 'init_args: ...' of {_a(kind)}"
            self._say(at, f"{owner}, found the keys {', '.join(map(str, value))}.")
            return
        extra = [key for key in value if key not in _SPEC]
        if extra:
            self._say(
                (*at, extra[0]), f"arguments of {value['class_path']} stand below its 'init_args:'. Move it there."
            )
            return
        cls = self._find(str(value["class_path"]), bases, options)
        if isinstance(cls, str):  # said on the line of the name, under the key of the component
            self.mistakes.append(self.tree.say(at, cls, ("class_path",)))
            return
        init_args = value.get("init_args") or {}
        if not isinstance(init_args, dict):
            self._say((*at, "init_args"), f"expected a mapping of arguments, found {init_args!r}.")
            return
        skip = next((count for base, count in bases if issubclass(cls, base)), 0)
        self._arguments(init_args, cls, (*at, "init_args"), skip)

    def _kind(self, base: type) -> str:
        return self.kinds.get(base, base.__name__)

    def _find(self, name: str, bases: list[tuple[type, int]], options: list[Any]) -> type | str:
        """The class that `name` means, or a sentence that says why there is none."""
        kind = self._kind(bases[0][0])
        known = {cls.__name__: cls for base, _ in bases for cls in subclasses(base)}
        if "." not in name:
            if name in known:
                return known[name]
            words = [*known, *(text for option in options for text in _literals(option))]
            kinds = (self.kinds[base] for base in self.kinds if name in {cls.__name__ for cls in subclasses(base)})
            other = next(kinds, None)
            wrong = f"'{name}' is {_a(other)}, not {_a(kind)}." if other else f"unknown {kind} '{name}'."
            listing = f" Known: {', '.join(sorted(words))}." if len(words) <= _LISTED else ""
            return f"{wrong}{did_you_mean(name, words)}{listing}"
        if not is_allowed(name, self.allowed):
            return f"not imported: {refusal(name, self.allowed)}"
        found = import_class(name, self.allowed)
        if isinstance(found, str):
            return f"{found}{did_you_mean(name.rpartition('.')[2], list(known))}"
        if not any(issubclass(found, base) for base, _ in bases):
            extends = f"'{name}' is not {_a(kind)}: it does not extend {bases[0][0].__name__}."
            return f"{extends} Known: {', '.join(sorted(known))}."
        return found


def _a(word: str) -> str:
    return f"an {word}" if word[0].lower() in "aeio" or word == "llm" else f"a {word}"


def import_class(name: str, allowed: Iterable[str]) -> type | str:
    """The class of a dotted path, or a sentence that says what is wrong with it, or that it is defined elsewhere."""
    module, _, attribute = name.rpartition(".")
    try:
        found = find_object(name)
    except ModuleNotFoundError as error:
        return f"'{name}' cannot be imported: {error}."
    except AttributeError:
        return f"the module '{module}' has no class '{attribute}'."
    if (defined := home(found)) and not is_allowed(defined, allowed):
        return refusal(name, allowed, defined)
    return found if inspect.isclass(found) else f"'{name}' is not a class."


def parameters(cls: type, skip: int = 0) -> tuple[dict[str, inspect.Parameter], bool]:
    """Constructor arguments of `cls` without the first `skip`, and whether it takes any others as well."""
    items = list(inspect.signature(cls).parameters.values())
    named = [item for item in items if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]
    return {item.name: item for item in named[skip:]}, any(item.kind is item.VAR_KEYWORD for item in items)


@functools.cache
def _handed_on(cls: type) -> tuple[str, ...] | None:
    """All arguments of a class that hands ``**kwargs`` on, as jsonargparse finds them in its source.

    ``None`` if it finds none that way.
    """
    from jsonargparse import ArgumentParser

    try:
        names = ArgumentParser(exit_on_error=False).add_class_arguments(cls, "it", fail_untyped=False)
    except Exception:  # whatever a source can hold that is read for its arguments
        return None
    return tuple(name.removeprefix("it.").partition(".")[0] for name in names)


def type_hints(cls: type) -> dict[str, Any]:
    """Resolved annotations of the constructor, with their bounds; empty where they cannot be resolved."""
    owner = cls if dataclasses.is_dataclass(cls) else vars(cls).get("__init__", cls.__init__)  # type: ignore[misc]
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def alternatives(hint: Any) -> Iterator[Any]:
    """The members of a union, nested unions opened."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from alternatives(part)
    elif typing.get_origin(hint) is typing.Annotated:
        yield from alternatives(typing.get_args(hint)[0])
    else:
        yield hint


def components(options: Iterable[Any]) -> list[tuple[type, int]]:
    """The classes that a value may name, each with the number of arguments that code gives (for factories)."""
    found: list[tuple[type, int]] = []
    for option in options:
        if typing.get_origin(option) in (Callable, typing.Callable):
            arguments, returned = typing.get_args(option) or ([], None)
            if inspect.isclass(returned) and returned is not Any:  # which is a class from Python 3.11 on
                found.append((returned, len(arguments) if isinstance(arguments, list) else 0))
        elif inspect.isclass(option) and option.__module__ != "builtins" and _is_component(option):
            found.append((option, 0))
    return found


def _is_component(cls: type) -> bool:
    plain = dataclasses.is_dataclass(cls) or issubclass(cls, tuple | str | int | float | dict | list)
    generic = cls.__module__ in ("typing", "collections.abc", "datetime", "pathlib")
    return not plain and not generic and cls is not object


def subclasses(base: type) -> Iterator[type]:
    """`base` and everything below it that can be built."""
    seen: set[type] = set()
    queue = [base]
    while queue:
        cls = queue.pop()
        if cls in seen:
            continue
        seen.add(cls)
        queue.extend(cls.__subclasses__())
        if not inspect.isabstract(cls) and not cls.__name__.startswith("_"):
            yield cls


def _literals(option: Any) -> list[str]:
    return [str(text) for text in typing.get_args(option)] if typing.get_origin(option) is typing.Literal else []


def _accepts_text(value: str, options: list[Any]) -> bool:
    return any(option in (str, Any) or value in _literals(option) for option in options)
