"""One file of compressed arrays that finds every damage by itself.

Layout: magic and version (8 bytes), length of the header (8 bytes, little endian), SHA-256 of the header (32 bytes),
the header (JSON: free meta data, and per array its name, type, shape, codec, length and SHA-256), then the arrays one
after another. A reader that wants three arrays of twenty reads and checks three. Every byte of the file is under one of
the digests, and the file's length is known from the header, so a flipped bit, a cut or an appended byte is found.
Nothing in it can run code: no pickle, no names of types to import.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.core.files import atomic_write
from reg2rg.store.codecs import CODECS

MAGIC = b"reg2rg\x01\n"
_PREAMBLE = struct.Struct("<8sQ32s")
_MAX_HEADER = 64 * 2**20
_DTYPES = frozenset({"int8", "int16", "bool", "float16", "float32"})

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Block:
    """One array in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    codec: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds, read without touching its arrays.

    Attributes:
        meta: free JSON object of the writer.
        blocks: array name -> where it stands.
        start: offset of the first array.
        size: length of the whole file in bytes.
    """

    meta: dict[str, Any]
    blocks: dict[str, Block]
    start: int
    size: int


def write_container(path: Path, meta: Mapping[str, Any], arrays: Sequence[tuple[str, Array, str]]) -> int:
    """Write a file, atomically; the same input gives the same bytes.

    Args:
        path: target.
        meta: JSON object.
        arrays: (name, C-contiguous array, codec).

    Returns:
        the file's length in bytes.
    """
    blocks, parts = [], []
    for name, array, codec in arrays:
        part = CODECS[codec].encode(array)
        parts.append(part)
        digest = hashlib.sha256(part).hexdigest()
        blocks.append(Block(name, array.dtype.name, array.shape, codec, len(part), digest))
    header = json.dumps({"meta": meta, "blocks": [asdict(block) for block in blocks]}, separators=(",", ":")).encode()
    with atomic_write(path) as stream:
        stream.write(_PREAMBLE.pack(MAGIC, len(header), hashlib.sha256(header).digest()))
        stream.write(header)
        for part in parts:
            stream.write(part)
    return _PREAMBLE.size + len(header) + sum(map(len, parts))


def read_header(path: Path) -> Header:
    """Read and check a file's header, and its length against it.

    Raises:
        DataFault: ``STORE_CORRUPT``.
        FileNotFoundError: no such file.
    """
    with open(path, "rb") as stream:
        preamble = stream.read(_PREAMBLE.size)
        if len(preamble) < _PREAMBLE.size:
            raise _corrupt(path, f"{len(preamble)} bytes", "a whole file")
        magic, length, digest = _PREAMBLE.unpack(preamble)
        if magic != MAGIC or length > _MAX_HEADER:
            raise _corrupt(path, f"first bytes {magic!r}", f"{MAGIC!r}")
        text = stream.read(length)
        if hashlib.sha256(text).digest() != digest:
            raise _corrupt(path, "a header that does not match its SHA-256", "the bytes that were written")
        found = stream.seek(0, 2)
    content = json.loads(text)  # noqa: TID251 (our own bytes, by their digest)
    blocks = {b["name"]: Block(**{**b, "shape": tuple(b["shape"])}) for b in content["blocks"]}
    start = _PREAMBLE.size + length
    expected = start + sum(block.size for block in blocks.values())
    if found != expected:
        raise _corrupt(path, f"{found} bytes", f"{expected} bytes")
    return Header(content["meta"], blocks, start, expected)


def read_arrays(path: Path, header: Header, names: Sequence[str]) -> dict[str, Array]:
    """Read, check and unpack some arrays.

    Raises:
        DataFault: ``STORE_CORRUPT``.
    """
    out = {name: np.empty(header.blocks[name].shape, dtype=_dtype(path, header.blocks[name])) for name in names}
    read_into(path, header, out)
    return out


def read_into(path: Path, header: Header, targets: Mapping[str, Array]) -> None:
    """Read, check and unpack some arrays into memory of the caller.

    Args:
        path: the file.
        header: its header.
        targets: array name -> C-contiguous array of the block's shape and type.

    Raises:
        DataFault: ``STORE_CORRUPT``.
    """
    for block, part in _parts(path, header, frozenset(targets)):
        CODECS[block.codec].decode(part, targets[block.name])


def verify(path: Path) -> Header:
    """Check every byte of a file.

    Raises:
        DataFault: ``STORE_CORRUPT``.
        FileNotFoundError: no such file.
    """
    header = read_header(path)
    for _ in _parts(path, header, frozenset(header.blocks)):
        pass
    return header


def _parts(path: Path, header: Header, names: frozenset[str]) -> Iterator[tuple[Block, bytes]]:
    """Blocks with their checked, still packed bytes, in the order of the file."""
    with open(path, "rb", buffering=0) as stream:
        offset = header.start
        for block in header.blocks.values():
            if block.name in names:
                stream.seek(offset)
                part = stream.read(block.size)
                while len(part) < block.size and (more := stream.read(block.size - len(part))):
                    part += more
                if hashlib.sha256(part).hexdigest() != block.sha256:
                    raise _corrupt(
                        path, f"array {block.name!r} does not match its SHA-256", "the bytes that were written"
                    )
                yield block, part
            offset += block.size


def _dtype(path: Path, block: Block) -> str:
    if block.dtype not in _DTYPES:
        raise _corrupt(path, f"array type {block.dtype!r}", f"one of {sorted(_DTYPES)}")
    return block.dtype


def _corrupt(path: Path, found: str, expected: str) -> DataFault:
    return DataFault.of(
        "STORE_CORRUPT",
        found=found,
        expected=expected,
        fix="run `reg2rg data prepare` again: it rebuilds damaged entries",
        path=path,
        study=path.name.removesuffix(SUFFIX),
    )


SUFFIX = ".r2g"
"""File name ending of the store's files."""
