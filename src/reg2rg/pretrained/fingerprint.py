"""Whether a language model is the one that a model was trained on: a few numbers of every tensor, compared at load.

A published file may hold bfloat16 roundings of float16 weights, and the user's copy may be any of the two, or float32.
So values are compared as roundings: two agree if some number rounds to both.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from reg2rg.core.errors import ConfigError
from reg2rg.models.llm.naming import is_adapter, plain_name

SAMPLES = 32
"""Values that are kept of a tensor, at even distances."""
_DIGITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
_SUBNORMAL = 2.0**-24  # distance of the smallest float16 numbers, below which a copy may have lost digits


@dataclass(frozen=True, slots=True)
class Trace:
    """What is kept of one tensor.

    Attributes:
        shape: its shape.
        dtype: its dtype, such as ``bfloat16``.
        values: `SAMPLES` of its numbers at even distances, or all if it has fewer.
    """

    shape: tuple[int, ...]
    dtype: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Traces of all tensors of a language model, by name."""

    tensors: Mapping[str, Trace]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            name: {
                "shape": list(trace.shape),
                "dtype": trace.dtype,
                "values": [_finite(value) for value in trace.values],
            }
            for name, trace in sorted(self.tensors.items())
        }

    @classmethod
    def from_json(cls, values: Any, where: str) -> Fingerprint:
        """Read what `to_json` gave.

        Raises:
            ConfigError: not that.
        """
        try:
            traces = {
                str(name): Trace(
                    tuple(int(length) for length in trace["shape"]),
                    _dtype(trace["dtype"]),
                    tuple(math.nan if value is None else float(value) for value in trace["values"]),
                )
                for name, trace in values.items()
            }
            for name, trace in traces.items():
                if len(trace.values) != min(SAMPLES, math.prod(trace.shape)):
                    raise ValueError(f"{name} has {len(trace.values)} values for shape {trace.shape}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: no fingerprint of a language model ({error!r}). Fix: take it again") from None
        return cls(traces)

    def differences(self, found: Fingerprint) -> Differences:
        """Hold `found` against this one."""
        pairs = {name: (trace, found.tensors[name]) for name, trace in self.tensors.items() if name in found.tensors}
        shapes = {name: (a.shape, b.shape) for name, (a, b) in pairs.items() if a.shape != b.shape}
        rows = tuple(name for name, (a, b) in shapes.items() if is_vocabulary(name) and a and a[1:] == b[1:])
        how = {name: _compare(*pair) for name, pair in pairs.items() if name not in shapes}
        return Differences(
            self,
            found,
            missing=tuple(name for name in self.tensors if name not in pairs),
            extra=tuple(name for name in found.tensors if name not in pairs),
            vocabulary=rows,
            shapes=tuple(name for name in shapes if name not in rows),
            values=tuple(name for name, kind in how.items() if kind == "other"),
            rounded=tuple(name for name, kind in how.items() if kind == "rounded"),
        )


@dataclass(frozen=True, slots=True)
class Differences:
    """How a language model differs from the one that was expected.

    Attributes:
        expected: fingerprint of the one.
        found: fingerprint of the other.
        missing: tensors that are not there.
        extra: tensors that were not expected.
        vocabulary: embeddings and heads with another number of tokens.
        shapes: other tensors of another shape.
        values: tensors with other numbers.
        rounded: tensors whose numbers differ by rounding alone; no fault.
    """

    expected: Fingerprint
    found: Fingerprint
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    vocabulary: tuple[str, ...]
    shapes: tuple[str, ...]
    values: tuple[str, ...]
    rounded: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.vocabulary or self.shapes or self.values)

    def kind(self) -> str:
        """What kind of other model it is, in one clause."""
        compared = len(set(self.expected.tensors) & set(self.found.tensors))
        if self.missing or self.extra or self.shapes:
            return "another architecture or size"
        if self.vocabulary and not self.values:
            return "the same weights with another vocabulary"
        if self.vocabulary:
            return "another model of the same architecture, with another vocabulary"
        if 2 * len(self.values) < compared:
            return f"the same model with {len(self.values)} of {compared} tensors changed, as by merged adapters"
        return "the same architecture with other weights: another revision or another fine-tuning"

    def shown(self, most: int = 3) -> list[str]:
        """The first differing tensors, with what was expected and found."""
        lines = [f"{name}: not there" for name in self.missing[:most]]
        lines += [f"{name}: not expected" for name in self.extra[:most]]
        for name in (*self.vocabulary, *self.shapes)[:most]:
            lines.append(
                f"{name}: shape {self.found.tensors[name].shape}, expected {self.expected.tensors[name].shape}"
            )
        for name in self.values[:most]:
            expected, found = self.expected.tensors[name], self.found.tensors[name]
            pairs = list(zip(expected.values, found.values, strict=True))
            place = max(range(len(pairs)), key=lambda i: abs(pairs[i][0] - pairs[i][1]))
            lines.append(
                f"{name}: {found.values[place]:.6g} ({found.dtype}), expected {expected.values[place]:.6g} "
                f"({expected.dtype}) at number {_places(math.prod(expected.shape))[place]}"
            )
        return lines[: 2 * most]


