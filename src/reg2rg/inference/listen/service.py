"""A listener: the receiver in this process, the worker in another one, which is started again whatever ends it.

Reports are made by a process of its own so that receiving waits for nothing, and so that a report that needs too much
time or memory takes nothing with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from reg2rg.core.errors import EXIT_USAGE, ConfigError
from reg2rg.inference.listen.receiver import Receiver
from reg2rg.inference.listen.settings import ListenSettings
from reg2rg.inference.listen.spool import Spool, State, only_one, running
from reg2rg.inference.listen.worker import RUNNING, give_up
from reg2rg.runners.parent import PARENT

_TICK_SECONDS = 0.25
_CLEAN_SECONDS = 300.0
_CRASHES = 3
_RESTART_SECONDS = 2.0


def listen(
    settings: ListenSettings,
    worker: Sequence[str],
    tell: Callable[[str], None],
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Receive studies, and have them reported on, until told to end.

    Args:
        settings: how.
        worker: command of the worker's process, which calls `reg2rg.inference.listen.worker.work`.
        tell: is told of what is worth a line of the log.
        until: asked every moment; ends it.

    Raises:
        ConfigError: settings that let strangers in, or a spool that another listener uses.
        MissingExtraError: pynetdicom is not installed.
        OSError: the port is taken, or a folder cannot be written.
    """
    settings.check()
    settings.out.mkdir(parents=True, exist_ok=True)
    spool = Spool(settings.spool)
    with only_one(spool.root / "listen.lock", wait=False):
        receiver = Receiver(settings, spool, tell)
        port = receiver.start()
        write = f"{settings.ae} at {settings.host}:{port}; {len(spool.entries())} studies wait"
        tell(f"{write}; results to {settings.out}{f' and {settings.node}' if settings.node else ''}")
        try:
            with _Supervised(worker, spool, settings, tell) as supervised:
                _serve(receiver, supervised, spool, settings, tell, until)
        finally:
            receiver.stop()


def _serve(
    receiver: Receiver,
    supervised: _Supervised,
    spool: Spool,
    settings: ListenSettings,
    tell: Callable[[str], None],
    until: Callable[[], bool],
) -> None:
    cleaned = 0.0
    while not until():
        for key, again in receiver.complete():
            waits = not again and any(entry.key == key for entry in spool.entries())
            if not waits and spool.enqueue(key, again):
                tell(f"study {key}: complete, {len(spool.slices(key))} slices")
        supervised.look()
        if time.monotonic() - cleaned > _CLEAN_SECONDS or not cleaned:
            cleaned = time.monotonic()
            if removed := spool.clean(time.time() - settings.keep_hours * 3600):
                tell(f"slices of {removed} studies removed, done {settings.keep_hours:g} hours ago")
        time.sleep(_TICK_SECONDS)


class _Supervised:
    """The worker's process, watched."""

    def __init__(
        self, command: Sequence[str], spool: Spool, settings: ListenSettings, tell: Callable[[str], None]
    ) -> None:
        self._command, self._spool, self._settings, self._tell = list(command), spool, settings, tell
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._not_before, self._was_up = 0.0, False

    def __enter__(self) -> _Supervised:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._end(self._process)
            self._forget()

    def look(self) -> None:
        """Start the worker if there is none; give up a study that takes too long, or that it died of three times."""
        if self._process is None:
            if time.monotonic() >= self._not_before:
                self._start()
            return
        at = running(self._spool.root / RUNNING)
        self._was_up = self._was_up or at is not None
        late = at is not None and time.time() - float(at.get("since", 0)) > self._settings.study_seconds
        code = self._process.poll()
        if code is None and not late:
            return
        self._end(self._process)
        self._forget()
        at = running(self._spool.root / RUNNING)
        if code == EXIT_USAGE and not self._was_up:
            raise ConfigError("the worker could not start, as said above. Fix that, and start the listener again")
        if at is not None:
            self._note(str(at.get("study")), late, code)
        else:
            self._tell(f"the worker ended with code {code}; it is started again")
        self._not_before = time.monotonic() + _RESTART_SECONDS

    def _note(self, key: str, late: bool, code: int | None) -> None:
        """What is to become of the study that the worker was at."""
        state = self._spool.state(key)
        (self._spool.root / RUNNING).unlink(missing_ok=True)
        if state.status:
            return
        if late:
            give_up(self._spool, key, state, f"it took longer than {self._settings.study_seconds:g} s", self._tell)
            return
        state = State(state.fingerprint, sent=state.sent, crashes=state.crashes + 1)
        if state.crashes < _CRASHES:
            self._spool.save(key, state)
            self._tell(f"study {key}: the worker ended with code {code}; once more")
        else:
            why = f"the worker ended {_CRASHES} times with code {code}: too little memory, or a fault of this program"
            give_up(self._spool, key, state, why, self._tell)

    def _start(self) -> None:
        (self._spool.root / RUNNING).unlink(missing_ok=True)  # of a listener that was killed, which says nothing
        watched, self._pipe = os.pipe()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1", PARENT: str(watched)},
            start_new_session=True,  # it ends with us: `reg2rg.runners.parent`
            pass_fds=[watched],
        )
        os.close(watched)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _forget(self) -> None:
        os.close(self._pipe)
        self._process, self._pipe = None, -1


@contextlib.contextmanager
def told_to_end() -> Iterator[list[int]]:
    """The signals that came, for a listener that ends in order."""
    got: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: got.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def own_command(words: Sequence[str]) -> list[str]:
    """The command of a process that runs ``reg2rg`` with other words."""
    return [sys.executable, "-m", "reg2rg.cli.main", *words]
