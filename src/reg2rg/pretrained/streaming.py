"""A safetensors file written tensor by tensor, so that what it holds never has to be in memory at once."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from reg2rg.models.tensors import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_PIECE = 1 << 24
_ALIGNMENT = 8


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    leave_out: Collection[str] = (),
) -> None:
    """Write `tensors` in the order of their names, and flush them to the disk.

    Args:
        path: the file.
        tensors: by name. Each is asked for twice, for its size and for its numbers; a mapping that reads them from a
            file keeps no more than one in memory.
        metadata: text by name, for the file's header.
        leave_out: names that are not written.

    Raises:
        ValueError: a dtype that safetensors has not.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    names, end = sorted(set(tensors) - set(leave_out)), 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise ValueError(f"{name} is {tensor.dtype} (expected one of {', '.join(DTYPES)})")
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            _write(stream, tensors[name])
        stream.flush()
        os.fsync(stream.fileno())


def _write(stream: IO[bytes], tensor: Tensor) -> None:
    """The numbers of one tensor, row by row, piece by piece."""
    flat = tensor.detach().reshape(-1)
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE].cpu().contiguous()
        stream.write(piece.view(torch.uint8).numpy().data)


def read_metadata(path: Path) -> dict[str, str]:
    """The text by name in the header of a safetensors file."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt", device="cpu") as file:
        return dict(file.metadata() or {})
