"""Constructors called for a config: what one of them refuses is said with the place in the config."""

from __future__ import annotations

import re
from typing import Any

from reg2rg.config.reading import COMMAND_LINE, Key, Tree, walk
from reg2rg.core.errors import ConfigError

_SECTIONS = {"Reg2RG": "model", "ReportTask": "task", "Views": "task"}


class Builder:
    """Instantiator for jsonargparse that names file, line and key of a component that cannot be built.

    Args:
        config: the parsed config as nested dicts.
        tree: where its values were written.
    """

    def __init__(self, config: dict[str, Any], tree: Tree) -> None:
        self.config, self.tree = config, tree

    def __call__(self, cls: type, *args: Any, **kwargs: Any) -> Any:
        """Build `cls`.

        Raises:
            ConfigError: for a value that its constructor refuses.
        """
        try:
            return cls(*args, **kwargs)
        except (ConfigError, ValueError, TypeError, FileNotFoundError) as error:
            if getattr(error, "located", False):
                raise
            path = self._find(cls, kwargs)
            blamed = self._blamed(path, kwargs, str(error))
            where = self.tree.origin(blamed or (*path, "class_path")) or COMMAND_LINE
            message = f"{where}: {'.'.join(map(str, blamed or path))} ({cls.__name__}): {error}"
            located = type(error)(message) if isinstance(error, ConfigError) else ConfigError(message)
            located.located = True  # type: ignore[attr-defined]
            raise located from error

    def _blamed(self, path: Key, kwargs: dict[str, Any], refusal: str) -> Key | None:
        """The one argument whose text a refusal quotes; or that it names and the command line lays over the rest."""
        origins = self.tree.origins
        written = {
            place: value
            for name, value in kwargs.items()
            for place in ((*path, name), (*path, "init_args", name))
            if place in origins
        }
        quoted = [
            place for place, value in written.items() if value and isinstance(value, str) and repr(value) in refusal
        ]
        words = re.findall(r"\w+", refusal)
        found = quoted or [place for place in written if origins[place] == COMMAND_LINE and place[-1] in words]
        return found[0] if len(found) == 1 else None

    def _find(self, cls: type, kwargs: dict[str, Any]) -> Key:
        """The place in the config that `cls` was built for."""
        found: list[tuple[int, Key]] = []
        for path, value in walk(self.config):
            if isinstance(value, dict) and str(value.get("class_path", "")).rpartition(".")[2] == cls.__name__:
                arguments = value.get("init_args") or {}
                same = sum(arguments.get(name) == given for name, given in kwargs.items())
                found.append((same, path))
        if found:
            return max(found, key=lambda item: item[0])[1]
        return (_SECTIONS.get(cls.__name__, "data"),)
