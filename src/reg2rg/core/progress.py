"""The progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

MISSING = "–"
"""Where a table has no value."""


class Step(Protocol):
    """Counts one step, and says `what` is being done now."""

    def __call__(self, what: str = "") -> None:
        """One more."""


@contextmanager
def progress(title: str, total: int | None = None, every_seconds: float = 15.0) -> Iterator[Step]:
    """Yield a function that is told of each step; shows rate and remaining time on standard error.

    Args:
        title: what is being done.
        total: number of steps; without one, what the steps say is shown and the time that passed.
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

    counted = (MofNCompleteColumn(), TextColumn("{task.fields[rate]}")), (TextColumn("left"), TimeRemainingColumn())
    before, after = counted if total is not None else ((), ())
    columns = (TextColumn("{task.description}"), BarColumn(), *before, TimeElapsedColumn(), *after)
    with Progress(*columns, console=Console(stderr=True), transient=total is None) as bar:
        task, begun = bar.add_task(title, total=total, rate=""), time.monotonic()

        def step(what: str = "") -> None:
            rate = (bar.tasks[0].completed + 1) / max(1e-9, time.monotonic() - begun)
            bar.update(task, advance=1, description=what or title, rate=f"{rate:.2f}/s")

        yield step


def _lines(title: str, total: int | None, every_seconds: float) -> Step:
    begun = last = time.monotonic()
    done = 0

    def step(what: str = "") -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if done != total and now - last < every_seconds:
            return
        last, rate = now, done / max(1e-9, now - begun)
        if total is None:
            sys.stderr.write(f"{now - begun:.0f} s: {what or title}\n")
        else:
            sys.stderr.write(f"{what or title}: {done}/{total}, {rate:.2f}/s, {(total - done) / rate:.0f} s left\n")

    return step


def duration(seconds: float | None) -> str:
    """``45 s``, ``7.5 min``, ``3.2 h``."""
    if seconds is None:
        return MISSING
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
