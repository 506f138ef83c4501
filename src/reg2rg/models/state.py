"""Which names of a module's state a checkpoint or a folder holds, and that all of them are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from reg2rg.core.errors import ConfigError
from reg2rg.models.encoders.wrappers import Frozen


def kept_names(module: nn.Module) -> set[str]:
    """Names of a module's state that a checkpoint must hold.

    Everything but what is read from its own file when the model is built: frozen weights of a language model
    (``llm``), and of encoders inside `Frozen` that were given a file.
    """
    restored = {name for name, part in module.named_modules() if isinstance(part, Frozen) and part.restored}
    restored |= {name for name, _ in module.named_modules() if name.rpartition(".")[2] == "llm"}
    trains = {name for name, p in module.named_parameters(remove_duplicate=False) if p.requires_grad}

    def comes_back(name: str) -> bool:
        return name not in trains and any(name.startswith(f"{prefix}.") for prefix in restored)

    return {name for name in module.state_dict() if not comes_back(name)}


_FIX = "use the config that the checkpoint was trained with (it is inside the checkpoint: Reg2RG.from_checkpoint)"
_LISTED = 4


def check_names(given: Iterable[str], kept: set[str], known: set[str], where: str, fix: str = _FIX) -> None:
    """Hold the names in a checkpoint against the model's.

    Raises:
        ConfigError: something is missing or unknown; lists the first of each.
    """
    missing, unknown = sorted(kept - set(given)), sorted(set(given) - known)
    if not missing and not unknown:
        return
    parts = [
        f"{len(names)} {what} ({first(names)})"
        for what, names in (("missing", missing), ("unknown to the model", unknown))
        if names
    ]
    raise ConfigError(f"{where}: does not fit the model: {'; '.join(parts)}. Fix: {fix}")


def check_sizes(given: Mapping[str, Any], known: Mapping[str, Any], where: str, fix: str = _FIX) -> None:
    """Hold the sizes of a checkpoint's tensors against the model's.

    Raises:
        ConfigError: some differ; lists the first ones with both sizes.
    """
    wrong = [
        f"{name} {tuple(value.shape)}, here {tuple(known[name].shape)}"
        for name, value in given.items()
        if name in known and value.shape != known[name].shape
    ]
    if wrong:
        raise ConfigError(f"{where}: does not fit the model: {len(wrong)} of other sizes ({first(wrong)}). Fix: {fix}")


def first(items: Sequence[str]) -> str:
    """The first few of a list, for a message."""
    return ", ".join(items[:_LISTED]) + (", ..." if len(items) > _LISTED else "")
