"""Which packages a config may make Python import.

Parsing ``class_path: evil.Thing`` imports ``evil`` before its type is looked at, so a config from elsewhere with a
``.py`` beside it would run that file. Only packages of an allow-list are imported for a config; more are a decision of
the user (``--allow-import pkg``), not of the file. What a name reaches is judged by where it is defined.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from reg2rg.config.reading import Tree, walk
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import PLUGIN_GROUP

ALLOWED = (
    "reg2rg",
    "torch",
    "torchmetrics",
    "lightning",
    "pytorch_lightning",
    "transformers",
    "peft",
    "timm",
    "monai",
    "torchio",
)


def plugin_packages() -> tuple[str, ...]:
    """Top-level packages of the installed plug-ins; installing one is the user's decision to trust it."""
    from importlib.metadata import entry_points

    return tuple(
        sorted({entry.value.partition(":")[0].partition(".")[0] for entry in entry_points(group=PLUGIN_GROUP)})
    )


def check_class_paths(tree: Tree, allowed: Iterable[str]) -> None:
    """Refuse every dotted ``class_path`` of `tree` outside `allowed`, before anything is imported.

    Raises:
        ConfigError: names file, line, key, class and remedy.
    """
    names = tuple(allowed)
    for key, value in walk(tree.values):
        path = value.get("class_path") if isinstance(value, dict) else None
        if isinstance(path, str) and "." in path and not is_allowed(path, names):
            raise ConfigError(tree.say(key, refusal(path, names), ("class_path",)))


def is_allowed(path: str, allowed: Iterable[str]) -> bool:
    """Whether `path` is one of the modules of `allowed` or lies inside one."""
    return any(path == name or path.startswith(f"{name}.") for name in allowed)


def refusal(path: str, allowed: Iterable[str], reached: str = "") -> str:
    """The message for a class outside the allowed packages.

    Args:
        path: as it is written.
        allowed: packages.
        reached: where that is defined, if elsewhere.
    """
    package = (reached or path).partition(".")[0]
    named = f"'{path}' is {reached}: it" if reached and reached != path else f"'{path}'"
    ours = package in sys.stdlib_module_names  # nothing that a model is built of
    fix = "Fix: name a class of these" if ours else f"If you trust it, add: --allow-import {package}"
    return f"{named} would import the package '{package}', which a config may not. Allowed: {', '.join(allowed)}. {fix}"


def find_object(path: str) -> Any:
    """What a dotted path of an allowed package reaches: its longest part that is a module, and attributes of that.

    Raises:
        ModuleNotFoundError: no part of it is a module.
        AttributeError: the module has no such thing.
    """
    parts = path.split(".")
    absent: ModuleNotFoundError | None = None
    for length in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            absent = absent or error
            continue
        try:
            return functools.reduce(getattr, parts[length:], module)
        except AttributeError:
            if absent is None:
                raise
            break
    raise absent or ModuleNotFoundError(f"'{path}' is no dotted path")


def home(found: Any) -> str:
    """Where an object is defined, which need not be the module that it was reached by; ``""`` if it does not say.

    Modules hold the modules that they import, so that ``torch.os.system`` is a name inside ``torch``.
    """
    if inspect.ismodule(found):
        return found.__name__
    owner = found if inspect.isclass(found) or inspect.isroutine(found) else type(found)
    module = getattr(owner, "__module__", None)
    return f"{module}.{owner.__qualname__}" if module else ""


@contextlib.contextmanager
def import_policy(extra: Iterable[str] = ()) -> Iterator[tuple[str, ...]]:
    """Hold jsonargparse itself to the allow-list: nothing else is imported for a value, wherever it stands.

    Nor does it build what merely looks like a component where anything may stand.

    The settings of jsonargparse are global; `extra` is taken back on leaving.
    """
    from jsonargparse import set_parsing_settings

    allowed = tuple(dict.fromkeys((*ALLOWED, *plugin_packages(), *extra)))
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=list(allowed), instantiate_subclass_spec_in_any=False
    )
    try:
        yield allowed
    finally:
        set_parsing_settings(import_path_denylist=[name for name in allowed if name not in ALLOWED])
