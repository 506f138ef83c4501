"""``--key value`` options as one more overlay, so that the command line follows the rules of the files.

An option that names another class forgets the old one's arguments, ``${...}`` resolves, and a mistake is explained the
same way as in a file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from reg2rg.config.overlay import merge, packaged_configs
from reg2rg.config.reading import COMMAND_LINE, Key, Tree, parse_value
from reg2rg.core.errors import ConfigError

_CLASS_PARTS = ("class_path", "init_args", "dict_kwargs")


def split_config_options(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take ``--config FILE``, ``--config=FILE``, ``-c FILE`` and ``-cFILE`` out of `args`.

    Returns:
        the files in order, and the other arguments in order.

    Raises:
        ConfigError: the option without its file.
    """
    configs: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg in ("--config", "-c"):
            value = next(rest, None)
            if value is None or value.startswith("-"):
                raise ConfigError(
                    f"command line: {arg} needs the name of a config file. Packaged: {', '.join(packaged_configs())}."
                )
            configs.append(value)
        elif arg.startswith("--config="):
            configs.append(arg.removeprefix("--config="))
        elif arg.startswith("-c") and len(arg) > 2:
            configs.append(arg[2:].removeprefix("="))
        else:
            others.append(arg)
    return configs, others


def split_flags(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the options that ask for something to be printed (help, config) from those that set a value."""
    flags = [arg for arg in args if _is_flag(arg)]
    return flags, [arg for arg in args if not _is_flag(arg)]


def _is_flag(arg: str) -> bool:
    name = arg.partition("=")[0]
    return name in ("-h", "--help", "--print_config") or name.endswith(".help")


def option_values(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each ``--key=value`` or ``--key value``.

    Raises:
        ConfigError: not an option, or no value.
    """
    rest = iter(args)
    for arg in rest:
        if not arg.startswith("--") or arg == "--":
            raise ConfigError(f"command line: unexpected '{arg}'. Options are written --key=value or --key value.")
        name, equals, text = arg[2:].partition("=")
        if not equals:
            value = next(rest, None)
            if value is None or value.startswith("--"):
                raise ConfigError(f"command line: --{name} needs a value: --{name}=VALUE.")
            text = value
        yield name, text


def apply_options(tree: Tree, args: Sequence[str]) -> None:
    """Put ``--key=value`` and ``--key value`` over `tree`, in place.

    Between a component and its argument ``init_args`` may be left out: ``--model.texture.depth=12``.

    Raises:
        ConfigError: not an option, no value, or not YAML.
    """
    for name, text in option_values(args):
        try:
            parsed = parse_value(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"command line: --{name}: '{text}' is not valid YAML: {error}") from None
        if name.endswith("+") and not isinstance(parsed, list):
            parsed = [parsed]
        path = _full_path(tree.values, name.split("."))
        if any(isinstance(part, int) for part in path):
            _set_item(tree, path, parsed)
        else:
            merge(tree, _overlay(path, parsed))


def _full_path(values: Any, parts: list[str]) -> Key:
    """Path in the tree for the parts of an option's name, with ``init_args`` and list positions where they belong."""
    path: list[str | int] = []
    here = values
    for part in parts:
        if isinstance(here, list) and part.isdigit():
            path.append(int(part))
            here = here[int(part)] if int(part) < len(here) else None
            continue
        if isinstance(here, list):
            raise ConfigError(
                f"command line: --{'.'.join(parts)}: '{'.'.join(map(str, path))}' is a list; say which of its "
                f"{len(here)} items is meant: --{'.'.join(map(str, path))}.0.{part}=..."
            )
        is_class = (isinstance(here, dict) and "class_path" in here) or isinstance(here, str)
        if is_class and part not in _CLASS_PARTS:
            path.append("init_args")
            here = here.get("init_args") if isinstance(here, dict) else None
        path.append(part)
        here = here.get(part) if isinstance(here, dict) else None
    return tuple(path)


def _overlay(path: Key, value: Any) -> Tree:
    overlay = Tree()
    overlay.origins = {path[:length]: COMMAND_LINE for length in range(1, len(path) + 1)}
    for part in reversed(path):
        value = {part: value}
    overlay.values = value
    return overlay


def _set_item(tree: Tree, path: Key, value: Any) -> None:
    """Set a value inside a list item, which no overlay file can reach."""
    holder: Any = tree.values
    for part, following in itertools.pairwise(path):
        if isinstance(holder, dict):
            holder = holder.setdefault(part, [] if isinstance(following, int) else {})
        elif isinstance(part, int) and part < len(holder):
            holder = holder[part]
        else:
            holder = None
        if not isinstance(holder, dict | list):
            raise ConfigError(
                f"command line: --{'.'.join(map(str, path))}: there is nothing to set at '{part}'. Name a longer or "
                "shorter key."
            )
    if isinstance(holder, list) and (not isinstance(path[-1], int) or path[-1] >= len(holder)):
        raise ConfigError(f"command line: --{'.'.join(map(str, path))}: the list has {len(holder)} items.")
    holder[path[-1]] = value
    tree.origins[path] = COMMAND_LINE
