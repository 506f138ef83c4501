"""A job that nobody waits for any more ends at once, with all its processes."""

from __future__ import annotations

import os
import signal
import threading

PARENT = "REG2RG_PARENT"
"""Environment variable with the descriptor of a pipe whose other end closes with the process that started a job."""


def end_with_parent() -> None:
    """Kill this process and its group, which it leads, when the process that started it is gone, however it went.

    Checkpoints, predictions and results are files that are whole or absent: what was written can be gone on from.
    """
    pipe = os.environ.pop(PARENT, "")
    if pipe.isdigit() and os.getpgrp() == os.getpid():
        threading.Thread(target=_watch, args=(int(pipe),), name="parent-watch", daemon=True).start()


def _watch(pipe: int) -> None:
    os.read(pipe, 1)  # nobody writes: it returns when the other end is closed
    os.killpg(os.getpgrp(), signal.SIGKILL)
