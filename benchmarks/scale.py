"""How long many studies take on many machines: a simulation from measured costs, and whether it comes true.

    python benchmarks/scale.py                             50,000 studies in 64 shards, with and without trouble
    python benchmarks/scale.py --costs costs.json          from costs that --held has measured on your machine
    python benchmarks/scale.py --held                      2,000 tiny studies in 2 shards, predicted, then prepared

The simulation knows what `reg2rg` does: a part needs some seconds to begin, works on its own studies, then takes over
what nobody has begun; a part that is preempted loses the study in work, waits, and begins anew; that study is free once
its lease has run out, and is tried last. What a study takes is drawn from measured seconds; stragglers take a multiple.

--held measures a few hundred studies of the same kind, predicts, and then prepares all of them in two parts, one of
which is killed twice in the middle. It compares CPU seconds, since others may use the machine: of the studies, of the
busier of the two places, and in all. Exit status 1 where one of them is off by more than 15 %.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path

BOUND = 0.15
STUDIES, SHARDS, LEASE_S, STRAGGLERS = 2000, 2, 4.0, 0.02
COSTS = {"begin": 4.0, "seconds": [19.6, 26.0, 39.8]}
"""Of `prepare --bake` at 512 x 512 x 200 with ten masks, one core: docs/project/performance.md."""


@dataclass(frozen=True)
class Plan:
    """What is to be done, and where.

    Attributes:
        studies: how many.
        shards: parts of them.
        places: that work at a time.
        begin: seconds until a part begins with its first study.
        seconds: of studies, measured; each takes one of these.
        stragglers: share of studies that take `times` as long.
        times: see `stragglers`.
        preempted: mean seconds until a part is ended; 0 for never.
        wait: seconds until it begins anew.
        lease: seconds until what it had in work is free.
        kills: (part, seconds) at which a part is ended for certain.
    """

    studies: int
    shards: int
    places: int
    begin: float
    seconds: tuple[float, ...]
    stragglers: float = 0.0
    times: float = 1.0
    preempted: float = 0.0
    wait: float = 0.0
    lease: float = 60.0
    kills: tuple[tuple[int, float], ...] = ()


@dataclass
class Told:
    """What became of a plan.

    Attributes:
        wall: seconds until all was done.
        busy: seconds that all parts worked.
        lost: seconds of work that was lost with parts that were ended.
        ended: how many were.
        by_part: seconds that each part worked.
    """

    wall: float = 0.0
    busy: float = 0.0
    lost: float = 0.0
    ended: int = 0
    by_part: dict[int, float] = field(default_factory=dict)


class Simulation:
    """One run of a plan: events in the order of time, each of which makes the next one of its part.

    Args:
        plan: what to do.
        seed: of what is drawn.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.draw = plan, random.Random(seed)
        self.cost = [self.draw.choice(plan.seconds) * self._times() for _ in range(plan.studies)]
        self.own = [deque(range(part, plan.studies, plan.shards)) for part in range(plan.shards)]
        self.suspects: list[tuple[float, int]] = []  # free from, study
        self.told = Told(by_part=dict.fromkeys(range(plan.shards), 0.0))
        self.kills = {part: deque(sorted(at for one, at in plan.kills if one == part)) for part in range(plan.shards)}
        self.limit: dict[int, float] = {}
        self.events: list[tuple[float, int, str]] = []  # when, part, what
        self.waiting = [(0.0, part) for part in range(plan.shards)]
        self.free = plan.places

    def run(self) -> Told:
        """What became of it."""
        self._admit(0.0)
        while self.events:
            now, part, what = heapq.heappop(self.events)
            if what == "ended":
                self.free += 1
                heapq.heappush(self.waiting, (now + self.plan.wait, part))
            elif what == "begins":
                self.limit[part] = self._limit(part, now)
                self._work(part, now, self.plan.begin)
            elif (found := self._next(part)) is None:
                self.free += 1
            elif found[0] > now:  # it waits for a lease to run out
                heapq.heappush(self.suspects, found)
                heapq.heappush(self.events, (found[0], part, "next"))
            else:
                self._work(part, now, self.cost[found[1]], found[1])
            self._admit(now)
        return self.told

    def _admit(self, now: float) -> None:
        while self.free and self.waiting:
            ready, part = heapq.heappop(self.waiting)
            heapq.heappush(self.events, (max(ready, now), part, "begins"))
            self.free -= 1

    def _work(self, part: int, now: float, seconds: float, study: int | None = None) -> None:
        """Let a part begin, or do a study, as long as it may."""
        end = min(now + seconds, self.limit[part])
        self.told.busy += end - now
        self.told.by_part[part] += end - now
        if now + seconds <= self.limit[part]:
            heapq.heappush(self.events, (end, part, "next"))
            if study is not None:
                self.told.wall = end
            return
        if study is not None:
            heapq.heappush(self.suspects, (end + self.plan.lease, study))
        self.told.lost += end - now
        self.told.ended += 1
        heapq.heappush(self.events, (end, part, "ended"))

    def _limit(self, part: int, start: float) -> float:
        certain = self.kills[part].popleft() if self.kills[part] else float("inf")
        drawn = start + self.draw.expovariate(1 / self.plan.preempted) if self.plan.preempted else float("inf")
        return min(certain, drawn)

    def _next(self, part: int) -> tuple[float, int] | None:
        """The next study of a part, and since when it is free."""
        for step in range(self.plan.shards):
            queue = self.own[(part + step) % self.plan.shards]
            if queue:
                return 0.0, queue.popleft()
        return heapq.heappop(self.suspects) if self.suspects else None

    def _times(self) -> float:
        return self.plan.times if self.draw.random() < self.plan.stragglers else 1.0


