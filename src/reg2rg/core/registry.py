"""Components by name: a class is registered under its own name, the same word in YAML, Python and documentation."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from reg2rg.core.errors import ConfigError

T = TypeVar("T")
PLUGIN_GROUP = "reg2rg.plugins"


class UnknownComponentError(ConfigError):
    """A name that no component of the kind has; the message offers the closest one and lists them all."""


class Registry(Generic[T]):
    """The components of one kind.

    Args:
        kind: what the components are, for messages: ``"encoder"``.
        base: the abstract class that each must extend.
    """

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind, self.base = kind, base
        self._classes: dict[str, type[T]] = {}

    def register(self, component: type[T]) -> type[T]:
        """Class decorator: file `component` under its class name.

        Raises:
            TypeError: not a concrete subclass of the base, or the name is taken by another class.
        """
        name = component.__name__
        if not (inspect.isclass(component) and issubclass(component, self.base)):
            raise TypeError(f"{component!r} cannot be a {self.kind}: it does not extend {self.base.__qualname__}")
        if inspect.isabstract(component):
            missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
            raise TypeError(f"{name} cannot be a {self.kind}: it does not implement {missing}")
        new, taken = _full_name(component), _full_name(self._classes.get(name, component))
        if taken != new:
            raise TypeError(f"the {self.kind} name {name} is taken by {taken}; {new} needs another name")
        self._classes[name] = component
        return component

    def get(self, name: str) -> type[T]:
        """Look `name` up; never constructs anything.

        Raises:
            UnknownComponentError: with the closest name and the full list.
        """
        if name in self._classes:
            return self._classes[name]
        raise UnknownComponentError(
            f"Unknown {self.kind} '{name}'.{did_you_mean(name, self)} Known: {', '.join(self)}."
        )

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __len__(self) -> int:
        return len(self._classes)


def _full_name(component: type) -> str:
    return f"{component.__module__}.{component.__qualname__}"


def did_you_mean(word: str, known: Iterator[str] | Registry[T] | list[str] | tuple[str, ...]) -> str:
    """`` Did you mean 'X'?`` for the closest of `known` without regard to case, or ``""`` if none is close."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[close[0]]}'?" if close else ""


def load_plugins() -> list[str]:
    """Import every module that an installed package names under the entry-point group ``reg2rg.plugins``.

    Importing runs the module's ``register`` decorators. A broken plug-in raises its own error, with its traceback.

    Returns:
        the modules' names, in a stable order.
    """
    modules = sorted({entry.value.partition(":")[0] for entry in entry_points(group=PLUGIN_GROUP)})
    for module in modules:
        importlib.import_module(module)
    return modules
