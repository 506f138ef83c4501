"""Progress over a whole sweep: bars on a terminal, plain lines elsewhere, and an estimate made of what was measured."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from reg2rg.ablation.execute import Task
from reg2rg.ablation.state import read_progress, read_run
from reg2rg.core.documents import DocumentError
from reg2rg.core.progress import duration
from reg2rg.runners import Outcome

_SAY_EVERY_S = 60.0
_LOOK_EVERY_S = 1.0
_FIT_SHARE = 0.9
"""Part of a run's bar that stands for training; prediction and scoring take the rest."""


class Estimate:
    """Seconds that runs take, from finished runs of this machine, else from what the sweep's file gives.

    Args:
        measured: run -> seconds of its finished seeds.
        given: seconds of a run by the sweep's file, if it has any.
    """

    def __init__(self, measured: Mapping[str, Sequence[float]], given: float | None = None) -> None:
        self._measured = {name: list(values) for name, values in measured.items()}
        self._given = given

    def add(self, run: str, seconds: float) -> None:
        """One more run is finished."""
        self._measured.setdefault(run, []).append(seconds)

    def of(self, run: str) -> tuple[float, str] | None:
        """Seconds of a run and where they come from; ``None`` if nothing is known."""
        if self._measured.get(run):
            return statistics.median(self._measured[run]), "measured"
        if self._measured:
            return statistics.median(v for values in self._measured.values() for v in values), "as other runs"
        return (self._given, "a guess") if self._given is not None else None

    def total(self, runs: Sequence[str], jobs: int) -> float | None:
        """Seconds of several runs, `jobs` at a time."""
        found = [self.of(run) for run in runs]
        known = [entry[0] for entry in found if entry is not None]
        return sum(known) / max(1, jobs) if len(known) == len(runs) else None


def measured_seconds(out: Path, host: str) -> dict[str, list[float]]:
    """Run -> seconds of its finished seeds on this machine, over all stages."""
    found: dict[str, list[float]] = {}
    for path in sorted(out.glob("*/seed*/run.json")):
        try:
            record = read_run(path.parent)
        except DocumentError:  # said when the run's turn comes
            continue
        stages, figures = record.get("stages", {}), record.get("figures", {})
        moved_aside = "." in path.parent.name  # it had other settings
        if not moved_aside and record.get("host") == host and len(stages) == 3:
            # The trainer's own clock counts resumed parts too; a stage's seconds are those of its last part.
            fit = max(float(figures.get("fit_seconds", 0.0)), float(stages["fit"]["seconds"]))
            rest = sum(float(stages[name]["seconds"]) for name in stages if name != "fit")
            found.setdefault(record["run"], []).append(fit + rest)
    return found


class Watch:
    """Shows how far the runs of a sweep are.

    Args:
        console: where to.
        total: runs that are to be done.
        estimate: of their time.
        jobs: runs at a time.
    """

    def __init__(self, console: Console, total: int, estimate: Estimate, jobs: int) -> None:
        self.console, self.total, self.estimate, self.jobs = console, total, estimate, jobs
        self._running: dict[str, tuple[Task, float]] = {}
        self._bars: dict[str, TaskID] = {}
        self._left: list[str] = []
        self._ended = 0
        self._guard, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._whole: TaskID | None = None

    def __enter__(self) -> Watch:
        """Begin to look."""
        if self._progress is not None:
            self._progress.start()
            self._whole = self._progress.add_task("all runs", total=float(self.total), what="")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join(timeout=5)
        if self._progress is not None:
            self._progress.stop()

    def wait_for(self, tasks: Sequence[Task]) -> None:
        """Tell what is to come, for the estimate."""
        self._left = [task.run for task in tasks]

    def begin(self, task: Task) -> None:
        """A run begins."""
        with self._guard:
            self._running[task.name] = (task, time.monotonic())
            if task.run in self._left:
                self._left.remove(task.run)
            if self._progress is not None:
                self._bars[task.name] = self._progress.add_task(task.name, total=1.0, what="starting")
        if self._progress is None:
            self.say(f"{task.name}: begun ({task.folder})")

    def end(self, task: Task, outcome: Outcome) -> None:
        """A run has ended."""
        with self._guard:
            self._running.pop(task.name, None)
            self._ended += 1
            if outcome.status == "done":
                self.estimate.add(task.run, outcome.seconds)
            if self._progress is not None and task.name in self._bars:
                self._progress.remove_task(self._bars.pop(task.name))
        words = {
            "done": f"done in {duration(outcome.seconds)}",
            "failed": "failed",
            "stopped": "stopped; run the sweep again to go on",
            "busy": "another process works on it; left alone",
        }
        left = self._time_left()
        rest = f"; {self._ended} of {self.total}" + (f", about {duration(left)} left" if left else "")
        self.say(f"{task.name}: {words[outcome.status]}{rest}")
        if outcome.message:
            self.say("\n".join(f"    {line}" for line in outcome.message.splitlines()))

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _look(self) -> None:
        said = time.monotonic()
        while not self._stop.wait(_LOOK_EVERY_S):
            with self._guard:
                running = list(self._running.values())
            shares = {task.name: share_done(task.folder) for task, _ in running}
            if self._progress is not None:
                self._draw(shares)
            elif time.monotonic() - said >= _SAY_EVERY_S and running:
                said = time.monotonic()
                left = self._time_left()
                rest = f"; about {duration(left)} left" if left else ""
                self.say(", ".join(f"{name}: {what}" for name, (_, what) in shares.items()) + rest)

    def _draw(self, shares: Mapping[str, tuple[float, str]]) -> None:
        assert self._progress is not None
        with self._guard:
            for name, (share, what) in shares.items():
                if name in self._bars:
                    self._progress.update(self._bars[name], completed=share, what=what)
            ended = self._ended
        left = self._time_left()
        if self._whole is not None:
            what = f"{ended} of {self.total}" + (f", about {duration(left)} left" if left else "")
            self._progress.update(self._whole, completed=ended + sum(s for s, _ in shares.values()), what=what)

    def _time_left(self) -> float | None:
        with self._guard:
            running, left = list(self._running.values()), list(self._left)
        waiting = self.estimate.total(left, 1)
        if waiting is None:
            return None
        begun = 0.0
        for task, since in running:
            known = self.estimate.of(task.run)
            if known is None:
                return None
            begun += max(0.0, known[0] - (time.monotonic() - since))
        return (waiting + begun) / max(1, self.jobs)


def share_done(folder: Path) -> tuple[float, str]:
    """How much of a run is done, from 0 to 1, and in words."""
    found = read_progress(folder)
    stage, done, total = found.get("stage"), found.get("done", 0), found.get("total")
    if not stage or not total:
        return 0.0, "starting"
    part = min(1.0, done / total)
    if stage == "fit":
        return _FIT_SHARE * part, f"step {done} of {total:.0f}"
    return _FIT_SHARE + (1 - _FIT_SHARE) * part, f"reports {100 * part:.0f} %"
