"""A folder of weights that is either whole or absent, and never takes the place of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from reg2rg.core.errors import ConfigError
from reg2rg.core.model_folder import WEIGHTS
from reg2rg.pretrained.atomic_folder import check_target
from reg2rg.pretrained.streaming import write_safetensors


def check_new(to: Path, needed: int) -> None:
    """Refuse a folder that holds anything, or that could not be finished.

    Args:
        to: where the folder is to stand.
        needed: bytes that it takes.

    Raises:
        ConfigError: see `reg2rg.pretrained.folder.check_target`; and a model's folder is not replaced here.
    """
    if to.is_dir() and any(to.iterdir()):
        raise ConfigError(
            f"{to}: the folder holds something (expected a new or empty one). Fix: name another, or empty it"
        )
    check_target(to, needed)


def write_tensors(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write the weights' file of a folder."""
    write_safetensors(folder / WEIGHTS, tensors)
