"""What the benchmarks share: fair clocks, peak memory, the machine's name and its matrix product peak."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GIB = 2**30


@dataclass
class Result:
    """One way: its best times over the repeats, in seconds, the memory it took at its peak over what was there before,
    in bytes, and what it returned last."""

    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    peak: int = 0
    output: Any = None

    @property
    def wall(self) -> float:
        return min(self.walls)

    @property
    def cpu(self) -> float:
        return min(self.cpus)


def take_turns(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Result]:
    """Run every way `repeats` times, in turns, so that other load on the machine falls on all of them alike."""
    results = {name: Result() for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            measure(run, results[name])
    return results


def measure(run: Callable[[], Any], result: Result) -> None:
    """Run once and enter time, memory and output."""
    result.output = None
    before = resident()
    reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    result.output = run()
    result.walls.append(time.perf_counter() - wall)
    result.cpus.append(time.process_time() - cpu)
    result.peak = max(result.peak, peak() - before)


def peak() -> int:
    """Largest resident size of this process since `reset_peak`, bytes."""
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def give_back_at_once() -> None:
    """Let the C library hand every block of 64 KiB and more back to the system as soon as it is freed.

    By default it keeps blocks of up to 32 MiB, so that a process stays larger than what it uses, by up to a quarter.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD of glibc, which setting it keeps as it is


def reset_peak() -> None:
    """Start `peak` anew, where the system can; elsewhere it only grows, so run the smaller way first."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident() -> int:
    """Resident size of this process, bytes, once what is freed was handed back to the system."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    for line in _lines("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def matmul_peak(seconds: float = 2.0, size: int = 2048) -> float:
    """GFLOP a CPU second of a large float32 product, the best of many."""
    import torch

    a, b = torch.rand(size, size), torch.rand(size, size)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best / 1e9


def machine(threads: int | None = None) -> str:
    """The processor, what of it is used, and how busy it is with other work."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    vector = next((name for name in ("avx512f", "avx2") if name in flags), "no AVX2")
    name = names[0] if names else platform.processor() or platform.machine()
    used = "" if threads is None else f", {threads} used"
    return f"{name} ({vector}), {os.cpu_count()} cores{used}; load {os.getloadavg()[0]:.1f}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
