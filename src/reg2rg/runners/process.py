"""Jobs that are commands: a process of its own for each, its log in a file, ended when the runner is told to stop."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from reg2rg.runners.base import Job, Outcome, Stop
from reg2rg.runners.parent import PARENT

_STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
_TAIL = 12


@dataclass(frozen=True)
class Command(Job):
    """A ``reg2rg`` command.

    Attributes:
        words: behind ``reg2rg``.
        log: what it says is added there, seen from `cwd`.
    """

    words: tuple[str, ...]
    log: Path

    @property
    def name(self) -> str:
        """As typed."""
        return shlex.join(("reg2rg", *self.words))

    def execute(self, stop: Stop) -> Outcome:
        """See `Job`."""
        begun, path = time.monotonic(), self.cwd / self.log
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as log:
            code = run_command(self, self.words, log, stop)
        seconds = time.monotonic() - begun
        if code == 0:
            return Outcome("done", seconds)
        if was_stopped(code, stop):
            return Outcome("stopped", seconds)
        message = f"{self.name} ended with exit code {code}; the end of {self.log}:\n{log_tail(path)}"
        return Outcome("failed", seconds, message, code)


def run_command(
    job: Job,
    words: Sequence[str],
    log: IO[str],
    stop: Stop,
    pass_fds: Sequence[int] = (),
) -> int:
    """Run a ``reg2rg`` command of a job in a process of its own.

    Args:
        job: gives folder, threads and environment.
        words: behind ``reg2rg``.
        log: open file that takes all that it says.
        stop: ends it early.
        pass_fds: files that stay open in it.

    Returns:
        its exit code.
    """
    watched, ours = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "reg2rg.cli.main", *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=job.cwd,
        env=_environment(job) | {PARENT: str(watched)},
        start_new_session=True,
        pass_fds=[*pass_fds, watched],
    )
    os.close(watched)
    stop.add(process)
    try:
        while True:  # in steps: what a cluster raises in this process is not raised within a wait
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.5)
    except BaseException:  # whoever waits here was told to end
        stop()
        process.wait()
        raise
    finally:
        stop.discard(process)
        os.close(ours)


def _environment(job: Job) -> dict[str, str]:
    found = {**os.environ, "PYTHONUNBUFFERED": "1", **job.environment}
    found.pop("COLUMNS", None)
    if job.threads is not None:
        found |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(job.threads))
    return found


def was_stopped(code: int, stop: Stop) -> bool:
    """Whether a process with this exit code was told to end, by the runner or by a signal from elsewhere."""
    return stop.event.is_set() or code in _STOPPED


def log_tail(path: Path, lines: int = _TAIL) -> str:
    """The last lines of a log, from its last error message on if that is among them."""
    with contextlib.suppress(OSError):
        found = [line.rstrip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        found = [line for line in found if line][-lines:]
        errors = [place for place, line in enumerate(found) if line.startswith("error:")]
        return "\n".join(found[errors[-1] :] if errors else found)
    return ""
