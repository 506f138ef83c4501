"""Paths of a config made absolute, once: ``~`` is the home folder, a relative path starts where the command was given.

What is a path is told by the type of the argument that takes it: ``Path``, as Lightning's classes have it, or one of
the marks of `reg2rg.core.types` (`PathText` and the like). So a plug-in's paths are found as well as our own, and what
is kept of a config, beside logs and inside checkpoints, holds from everywhere.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from reg2rg.config.imports import find_object
from reg2rg.config.reading import Key
from reg2rg.config.schema import alternatives, parameters, type_hints
from reg2rg.core.types import Place

_HUB, _PATH, _INSIDE = Place("hub"), Place("path"), Place("inside")
_BELOW_OTHERS = ("sub_dir",)
"""Arguments of type ``Path`` that mean a place below another argument's (Lightning's TensorBoardLogger)."""
_WORDS = ("best", "last", "hpc")
"""What ``ckpt_path`` may say instead of a path."""


def make_absolute(config: Any, sections: Mapping[str, Any]) -> None:
    """Make every path of a parsed config absolute, in place.

    Args:
        config: jsonargparse's namespace, references resolved and classes by their full names.
        sections: top-level key -> the class whose constructor it fills; others are left alone, but ``ckpt_path``.
    """
    values = config.as_dict()
    for at, text, place in [*_of_sections(values, sections)]:
        holder = config
        for part in at[:-1]:
            holder = holder[part]
        holder[at[-1]] = absolute(text, place)


def absolute(text: str, place: Place = _PATH) -> str:
    """A path that holds from everywhere; what is none (a name, a hub id, an address such as ``s3://...``) as it is."""
    if not text or "://" in text:
        return text
    path = Path(os.path.expanduser(text))  # noqa: PTH111 (which raises for a user that is not known)
    if place.kind == "inside":
        return str(path) if text.startswith("~") else text
    if place.kind == "yaml" and path.suffix.lower() not in (".yaml", ".yml"):
        return text
    if place.kind == "hub" and not (text.startswith(("~", ".", "/")) or path.exists()):
        return text
    return str(path.absolute())


def _of_sections(values: Mapping[str, Any], sections: Mapping[str, Any]) -> Iterator[tuple[Key, str, Place]]:
    for name, cls in sections.items():
        if inspect.isclass(cls) and isinstance(values.get(name), dict):
            yield from _of_arguments(values[name], cls, (name,))
    checkpoint = values.get("ckpt_path")
    if isinstance(checkpoint, str) and checkpoint not in _WORDS:
        yield ("ckpt_path",), checkpoint, _HUB


def _of_arguments(values: Mapping[str, Any], cls: type, at: Key) -> Iterator[tuple[Key, str, Place]]:
    """The paths among the arguments of a class, and among those of the components below it."""
    hints = {name: parameter.annotation for name, parameter in parameters(cls)[0].items()} | type_hints(cls)
    for name, value in values.items():
        for key, text, place in _of_value(value, hints.get(name, Any), (*at, name)):
            yield key, text, _INSIDE if name in _BELOW_OTHERS else place


def _of_value(value: Any, hint: Any, at: Key) -> Iterator[tuple[Key, str, Place]]:
    if isinstance(value, str | PurePath):
        if (place := _place(hint)) is not None:
            yield at, str(value), place
    elif isinstance(value, dict) and "class_path" in value:
        cls = find_object(str(value["class_path"]))  # parsed: it was allowed, and is imported
        if inspect.isclass(cls):
            yield from _of_arguments(value.get("init_args") or {}, cls, (*at, "init_args"))
    elif isinstance(value, dict):
        for option in alternatives(hint):
            if inspect.isclass(option) and dataclasses.is_dataclass(option):
                yield from _of_arguments(value, option, at)
            elif typing.get_origin(option) is dict:
                for key, item in value.items():
                    yield from _of_value(item, typing.get_args(option)[1], (*at, key))
    elif isinstance(value, Sequence):
        for position, item in enumerate(value):
            yield from _of_value(item, _item(hint), (*at, position))


def _item(hint: Any) -> Any:
    """The type of what a list or tuple holds, ``Any`` where it is not told."""
    inner = [typing.get_args(option)[0] for option in alternatives(hint) if typing.get_args(option)]
    return inner[0] if inner else Any


def _place(hint: Any) -> Place | None:
    """How a type says that its text is a path; ``None`` if it does not."""
    if typing.get_origin(hint) is typing.Annotated:
        marks = [mark for mark in typing.get_args(hint)[1:] if isinstance(mark, Place)]
        return marks[0] if marks else _place(typing.get_args(hint)[0])
    if inspect.isclass(hint) and issubclass(hint, PurePath | os.PathLike):
        return _PATH
    places = (_place(part) for part in typing.get_args(hint) if not isinstance(part, str))
    return next((place for place in places if place is not None), None)
