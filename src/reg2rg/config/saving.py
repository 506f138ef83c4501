"""The resolved config travels with what it made: beside the logs as ``config.yaml``, and inside every checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from reg2rg.core.documents import parse_yaml
from reg2rg.core.errors import ConfigError

CONFIG_KEY = "reg2rg_config"
T = TypeVar("T")


def read_config(checkpoint: Mapping[str, Any], where: str = "checkpoint") -> dict[str, Any]:
    """The config that trained a checkpoint.

    Args:
        checkpoint: what ``torch.load`` gave.
        where: the checkpoint's name, for the message of the error.

    Raises:
        ConfigError: the checkpoint carries no config.
    """
    if CONFIG_KEY not in checkpoint:
        raise ConfigError(
            f"{where}: holds no config (key '{CONFIG_KEY}'). Expected a checkpoint written by 'reg2rg fit'. "
            "Build the model in Python and load its weights with load_state_dict instead."
        )
    config: dict[str, Any] = parse_yaml(checkpoint[CONFIG_KEY], f"{where}: its config", "use another checkpoint")
    return config


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """``key: OLD in the checkpoint, NEW now`` for each value in which two configs differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{at}.{key}".lstrip("."))
    elif old != new:
        yield f"{at}: {_short(old)} in the checkpoint, {_short(new)} now"


def _short(value: Any) -> str:
    text = f"{value['class_path']} ..." if isinstance(value, Mapping) and "class_path" in value else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def build(cls: type[T], arguments: Mapping[str, Any], allow_import: Sequence[str] = ()) -> T:
    """Build `cls` from the section of a config that describes its arguments, nested components included.

    Only packages that a config may name are imported (`reg2rg.config.imports`), and those of `allow_import`.
    """
    from jsonargparse import ArgumentParser

    from reg2rg.config.imports import import_policy

    with import_policy(allow_import):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(cls, "it", fail_untyped=False)
        for action in parser._actions:  # jsonargparse takes a null for an argument that is missing
            if action.dest.removeprefix("it.") in arguments:
                action.required = False
        parsed = parser.parse_object({"it": dict(arguments)})
        built: T = parser.instantiate_classes(parsed).it
        return built
