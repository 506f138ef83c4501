"""What every runner is: jobs in, each with its outcome out. Whole jobs are handed over."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from reg2rg.core.errors import MissingExtraError
from reg2rg.core.registry import Registry


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: ``busy``: another process works on it.
        seconds: that this took.
        message: of a failure: what it was and the end of the log.
        code: exit code of a command that failed.
    """

    status: Literal["done", "failed", "stopped", "busy"]
    seconds: float = 0.0
    message: str = ""
    code: int = 0


class Stop:
    """Told to stop, it ends the processes that are under way, so that they save; asked again, it kills them."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()

    def add(self, process: subprocess.Popen[bytes]) -> None:
        """Watch over a process."""
        with self._guard:
            self._processes.add(process)
        if self.event.is_set():
            self._signal(process, signal.SIGTERM)

    def discard(self, process: subprocess.Popen[bytes]) -> None:
        """It has ended."""
        with self._guard:
            self._processes.discard(process)

    def __call__(self, kill: bool = False) -> None:
        """Stop."""
        self.event.set()
        with self._guard:
            for process in self._processes:
                self._signal(process, signal.SIGKILL if kill else signal.SIGTERM)

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: int) -> None:
        send = os.killpg if number == signal.SIGKILL else os.kill  # told to save itself, it ends its data workers last
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(process.pid, number)


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """Work as it is handed to whatever does it: a dataclass of plain data that can be sent to another machine.

    Attributes:
        threads: of each process; ``None`` leaves that to the libraries.
        environment: further environment variables of its processes.
        cwd: folder that relative paths are seen from, on every machine.
        kind: what a cluster's list of jobs calls it: ``reg2rg-KIND``.
    """

    threads: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)
    kind: ClassVar[str] = "job"

    @property
    @abstractmethod
    def name(self) -> str:
        """As people read it."""

    @abstractmethod
    def execute(self, stop: Stop) -> Outcome:
        """Do what is left of it, wherever this is called. A failure is an outcome and no exception.

        Args:
            stop: ends it early.
        """


J = TypeVar("J", bound=Job)


class Runner(ABC):
    """Works on jobs and tells when one begins and how it ended.

    Args:
        folder: for files of its own, such as a cluster's logs.
        parameters: what it asks its cluster for; those of ``--cluster KEY=VALUE``.
    """

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        self.folder, self.parameters = folder, parameters

    @abstractmethod
    def run(self, jobs: Sequence[J], begin: Callable[[J], None], stop: Stop) -> Iterator[tuple[J, Outcome]]:
        """Work on all jobs until told to stop; those that were not begun then are left out.

        One that fails, or cannot even be begun, must not end the others.

        Args:
            jobs: what to do.
            begin: told of each job when it begins, or is handed over.
            stop: looked at between jobs, and handed to them where they run in this process.
        """


RUNNERS: Registry[Runner] = Registry("runner", Runner)  # type: ignore[type-abstract]


def execute_safely(job: Job, stop: Stop) -> Outcome:
    """One job that cannot even be begun (a full disk), or that leaves the process, must not end the others."""
    try:
        return job.execute(stop)
    except SystemExit as error:  # engines take it for a crash, or for success without a result
        return Outcome("failed", 0.0, f"SystemExit: {error}")
    except Exception as error:
        return Outcome("failed", 0.0, f"{type(error).__name__}: {error}")


def require(package: str, extra: str) -> None:
    """Fail before any work is done, not when it is to be handed over.

    Raises:
        MissingExtraError: a package is not installed; names the extra of reg2rg that brings it.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise  # it is there, and lacks something itself
        raise MissingExtraError(f"{package} is not installed. Fix: pip install 'reg2rg[{extra}]'") from None
