"""A progress bar on a terminal; a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MISSING = "–"
"""Where a table has no value."""


@contextmanager
def progress(title: str, total: int, every_seconds: float = 15.0) -> Iterator[Callable[[], None]]:
    """Yield a function that counts one step; shows rate and remaining time on standard error.

    Args:
        title: what is being done.
        total: number of steps.
        every_seconds: between two lines where there is no terminal.
    """
    if not sys.stderr.isatty():
        yield _lines(title, total, every_seconds)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    start = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, rate="")

        def advance() -> None:
            bar.advance(task)
            rate = bar.tasks[0].completed / max(1e-9, time.monotonic() - start)
            bar.update(task, rate=f"{rate:.1f}/s")

        yield advance


def _lines(title: str, total: int, every_seconds: float) -> Callable[[], None]:
    start = last = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if done == total or now - last >= every_seconds:
            last = now
            rate = done / max(1e-9, now - start)
            sys.stderr.write(f"{title}: {done}/{total}, {rate:.1f}/s, {(total - done) / rate:.0f} s left\n")

    return advance


def duration(seconds: float | None) -> str:
    """``45 s``, ``7.5 min``, ``3.2 h``."""
    if seconds is None:
        return MISSING
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
