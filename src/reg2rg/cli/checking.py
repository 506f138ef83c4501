"""A typo in a config is told before torch is imported: what classes take is read from their source text.

Only keys are looked at, and only where the source tells all that there may be; the rest is told when everything is
imported (`reg2rg.config.schema`), in the same words.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from reg2rg.cli.main import Invocation
from reg2rg.config.explain import refuse
from reg2rg.config.options import apply_options, option_values, split_config_options, split_flags
from reg2rg.config.overlay import fold
from reg2rg.config.reading import Key, Tree
from reg2rg.config.schema import Checker
from reg2rg.config.sources import (
    SECTIONS,
    Argument,
    base_classes,
    closed_arguments,
    components,
    imported_from,
    method_arguments,
)

_PLAIN = ("seed_everything", "vars")
_NOT_OPTIONS = ("model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule")
_LIGHTNING = tuple(f"lightning.pytorch.{kind}" for kind in ("callbacks", "loggers", "strategies", "profilers"))


def run(invocation: Invocation) -> int:
    """Run a trainer command, see `reg2rg.cli.trainer`, once its config has no key that nothing takes."""
    invocation = checked(invocation)
    from reg2rg.cli.trainer import run as run_trainer

    return run_trainer(invocation)


def checked(invocation: Invocation) -> Invocation:
    """A trainer command whose options are spelt out, and whose config has no key that nothing takes.

    Raises:
        ConfigError: a line for each such key.
    """
    invocation = replace(invocation, args=tuple(map(_spelt_out, invocation.args)))
    configs, rest = split_config_options(invocation.args)
    _, options = split_flags(rest)
    tree = fold(configs)
    if "model" in tree.values or "ckpt_path" not in dict(option_values(options)):  # else a folder gives the model
        apply_options(tree, options)
        refuse(unknown_keys(invocation.command, tree))
    return invocation


def _spelt_out(word: str) -> str:
    """``--operating-point`` is short for its key, as ``reg2rg report`` has it."""
    option, equals, value = word.partition("=")
    return f"--model.operating_point{equals}{value}" if option == "--operating-point" else word


def unknown_keys(command: str, tree: Tree) -> list[str]:
    """One line for each key of a config that nothing takes; nothing where that cannot be known.

    Args:
        command: fit, validate, test or predict.
        tree: the folded config.
    """
    with suppress(Exception):  # of sources that are not as they are known: what is wrong is told later
        return _Keys(command, tree).check()
    return []


class _Keys:
    """Walks a config along the arguments of the classes that it names."""

    def __init__(self, command: str, tree: Tree) -> None:
        self.tree, self.checker = tree, Checker(tree, ())
        self.sections = {key: closed_arguments(*place) for key, place in SECTIONS.items()}
        found = {key: _standing_in(known) for key, known in self.sections.items() if known is not None}
        options = [name for name in method_arguments(*SECTIONS["trainer"], command) if name not in _NOT_OPTIONS]
        self.checker.sections = {**found, **dict.fromkeys((*_PLAIN, *sorted(options)))}
        self.components = {component.name: component for component in components()}
        self.bases = base_classes()

    def check(self) -> list[str]:
        if None in self.sections.values():
            return []
        for key, value in self.tree.values.items():
            if key not in self.checker.sections:
                self.checker.unknown((key,), "key", self.checker.sections)
            elif isinstance(value, dict) and (known := self.sections.get(key)) is not None:
                self._arguments(value, known, SECTIONS[key][1], (key,))
        return self.checker.mistakes

    def _arguments(self, values: dict[str, Any], known: tuple[Argument, ...], owner: str, at: Key) -> None:
        by_name = {argument.name: argument for argument in known}
        for key, value in values.items():
            argument = by_name.get(str(key).removesuffix("+"))
            if argument is None:
                self.checker.unknown((*at, key), "argument", by_name, owner)
            else:
                self._value(value, argument, (*at, key))

    def _value(self, value: Any, argument: Argument, at: Key) -> None:
        if isinstance(value, list):
            for position, item in enumerate(value):
                self._value(item, argument, (*at, position))
        elif isinstance(value, dict) and isinstance(value.get("class_path"), str):
            self._component(value, argument, at)
        elif isinstance(value, dict) and argument.arguments and (record := _only_class(argument.annotation)):
            self._arguments(value, argument.arguments, record, at)

    def _component(self, value: dict[str, Any], argument: Argument, at: Key) -> None:
        module, _, name = value["class_path"].rpartition(".")
        ours = self.components.get(name)
        if ours is not None and module in ("", ours.module):
            wanted = {kind for base, kind in self.bases.items() if re.search(rf"\b{base}\b", argument.annotation)}
            if ours.kind not in wanted:  # told later: of another kind, or code gives some of its arguments
                return
            module = ours.module
        module = module or next(_in_lightning(name), "")
        known = closed_arguments(module, name) if module.startswith(("reg2rg.", "lightning.")) else None
        arguments = value.get("init_args")
        if known is not None and isinstance(arguments, dict):
            self._arguments(arguments, known, name, (*at, "init_args"))


def _in_lightning(name: str) -> Iterator[str]:
    """The module of a class that Lightning has under a short name."""
    for package in _LIGHTNING:
        if module := imported_from(package).get(name):
            yield module


def _only_class(annotation: str) -> str:
    """The one class in an annotation, ``""`` if a value may be something else that has keys too."""
    words = re.findall(r"[A-Z]\w*", annotation.replace("None", ""))
    return words[0] if len(words) == 1 and not re.search("dict|Any|Mapping", annotation) else ""


def _standing_in(known: tuple[Argument, ...]) -> type:
    """A class that says the arguments of one that is not imported."""
    parameters = [inspect.Parameter(argument.name, inspect.Parameter.KEYWORD_ONLY) for argument in known]
    return type("Unimported", (), {"__signature__": inspect.Signature(parameters)})
