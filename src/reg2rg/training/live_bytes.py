"""What operations make, keep and compute, counted while they run, on real tensors or on fake ones without memory."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

_aten = torch.ops.aten
_ON_CPU = _aten._scaled_dot_product_flash_attention_for_cpu
_ON_CPU_BACKWARD = _aten._scaled_dot_product_flash_attention_for_cpu_backward
_sdpa_flops: Any = flop_counter.sdpa_flop_count
_BACKWARD = 2.5
"""Products of attention's backward pass that recomputes its weights, over those of the forward pass."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type these
    """Bytes of the tensors that are alive, with their peak, and operations.

    It sees each storage from the operation that makes it to the moment that nothing refers to it; what a kernel takes
    and drops inside itself it does not see. Below `FakeTensorMode` it tells what a model would take, without taking it.

    Attributes:
        now: bytes that are alive.
        peak: the most that were.
        at_peak: part -> bytes at that moment; `part` names what runs.
        flops: of matrix products, convolutions and attention; a multiplication and an addition are two.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.flops = 0
        self.at_peak: Counter[str] = Counter()
        self._parts: Counter[str] = Counter()
        self._part = "other"
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is made while active counts to `name`."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def reset(self) -> None:
        """Forget the peak and what was counted; what is alive stays."""
        self.peak, self.at_peak, self.flops = self.now, Counter(self._parts), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        for made in tree_leaves(out):
            if isinstance(made, Tensor):
                self._enter(made)
        self.flops += _flops(func._overloadpacket, args, kwargs, out)
        return out

    def _enter(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size, part = storage.nbytes(), self._part
        self._known[storage] = size
        weakref.finalize(storage, self._leave, size, part)
        self.now += size
        self._parts[part] += size
        if self.now > self.peak:
            self.peak, self.at_peak = self.now, Counter(self._parts)

    def _leave(self, size: int, part: str) -> None:
        self.now -= size
        self._parts[part] -= size


def _flops(packet: Any, args: Any, kwargs: Any, out: Any) -> int:
    if packet is _ON_CPU:
        return int(_sdpa_flops(*(tensor.shape for tensor in args[:3])))
    if packet is _ON_CPU_BACKWARD:
        return int(_BACKWARD * _sdpa_flops(*(tensor.shape for tensor in args[1:4])))
    count = flop_counter.flop_registry.get(packet)
    return 0 if count is None else int(count(*args, **kwargs, out_val=out))
