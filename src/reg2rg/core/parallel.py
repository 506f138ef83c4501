"""Work on many studies in several processes: progress, order kept, nothing hangs.

- Workers are spawned, with one thread each; they end when their parent dies, however it dies.
- A task should return its faults. What it raises all the same ends the run with an error that names the item. It
  travels as text: an exception that cannot be pickled would leave the parent waiting for ever.
- A worker that the system kills (most often for memory) breaks the pool: the error says so and names the items.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from reg2rg.core.claims import Claim, ClaimLostError, Claims, rounds
from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.core.files import disk_trouble, fenced
from reg2rg.core.malloc import keep_freed_memory
from reg2rg.core.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")
_Answer = tuple[Result | None, str | None]

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")
STALL_SECONDS = 1800.0
"""A run in which no task ends for so long is given up."""


def run_tasks(
    task: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    name: Callable[[Item], str],
    workers: int,
    title: str,
    total: int | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> Generator[tuple[Item, Result], None, None]:
    """Apply a task to every item, yielding results as they come.

    Args:
        task: module-level function (it is pickled); returns a picklable result.
        items: picklable arguments, asked for when a worker has room.
        name: what to call an item in messages.
        workers: processes; 0 works in this process.
        title: label of the progress bar.
        total: items at most; as many as there are, if that is known.
        stall_seconds: longest wait without any result.

    Raises:
        Reg2RGError: a worker died, no task ended for `stall_seconds`, or a task let an exception out.
    """
    if total is None:
        items = items if isinstance(items, Sized) else list(items)
        total = len(items)
    with progress(title, total) as advance:
        workers = min(workers, max(1, total))
        results = _serial(task, items, name) if workers == 0 else _pooled(task, items, name, workers, stall_seconds)
        for item, result in results:
            advance()
            yield item, result


def shard_of(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """Every n-th item from the i-th on, counted from 1.

    Raises:
        ConfigError: not 1 <= i <= n.
    """
    index, count = shard
    if not 1 <= index <= count:
        raise ConfigError(f"shard is {index}/{count} (expected i/n with 1 <= i <= n, for example 1/8)")
    return list(items[index - 1 :: count])


def own_first(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """All items, those of a shard before those of the next ones."""
    index, count = shard
    order = [*range(index, count + 1), *range(1, index)]
    return [item for part in order for item in shard_of(items, (part, count))]


def usable_cores() -> int:
    """Cores that this process may use: as many workers, where nothing else runs beside them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Claimed(Generic[Item]):
    item: Item
    claim: Claim


def run_shared(
    task: Callable[[Item], Result],
    items: Mapping[str, Item],
    *,
    claims: Claims,
    told: Callable[[Result], Mapping[str, Any] | None],
    given_up: Callable[[Item, int], Result],
    workers: int,
    title: str,
) -> Generator[tuple[Item, Result], None, None]:
    """As `run_tasks`, for items that processes of other machines work on too: each is done once, by who comes first.

    It ends when each item is finished or in work elsewhere. Items of a process that died are taken over; those that an
    attempt did not survive are tried alone, so that what kills a worker takes no others with it.

    Args:
        task: as for `run_tasks`. What it writes through `reg2rg.core.files` is written only while it has the claim.
        items: name -> argument, in the order in which to try them.
        claims: who works on what.
        told: what is to be known of a result; ``None`` for one after which the item is not finished.
        given_up: result for an item that so many attempts did not survive; a module-level function.
        workers: as for `run_tasks`.
        title: as for `run_tasks`.

    Raises:
        Reg2RGError: as `run_tasks` does.
    """
    work = functools.partial(_under_claim, task, given_up, claims.attempts)
    for taken, alone in rounds(claims, items):
        claimed = (_Claimed(items[claim.item], claim) for claim in taken)
        total, one = len(items.keys() - claims.finished()), min(workers, 1) if alone else workers
        for entry, result in run_tasks(work, claimed, name=_item, workers=one, title=title, total=total):
            if result is None:
                claims.forget(entry.claim)
            elif claims.settle(entry.claim, told(result)):
                yield entry.item, result


def _item(claimed: _Claimed[Any]) -> str:
    return claimed.claim.item


def _under_claim(
    task: Callable[[Item], Result], given_up: Callable[[Item, int], Result], attempts: int, claimed: _Claimed[Item]
) -> Result | None:
    """The result, ``None`` where another process has taken over meanwhile."""
    if claimed.claim.attempt > attempts:
        return given_up(claimed.item, attempts)
    try:
        with fenced(claimed.claim.check):
            result = task(claimed.item)
        claimed.claim.check()
    except ClaimLostError:
        return None
    return result


def _serial(
    task: Callable[[Item], Result], items: Iterable[Item], name: Callable[[Item], str]
) -> Iterator[tuple[Item, Result]]:
    for item in items:
        yield item, _result(_call(task, item), name(item))


def _pooled(
    task: Callable[[Item], Result],
    items: Iterable[Item],
    name: Callable[[Item], str],
    workers: int,
    stall_seconds: float,
) -> Iterator[tuple[Item, Result]]:
    waiting = iter(items)
    running: dict[Future[_Answer[Result]], Item] = {}
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with _single_threaded_children():
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker)
        try:
            with _interrupts_left_to_parent():
                for item in itertools.islice(waiting, 2 * workers):
                    running[pool.submit(_call, task, item)] = item
            while running:
                done, _ = wait(running, timeout=stall_seconds, return_when=FIRST_COMPLETED)
                if not done:
                    raise Reg2RGError(_stalled(stall_seconds, map(name, running.values())))
                for future in done:
                    answer = future.result()
                    item = running.pop(future)
                    for following in itertools.islice(waiting, 1):
                        running[pool.submit(_call, task, following)] = following
                    yield item, _result(answer, name(item))
        except BaseException as error:
            # Every write is atomic, so workers may be ended at any moment.
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                raise Reg2RGError(_killed(map(name, running.values()))) from None
            raise
        pool.shutdown(wait=True)


def _call(task: Callable[[Item], Result], item: Item) -> _Answer[Result]:
    """Run a task in a worker. An exception travels as text: some cannot be pickled, and would never arrive."""
    try:
        return task(item), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, OSError) and (told := disk_trouble(error)) is not None:
            return None, told
        place = traceback.extract_tb(error.__traceback__)[-1]
        return None, f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def _result(answer: _Answer[Result], item: str) -> Result:
    result, error = answer
    if error is not None:
        raise Reg2RGError(f"{item}: {error}")
    return cast("Result", result)


def _killed(running: Iterable[str]) -> str:
    return (
        "a worker process was ended from outside, most often by the system for want of memory, while these were in "
        f"work: {', '.join(running)}. What was finished is kept. Fix: run again with fewer workers"
    )


def _stalled(seconds: float, running: Iterable[str]) -> str:
    return (
        f"no worker finished anything for {seconds:.0f} s; in work: {', '.join(running)}. What was finished is kept. "
        "Fix: check that the data's file system answers, then run again"
    )


def start_worker(number: int = 0) -> None:
    """Leave Ctrl-C to the parent, end when it is gone, keep memory for the next item.

    Args:
        number: of the worker; `torch.utils.data.DataLoader` says it.
    """
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, name="parent-watch", daemon=True).start()


@contextlib.contextmanager
def _interrupts_left_to_parent() -> Iterator[None]:
    """Processes that are started now ignore Ctrl-C from their first instruction on, not once they have imported."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:  # None: not set from Python
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
