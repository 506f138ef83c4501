"""What a run says about itself while it trains: throughput, padding, peak memory, sample reports."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from reg2rg.data.batch import Batch
from reg2rg.model import GeneratedReport


class Throughput:
    """Counts batches between two readings, without waiting for the device in between."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._samples = self._positions = 0
        self._tokens: Tensor | None = None

    def begin(self) -> None:
        """Start the clock, if it stands."""
        if self._start is None:
            self._start = time.perf_counter()

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        tokens = batch.attention_mask.sum()
        self._tokens = tokens if self._tokens is None else self._tokens + tokens
        self._samples += len(batch)
        self._positions += batch.attention_mask.numel()

    def read(self) -> dict[str, float]:
        """Figures since the last reading, and start again.

        Returns:
            ``tokens_per_s`` and ``samples_per_s`` of this process, ``padding`` (share of positions that are padding).
            Empty if nothing was counted.
        """
        if self._start is None or self._tokens is None:
            return {}
        tokens = float(self._tokens)  # waits for the device: what was counted is done
        seconds = max(time.perf_counter() - self._start, 1e-9)
        figures = {
            "tokens_per_s": tokens / seconds,
            "samples_per_s": self._samples / seconds,
            "padding": 1 - tokens / self._positions,
        }
        self._start, self._tokens, self._samples, self._positions = time.perf_counter(), None, 0, 0
        return figures

    def pause(self) -> None:
        """Forget what was counted, so that validation is not taken for training time."""
        self._start, self._tokens, self._samples, self._positions = None, None, 0, 0


def peak_memory_gib(device: torch.device) -> float:
    """Most memory used so far: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def show_sample(loggers: Iterable[Any], name: str, answer: GeneratedReport, texts: Sequence[str], step: int) -> None:
    """Hand a generated report to the loggers that take text (TensorBoard, W&B).

    Args:
        loggers: the trainer's.
        name: what the logger files it under.
        answer: the generated report.
        texts: reference texts in slot order.
        step: optimiser step.
    """
    reference = "\n\n".join(f"{region}: {text}" for region, text in zip(answer.regions, texts, strict=True))
    for logger in loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_text"):
            row = [answer.study, answer.text, reference]
            logger.log_text(name, columns=["study", "generated", "reference"], data=[row], step=step)
        elif hasattr(experiment, "add_text"):
            text = f"**{answer.study}**\n\ngenerated: {answer.text}\n\nreference:\n\n{reference}"
            experiment.add_text(name, text, step)
