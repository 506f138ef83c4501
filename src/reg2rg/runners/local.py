"""Jobs on this machine: side by side in threads that wait for their processes, or one after another in this process."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reg2rg.core.parallel import usable_cores
from reg2rg.runners.base import RUNNERS, J, Outcome, Runner, Stop, execute_safely

_POLL_S = 0.5


@RUNNERS.register
class Local(Runner):
    """This machine.

    Args:
        jobs: at a time; 0 runs everything in this process, for debuggers and tests.
        threads: of each process; ``None`` shares the cores among the jobs.
    """

    def __init__(self, jobs: int = 1, threads: int | None = None) -> None:
        self.jobs, self.threads = jobs, threads

    def run(self, jobs: Sequence[J], begin: Callable[[J], None], stop: Stop) -> Iterator[tuple[J, Outcome]]:
        """See `Runner`."""
        if self.jobs > 0:
            yield from self._side_by_side(jobs, begin, stop)
            return
        for job in jobs:
            if stop.event.is_set():
                return
            begin(job)
            outcome = job.execute(stop)
            yield job, outcome
            if outcome.status == "stopped":  # it took the signal, which was meant for all
                return

    def _side_by_side(self, jobs: Sequence[J], begin: Callable[[J], None], stop: Stop) -> Iterator[tuple[J, Outcome]]:
        waiting: queue.SimpleQueue[J] = queue.SimpleQueue()
        ended: queue.SimpleQueue[tuple[J, Outcome]] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        gpus = shares(visible_gpus(), self.jobs)

        def work(place: int) -> None:
            while not stop.event.is_set():
                try:
                    job = waiting.get_nowait()
                except queue.Empty:
                    return
                environment = {**job.environment, **({"CUDA_VISIBLE_DEVICES": gpus[place]} if gpus else {})}
                placed = replace(job, threads=self.threads or _own_share(self.jobs), environment=environment)
                begin(job)
                ended.put((job, execute_safely(placed, stop)))

        workers = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(self.jobs)]
        for worker in workers:
            worker.start()
        while True:
            alive = any(worker.is_alive() for worker in workers)  # asked before the queue: nothing is missed
            try:
                yield ended.get(timeout=_POLL_S)
            except queue.Empty:
                if not alive:
                    return


def _own_share(jobs: int) -> int | None:
    if jobs == 1:
        return None
    return max(1, usable_cores() // jobs)


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; no CUDA context is made for it."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [word for word in given.split(",") if word]
    devices = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number in range(len(list(devices.iterdir())))] if devices.is_dir() else []


def shares(gpus: Sequence[str], jobs: int) -> list[str]:
    """``CUDA_VISIBLE_DEVICES`` of each job: equal shares, or one in turn where there are fewer GPUs than jobs.

    Empty where nothing is to be shared: one job sees all, and without GPUs there are none.
    """
    if jobs <= 1 or not gpus:
        return []
    if len(gpus) < jobs:
        return [gpus[place % len(gpus)] for place in range(jobs)]
    size = len(gpus) // jobs
    return [",".join(gpus[place * size : (place + 1) * size]) for place in range(jobs)]
