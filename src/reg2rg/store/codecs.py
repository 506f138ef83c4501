"""How arrays become bytes: lossless, one thread, the same bytes every time. ``benchmarks/formats.py`` measures it.

- ``scan``: CT voxels. A voxel is predicted from three that are decoded before it: in the row before, in the slice
  before, and in both. Zig-zag coding makes small differences of either sign small numbers, byte-shuffling gathers their
  high bytes, and Zstandard packs what is left, which is mostly noise.
- ``view``: fixed-point views of HU, and tokens in float16: byte-shuffle and Zstandard.
- ``view_rows``: the same over differences between rows, for views of small regions, which are enlarged.
- ``share``: geometry views, nearly all nothing or everything: Zstandard alone; tokens in 8 bits.
- ``bits``: masks, eight voxels a byte, then Zstandard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_BLOCK = 1024 * 1024  # stated, so that the bytes do not depend on the cache of the machine that writes


@dataclass(frozen=True, slots=True)
class Codec:
    """A pair of functions.

    Attributes:
        encode: C-contiguous array -> bytes.
        decode: bytes, target array of the original's shape and type.
    """

    encode: Callable[[Array], bytes]
    decode: Callable[[bytes, Array], None]


def encode_scan(array: Array) -> bytes:
    """Pack a scan, (d, w, h) int16; differences wrap around."""
    codes = np.empty_like(array)
    guess = _Guess(array[0, 1:])
    for index, (scan, code) in enumerate(zip(array, codes, strict=True)):  # by slices, in the processor's cache
        if index == 0:
            code[0] = scan[0]
            np.subtract(scan[1:], scan[:-1], out=code[1:])
        else:
            before = array[index - 1]
            np.subtract(scan[0], before[0], out=code[0])
            np.subtract(scan[1:], guess(scan[:-1], before[1:], before[:-1]), out=code[1:])
        _zigzag(code)
    return _compress(codes, shuffle=True)


def decode_scan(part: bytes, out: Array) -> None:
    """Inverse of `encode_scan`."""
    _decompress(part, out)
    for code in out:
        _unzigzag(code)
    depth, width, height = out.shape
    for index in range(1, depth):
        out[index, 0] += out[index - 1, 0]
    for row in range(1, width):
        out[0, row] += out[0, row - 1]
    # Rows with the same sum of slice and row number need none of one another: one addition decodes them all.
    rows, step = out.reshape(depth * width, height), width - 1
    guess = _Guess(out[: min(depth, width), 0])
    for diagonal in range(2, depth + width - 1):
        first, last = max(1, diagonal - step), min(depth - 1, diagonal - 1)  # slices that it crosses
        here = slice(first * step + diagonal, last * step + diagonal + 1, step)
        in_row, in_slice, in_both = (
            rows[here.start - back : here.stop - back : step] for back in (1, width, width + 1)
        )
        rows[here] += guess(in_row, in_slice, in_both)


class _Guess:
    """The median of a neighbour, another, and their sum less the voxel between: an edge of either direction is kept.

    Args:
        like: array of the largest operands.
    """

    def __init__(self, like: Array) -> None:
        self._low, self._high, self._sum = (np.empty_like(like) for _ in range(3))

    def __call__(self, one: Array, other: Array, between: Array) -> Array:
        low, high, total = (memory[: len(one)] for memory in (self._low, self._high, self._sum))
        np.add(one, other, out=total)
        np.subtract(total, between, out=total)
        np.minimum(one, other, out=low)
        np.maximum(one, other, out=high)
        np.maximum(total, low, out=total)
        return np.minimum(total, high, out=total)


def _zigzag(code: Array) -> None:
    sign = code >> 15
    code <<= 1
    code ^= sign


def _unzigzag(code: Array) -> None:
    sign = code & 1
    np.negative(sign, out=sign)
    unsigned = code.view(np.uint16)
    unsigned >>= 1
    code ^= sign


def view_codec(view: Array) -> str:
    """The codec for a view of HU: the one that packs its middle better."""
    quarter = len(view) // 4
    middle = view[quarter : len(view) - quarter]
    return min(("view", "view_rows"), key=lambda name: len(CODECS[name].encode(middle)))


def encode_view(array: Array) -> bytes:
    """Pack a view of HU, int16, or features."""
    return _compress(array, shuffle=True)


def encode_view_rows(array: Array) -> bytes:
    """Pack a view of HU as differences along its first axis."""
    codes = np.empty_like(array)
    codes[0] = array[0]
    np.subtract(array[1:], array[:-1], out=codes[1:])
    for code in codes:
        _zigzag(code)
    return _compress(codes, shuffle=True)


def decode_view_rows(part: bytes, out: Array) -> None:
    """Inverse of `encode_view_rows`."""
    _decompress(part, out)
    _unzigzag(out[0])
    for row in range(1, len(out)):
        _unzigzag(out[row])
        out[row] += out[row - 1]


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
    "scan": Codec(encode_scan, decode_scan),
    "view": Codec(encode_view, _decompress),
    "view_rows": Codec(encode_view_rows, decode_view_rows),
    "share": Codec(encode_share, _decompress),
    "bits": Codec(encode_bits, decode_bits),
}
