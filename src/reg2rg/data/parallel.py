"""Work on many studies in several processes: progress, order kept, nothing hangs.

- Workers are spawned, with one thread each; they end when their parent dies, however it dies.
- A task returns its faults; it never lets an exception out, because one that cannot be pickled would leave the parent
  waiting for ever. `run_tasks` turns whatever escapes into an error that names the item.
- A worker that the system kills (most often for memory) breaks the pool: the error says so and names the items.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from reg2rg.data.memory import keep_freed_memory
from reg2rg.errors import Reg2RGError

Item = TypeVar("Item")
Result = TypeVar("Result")

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")
STALL_SECONDS = 1800.0
"""A run in which no task ends for so long is given up."""


def run_tasks(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    name: Callable[[Item], str],
    workers: int,
    title: str,
    stall_seconds: float = STALL_SECONDS,
) -> Generator[tuple[Item, Result], None, None]:
    """Apply a task to every item, yielding results as they come.

    Args:
        task: module-level function (it is pickled); returns a picklable result.
        items: picklable arguments.
        name: what to call an item in messages.
        workers: processes; 0 works in this process.
        title: label of the progress bar.
        stall_seconds: longest wait without any result.

    Raises:
        Reg2RGError: a worker died, no task ended for `stall_seconds`, or a task let an exception out.
    """
    with _progress(title, len(items)) as advance:
        results = _serial(task, items) if workers == 0 else _pooled(task, items, name, workers, stall_seconds)
        for item, result in results:
            advance()
            yield item, result


def default_workers() -> int:
    """As many as there are cores for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serial(task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    for item in items:
        yield item, task(item)


def _pooled(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    name: Callable[[Item], str],
    workers: int,
    stall_seconds: float,
) -> Iterator[tuple[Item, Result]]:
    waiting = iter(items)
    running: dict[Future[Result], Item] = {}
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with _single_threaded_children():
        pool = ProcessPoolExecutor(min(workers, max(1, len(items))), mp_context=context, initializer=_start_worker)
        try:
            for item in waiting:
                running[pool.submit(task, item)] = item
                if len(running) >= 2 * workers:
                    break
            while running:
                done, _ = wait(running, timeout=stall_seconds, return_when=FIRST_COMPLETED)
                if not done:
                    raise Reg2RGError(_stalled(stall_seconds, [name(item) for item in running.values()]))
                for future in done:
                    item = running[future]
                    result = _result(future, name(item), [name(other) for other in running.values()])
                    del running[future]
                    for following in waiting:
                        running[pool.submit(task, following)] = following
                        break
                    yield item, result
        except BaseException:
            # Every write is atomic, so workers may be ended at any moment.
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise
        pool.shutdown(wait=True)


def _result(future: Future[Result], item: str, running: Sequence[str]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        raise Reg2RGError(
            "a worker process was ended from outside, most often by the system for want of memory, while these were in "
            f"work: {', '.join(running)}. What was finished is kept. Fix: run again with fewer workers"
        ) from None
    except Exception as error:
        raise Reg2RGError(f"{item}: {type(error).__name__}: {error}") from error


def _stalled(seconds: float, running: Sequence[str]) -> str:
    return (
        f"no worker finished anything for {seconds:.0f} s; in work: {', '.join(running)}. What was finished is kept. "
        "Fix: check that the data's file system answers, then run again"
    )


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, end when it is gone, keep memory for the next item."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, name="parent-watch", daemon=True).start()


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    """One thread a worker: set before a worker starts, since libraries read it when they are imported."""
    saved = {key: os.environ.get(key) for key in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for key, value in saved.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with rate and remaining time on a terminal; a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_progress(title, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, rate="")

        def advance() -> None:
            bar.advance(task)
            done = bar.tasks[0].completed
            bar.update(task, rate=f"{done / max(1e-9, time.monotonic() - start):.2f}/s")

        yield advance


def _plain_progress(title: str, total: int, every_seconds: float = 15.0) -> Callable[[], None]:
    start = last = time.monotonic()
    done = 0
    log = logging.getLogger(__name__)

    def advance() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if done == total or now - last >= every_seconds:
            last = now
            rate = done / max(1e-9, now - start)
            line = f"{title}: {done}/{total}, {rate:.2f}/s, {(total - done) / rate:.0f} s left"
            log.info(line)
            sys.stderr.write(line + "\n")

    return advance
