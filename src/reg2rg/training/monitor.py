"""What a run says about itself while it trains: throughput, padding, peak memory, sample reports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from reg2rg.core.errors import Reg2RGError
from reg2rg.data.batch import Batch
from reg2rg.models.writing import GeneratedReport


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


class OutOfMemoryError(Reg2RGError):
    """The GPU's memory does not hold a batch; the message names it and what makes it smaller."""


@contextlib.contextmanager
def explained_out_of_memory(batch: Batch) -> Iterator[None]:
    """Say what was on the GPU when its memory ran out.

    Raises:
        OutOfMemoryError: instead of torch's own.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        view = batch.texture if batch.texture is not None else batch.global_
        size = "x".join(map(str, view.shape[2:])) if view is not None else "none"
        raise OutOfMemoryError(
            f"the GPU memory does not hold this batch: studies {', '.join(batch.study_ids)}, {len(batch.region_names)} "
            f"regions, views of {size}, {len(batch)} x {batch.input_ids.shape[1]} positions, "
            f"{peak_memory_gib(batch.input_ids.device):.1f} GiB at the peak. Fix: lower data.batch_size (and raise "
            "trainer.accumulate_grad_batches), set the language model's gradient_checkpointing, the encoder's chunk or "
            "checkpointing, or trainer.precision=bf16-mixed"
        ) from error


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
        texts: reference texts in slot order; without regions the whole report alone.
        step: optimiser step.
    """
    names = [f"{region}: " for region in answer.regions] or [""]
    reference = "\n\n".join(name + text for name, text in zip(names, texts, strict=True))
    for logger in loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_text"):
            row = [answer.study, answer.text, reference]
            logger.log_text(name, columns=["study", "generated", "reference"], data=[row], step=step)
        elif hasattr(experiment, "add_text"):
            text = f"**{answer.study}**\n\ngenerated: {answer.text}\n\nreference:\n\n{reference}"
            experiment.add_text(name, text, step)
