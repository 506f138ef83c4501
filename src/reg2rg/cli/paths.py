"""Paths on the command line: ``~`` is the home folder also where the shell leaves it, as in ``--out=~/results``."""

from __future__ import annotations

import os
from pathlib import Path


def place(text: str) -> Path:
    """Reads a path."""
    return Path(place_or_name(text))


def place_or_name(text: str) -> str:
    """Reads what may be a path or a name, such as a hub id."""
    return os.path.expanduser(text)  # noqa: PTH111 (a name is no path)
