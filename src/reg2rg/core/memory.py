"""How much memory this process may still take: what the machine has, and what a job or a container is allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
# Names of limit, use, and of the cached pages that the system gives back, in the two versions of control groups.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_memory(groups: Path = _GROUPS, own: Path = _OWN) -> int:
    """Bytes that can be taken without swapping, and without being ended by a limit of Slurm, Docker or systemd.

    Args:
        groups: where the system shows control groups.
        own: the file that says in which of them this process is.
    """
    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *_left_by_limits(groups, own)]))


def _left_by_limits(groups: Path, own: Path) -> Iterator[int]:
    """What each control group leaves that this process is in; those above count too."""
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _walk_up(groups, path, *_V2)
            elif "memory" in controllers.split(","):
                yield from _walk_up(groups / "memory", path, *_V1)


def _walk_up(root: Path, path: str, limit: str, used: str, cached: str) -> Iterator[int]:
    folder = root / path.lstrip("/")
    for group in (folder, *folder.parents):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            statistics = dict(line.split(" ", 1) for line in (group / "memory.stat").read_text().splitlines())
            free = int((group / limit).read_text()) - int((group / used).read_text())
            yield free + int(statistics.get(cached, 0))
        if group == root:
            return
