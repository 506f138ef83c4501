"""How arrays become bytes: lossless, one thread, the same bytes every time. ``benchmarks/formats.py`` measures it.

- ``hu``: CT voxels. Neighbouring slices differ little, so each slice is stored as its difference from the one before;
  zig-zag coding makes small differences of either sign small numbers, bit-shuffling gathers their empty high bits, and
  Zstandard removes what is then constant.
- ``view``: fixed-point views, where whole stretches are background: bit-shuffled Zstandard.
- ``bits``: masks, eight voxels a byte, then Zstandard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_BLOCK = 256 * 1024  # stated, so that the bytes do not depend on the cache of the machine that writes


@dataclass(frozen=True, slots=True)
class Codec:
    """A pair of functions.

    Attributes:
        encode: C-contiguous array -> bytes.
        decode: bytes, target array of the original's shape and type.
    """

    encode: Callable[[Array], bytes]
    decode: Callable[[bytes, Array], None]


def encode_hu(array: Array) -> bytes:
    """Differences along the first axis, zig-zag, bit-shuffle, Zstandard. int16; differences wrap around."""
    difference = np.array(array)
    np.subtract(array[1:], array[:-1], out=difference[1:])
    sign = difference >> 15
    difference <<= 1
    difference ^= sign
    return _compress(difference, 2, 1)


def decode_hu(part: bytes, out: Array) -> None:
    """Inverse of `encode_hu`; slice by slice, so that the work stays in the processor's cache."""
    _decompress(part, out)
    previous = None
    for current in out:
        sign = -(current & 1)
        current >>= 1
        current &= 0x7FFF  # zig-zag codes are unsigned
        current ^= sign
        if previous is not None:
            current += previous
        previous = current


def encode_view(array: Array) -> bytes:
    """Bit-shuffle and Zstandard."""
    return _compress(array, array.itemsize, 1)


def decode_view(part: bytes, out: Array) -> None:
    """Inverse of `encode_view`."""
    _decompress(part, out)


def encode_bits(array: Array) -> bytes:
    """Eight voxels a byte, Zstandard."""
    return _compress(np.packbits(array.reshape(-1), bitorder="little"), 1, 3)


def decode_bits(part: bytes, out: Array) -> None:
    """Inverse of `encode_bits`."""
    packed = np.empty(-(-out.size // 8), dtype=np.uint8)
    _decompress(part, packed)
    out.reshape(-1)[:] = np.unpackbits(packed, count=out.size, bitorder="little").view(bool)


def _compress(array: Array, typesize: int, level: int) -> bytes:
    import blosc2  # a second to import, needed by those alone who open an entry

    filters = [blosc2.Filter.BITSHUFFLE if typesize > 1 else blosc2.Filter.NOFILTER]
    packed = blosc2.compress2(
        array, codec=blosc2.Codec.ZSTD, clevel=level, typesize=typesize, filters=filters, blocksize=_BLOCK, nthreads=1
    )
    return bytes(packed)


def _decompress(part: bytes, out: Array) -> None:
    import blosc2

    blosc2.decompress2(part, dst=out, nthreads=1)


CODECS = {
    "hu": Codec(encode_hu, decode_hu),
    "view": Codec(encode_view, decode_view),
    "bits": Codec(encode_bits, decode_bits),
}
