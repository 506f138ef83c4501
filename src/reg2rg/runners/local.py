"""Who works on the tasks: this machine, or a cluster through submitit or Ray. Whole runs are handed over."""

from __future__ import annotations

import importlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from reg2rg.ablation.execute import Call, Outcome, Stop, Task, execute
from reg2rg.core.errors import ConfigError, MissingExtraError

_POLL_S = 0.5
Begin = Callable[[Task], None]


class Runner(Protocol):
    """Works on tasks and tells when one begins and how it ended."""

    def run(self, tasks: Sequence[Task], begin: Begin, stop: Stop) -> Iterator[tuple[Task, Outcome]]:
        """Work on all tasks until told to stop; those that were not begun then are left out."""
        ...


@dataclass
class Local:
    """Processes on this machine, or this process itself.

    Attributes:
        jobs: runs at a time; 0 runs everything in this process, for debuggers and tests.
        threads: of each process; ``None`` shares the cores among the jobs.
        call: runs a ``reg2rg`` command in this process; needed for ``jobs=0``.
    """

    jobs: int = 1
    threads: int | None = None
    call: Call | None = None

    def run(self, tasks: Sequence[Task], begin: Begin, stop: Stop) -> Iterator[tuple[Task, Outcome]]:
        """See `Runner`."""
        if self.jobs == 0:
            for task in tasks:
                if stop.event.is_set():
                    return
                begin(task)
                outcome = execute(task, stop, self.call)
                yield task, outcome
                if outcome.status == "stopped":  # it took the signal, which was meant for all
                    return
            return
        yield from self._side_by_side(tasks, begin, stop)

    def _side_by_side(self, tasks: Sequence[Task], begin: Begin, stop: Stop) -> Iterator[tuple[Task, Outcome]]:
        waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        ended: queue.SimpleQueue[tuple[Task, Outcome]] = queue.SimpleQueue()
        for task in tasks:
            waiting.put(task)
        gpus = shares(visible_gpus(), self.jobs)

        def work(place: int) -> None:
            while not stop.event.is_set():
                try:
                    task = waiting.get_nowait()
                except queue.Empty:
                    return
                environment = {**task.environment, **({"CUDA_VISIBLE_DEVICES": gpus[place]} if gpus else {})}
                placed = replace(task, threads=self.threads or _own_share(self.jobs), environment=environment)
                begin(task)
                ended.put((task, _safely(placed, stop)))

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


def _safely(task: Task, stop: Stop) -> Outcome:
    """One task that cannot even be begun (a full disk) must not end the others."""
    try:
        return execute(task, stop)
    except Exception as error:
        return Outcome("failed", 0.0, f"{type(error).__name__}: {error}")


def _own_share(jobs: int) -> int | None:
    if jobs == 1:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


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


@dataclass
class Slurm:
    """Jobs of a Slurm cluster through submitit, which writes their scripts and logs.

    Attributes:
        folder: for submitit's files.
        parameters: of its executor: ``slurm_partition``, ``gpus_per_node``, ``timeout_min``, ...
        cluster: ``slurm``; ``local`` and ``debug`` are submitit's stand-ins on one machine.
    """

    folder: Path
    parameters: Mapping[str, Any]
    cluster: str = "slurm"

    def __post_init__(self) -> None:
        _require("submitit", "slurm")

    def run(self, tasks: Sequence[Task], begin: Begin, stop: Stop) -> Iterator[tuple[Task, Outcome]]:
        """See `Runner`."""
        import submitit

        executor = submitit.AutoExecutor(folder=str(self.folder), cluster=self.cluster)
        try:
            executor.update_parameters(name="reg2rg-ablate", **self.parameters)
        except (NameError, TypeError, ValueError) as error:
            raise ConfigError(f"command line: --cluster: submitit refuses these parameters: {error}") from error
        left: dict[Any, Task] = {}
        for task in tasks:
            left[executor.submit(Handed(task))] = task
            begin(task)
        while left:
            for job in [job for job in left if job.done() or stop.event.is_set()]:
                task = left.pop(job)
                yield task, _submitted(job, stop)
            time.sleep(_POLL_S)


def _require(package: str, extra: str) -> None:
    """Fail before any work is done, not when it is to be handed over."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise  # it is there, and lacks something itself
        raise MissingExtraError(f"{package} is not installed. Fix: pip install 'reg2rg[{extra}]'") from error


class Handed:
    """A task as submitit runs it; where a job is preempted or its time is up, it goes on as a new job.

    Args:
        task: the run.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._stop: Stop | None = None

    def __call__(self) -> Outcome:
        """Work on it."""
        self._stop = Stop()
        return execute(self.task, self._stop)

    def checkpoint(self) -> Any:
        """Called by submitit when the job is about to be ended: the process saves itself meanwhile."""
        import submitit

        if self._stop is not None:
            self._stop()
        return submitit.helpers.DelayedSubmission(Handed(self.task))


def _submitted(job: Any, stop: Stop) -> Outcome:
    if stop.event.is_set() and not job.done():
        job.cancel()
        return Outcome("stopped")
    try:
        found = job.result()
    except Exception as error:  # whatever the cluster did to the job
        tail = "\n".join(str(error).strip().splitlines()[-3:])
        return Outcome("failed", 0.0, f"job {job.job_id}: {tail}")
    return found if isinstance(found, Outcome) else Outcome("failed", 0.0, f"job {job.job_id} returned {found!r}")


@dataclass
class Ray:
    """Tasks of a Ray cluster; started on this machine where none is found.

    Attributes:
        parameters: resources of a task: ``num_cpus``, ``num_gpus``, ...
    """

    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        _require("ray", "ray")

    def run(self, tasks: Sequence[Task], begin: Begin, stop: Stop) -> Iterator[tuple[Task, Outcome]]:
        """See `Runner`."""
        import ray

        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        remote = ray.remote(execute)
        if self.parameters:
            try:
                remote = remote.options(**self.parameters)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"command line: --cluster: ray refuses these parameters: {error}") from error
        left: dict[Any, Task] = {}
        for task in tasks:
            left[remote.remote(task)] = task
            begin(task)
        while left:
            ready, _ = ray.wait(list(left), num_returns=1, timeout=_POLL_S)
            for reference in ready:
                task = left.pop(reference)
                try:
                    outcome = ray.get(reference)
                except Exception as error:  # of the worker, or of Ray itself
                    outcome = Outcome("failed", 0.0, str(error).strip().splitlines()[-1])
                yield task, outcome
            if stop.event.is_set():
                for reference, task in left.items():
                    ray.cancel(reference)  # an interrupt in the worker: its processes end with it
                    yield task, Outcome("stopped")
                return
