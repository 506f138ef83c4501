"""What ends the runs of a sweep early: signals, and a limit of time."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from reg2rg.runners import Stop

_GRACE_S = 120.0
_TOLD = b"\ntold to end: the runs save themselves; once more to kill them\n"


@contextlib.contextmanager
def time_limit(stop: Stop, hours: float | None, begun: float) -> Iterator[None]:
    """Stop the runs when so many hours have passed since `begun`."""
    if hours is None:
        yield
        return
    timer = threading.Timer(max(0.0, begun + 3600 * hours - time.monotonic()), stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def told_to_end(stop: Stop, here: bool) -> Iterator[list[int]]:
    """SIGINT and SIGTERM end the runs in order; asked again, or after two minutes, they are killed.

    Args:
        stop: ends the runs' processes.
        here: the runs are in this process, which is interrupted itself.
    """
    got: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        got.append(number)
        stop(kill=len(got) > 1)
        if here:
            raise KeyboardInterrupt
        if len(got) == 1:
            timer = threading.Timer(_GRACE_S, stop, kwargs={"kill": True})
            timer.daemon = True
            timer.start()
            os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, _TOLD)

    if threading.current_thread() is not threading.main_thread():
        yield got
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