def simulated(plan: Plan, runs: int = 20) -> Told:
    """The mean of several runs, and the longest of their `wall`."""
    every = [Simulation(plan, seed).run() for seed in range(runs)]
    mean = {name: statistics.fmean(getattr(one, name) for one in every) for name in ("busy", "lost", "ended")}
    parts = {part: statistics.fmean(one.by_part[part] for one in every) for part in every[0].by_part}
    return Told(max(one.wall for one in every), mean["busy"], mean["lost"], round(mean["ended"]), parts)


# ---- whether it comes true


def make(folder: Path, studies: int) -> int:
    """Tiny studies with a label map of two regions; how many are many times as large as the others."""
    import nibabel as nib
    import numpy as np

    rows, large, draw = ["id,image,mask,report:lung"], [], random.Random(0)
    (folder / "ct").mkdir(parents=True, exist_ok=True)
    for number in range(studies):
        size = 128 if draw.random() < STRAGGLERS else 32
        labels, name = np.zeros((size,) * 3, np.uint8), f"s{number:05d}"
        labels[size // 4 : size // 2, size // 4 : size // 2] = 10
        labels[size // 2 : 3 * size // 4, size // 3 : size // 2, size // 3 : size // 2] = 51
        array = np.full(labels.shape, -1000, np.int16)
        array[2:-2, 3:-3] = np.random.default_rng(number).integers(-40, 60, (size - 4, size - 6, size))
        array[labels == 10] = -850
        affine = np.diag([320 / size] * 3 + [1.0])
        nib.save(nib.Nifti1Image(array, affine), folder / "ct" / f"{name}.nii")
        nib.save(nib.Nifti1Image(labels, affine), folder / "ct" / f"{name}_seg.nii")
        rows.append(f"{name},ct/{name}.nii,ct/{name}_seg.nii,A nodule of {number % 30 + 1} mm.")
        large += [number] * (size == 128)
    small = [number for number in range(studies) if number not in large]
    some = {"all": range(studies), "few": small[:1], "small": small[: studies // 8], "large": large[: studies // 100]}
    for name, numbers in some.items():
        (folder / f"{name}.csv").write_text("\n".join([rows[0], *(rows[1 + number] for number in numbers)]) + "\n")
    return len(large)


def part(folder: Path, table: str, store: str, shard: str) -> subprocess.Popen[bytes]:
    """One part as a job of an array."""
    (folder / f"{table}.yaml").write_text(
        "task: {regions: radgenome, views: {size: [32, 32, 32]}}\n"
        f"data: {{dataset: {{class_path: Manifest, init_args: {{path: {folder}/{table}.csv, "
        f"label_map: {{lung: [10], heart: [51]}}, val_fraction: 0.0}}}}, store: {folder}/{store}}}\n"
    )
    words = ["data", "prepare", f"--config={folder}/{table}.yaml", "--bake", "--workers=0", f"--shard={shard}"]
    command = [sys.executable, "-m", "reg2rg.cli.main", *words, "--campaign=held", f"--lease={LEASE_S}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def made(folder: Path) -> int:
    """Studies in the store of all."""
    return len(list(folder.glob("all/native/s*.r2g")))


def ended(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds of a process that has ended."""
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime


def measure(folder: Path, large: int) -> Plan:
    """What a part takes to begin, and what studies of both sizes take, of some of each."""
    begin = ended(part(folder, "few", "few", "1/1"))
    small = (ended(part(folder, "small", "small", "1/1")) - begin) / (STUDIES // 8)
    times = (ended(part(folder, "large", "large", "1/1")) - begin) / (STUDIES // 100) / small
    shares = {"stragglers": large / STUDIES, "times": times}
    return Plan(STUDIES, SHARDS, SHARDS, begin, (small,), **shares, lease=LEASE_S, wait=1.0)


def held(folder: Path) -> tuple[Told, list[tuple[int, float]]]:
    """Prepare all studies in two parts, of which the second is killed twice; what came of it, and the kills."""
    busy, kills, begun = dict.fromkeys(range(SHARDS), 0.0), [], time.monotonic()
    first, second = part(folder, "all", "all", "1/2"), part(folder, "all", "all", "2/2")
    for share in (0.2, 0.5):
        while made(folder) < share * STUDIES:
            time.sleep(0.1)
        second.send_signal(signal.SIGKILL)
        busy[1] += ended(second)
        kills.append((1, busy[1] + len(kills)))  # by the part's own clock: its CPU seconds, and the waits before them
        time.sleep(1)
        second = part(folder, "all", "all", "2/2")
    busy[1] += ended(second)
    busy[0] += ended(first)
    return Told(time.monotonic() - begun, sum(busy.values()), 0.0, len(kills), busy), kills


def hold() -> int:
    """Predict, do, compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = measure(folder, make(folder, STUDIES))
        print(
            f"measured: {plan.begin:.1f} s to begin, {1e3 * plan.seconds[0]:.1f} ms a study, {plan.times:.1f} times "
            f"that for {100 * plan.stragglers:.1f} % of them (CPU)", flush=True,
        )  # fmt: skip
        found, kills = held(folder)
        predicted = simulated(replace(plan, kills=tuple(kills)))
        count = made(folder)
    rows = {
        "all parts": (predicted.busy, found.busy),
        "busier place": (max(predicted.by_part.values()), max(found.by_part.values())),
        "beyond beginning": (predicted.busy - 4 * plan.begin, found.busy - 4 * plan.begin),
    }
    good = count == STUDIES
    print(f"{'CPU seconds':20}{'predicted':>12}{'found':>10}{'off by':>10}")
    for name, (wanted, real) in rows.items():
        off = wanted / real - 1
        good &= abs(off) <= BOUND
        print(f"{name:20}{wanted:>12.1f}{real:>10.1f}{100 * off:>9.1f}%")
    print(f"{count} of {STUDIES} studies in {found.wall:.0f} s of wall time;", "held" if good else "MISSED")
    return 0 if good else 1


def main() -> int:
    """Plan, or hold the plan against what happens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--held", action="store_true")
    add("--studies", type=int, default=50_000)
    add("--shards", type=int, default=64)
    add("--places", type=int, default=64, help="parts at a time")
    add("--costs", type=Path, help='JSON: {"begin": seconds, "seconds": [of studies]}')
    add("--preempted", type=float, default=2.0, help="mean hours until a part is ended")
    add("--wait", type=float, default=10.0, help="minutes until it begins anew")
    options = parser.parse_args()
    if options.held:
        return hold()
    costs = json.loads(options.costs.read_text()) if options.costs else COSTS
    calm = Plan(options.studies, options.shards, options.places, costs["begin"], tuple(costs["seconds"]))
    slow = replace(calm, stragglers=0.01, times=20.0)
    ended_early = {"preempted": 3600 * options.preempted, "wait": 60 * options.wait}
    print(f"{options.studies:,} studies in {options.shards} shards, {options.places} at a time")
    print(f"{'':44}{'hours':>8}{'core hours':>12}{'lost %':>8}{'ended':>8}")
    for name, plan in {
        "calm": calm,
        "1 % take 20 times as long": slow,
        f"parts ended every {options.preempted:g} h on average": replace(calm, **ended_early),
        "both": replace(slow, **ended_early),
        "both, four times the shards": replace(slow, **ended_early, shards=4 * options.shards),
    }.items():
        told = simulated(plan, 5)
        print(
            f"{name:44}{told.wall / 3600:>8.2f}{told.busy / 3600:>12.0f}{100 * told.lost / told.busy:>8.2f}"
            f"{told.ended:>8}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
