"""Formats for the store, measured: bytes, CPU time to write and to read back, on the arrays that the store holds.

    python benchmarks/formats.py [--size 512x512x200]

Native detail: the cropped scan (int16) and ten boxed masks. Views: 11 x int16 in 1/16 HU and 10 of geometry. One
thread; files in a temporary folder, so reading is from the page cache. Rows whose package is missing are left out.
Every row reads back into fresh arrays and is checked for equality. "checked" says whether reading finds a flipped bit.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402 (after the number of threads is set)
from _measure import machine  # noqa: E402

Arrays = dict[str, np.ndarray]
Write = Callable[[Path, Arrays], None]
Read = Callable[[Path], Arrays]


def write_npy(path: Path, arrays: Arrays) -> None:
    with open(path, "wb") as stream:
        for array in arrays.values():
            np.save(stream, array, allow_pickle=False)


def read_npy(path: Path, names: list[str]) -> Arrays:
    with open(path, "rb") as stream:
        return {name: np.load(stream, allow_pickle=False) for name in names}


def packed(pack: Callable[[bytes], bytes], unpack: Callable[[bytes, int], bytes]) -> tuple[Write, Callable]:
    """A file of packed raw arrays, with the least framing."""

    def write(path: Path, arrays: Arrays) -> None:
        with open(path, "wb") as stream:
            for array in arrays.values():
                part = pack(array)
                stream.write(len(part).to_bytes(8, "little"))
                stream.write(part)

    def read(path: Path, like: Arrays) -> Arrays:
        out = {}
        with open(path, "rb") as stream:
            for name, array in like.items():
                part = stream.read(int.from_bytes(stream.read(8), "little"))
                out[name] = np.frombuffer(unpack(part, array.nbytes), dtype=array.dtype).reshape(array.shape)
        return out

    return write, read


def blosc(codec: str, level: int, shuffle: str) -> tuple[Callable, Callable]:
    import blosc2

    def pack(array: np.ndarray) -> bytes:
        filters = [blosc2.Filter[shuffle]]
        return blosc2.compress2(
            array, codec=blosc2.Codec[codec], clevel=level, typesize=array.itemsize, filters=filters, nthreads=1
        )

    def unpack(part: bytes, size: int) -> bytes:
        out = np.empty(size, dtype=np.uint8)
        blosc2.decompress2(part, dst=out, nthreads=1)
        return out

    return packed(pack, unpack)


def zstd(level: int) -> tuple[Callable, Callable]:
    import zstandard

    return packed(
        lambda array: zstandard.ZstdCompressor(level=level).compress(array),
        lambda part, size: zstandard.ZstdDecompressor().decompress(part, max_output_size=size),
    )


def isal(level: int) -> tuple[Callable, Callable]:
    from isal import igzip

    return packed(lambda array: igzip.compress(array, level), lambda part, _: igzip.decompress(part))


def safetensors() -> tuple[Callable, Callable]:
    from safetensors.numpy import load_file, save_file

    return lambda path, arrays: save_file(arrays, path), lambda path, _: load_file(path)


def ours(codecs: dict[str, Callable[[np.ndarray], str]]) -> tuple[Callable, Callable]:
    from reg2rg.store.container import read_arrays, read_header, write_container

    def write(path: Path, arrays: Arrays) -> None:
        write_container(path, {}, [(name, a, codecs[name.split("/")[0]](a)) for name, a in arrays.items()])

    def read(path: Path, like: Arrays) -> Arrays:
        return read_arrays(path, read_header(path), list(like))

    return write, read


def rows(codecs: dict[str, Callable[[np.ndarray], str]]) -> dict[str, tuple[Callable, Callable, str]]:
    table: dict[str, tuple[Callable, Callable, str]] = {
        "npy": (write_npy, lambda path, like: read_npy(path, list(like)), "no")
    }
    if importlib.util.find_spec("safetensors"):
        table["safetensors"] = (*safetensors(), "no")
    if importlib.util.find_spec("isal"):
        table["gzip (isal) level 1"] = (*isal(1), "CRC-32")
    if importlib.util.find_spec("zstandard"):
        table["zstd 1"] = (*zstd(1), "no")
        table["zstd 3"] = (*zstd(3), "no")
    for codec, level in (("LZ4", 5), ("ZSTD", 1), ("ZSTD", 3), ("ZSTD", 6)):
        for shuffle in ("SHUFFLE", "BITSHUFFLE"):
            table[f"blosc2 {codec.lower()} {level} {shuffle.lower()}"] = (*blosc(codec, level, shuffle), "no")
    table["the store"] = (*ours(codecs), "SHA-256")
    return table


def measure(write: Callable, read: Callable, path: Path, arrays: Arrays, repeats: int) -> tuple[int, float, float]:
    writes, reads = [], []
    for _ in range(repeats):
        start = time.process_time()
        write(path, arrays)
        writes.append(time.process_time() - start)
        start = time.process_time()
        back = read(path, arrays)
        reads.append(time.process_time() - start)
    for name, array in arrays.items():
        if not np.array_equal(back[name], array):
            raise SystemExit(f"{path.name}: {name} came back changed")
    return path.stat().st_size, min(writes), min(reads)


def arrays_of(size: tuple[int, int, int], folder: Path) -> tuple[Arrays, Arrays]:
    """What the store holds of the synthetic scan."""
    from _scan import write_study

    from reg2rg.core.regions import load_region_set
    from reg2rg.core.task import Views
    from reg2rg.scans.read import read_study
    from reg2rg.store.views import compute_views, crop_to_foreground

    detail = crop_to_foreground(read_study(write_study(folder / "scan", size), load_region_set()))
    native = {"ct": np.ascontiguousarray(detail.array.transpose(2, 1, 0))}
    for name, mask in detail.masks.items():
        native[f"mask/{name}"] = np.ascontiguousarray(mask.array.transpose(2, 1, 0))
    views = compute_views(Views(), detail)
    baked = {"global": views.global_}
    for row, name in enumerate(views.regions):
        baked[f"texture/{name}"] = views.texture[row]
        baked[f"geometry/{name}"] = views.geometry[row]
    return native, baked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(512, 512, 200))
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    from reg2rg.core.malloc import keep_freed_memory
    from reg2rg.store.codecs import view_codec

    keep_freed_memory()
    print(machine(1))
    with tempfile.TemporaryDirectory(prefix="reg2rg-formats-") as name:
        folder = Path(name)
        native, baked = arrays_of(options.size, folder)
        run = functools.partial(measure, path=folder / "file", repeats=options.repeats)
        kinds = (
            ("native detail", native, {"ct": lambda _: "scan", "mask": lambda _: "bits"}),
            ("views", baked, {"global": view_codec, "texture": view_codec, "geometry": lambda _: "share"}),
        )
        for title, arrays, codecs in kinds:
            raw = sum(array.nbytes for array in arrays.values())
            print(f"\n{title} of {'x'.join(map(str, options.size))}: {raw / 1e6:.1f} MB raw\n")
            print("| format | MB | smaller | write, CPU ms | read, CPU ms | damage found |\n|---|---|---|---|---|---|")
            for label, (write, read, checked) in rows(codecs).items():
                size, write_s, read_s = run(write, read, arrays=arrays)
                cells = f"{size / 1e6:.1f} | {raw / size:.1f} x | {write_s * 1e3:.0f} | {read_s * 1e3:.0f}"
                print(f"| {label} | {cells} | {checked} |", flush=True)


if __name__ == "__main__":
    main()
