"""What runs that write to a store share: one at a time on a shard, and a word for a disk that refuses."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from reg2rg.core.errors import ConfigError, Reg2RGError, TooManySkippedError
from reg2rg.datasets.base import Skip

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def only_run(root: Path, shard: tuple[int, int], what: str = "preparing") -> Iterator[None]:
    """Hold a lock that the system lets go of when this process ends, however it ends.

    Args:
        root: the store.
        shard: that this process works on.
        what: it does; another word has a lock of its own.

    Raises:
        Reg2RGError: another process holds it.
        ConfigError: a folder that cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    own = "" if what == "preparing" else f"-{what}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        stream = open(root / f".lock{own}-{shard[0]}-of-{shard[1]}", "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise ConfigError(f"store {root}: {error.strerror}. Fix: name a folder that can be written") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Reg2RGError(
                f"another run is {what} shard {shard[0]}/{shard[1]} of the store {root}. Fix: wait for it or stop it"
            ) from None
        except OSError as error:  # some network file systems have no locks; writes are atomic without one, too
            _LOG.warning("store %s: no lock can be taken (%s); do not run two of this on one shard", root, error)
        yield


@contextlib.contextmanager
def writing(root: Path) -> Iterator[None]:
    """Say of a disk that refuses what is kept, and what to do.

    Raises:
        Reg2RGError: it refuses.
    """
    try:
        yield
    except OSError as error:
        raise Reg2RGError(
            f"cannot write to the store {root}: {error.strerror or error}. What was finished is kept and sound. Fix: "
            "free space or allow writing there, then run again"
        ) from None


def of_shard(name: str, shard: tuple[int, int]) -> str:
    """Name of a JSON file, with the shard's numbers where there are several."""
    return f"{name}.json" if shard[1] == 1 else f"{name}-{shard[0]}-of-{shard[1]}.json"


def codes_of(skipped: Sequence[Skip]) -> dict[str, int]:
    """Reason code -> how many studies were skipped for it."""
    return dict(sorted(Counter(skip.code for skip in skipped).items()))


def hold_limit(skipped: Sequence[Skip], studies: int, max_skip: float, where: str) -> None:
    """Refuse a run that left out too much.

    Args:
        skipped: what it left out.
        studies: that it was asked for.
        max_skip: share of them that it may leave out.
        where: all that was left out is listed.

    Raises:
        TooManySkippedError: it left out more.
    """
    if studies and len(skipped) / studies > max_skip:
        codes = ", ".join(f"{code} {count}" for code, count in codes_of(skipped).items())
        first = min(skipped, key=lambda skip: skip.study)
        raise TooManySkippedError(
            f"{len(skipped)} of {studies} studies were skipped ({codes}), more than max_skip {max_skip:g} allows; "
            f"first: {first.message}. Fix: see {where}, mend the data or raise max_skip"
        )
