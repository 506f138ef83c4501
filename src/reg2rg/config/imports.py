"""Which packages a config may make Python import.

Parsing ``class_path: evil.Thing`` imports ``evil`` before its type is looked at, so a config from elsewhere with a
``.py`` beside it would run that file. Only packages of an allow-list are imported for a config; more are a decision of
the user (``--allow-import pkg``), not of the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

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


def refusal(path: str, allowed: Iterable[str]) -> str:
    """The message for a class outside the allowed packages."""
    package = path.partition(".")[0]
    return (
        f"'{path}' would import the package '{package}', which a config may not. "
        f"Allowed: {', '.join(allowed)}. If you trust it, add: --allow-import {package}"
    )


@contextlib.contextmanager
def import_policy(extra: Iterable[str] = ()) -> Iterator[tuple[str, ...]]:
    """Hold jsonargparse itself to the allow-list: nothing else is imported for a value, wherever it stands.

    Nor does it build what merely looks like a component where anything may stand.

    The settings of jsonargparse are global; `extra` is taken back on leaving.
    """
    from jsonargparse import set_parsing_settings

    allowed = (*ALLOWED, *plugin_packages(), *extra)
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=list(allowed), instantiate_subclass_spec_in_any=False
    )
    try:
        yield allowed
    finally:
        set_parsing_settings(import_path_denylist=[name for name in allowed if name not in ALLOWED])
