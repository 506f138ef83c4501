"""A loader that knows exactly where it is: stateless order, position as state, faults that name their study.

It is no `torch.utils.data.DataLoader` but holds one: Lightning then leaves its order alone (no sampler is injected for
several processes), and asks it for its state at every checkpoint.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from reg2rg.core.errors import ConfigError, DataFault, Reg2RGError, TooManySkippedError
from reg2rg.core.parallel import start_worker
from reg2rg.data.batch import Batch, Sample
from reg2rg.data.order import share_of

log = logging.getLogger(__name__)

_LOOK = 5.0
"""Seconds until a silent worker is looked after: Lightning takes away the signal handler by which torch watches."""

Key = tuple[int, int]
"""Index of a study and epoch: all that a worker needs to make the sample."""

T = TypeVar("T")


class LoaderError(Reg2RGError):
    """A worker process that died or does not answer; the message names the studies it was asked for."""


class Samples(Protocol):
    """What makes samples: stateless, so that a sample does not depend on who makes it, or when."""

    def __len__(self) -> int:
        """Number of studies."""

    def study(self, index: int) -> str:
        """Id of a study."""

    def sample(self, index: int, epoch: int) -> Sample:
        """Make one sample."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What comes out of a worker: a batch of what could be read, and the faults of the rest."""

    batch: Batch | None
    faults: tuple[Reg2RGError, ...] = ()

    def pin_memory(self, device: str | None = None) -> Delivery:
        """The same with the batch in page-locked memory; called by the inner loader's pinning thread."""
        return self if self.batch is None else Delivery(self.batch.pin_memory(), self.faults)


