"""Jobs of a Slurm cluster through submitit, which writes their scripts and logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reg2rg.core.errors import ConfigError
from reg2rg.runners.base import RUNNERS, J, Job, Outcome, Runner, Stop, require

_POLL_S = 0.5


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

        parameters = dict(self.parameters)
        executor = submitit.AutoExecutor(folder=str(self.folder), cluster=str(parameters.pop("cluster", "slurm")))
        try:
            executor.update_parameters(name=f"reg2rg-{jobs[0].kind if jobs else Job.kind}", **parameters)
        except (NameError, TypeError, ValueError) as error:
            raise ConfigError(f"command line: --cluster: submitit refuses these parameters: {error}") from error
        left: dict[Any, J] = {}
        for job in jobs:
            left[executor.submit(Handed(job))] = job
            begin(job)
        while left:
            for submitted in [entry for entry in left if entry.done() or stop.event.is_set()]:
                yield left.pop(submitted), _outcome(submitted, stop)
            time.sleep(_POLL_S)


class Handed:
    """A job as submitit runs it; where it is preempted or its time is up, it goes on as a new one.

    Args:
        job: the work.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._stop: Stop | None = None

    def __call__(self) -> Outcome:
        """Work on it."""
        self._stop = Stop()
        return self.job.execute(self._stop)

    def checkpoint(self) -> Any:
        """Called by submitit when the job is about to be ended: the process saves itself meanwhile."""
        import submitit

        if self._stop is not None:
            self._stop()
        return submitit.helpers.DelayedSubmission(Handed(self.job))


def _outcome(job: Any, stop: Stop) -> Outcome:
    if stop.event.is_set() and not job.done():
        job.cancel()
        return Outcome("stopped")
    try:
        found = job.result()
    except Exception as error:  # whatever the cluster did to the job
        tail = "\n".join(str(error).strip().splitlines()[-3:])
        return Outcome("failed", 0.0, f"job {job.job_id}: {tail}")
    return found if isinstance(found, Outcome) else Outcome("failed", 0.0, f"job {job.job_id} returned {found!r}")
