"""Sums of every tensor of a file, the same to the last bit on any machine, so that two sites can compare them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reg2rg.core.documents import DocumentError, read_json
from reg2rg.core.errors import ConfigError
from reg2rg.core.files import write_json
from reg2rg.models.tensors import TensorSource

MIB = 2**20
LANES = 2**15  # torch adds up to so many numbers on one thread: several would only wait for each other
_PIECE = 2**22
_SHORT = 16


@dataclass(frozen=True, slots=True)
class TensorSum:
    """What identifies one tensor.

    Attributes:
        shape: its shape.
        dtype: its dtype, such as ``bfloat16``.
        sum: of its numbers, in float64: number i is added to lane i modulo 32,768, in order, and the lanes are added
            exactly. ``None`` if a number is not finite.
        abs_sum: the same of their absolute values.
        non_finite: how many numbers are NaN or infinite.
        sha256: of its numbers' bytes, little-endian, row by row.
    """

    shape: tuple[int, ...]
    dtype: str
    sum: float | None
    abs_sum: float | None
    non_finite: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of all tensors of a file.

    Attributes:
        file: its name.
        tensors: by name.
    """

    file: str
    tensors: Mapping[str, TensorSum]

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes, dtypes and bytes of all tensors, whatever file holds them in which order."""
        lines = [f"{k} {list(t.shape)} {t.dtype} {t.sha256}\n" for k, t in sorted(self.tensors.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def lines(self) -> list[str]:
        """One line a tensor and one for all, for people and for ``diff``."""
        width = max(map(len, self.tensors), default=0)
        shown = [
            f"{name:<{width}}  {'x'.join(map(str, t.shape)) or 'scalar':<12} {t.dtype:<8}  sum {_number(t.sum)}  "
            f"abs {_number(t.abs_sum)}  sha256 {t.sha256[:_SHORT]}"
            + (f"  {t.non_finite} not finite" * bool(t.non_finite))
            for name, t in sorted(self.tensors.items())
        ]
        numbers = sum(math.prod(t.shape) for t in self.tensors.values())
        return [*shown, f"{len(self.tensors)} tensors, {numbers} numbers, digest {self.digest}"]

    def write(self, path: Path) -> None:
        """As JSON, for `read_sums`."""
        tensors = {name: asdict(entry) for name, entry in sorted(self.tensors.items())}
        write_json(path, {"file": self.file, "digest": self.digest, "tensors": tensors})


def sum_tensors(source: TensorSource, step: Callable[[int], None] = lambda count: None) -> Sums:
    """Sums of every tensor, piece by piece: memory does not grow with the file.

    Args:
        source: the file.
        step: called with the number of MiB that were read since the last call.
    """
    return Sums(source.path.name, {name: sum_tensor(source[name], step) for name in source})


def sum_tensor(tensor: Tensor, step: Callable[[int], None] = lambda count: None) -> TensorSum:
    """Sums of one tensor; see `TensorSum`."""
    flat = tensor.detach().reshape(-1)
    total, absolute, wide = (torch.zeros(min(LANES, len(flat)), dtype=torch.float64) for _ in range(3))
    digest, read = hashlib.sha256(), 0
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE]
        digest.update(piece.contiguous().view(torch.uint8).numpy().data)
        for lanes in torch.split(piece, LANES):  # adding row by row fixes the order, which a reduction leaves open
            numbers = wide[: len(lanes)].copy_(lanes)
            total[: len(lanes)] += numbers
            absolute[: len(lanes)] += numbers.abs_()
        read += piece.nbytes
        step(read // MIB)
        read %= MIB
    finite = bool(absolute.isfinite().all())
    return TensorSum(
        tuple(tensor.shape),
        str(tensor.dtype).removeprefix("torch."),
        math.fsum(total.tolist()) if finite else None,
        math.fsum(absolute.tolist()) if finite else None,
        0 if finite else sum(int((~piece.isfinite()).sum()) for piece in torch.split(flat, _PIECE)),
        digest.hexdigest(),
    )


def read_sums(path: str | Path) -> Sums:
    """Sums that `Sums.write` wrote.

    Raises:
        ConfigError: no such file, or not one of these.
    """
    try:
        loaded: dict[str, Any] = read_json(path)
        tensors = {k: TensorSum(**{**t, "shape": tuple(t["shape"])}) for k, t in loaded["tensors"].items()}
        return Sums(loaded["file"], tensors)
    except (OSError, DocumentError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--against {path}: cannot be read as sums ({type(error).__name__}: {error}). Expected a file that "
            "'reg2rg convert ... --check --sums FILE' wrote. Fix: the path"
        ) from None


def differences(here: Sums, there: Sums) -> list[str]:
    """What differs between two sites, one line a tensor; empty if every byte is the same."""
    lines = [f"{name}: only here" for name in here.tensors if name not in there.tensors]
    lines += [f"{name}: only there" for name in there.tensors if name not in here.tensors]
    for name, ours in sorted(here.tensors.items()):
        theirs = there.tensors.get(name)
        if theirs is not None and (ours.sha256, ours.shape, ours.dtype) != (theirs.sha256, theirs.shape, theirs.dtype):
            lines.append(f"{name}: {_said(ours)} here, {_said(theirs)} there")
    return lines


def _said(entry: TensorSum) -> str:
    shape = "x".join(map(str, entry.shape))
    return f"{shape} {entry.dtype} sum {_number(entry.sum)} abs {_number(entry.abs_sum)} sha256 {entry.sha256[:_SHORT]}"


def _number(value: float | None) -> str:
    """The shortest text that gives the same float64 again."""
    return "not finite" if value is None else repr(value)
