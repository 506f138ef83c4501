"""Files of tensors, opened without reading them: names, shapes and dtypes first, numbers when they are asked for.

Everything is mapped into memory by the operating system, so a file may be far larger than the memory. Nothing that a
file holds is ever run.
"""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reg2rg.core.documents import read_json
from reg2rg.core.errors import ConfigError

SAFETENSORS, INDEX = ".safetensors", ".index.json"
_WHOLE = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
"""What a folder may hold, the first that is there counts."""
_SUFFIXES = (SAFETENSORS, ".pth", ".pt", ".bin")
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""safetensors' names of types."""
_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "git lfs pull"),
    (b"<", "a web page or XML", "download the file itself, not its page"),
    (b"\x1f\x8b", "gzip", "unpack it first"),
    (b"\x89HDF", "HDF5", "take a PyTorch or safetensors file"),
)
_EXPECTED = "expected .safetensors, or a PyTorch file of tensors"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file.

    Attributes:
        shape: its shape.
        dtype: its dtype.
        read: gives the tensor; its numbers are read from the file when they are used.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return self.numbers * self.dtype.itemsize


class TensorSource(Mapping[str, Tensor]):
    """The tensors of a file, of a sharded set of files or of nested dicts (names joined by dots), by name.

    Args:
        path: what was opened.
        entries: the tensors.
        others: names of what is no tensor, with its type.
        files: the files behind it.
    """

    def __init__(
        self,
        path: Path,
        entries: Mapping[str, TensorEntry],
        others: Mapping[str, str] | None = None,
        files: tuple[Path, ...] = (),
    ) -> None:
        self.path, self.entries, self.others = path, dict(entries), dict(others or {})
        self.files = files or (path,)

    def __getitem__(self, name: str) -> Tensor:
        return self.entries[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def part(self, name: str) -> TensorSource:
        """The nested dict called `name`, if there is one; else this source itself."""
        start = f"{name}."
        if not any(entry.startswith(start) for entry in self.entries):
            return self
        entries = {k.removeprefix(start): entry for k, entry in self.entries.items() if k.startswith(start)}
        others = {k.removeprefix(start): kind for k, kind in self.others.items() if k.startswith(start)}
        return TensorSource(self.path, entries, others, self.files)


def open_tensors(path: str | Path, mapped_only: bool = True) -> TensorSource:
    """Open a file of tensors; the kind is told by its content, not by its name.

    Args:
        path: ``.safetensors``, a PyTorch file, the index of a sharded set of either, or a folder with one of these.
        mapped_only: refuse a PyTorch file of the format before 1.6, which has to be read whole.

    Raises:
        ConfigError: no such file, another kind of file, one that holds code, damaged, or shards that are missing.
    """
    path = _file_of(Path(path).expanduser())
    if path.name.endswith(INDEX):
        return _open_shards(path, mapped_only)
    with _reading(path), open(path, "rb") as stream:
        start = stream.read(64)
    for signature, what, fix in _STARTS:
        if start.startswith(signature):
            raise ConfigError(f"weights {path}: this is {what} ({_EXPECTED}). Fix: {fix}")
    if not start:
        raise ConfigError(f"weights {path}: the file is empty ({_EXPECTED}). Fix: download it again")
    if start[8:9] == b"{" or path.suffix == SAFETENSORS:
        return _open_safetensors(path)
    return _open_torch(path, mapped_only, is_zip=start.startswith(b"PK"))


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        if path.is_file():
            return path
        raise ConfigError(f"weights {path}: no such file ({_EXPECTED}). Fix: the path")
    for name in _WHOLE:
        if (path / name).is_file():
            return path / name
    held = sorted(entry.name for entry in path.iterdir())
    found = [name for name in held if name.endswith(_SUFFIXES)]
    if len(found) == 1:
        return path / found[0]
    what = f"{len(found)} files of weights ({', '.join(found[:6])})" if found else "no file of weights"
    listed = "" if found else f" among {', '.join(held[:8]) or 'nothing'}"
    raise ConfigError(f"weights {path}: the folder holds {what}{listed} (expected one). Fix: name the file")


def _open_safetensors(path: Path) -> TensorSource:
    from safetensors import safe_open

    entries = {}
    with _reading(path):
        file: Any = safe_open(str(path), framework="pt", device="cpu")
        for name in file.keys():  # noqa: SIM118 (not a dict)
            part = file.get_slice(name)
            kind = str(part.get_dtype())
            if kind not in DTYPES:
                raise ConfigError(f"weights {path}: {name} is {kind} (expected one of {', '.join(DTYPES)})")
            entries[name] = TensorEntry(tuple(part.get_shape()), DTYPES[kind], _reader(file, name))
    return TensorSource(path, entries)


def _reader(file: Any, name: str) -> Callable[[], Tensor]:
    return lambda: file.get_tensor(name)


def _open_torch(path: Path, mapped_only: bool, is_zip: bool) -> TensorSource:
    if not is_zip and mapped_only:
        raise ConfigError(
            f"weights {path}: neither safetensors nor a PyTorch file of version 1.6 or later ({_EXPECTED}). Fix: if "
            'it is an older PyTorch file: python -c "import torch; '
            f"torch.save(torch.load('{path.name}', weights_only=True), 'new.pth')\""
        )
    with _reading(path):
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    entries: dict[str, TensorEntry] = {}
    others: dict[str, str] = {}
    _flatten(path, "", loaded, entries, others)
    return TensorSource(path, entries, others)


def _flatten(path: Path, prefix: str, value: object, entries: dict[str, TensorEntry], others: dict[str, str]) -> None:
    """Tensors of nested dicts, names joined by dots."""
    if not isinstance(value, dict):
        raise ConfigError(f"weights {path}: holds {type(value).__name__} (expected a dict of tensors by name)")
    for key, item in value.items():
        name = f"{prefix}{key}"
        if name in entries or name in others:
            raise ConfigError(f"weights {path}: the name {name} stands there twice. Fix: write the file again")
        if isinstance(item, dict):
            _flatten(path, f"{name}.", item, entries, others)
        elif isinstance(item, Tensor) and isinstance(key, str) and item.layout is torch.strided:
            tensor = item.detach()
            entries[name] = TensorEntry(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)  # type: ignore[misc]
        else:
            others[name] = type(item).__name__


def _open_shards(path: Path, mapped_only: bool) -> TensorSource:
    index = read_json(path, "download it again")
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ConfigError(f"weights {path}: no index of shards (expected 'weight_map': tensor -> file). Fix: the file")
    files = sorted(set(shards.values()))
    absent = [name for name in files if Path(name).name != name or not (path.parent / name).is_file()]
    if absent:
        raise ConfigError(
            f"weights {path}: {len(absent)} of {len(files)} files are not beside it: {', '.join(absent)}. "
            "Fix: download them into the same folder"
        )
    opened = {name: open_tensors(path.parent / name, mapped_only) for name in files}
    lost = [name for name, file in shards.items() if name not in opened[file].entries]
    if lost:
        raise ConfigError(
            f"weights {path}: {len(lost)} tensors are not in the file that the index names: {', '.join(lost[:6])}. "
            "Fix: index and files are of different versions; download them again"
        )
    entries = {name: opened[file].entries[name] for name, file in shards.items()}
    return TensorSource(path, entries, files=tuple(path.parent / name for name in files))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a parser raises into one message that names the file."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"weights {path}: {_trouble(path, error)}") from None


def _trouble(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it. Fix: change its permissions, or copy it"
    if type(error).__name__ == "UnpicklingError" or "TorchScript" in str(error):
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        named = f" ({code[1]})" if code else ", or is damaged"
        return (
            f"holds more than tensors{named}. Such content could run Python code, so nothing of it was read. Fix: take "
            "the file from its authors, or have it saved again as .safetensors"
        )
    reason = (
        str(error).strip().splitlines()[0].split(". This is an internal")[0][:200]
        if str(error).strip()
        else type(error).__name__
    )
    cut = ", it is cut short" if _looks_cut(path) else ""
    return (
        f"cannot be read{cut} ({reason}); it has {path.stat().st_size} bytes. Fix: compare that with its source, and "
        "download or write the file again"
    )


def _looks_cut(path: Path) -> bool:
    """A zip whose end is missing."""
    try:
        with open(path, "rb") as stream:
            return stream.read(2) == b"PK" and not zipfile.is_zipfile(path)
    except OSError:
        return False
