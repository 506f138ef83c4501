"""Weights from a file into a module, every name and shape checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from reg2rg.core.errors import ConfigError
from reg2rg.models.tensors import open_tensors


def read_weights(path: str | Path, part: str = "") -> dict[str, Tensor]:
    """Read a state dict without running code that a file may hold; numbers are read when they are used.

    Args:
        path: ``.safetensors``, a PyTorch file, or a folder with one of them, such as ``reg2rg convert`` writes.
        part: name of the sub-dict to take if the file is a dict of state dicts.

    Raises:
        ConfigError: no such file, unreadable, or not a state dict.
    """
    source = open_tensors(path, mapped_only=False)
    source = source.part(part) if part else source
    wrong = list(source.others) or ([] if source.entries else ["nothing"])
    if wrong:
        raise ConfigError(f"weights {path}: {wrong[0]!r} is not a tensor (expected a state dict). Fix: extract that")
    return dict(source)


def load_checked(module: nn.Module, weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Load `weights` into `module` if every name and every shape agree.

    Args:
        module: receives the weights.
        weights: names and tensors; dtypes are converted.
        source: what to call the weights in messages.

    Raises:
        ConfigError: names what is missing, left over, or of another shape; nothing was loaded.
    """
    own = module.state_dict()
    faults = [f"missing {name}" for name in own if name not in weights]
    faults += [f"unknown {name}" for name in weights if name not in own]
    faults += [
        f"{name} has shape {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in weights.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ConfigError(
            f"weights {source} do not fit {type(module).__name__}: {'; '.join(faults[:5])}{more}. "
            "Fix: the encoder's arguments, or the file"
        )
    module.load_state_dict(dict(weights))
