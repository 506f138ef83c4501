"""Jobs as tasks of a Ray cluster; one is started on this machine where none is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reg2rg.core.errors import ConfigError
from reg2rg.runners.base import RUNNERS, J, Job, Outcome, Runner, Stop, execute_safely, require

_POLL_S = 0.5


@RUNNERS.register
class Ray(Runner):
    """A Ray cluster.

    Args:
        folder: not used; Ray keeps its own logs.
        parameters: resources of a job: ``num_cpus``, ``num_gpus``, ...
    """

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        super().__init__(folder, parameters)
        require("ray", "ray")

    def run(self, jobs: Sequence[J], begin: Callable[[J], None], stop: Stop) -> Iterator[tuple[J, Outcome]]:
        """See `Runner`."""
        import ray

        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        # A process that died would be begun anew up to four times, and without end where memory was short.
        remote = ray.remote(max_retries=0)(_execute)
        if self.parameters:
            try:
                remote = remote.options(**self.parameters)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"command line: --cluster: ray refuses these parameters: {error}") from error
        left: dict[Any, J] = {}
        for job in jobs:
            left[remote.remote(job)] = job
            begin(job)
        while left:
            ready, _ = ray.wait(list(left), num_returns=1, timeout=_POLL_S)
            for reference in ready:
                job = left.pop(reference)
                try:
                    outcome = ray.get(reference)
                except Exception as error:  # of the worker, or of Ray itself
                    said = str(error).strip().splitlines()[-1:]  # one that was cancelled says nothing
                    outcome = Outcome("failed", 0.0, ": ".join([type(error).__name__, *said]))
                yield job, outcome
            if stop.event.is_set():
                for reference, job in left.items():
                    ray.cancel(reference)  # an interrupt in the worker: its processes end with it
                    yield job, Outcome("stopped")
                return


def _execute(job: Job) -> Outcome:
    return execute_safely(job, Stop())
