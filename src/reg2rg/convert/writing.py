"""A folder of weights that is either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from reg2rg.errors import ConfigError, Reg2RGError

WEIGHTS = "model.safetensors"
_HEADROOM = 1.05


@contextlib.contextmanager
def new_folder(to: str | Path, needed: int) -> Iterator[Path]:
    """An empty folder beside `to`, renamed to it at the end; on any error or interrupt nothing is left.

    Args:
        to: must not exist, or be empty.
        needed: bytes that will be written.

    Raises:
        ConfigError: `to` holds something, its parent cannot be written, or the disk has too little space.
        Reg2RGError: the disk refuses while writing.
    """
    to = Path(to).expanduser()
    check_target(to, needed)
    try:
        with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as name:
            folder = Path(name) / to.name
            folder.mkdir()
            yield folder
            if to.is_dir():
                to.rmdir()
            folder.rename(to)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        raise Reg2RGError(
            f"{to}: writing failed ({error.strerror}); nothing was left there. Fix: free some space"
        ) from error


def check_target(to: Path, needed: int) -> None:
    """Refuse a folder that could not be finished, before anything is computed.

    Raises:
        ConfigError: see `new_folder`.
    """
    if to.exists() and not to.is_dir():
        raise ConfigError(f"--to {to}: a file of that name is there (expected a new folder). Fix: name another folder")
    if to.is_dir() and any(to.iterdir()):
        raise ConfigError(
            f"--to {to}: the folder holds something (expected a new or empty one). Fix: name another, or remove it"
        )
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=to.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"--to {to}: {to.parent} cannot be written ({error.strerror}). Fix: name another folder"
        ) from error
    free = shutil.disk_usage(to.parent).free
    if free < needed * _HEADROOM:
        raise ConfigError(
            f"--to {to}: {needed / 2**20:.0f} MiB will be written, {free / 2**20:.0f} MiB are free on its disk. "
            "Fix: free some space, or name a folder on another disk"
        )


def write_tensors(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write `WEIGHTS` into `folder`."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))  # the only place where it says what the system said
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
    # safetensors makes files for their owner alone; this gives them the rights that any other file gets here.
    (folder / WEIGHTS).chmod(folder.stat().st_mode & 0o666)