class _Guarded(Dataset["Sample | Reg2RGError"]):
    """Returns faults instead of raising them: an exception that cannot be pickled would hang its parent."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Sample | Reg2RGError:
        index, epoch = key
        study = self.samples.study(index)
        try:
            return self.samples.sample(index, epoch)
        except DataFault as fault:
            return fault.for_study(study)
        except ConfigError as error:
            return error
        except (Exception, SystemExit) as error:
            return DataFault.of(
                "UNREADABLE",
                found=f"{type(error).__name__}: {error}",
                expected="a readable study",
                fix="check it with `reg2rg data check`, or leave it out of the data set",
                study=study,
            )


class _Collate:
    def __init__(self, collate: Callable[[Sequence[Sample]], Batch]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[Sample | Reg2RGError]) -> Delivery:
        samples = [item for item in items if isinstance(item, Sample)]
        faults = tuple(item for item in items if isinstance(item, Reg2RGError))
        return Delivery(self.collate(samples) if samples else None, faults)


class _Plan:
    """The batch sampler of the inner loader: whatever batches of keys it was given last."""

    def __init__(self) -> None:
        self.batches: Iterable[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


class StudyLoader:
    """Batches of studies in a planned order.

    Args:
        samples: makes the samples.
        plan: epoch -> batches of study indices, over all processes.
        collate: samples -> batch; runs in the workers.
        workers: worker processes; 0 reads in this one.
        train: the order depends on the epoch, and every process gets as many batches as the others. Otherwise the
            order is always that of epoch 0.
        rank: this process, from 0.
        world: number of processes.
        max_skip: share of the studies that may be unreadable. They are left out and counted; beyond it, an error.
        timeout: seconds to wait for a worker's batch; 0 waits for ever.
        pin: page-lock batches for a GPU.
    """

    def __init__(
        self,
        samples: Samples,
        plan: Callable[[int], list[list[int]]],
        collate: Callable[[Sequence[Sample]], Batch],
        *,
        workers: int = 0,
        train: bool = False,
        rank: int = 0,
        world: int = 1,
        max_skip: float = 0.0,
        timeout: float = 600.0,
        pin: bool = False,
    ) -> None:
        self.samples, self.train, self.workers = samples, train, workers
        self.rank, self.world, self.max_skip, self.timeout = rank, world, max_skip, timeout
        self.skipped: dict[str, DataFault] = {}
        self._plan, self._keys = plan, _Plan()
        self._epoch, self._position = 0, 0
        self._resume: tuple[int, int] | None = None
        self._length = len(self._batches(0))
        self._inner: DataLoader[Any] = DataLoader(
            _Guarded(samples),
            batch_sampler=self._keys,
            num_workers=workers,
            collate_fn=_Collate(collate),
            timeout=(min(timeout, _LOOK) if timeout else _LOOK) if workers else 0,
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker,
            pin_memory=pin,
            generator=torch.Generator(),  # or each epoch would draw from the global one
        )

    def __len__(self) -> int:
        return self._length

    @property
    def sampler(self) -> StudyLoader:
        """Lightning calls `set_epoch` on a loader's sampler."""
        return self

    @property
    def batch_sampler(self) -> None:
        """There is none; Lightning asks."""
        return None

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to do once the loader has ended: not so where others share the studies."""
        return True

    def studies(self) -> list[str]:
        """Ids of all studies of an epoch, those of other processes too."""
        return [self.samples.study(index) for index in range(len(self.samples))]

    def faults(self) -> dict[str, str]:
        """Study -> why it was left out."""
        return {study: str(fault) for study, fault in self.skipped.items()}

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration follow the order of `epoch`."""
        self._epoch = epoch if self.train else 0

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: batches already handed out, and of which epoch."""
        return {"epoch": self._epoch, "batches": self._position, "length": self._length, "studies": len(self.samples)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from `state` when its epoch is iterated next."""
        if (state["length"], state["studies"]) != (self._length, len(self.samples)):
            log.warning(
                "The checkpoint stood at batch %d of %d (%d studies); now an epoch has %d batches (%d studies). "
                "Training goes on at the same batch, but is not the uninterrupted run.",
                state["batches"],
                state["length"],
                state["studies"],
                self._length,
                len(self.samples),
            )
        self._epoch, self._position = state["epoch"], state["batches"]
        self._resume = (state["epoch"], state["batches"])

    def close(self) -> None:
        """End the workers. Left to the garbage collector, each would be waited for until torch kills it after 5 s."""
        if self._inner._iterator is not None and self.workers:
            self._inner._iterator._shutdown_workers()  # type: ignore[attr-defined]
        self._inner._iterator = None

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing is decided before the first batch is asked for. Lightning creates the iterator first,
        # and says which epoch it is afterwards.
        return self._run()

    def _batches(self, epoch: int) -> list[list[int]]:
        return share_of(self._plan(epoch), self.rank, self.world, even=self.train)

    def _run(self) -> Iterator[Batch]:
        epoch = self._epoch
        start = self._resume[1] if self._resume is not None and self._resume[0] == epoch else 0
        self._resume = None
        batches = self._batches(epoch)
        self._keys.batches = [[(index, epoch) for index in batch] for batch in batches[start:]]
        self._position = start
        deliveries = iter(self._inner)
        while self._position < len(batches):
            delivery = self._next(deliveries, batches[self._position])
            self._position += 1
            self._count(delivery.faults)
            if delivery.batch is not None:
                yield delivery.batch
            elif self.train and self.world > 1:
                raise delivery.faults[0]  # the other processes wait for this one's gradients

    def _next(self, deliveries: Iterator[Delivery], batch: Sequence[int]) -> Delivery:
        begun = time.monotonic()
        while True:
            try:
                return next(deliveries)
            except RuntimeError as error:
                if not self.workers:
                    raise
                silent = "timed out" in str(error)
                if silent and not 0 < self.timeout <= time.monotonic() - begun:
                    continue
                what = f"no answer for {self.timeout:g} s" if silent else str(error)
                studies = ", ".join(self.samples.study(index) for index in batch)
                raise LoaderError(
                    f"a data worker failed while batch {self._position} was awaited (studies {studies}): {what}. "
                    f"{_shared_memory()} Fix: fewer --data.workers (now {self.workers}), more memory, or, if a worker "
                    f"was only slow, a longer --data.timeout (now {self.timeout:g} s)"
                ) from error

    def _count(self, faults: Sequence[Reg2RGError]) -> None:
        for fault in faults:
            if not isinstance(fault, DataFault):
                raise fault
            if fault.study in self.skipped:
                continue
            self.skipped[fault.study] = fault
            allowed = int(self.max_skip * len(self.samples))
            if len(self.skipped) > allowed:
                if allowed == 0:
                    raise fault
                raise TooManySkippedError(
                    f"{len(self.skipped)} of {len(self.samples)} studies could not be read; max_skip allows {allowed}. "
                    f"The last: {fault}"
                )
            log.warning("Left out (%d of at most %d): %s", len(self.skipped), allowed, fault)


def _start_worker(number: int) -> None:
    """As other workers, and deaf to a SIGTERM that the whole group gets: the parent saves the run, then ends them."""
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_hear_parent, name="parent-ear", daemon=True).start()
    start_worker(number)


def _hear_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _shared_memory() -> str:
    """How much shared memory is free: a full /dev/shm kills workers without a word."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return ""
    return f"/dev/shm has {free / 2**20:.0f} MiB free."
