"""Measured numbers beside weights: they stay as exact as they were measured, whatever a model is cast to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """A module whose own buffers keep their dtype when it is cast; they move between devices with it.

    A model in bfloat16 would count to 256 and no further, and hold a threshold or a temperature to two digits.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in exact.items():
            now = self._buffers[name]
            if before is not None and now is not None and now.dtype != before.dtype:
                self._buffers[name] = now.to(before.dtype) if before.is_meta else before.to(now.device)
        return self
