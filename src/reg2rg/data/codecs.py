"""How arrays become bytes: lossless, one thread, the same bytes every time. ``benchmarks/formats.py`` measures it.

- ``hu``: CT voxels. Neighbours in a slice differ little, so each row is stored as its difference from the row before;
  zig-zag coding makes small differences of either sign small numbers, byte-shuffling gathers their high bytes, and
  Zstandard packs what is left, which is mostly noise.
- ``view``: fixed-point views of HU: byte-shuffle and Zstandard.
- ``share``: geometry views, nearly all nothing or everything: Zstandard alone.
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
    """Pack a scan, (d, w, h) int16; differences wrap around."""
    codes = np.empty_like(array)
    for scan, code in zip(array, codes, strict=True):  # slice by slice, in the processor's cache
        code[0] = scan[0]
        np.subtract(scan[1:], scan[:-1], out=code[1:])
        sign = code >> 15
        code <<= 1
        code ^= sign
    return _compress(codes, shuffle=True)


def decode_hu(part: bytes, out: Array) -> None:
    """Inverse of `encode_hu`."""
    _decompress(part, out)
    for code in out:
        sign = code & 1
        np.negative(sign, out=sign)
        unsigned = code.view(np.uint16)
        unsigned >>= 1
        code ^= sign
    for row in range(1, out.shape[1]):  # one row of all slices at a time: long additions, few calls
        out[:, row] += out[:, row - 1]


def encode_view(array: Array) -> bytes:
    """Pack a view of HU, int16."""
    return _compress(array, shuffle=True)


def encode_share(array: Array) -> bytes:
    """Pack a geometry view, int16."""
    return _compress(array, shuffle=False)


def encode_bits(array: Array) -> bytes:
    """Eight voxels a byte, Zstandard."""
    return _compress(np.packbits(array.reshape(-1), bitorder="little"), shuffle=False)


def decode_bits(part: bytes, out: Array) -> None:
    """Inverse of `encode_bits`."""
    packed = np.empty(-(-out.size // 8), dtype=np.uint8)
    _decompress(part, packed)
    out.reshape(-1)[:] = np.unpackbits(packed, count=out.size, bitorder="little").view(bool)


def _compress(array: Array, *, shuffle: bool) -> bytes:
    import blosc2  # a second to import, needed by those alone who open an entry

    packed = blosc2.compress2(
        array,
        codec=blosc2.Codec.ZSTD,
        clevel=1,
        typesize=array.itemsize,
        filters=[blosc2.Filter.SHUFFLE if shuffle else blosc2.Filter.NOFILTER],
        blocksize=_BLOCK,
        nthreads=1,
    )
    return bytes(packed)


def _decompress(part: bytes, out: Array) -> None:
    import blosc2

    blosc2.decompress2(part, dst=out, nthreads=1)


CODECS = {
    "hu": Codec(encode_hu, decode_hu),
    "view": Codec(encode_view, _decompress),
    "share": Codec(encode_share, _decompress),
    "bits": Codec(encode_bits, decode_bits),
}
