"""A loader whose studies other processes report on too: each batch is claimed when a worker is about to read it."""

from __future__ import annotations

import collections
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reg2rg.core.claims import Claim, Claims, crashed, rounds
from reg2rg.core.errors import DataFault, Reg2RGError, TooManySkippedError
from reg2rg.core.parallel import own_first
from reg2rg.data.batch import Batch
from reg2rg.data.loader import Key, StudyLoader

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """What a process has of studies that several work on.

    Attributes:
        claims: who works on what.
        shard: (i, n): begin with every n-th batch from the i-th on, counted from 1, and take over others after them.
        done: studies that were complete before.
    """

    claims: Claims
    shard: tuple[int, int]
    done: frozenset[str]


class SharedLoader(StudyLoader):
    """Batches of studies that are this process's share, and then of what others have not begun, or have left behind.

    Who asks for the next batch has written down what became of the one before: the claims on its studies are settled.
    A study that cannot be read is settled here, and stops nobody; see `faults`. Batches are those that one process
    would make of all the studies, less what is not ours.

    Made as a `StudyLoader` of all studies; `join` says what of them is this process's.
    """

    def join(self, share: Share) -> None:
        """Take part in the work.

        Args:
            share: what is this process's.
        """
        self._claims, batches = share.claims, self._batches(0)
        self._places = {self.samples.study(index): (at, index) for at, batch in enumerate(batches) for index in batch}
        own = (self.samples.study(index) for batch in own_first(batches, share.shard) for index in batch)
        self._names = [study for study in own if study not in share.done]

    def __len__(self) -> int:
        return len(self._names)  # at most: how many batches they make is told by what others leave

    @property
    def is_complete(self) -> bool:
        """Whether all studies are settled, by whichever process."""
        return self._claims.finished() >= set(self._names)

    def faults(self) -> dict[str, str]:
        """Study -> why it was left out, by whichever process."""
        return {study: told["skipped"] for study, told in self._claims.outcomes().items() if told.get("skipped")}

    def hold_limit(self) -> None:
        """Hold the number of studies that were left out, by all processes, against `max_skip`.

        Raises:
            TooManySkippedError: more of them.
        """
        faults, allowed = self.faults(), int(self.max_skip * len(self.samples))
        if len(faults) > allowed:
            raise TooManySkippedError(
                f"{len(faults)} of {len(self.samples)} studies could not be read; max_skip allows {allowed}. The "
                f"others are complete. The first: {min(faults.values())}"
            )

    def _run(self) -> Iterator[Batch]:
        self._keys.batches = ()
        iter(self._inner)  # workers begin before there are leases, which none of them is to inherit
        for taken, _ in rounds(self._claims, self._names):
            sent: collections.deque[list[Key]] = collections.deque()
            self._keys.batches = self._claimed(taken, sent)
            deliveries = iter(self._inner)
            while True:
                try:
                    delivery = self._next(deliveries, [index for index, _ in sent[0]] if sent else [])
                except StopIteration:
                    break
                sent.popleft()
                self._count(delivery.faults)
                if delivery.batch is not None:
                    yield delivery.batch

    def _claimed(self, taken: Iterable[Claim], sent: collections.deque[list[Key]]) -> Iterator[list[Key]]:
        """Batches as they are asked for; `sent` gets each."""
        alive = (claim for claim in taken if not self._given_up(claim))
        for _, claims in itertools.groupby(alive, key=lambda claim: self._places[claim.item][0]):
            keys = [(self._places[claim.item][1], 0) for claim in claims]
            sent.append(keys)
            yield keys

    def _given_up(self, claim: Claim) -> bool:
        if claim.attempt <= self._claims.attempts:
            return False
        self._leave_out(claim, crashed(claim.item, self._claims.attempts))
        return True

    def _count(self, faults: Sequence[Reg2RGError]) -> None:
        for fault in faults:
            if not isinstance(fault, DataFault):
                raise fault
            if (claim := self._claims.held(fault.study)) is not None:
                self._leave_out(claim, str(fault))

    def _leave_out(self, claim: Claim, why: str) -> None:
        if self._claims.settle(claim, {"skipped": why}):
            log.warning("Left out: %s", why)
