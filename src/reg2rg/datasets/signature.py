"""What a listing is made from, as one digest: the dataset's settings. With what it watches it tells of every change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

from reg2rg import __version__
from reg2rg.core.regions import RegionSet
from reg2rg.datasets.base import Dataset

LISTING_FORMAT = 1
"""A change makes all be listed anew once: to be raised where a listing says something else of equal files."""
_DEEPEST = 12


def signature(dataset: object) -> str | None:
    """Digest of a dataset's class and settings; ``None`` where something in them is not plain, so that none tells all.

    Args:
        dataset: its attributes that begin with an underscore are working state, and left out.
    """
    if not isinstance(dataset, Dataset):
        return None
    try:
        facts = (LISTING_FORMAT, __version__, str(Path.cwd()), _facts(dataset, 0))
    except (TypeError, OSError):
        return None
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()


def _facts(value: object, level: int) -> object:
    """A value as plain tuples whose ``repr`` says all of it.

    Raises:
        TypeError: something that is not made of plain values.
    """
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    parts: object
    if value is None or isinstance(value, str | bytes | int | float | Path):
        return name, str(value)
    if level > _DEEPEST:
        raise TypeError("too deep")
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, list | tuple):
        return name, [_facts(item, level + 1) for item in value]
    elif isinstance(value, RegionSet):
        parts = value.name, value.regions
    elif isinstance(value, Dataset):
        parts = [(key, item) for key, item in vars(value).items() if key[0] != "_"]
    elif is_dataclass(value):
        parts = [(field.name, getattr(value, field.name)) for field in fields(value)]
    else:
        raise TypeError(f"{name} is not plain")
    return name, _facts(parts, level + 1)