def fingerprint(named_tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Fingerprint:
    """Fingerprint of a language model's own weights; adapters and what is no float are left out.

    Args:
        named_tensors: names as in the model's files, or as peft wraps them. Tensors may be mapped from a file: only the
            few numbers that are kept are read.
    """
    pairs = named_tensors.items() if isinstance(named_tensors, Mapping) else named_tensors
    traces = {}
    for name, tensor in pairs:
        if tensor.dtype in _DIGITS and not is_adapter(name):
            traces[plain_name(name)] = _trace(tensor)
    return Fingerprint(traces)


def digest(named_tensors: Mapping[str, Tensor]) -> str:
    """A word for the weights of a whole model, another for other weights: from a few numbers of each tensor."""
    traces = {name: _trace(tensor) for name, tensor in named_tensors.items()}
    return hashlib.sha256(json.dumps(Fingerprint(traces).to_json()).encode()).hexdigest()[:16]


def is_vocabulary(name: str) -> bool:
    """Whether the tensor has a row for each token."""
    return any(part in ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out") for part in name.split("."))


def _trace(tensor: Tensor) -> Trace:
    flat = tensor.detach().reshape(-1)
    values = flat[torch.tensor(_places(len(flat)), dtype=torch.long, device=flat.device)].cpu()
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Trace(tuple(tensor.shape), dtype, tuple(values.double().tolist()))


def _places(count: int) -> list[int]:
    kept = min(SAMPLES, count)
    return [(2 * place + 1) * count // (2 * kept) for place in range(kept)]


def _compare(expected: Trace, found: Trace) -> Literal["equal", "rounded", "other"]:
    """Whether two traces are of one tensor, whatever it was rounded to on the way."""
    digits = _digits(expected), _digits(found)
    far = [_far(a, b, *digits) for a, b in zip(expected.values, found.values, strict=True)]
    differing = sum(distance > 0 for distance in far)
    # At the same precision rounding twice (by way of float16) and once differ in few values, by one step.
    many = digits[0] == digits[1] and differing > max(2, len(far) // 4)
    if max(far, default=0.0) > 1 or many:
        return "other"
    return "rounded" if differing else "equal"


def _digits(trace: Trace) -> int:
    """Binary digits that the values have, which may be fewer than their dtype's: bfloat16 kept as float16."""
    values = torch.tensor(trace.values, dtype=torch.float64)
    has = _DIGITS[getattr(torch, trace.dtype)]
    for digits in (8, 11):
        mantissa = torch.frexp(values).mantissa * 2.0**digits
        if digits < has and torch.equal(mantissa, mantissa.round()):
            return digits
    return has


def _far(a: float, b: float, *digits: int) -> float:
    """Distance of two values in units of what rounding explains; 0 for what float16 cannot tell apart near zero."""
    if abs(a - b) <= _SUBNORMAL or not (math.isfinite(a) or math.isfinite(b)):
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    # Each may lie half a step from the number that both were rounded from, and half a step of float16 on the way.
    exponent = math.frexp(max(abs(a), abs(b)))[1]
    by_float16 = (11,) if min(digits) <= 11 else ()
    steps = sum(math.ldexp(0.5, exponent - n) for n in (*digits, *by_float16))
    return abs(a - b) / (steps + _SUBNORMAL)


def _finite(value: float) -> float | None:
    """JSON has no infinities."""
    return value if math.isfinite(value) else None


def _dtype(name: Any) -> str:
    if name not in {str(dtype).removeprefix("torch.") for dtype in _DIGITS}:
        raise ValueError(f"unknown dtype {name!r}")
    return str(name)
