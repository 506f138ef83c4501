"""Jobs of a Slurm cluster through submitit, which writes their scripts and logs."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reg2rg.core.documents import read_record, write_record
from reg2rg.core.errors import ConfigError
from reg2rg.runners.base import RUNNERS, J, Job, Outcome, Runner, Stop, execute_safely, require

_POLL_S, _ASK_S = 0.5, 5.0
_MINUTES = 240
"""Of a job by default. submitit's own five count every preemption as a time-out, and the fourth start is the last."""
_TIMEOUTS = 50
"""Time-outs after which a job is not begun again: what it did is kept, so that it goes on."""


@RUNNERS.register
class Slurm(Runner):
    """A Slurm cluster, through submitit.

    Args:
        folder: for submitit's files.
        parameters: of its executor: ``slurm_partition``, ``gpus_per_node``, ``timeout_min``, ...; and ``cluster``:
            ``slurm``, or ``local`` and ``debug``, submitit's stand-ins on one machine.
    """

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        super().__init__(folder, parameters)
        require("submitit", "slurm")

    def run(self, jobs: Sequence[J], begin: Callable[[J], None], stop: Stop) -> Iterator[tuple[J, Outcome]]:
        """See `Runner`."""
        import submitit

        parameters = {"timeout_min": _MINUTES, **self.parameters}
        executor = submitit.AutoExecutor(
            folder=str(self.folder),
            cluster=str(parameters.pop("cluster", "slurm")),
            slurm_max_num_timeout=_TIMEOUTS,
        )
        try:
            executor.update_parameters(name=f"reg2rg-{jobs[0].kind if jobs else Job.kind}", **parameters)
        except (NameError, TypeError, ValueError) as error:
            raise ConfigError(f"command line: --cluster: submitit refuses these parameters: {error}") from error
        left: dict[_Submitted, J] = {}
        for job in jobs:
            record = self.folder / "outcomes" / f"{secrets.token_hex(8)}.json"
            left[_Submitted(executor.submit(Handed(job, record)), record)] = job
            begin(job)
        queue = _Queue()
        while left:
            missing = queue.missing([submitted.id for submitted in left])
            for submitted in list(left):
                outcome = submitted.outcome(stop, submitted.id in missing)
                if outcome is not None:
                    yield left.pop(submitted), outcome
            time.sleep(_POLL_S)


class Handed:
    """A job as submitit runs it; where it is preempted or its time is up, it goes on as a new one.

    Args:
        job: the work.
        record: file that gets its outcome. What Slurm and submitit say of a job is not to be relied on: without
            accounting one that died is for ever unknown.
    """

    def __init__(self, job: Job, record: Path) -> None:
        self.job, self.record = job, record
        self._stop: Stop | None = None

    def __call__(self) -> None:
        """Work on it.

        Raises:
            SystemExit: it was told to end from outside: the cluster begins it anew, or has ended it for good.
        """
        self._stop = Stop()
        outcome = execute_safely(self.job, self._stop)
        if outcome.status == "stopped" or self._stop.event.is_set():
            sys.exit(1)
        write_record(self.record, asdict(outcome))

    def checkpoint(self) -> Any:
        """Called by submitit when the job is about to be ended: the process saves itself meanwhile."""
        import submitit

        if self._stop is not None:
            self._stop()
        return submitit.helpers.DelayedSubmission(Handed(self.job, self.record))


@dataclass(frozen=True, eq=False)
class _Submitted:
    """A job of submitit's, and the file that gets its outcome."""

    job: Any
    record: Path

    @property
    def id(self) -> str:
        return str(self.job.job_id)

    def outcome(self, stop: Stop, missing: bool) -> Outcome | None:
        """How it ended, ``None`` while it may be under way."""
        if self.record.is_file():
            found = Outcome(**read_record(self.record, "run again"))
            self.job.cancel(check=False)  # one that was preempted as it ended would be begun anew
            return found
        if stop.event.is_set():
            self.job.cancel(check=False)
            return Outcome("stopped")
        if missing:
            return Outcome("failed", 0.0, f"job {self.id}: Slurm has it no more, and it left no result")
        if not self.job.done():
            return None
        error = self.job.exception()  # there is none where it ended between the two looks
        if self.record.is_file():
            return self.outcome(stop, missing)
        tail = "\n".join(str(error).strip().splitlines()[-3:])
        return Outcome("failed", 0.0, f"job {self.id}: {tail}")


class _Queue:
    """What Slurm's own queue has, for clusters without accounting."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._missing: frozenset[str] = frozenset()

    def missing(self, ids: Sequence[str]) -> frozenset[str]:
        """Jobs that were not in the queue twice in a row; asked for now and then."""
        if time.monotonic() - self._asked < _ASK_S or shutil.which("squeue") is None:
            return frozenset()
        self._asked = time.monotonic()
        command = ["squeue", "--noheader", "--format=%A %F", f"--user={os.getuid()}"]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        if listed.returncode:  # slurmctld does not answer: nothing is known
            return frozenset()
        gone = frozenset(ids) - frozenset(listed.stdout.split())
        twice, self._missing = gone & self._missing, gone
        return twice
