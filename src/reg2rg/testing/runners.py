"""Contract check of runners."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reg2rg.runners import Job, Outcome, Runner, Stop
from reg2rg.testing.contract import require


@dataclass(frozen=True)
class _Probe(Job):
    """A job of `check_runner`: ends as its number says, and tells what reached it."""

    number: int

    @property
    def name(self) -> str:
        return f"probe {self.number}"

    def execute(self, stop: Stop) -> Outcome:
        if self.number == 2:
            raise OSError("cannot even begin")
        status: Literal["done", "failed"] = "failed" if self.number == 1 else "done"
        return Outcome(status, float(self.number), f"{self.environment.get('PROBE')} in {self.cwd}")


def check_runner(build: Callable[[Path], Runner]) -> None:
    """Check a runner against the contract of `reg2rg.runners.Runner`.

    Each job is begun once, ends once and with its own outcome; folder and environment reach it; one that fails or
    raises does not end the others; told to stop beforehand, what it begins all the same it also ends.

    Args:
        build: makes the runner in a folder; called twice.

    Raises:
        ContractError: naming the first part that is broken.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        probes = [_Probe(number, cwd=folder, environment={"PROBE": str(number)}) for number in range(4)]
        runner = build(folder)
        require(isinstance(runner, Runner), runner, "type", "no subclass of reg2rg.runners.Runner", "one")
        begun, ended = _run_probes(runner, probes, Stop())
        for part, found in (("begun", begun), ("ended", [job.number for job, _ in ended])):
            require(sorted(found) == [0, 1, 2, 3], runner, f"jobs {part}", str(sorted(found)), "each of 0 to 3 once")
        outcomes = {job.number: outcome for job, outcome in ended}
        for number, status in enumerate(("done", "failed", "failed", "done")):
            ends = outcomes[number].status
            require(ends == status, runner, f"status of job {number}", ends, status)
        for number in (0, 3):
            message, expected = outcomes[number].message, f"{number} in {folder}"
            require(message == expected, runner, f"environment and folder of job {number}", message, expected)
        told = outcomes[2].message
        require("cannot even begin" in told, runner, "message of what raised", repr(told), "the error's text in it")
        stop = Stop()
        stop()
        begun, ended = _run_probes(build(folder), probes, stop)
        left = sorted(set(begun) ^ {job.number for job, _ in ended})
        require(
            not left, runner, "jobs when told to stop beforehand", f"{left} begun or ended alone", "both or neither"
        )


def _run_probes(runner: Runner, probes: Sequence[_Probe], stop: Stop) -> tuple[list[int], list[tuple[_Probe, Outcome]]]:
    begun: list[int] = []
    ended = []
    for job, outcome in runner.run(probes, lambda job: begun.append(job.number), stop):
        require(job.number in begun, runner, "order", f"job {job.number} ended before it began", "begin called first")
        ended.append((job, outcome))
    return begun, ended
