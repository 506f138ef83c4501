"""Weights from a file into a module, every name and shape checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reg2rg.errors import ConfigError


def read_weights(path: str | Path, part: str = "") -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or from a PyTorch file without running code it may hold.

    Args:
        path: the file.
        part: name of the sub-dict to take if the file is a dict of state dicts.

    Raises:
        ConfigError: no such file, unreadable, or not a state dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ConfigError(f"weights {path}: no such file (expected .safetensors, or .pth of tensors). Fix: the path")
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ConfigError(f"weights {path}: cannot be read ({error}). Fix: download or write the file again") from error
    except Exception as error:  # torch.load raises pickle.UnpicklingError and others for files that hold code
        raise ConfigError(
            f"weights {path}: not a file of tensors ({type(error).__name__}). Fix: convert it to .safetensors"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get(part), dict):
        loaded = loaded[part]
    wrong = [name for name, tensor in loaded.items() if not isinstance(tensor, Tensor)] if loaded else ["nothing"]
    if wrong:
        raise ConfigError(f"weights {path}: {wrong[0]!r} is not a tensor (expected a state dict). Fix: extract that")
    return dict(loaded)


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
