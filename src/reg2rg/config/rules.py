"""Values that have the right type and still cannot work, found before a model or a data set is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from reg2rg.config.reading import Tree, lookup, walk
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import load_region_set

# Arguments that name a file or folder that must be there, by the section they stand in.
_PATHS = {"weights": "a file of weights", "root": "the data folder"}


def check_values(config: dict[str, Any], tree: Tree) -> list[str]:
    """One line for each value of the parsed `config` that cannot work; `tree` knows where it was written."""
    mistakes = [*_counts(config, tree), *_sizes(config, tree), *_files(config, tree), *_region_sets(config, tree)]
    return list(dict.fromkeys(mistakes))


def _counts(config: dict[str, Any], tree: Tree) -> Iterator[str]:
    """What Lightning's own types leave open; bounds of our arguments are in their types (`reg2rg.config.schema`)."""
    name = ("trainer", "accumulate_grad_batches")
    value = lookup(config, name)
    if isinstance(value, int) and value < 1:
        yield tree.say(name, f"must be 1 or more, found {value}.")


def _sizes(config: dict[str, Any], tree: Tree) -> Iterator[str]:
    """An encoder must be built for the size of the views it is given, and its patches must fill that size.

    Below a component that resizes what it is given, the size is the one that it resizes ``to``.
    """
    views = lookup(config, ("task", "views", "size"))
    values = list(walk(config.get("model") or {}, ("model",)))
    resized = {path[:-1]: value for path, value in values if path[-2:] == ("init_args", "to") and _is_size(value)}
    for path, value in values:
        if not (isinstance(value, dict) and path[-1] == "init_args"):
            continue
        size, patch = value.get("size"), value.get("patch")
        if not _is_size(size):
            continue
        resizer = max((at for at in resized if path[: len(at)] == at), key=len, default=None)
        if resizer is not None and list(size) != list(resized[resizer]):
            yield tree.say(
                (*path, "size"),
                f"{list(size)} is not the size of what the encoder is given: "
                f"{'.'.join(map(str, resizer))}.to = {list(resized[resizer])}.",
            )
        elif resizer is None and _is_size(views) and list(size) != list(views):
            yield tree.say(
                (*path, "size"),
                f"{list(size)} is not the size of the views the encoder is given, task.views.size = {list(views)} "
                f"({tree.origin(('task', 'views', 'size')) or 'the default'}). Write: size: ${{task.views.size}}",
            )
        if _is_size(patch) and any(p > 0 and s % p for s, p in zip(size, patch, strict=True)):
            yield tree.say(
                (*path, "patch"),
                f"patches of {list(patch)} do not fill a view of {list(size)}: each size must be a "
                "multiple of its patch.",
            )


def _files(config: dict[str, Any], tree: Tree) -> Iterator[str]:
    for path, value in walk(config):
        if isinstance(value, str) and path[-1] in _PATHS and "init_args" in path and not Path(value).exists():
            yield tree.say(
                path,
                f"{_PATHS[str(path[-1])]} is expected at '{value}', and nothing is there.",
            )
    model = lookup(config, ("model", "llm", "init_args", "path"))
    if isinstance(model, str) and _is_local(model) and not Path(model).exists():
        yield tree.say(
            ("model", "llm", "init_args", "path"),
            f"no model folder at '{model}' (seen from {Path.cwd()}). Name a folder or a hub id, or make a small model "
            f"from your own reports: reg2rg lm {model} --config ...",
        )
    dataset = lookup(config, ("data", "dataset", "init_args", "path"))
    if isinstance(dataset, str) and not Path(dataset).exists():
        yield tree.say(("data", "dataset", "init_args", "path"), f"no file at '{dataset}'.")


def _is_local(path: str) -> bool:
    """A path rather than a hub id: it says so, or its folder is there."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).parent.is_dir()


def _region_sets(config: dict[str, Any], tree: Tree) -> Iterator[str]:
    name = lookup(config, ("task", "regions"))
    if isinstance(name, str):
        try:
            load_region_set(name)
        except ConfigError as error:
            yield tree.say(("task", "regions"), str(error))


def _is_size(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(n, int) for n in value)
