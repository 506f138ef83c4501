"""The order of everything, as pure functions of a seed, an epoch and names.

Nothing here keeps state: an order can be computed again by any worker, on any process, after any interruption, and is
the same. That is what makes a resumed run continue bit for bit, and a run independent of its number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

EVAL_SEED = 0
"""Seed of validation and test, whatever the training seed is, so that runs are compared on equal prompts."""

_BUCKET_BATCHES = 32
"""Batches whose studies are sorted by length among themselves: long enough to save padding, short enough to mix."""


def generator(seed: int, epoch: int, *names: str) -> np.random.Generator:
    """A random generator that depends on the arguments alone, equal on every machine."""
    text = "\x1f".join((str(seed), str(epoch), *names))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed out of several numbers, for `torch.manual_seed`."""
    digest = hashlib.blake2b("\x1f".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def shuffled_regions(regions: Sequence[str], seed: int, epoch: int, study: str) -> tuple[str, ...]:
    """The slot order of a study's regions, uniform over all orders.

    Args:
        regions: names in the order of the region set; a shorter sequence is another draw.
        seed: seed of the run.
        epoch: from 0.
        study: id of the study.
    """
    order = generator(seed, epoch, "regions", study).permutation(len(regions))
    return tuple(regions[i] for i in order)


def scheduled_regions(schedule: Mapping[int, int] | None, epoch: int) -> int | None:
    """Most regions a sample may have in `epoch`, or ``None`` for no bound.

    Args:
        schedule: first epoch -> bound from that epoch on; a bound of 0 lifts it. Before the first key there is none.
        epoch: from 0.
    """
    begun = [first for first in schedule or () if first <= epoch]
    return (schedule or {})[max(begun)] or None if begun else None


def kept_regions(count: int, dropout: float, seed: int, epoch: int, study: str) -> int:
    """How many of a study's regions its sample has in an epoch.

    A model that has only ever seen all regions of a scan writes paragraphs of absent ones when it is given fewer.

    Args:
        count: regions that it could have.
        dropout: chance that it has fewer or as many, each number from 1 to `count` equally likely; otherwise all.
        seed: seed of the run.
        epoch: from 0.
        study: id of the study.
    """
    random = generator(seed, epoch, "dropout", study)
    return int(random.integers(1, count, endpoint=True)) if random.random() < dropout else count


def bucketed_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of studies of like length, in an order that mixes lengths over the epoch.

    All studies are permuted, cut into runs of some batches, sorted by length inside a run, cut into batches, and the
    batches are permuted. The one batch that may be smaller than the others comes last.

    Args:
        lengths: a length for each study, in any unit.
        batch_size: studies a batch, over all processes.
        seed: seed of the run.
        epoch: from 0.

    Returns:
        indices into `lengths`; every study stands in exactly one batch.
    """
    random = generator(seed, epoch, "batches")
    order = random.permutation(len(lengths))
    whole = len(order) // batch_size * batch_size
    size = np.asarray(lengths)
    batches: list[list[int]] = []
    run = _BUCKET_BATCHES * batch_size
    for start in range(0, whole, run):
        part = order[start : min(start + run, whole)]
        part = part[np.argsort(size[part], kind="stable")]
        batches += [part[i : i + batch_size].tolist() for i in range(0, len(part), batch_size)]
    mixed = [batches[i] for i in random.permutation(len(batches))]
    return [*mixed, order[whole:].tolist()] if whole < len(order) else mixed


def share_of(batches: Sequence[Sequence[int]], rank: int, world: int, even: bool) -> list[list[int]]:
    """The part of every batch that belongs to one process.

    Args:
        batches: batches over all processes.
        rank: which process, from 0.
        world: number of processes.
        even: every process needs as many batches as the others (training): a last batch that is too small to give
            each of them a study is left out of this epoch. It has other studies in every epoch. Otherwise (evaluation)
            nothing is left out; only where there are fewer studies than processes, those without one repeat the first,
            for a process without any would not take part in summing up.
    """
    kept = [batch for batch in batches if not even or len(batch) >= world]
    share = [part for batch in kept if (part := list(batch[rank::world]))]
    return share if share or even or not batches else [list(batches[0][:1])]
