"""Uncompressed pixels, read where the header ends: nothing is parsed a second time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_TAG = b"\xe0\x7f\x10\x00"
_LONG = 16  # bits of a value


@dataclass(frozen=True, slots=True)
class Plain:
    """Where the pixels of a file are, and what their bits mean.

    Attributes:
        at: byte at which the element begins.
        explicit: whether its header says the kind of value.
        signed: two's complement.
        unused: bits above those of the value, which may hold anything.
    """

    at: int
    explicit: bool
    signed: bool
    unused: int


def plain_pixels(header: Any, at: int) -> Plain | None:
    """What a header says of pixels that follow at byte `at`; ``None`` unless they are 16 bits, little endian."""
    syntax = str(getattr(header, "file_meta", {}).get("TransferSyntaxUID", ""))
    bits = int(header.get("BitsStored") or 0)
    if syntax not in (_EXPLICIT, _IMPLICIT) or header.get("BitsAllocated") != _LONG:
        return None
    if not 1 < bits <= _LONG or header.get("HighBit") != bits - 1 or (header.get("SamplesPerPixel") or 1) != 1:
        return None
    return Plain(at, syntax == _EXPLICIT, bool(header.get("PixelRepresentation")), _LONG - bits)


def read_plain(stream: BinaryIO, plain: Plain, index: int, shape: tuple[int, int]) -> npt.NDArray[Any] | None:
    """(rows, columns) values of a frame; ``None`` if they are not where they should be."""
    stream.seek(plain.at)
    head = stream.read(12 if plain.explicit else 8)
    wide = 2 * shape[0] * shape[1]
    length = int.from_bytes(head[-4:], "little")
    if head[:4] != _TAG or (plain.explicit and head[4:6] != b"OW") or not (index + 1) * wide <= length < 1 << 32:
        return None
    stream.seek(index * wide, 1)
    data = stream.read(wide)
    if len(data) < wide:
        return None
    values = np.frombuffer(data, "<i2" if plain.signed else "<u2").reshape(shape)
    return (values << plain.unused) >> plain.unused if plain.unused else values
