"""What a published file is, as one record a format, and the formats by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean
from reg2rg.extras.convert.key_map import Account, Key, share_found
from reg2rg.models.tensors import TensorSource

LLAMA2 = "meta-llama/Llama-2-7b-chat-hf"


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may choose.

    Attributes:
        dtype: of the written tensors; ``None`` keeps that of the file.
        llm: folder or hub id of the base language model that the output refers to (format ``reg2rg``).
        backbone: folder with config and tokenizer of the classifier's backbone (format ``radbert``).
        sha256: of the file; ``None`` takes those that the format knows, or any where it knows none.
    """

    dtype: torch.dtype | None = None
    llm: str = LLAMA2
    backbone: Path | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A file whose keys are all accounted for.

    Attributes:
        source: its tensors.
        account: where each goes.
        options: what the user chose.
        step: called for every MiB that has been read, with the number of MiB.
        sha256: of the file, where it was asked for; else empty.
    """

    source: TensorSource
    account: Account
    options: Options = field(default_factory=Options)
    step: Callable[[int], None] = lambda count: None
    sha256: str = ""

    def tensor(self, name: str) -> Tensor:
        """The tensor of a published name, whatever its name in the file."""
        return self.source[self.account.named[name]]


def _nothing_to_compute(opened: Opened) -> dict[str, Tensor]:
    return {}


def _no_faults(opened: Opened) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class Format:
    """A published file.

    Attributes:
        name: the word for ``--from``.
        file: what it is, for messages.
        keys: its tensors.
        layers: placeholder in names of keys -> number of layers.
        write: writes a folder from ``(opened file, our tensors, an empty folder)``.
        sizes: its published sizes; others are allowed, and said.
        compute: our tensors that are no tensor of the file.
        check: what is wrong beyond names and shapes, a sentence each.
        adapt: this format for what the user chose.
        part: name of the sub-dict that holds the tensors, where what is beside it says nothing.
        sha256: SHA-256 of each known file -> what it is; another file is refused, unless the user states its own.
    """

    name: str
    file: str
    keys: tuple[Key, ...]
    layers: Mapping[str, int]
    write: Callable[[Opened, Mapping[str, Tensor], Path], Mapping[str, Any]]
    sizes: Mapping[str, int] = field(default_factory=dict)
    compute: Callable[[Opened], Mapping[str, Tensor]] = _nothing_to_compute
    check: Callable[[Opened], list[str]] = _no_faults
    adapt: Callable[[Format, Options], Format] | None = None
    part: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)


FORMATS: dict[str, Format] = {}
"""Every format by name; `register` adds one."""


def register(format_: Format) -> Format:
    """Add a format; the word for ``--from`` is its name.

    Raises:
        ConfigError: the name is taken.
    """
    if format_.name in FORMATS:
        raise ConfigError(f"the format '{format_.name}' is there already. Fix: give yours another name")
    FORMATS[format_.name] = format_
    return format_


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        ConfigError: there is none; offers the closest.
    """
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise ConfigError(f"--from {name}: there is no such format.{did_you_mean(name, list(FORMATS))} Known: {known}.")
    return FORMATS[name]


def looks_like(source: TensorSource, but: str = "") -> Format | None:
    """The format that a file has by the names of its tensors, if nearly all of its keys are there.

    Args:
        source: the file.
        but: name of a format that it is not.
    """
    shares = {name: share_found(f.keys, f.layers, source.entries) for name, f in FORMATS.items() if name != but}
    best = max(shares, key=shares.__getitem__, default="")
    return FORMATS[best] if best and shares[best] > 0.9 else None
