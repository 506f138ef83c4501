"""Who works on tasks: side by side here, or handed to submitit and Ray whole."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from reg2rg.ablation import runners
from reg2rg.ablation.execute import Outcome, Stop, Task
from reg2rg.ablation.runners import Local, Ray, Slurm, shares, visible_gpus
from reg2rg.ablation.sweep import Scoring
from reg2rg.core.errors import ConfigError, MissingExtraError


def tasks(tmp_path: Path, count: int = 3) -> list[Task]:
    return [
        Task("run", seed, "run", Path(f"run/seed{seed}"), {}, "d", "x", Scoring(), cwd=tmp_path)
        for seed in range(count)
    ]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Tasks that were executed; seed 1 fails."""
    seen: list[Task] = []

    def execute(task: Task, stop: Stop | None = None, call: Any = None) -> Outcome:
        seen.append(task)
        return Outcome("failed", 1.0, "broken") if task.seed == 1 else Outcome("done", 1.0)

    monkeypatch.setattr(runners, "execute", execute)
    return seen


def work(runner: Any, todo: list[Task], stop: Stop | None = None) -> tuple[list[int], dict[int, str]]:
    begun: list[int] = []
    ended = {
        task.seed: outcome.status for task, outcome in runner.run(todo, lambda t: begun.append(t.seed), stop or Stop())
    }
    return begun, ended


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_one_failure_does_not_stop_the_rest(tmp_path: Path, executed: list[Task], jobs: int) -> None:
    begun, ended = work(Local(jobs, call=lambda words: 0), tasks(tmp_path))
    assert sorted(begun) == [0, 1, 2]
    assert ended == {0: "done", 1: "failed", 2: "done"}


@pytest.mark.parametrize("jobs", [0, 2])
def test_told_to_stop_nothing_is_begun(tmp_path: Path, executed: list[Task], jobs: int) -> None:
    stop = Stop()
    stop()
    assert work(Local(jobs, call=lambda words: 0), tasks(tmp_path), stop) == ([], {})


def test_a_task_that_cannot_even_begin_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(task: Task, stop: Stop | None = None, call: Any = None) -> Outcome:
        raise OSError("no space left on device")

    monkeypatch.setattr(runners, "execute", execute)
    assert work(Local(2), tasks(tmp_path))[1] == dict.fromkeys(range(3), "failed")


def test_threads_are_shared_among_jobs(tmp_path: Path, executed: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(runners.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    work(Local(2), tasks(tmp_path))
    assert {task.threads for task in executed} == {4}
    assert {task.environment["CUDA_VISIBLE_DEVICES"] for task in executed} <= {"0", "1"}
    executed.clear()
    work(Local(1), tasks(tmp_path))
    assert {task.threads for task in executed} == {None}
    assert all(not task.environment for task in executed), "one job at a time sees all that there is"
    executed.clear()
    work(Local(2, threads=3), tasks(tmp_path))
    assert {task.threads for task in executed} == {3}


def test_gpus_are_shared_among_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shares(["0", "1", "2", "3"], 2) == ["0,1", "2,3"]
    assert shares(["a", "b", "c"], 2) == ["a", "b"]
    assert shares(["0"], 3) == ["0", "0", "0"]
    assert shares([], 2) == shares(["0", "1"], 1) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert visible_gpus() == ["4", "6"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def missing(package: str) -> Any:
    def import_module(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    return import_module


def test_a_broken_package_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners.importlib, "import_module", missing("jsonschema"))
    with pytest.raises(ModuleNotFoundError, match="jsonschema"):
        Ray({})


# ---- submitit: the package itself where it is installed


def test_slurm_without_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners.importlib, "import_module", missing("submitit"))
    with pytest.raises(MissingExtraError, match=r"pip install 'reg2rg\[slurm\]'"):
        work(Slurm(tmp_path, {}), tasks(tmp_path))


@pytest.mark.parametrize("cluster", ["debug", pytest.param("local", marks=pytest.mark.slow)])
def test_submitit_runs_whole_tasks(tmp_path: Path, cluster: str) -> None:
    """With submitit's own executors; each task ends as failed, for its config is empty, and says so."""
    pytest.importorskip("submitit", reason="submitit is not installed (extra 'slurm')")
    begun, ended = work(Slurm(tmp_path / "slurm", {"timeout_min": 5}, cluster), tasks(tmp_path, 1))
    assert (begun, ended) == ([0], {0: "failed"})
    assert "=== " in (tmp_path / "run/seed0/log.txt").read_text()


def test_submitit_refuses_parameters(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed (extra 'slurm')")
    with pytest.raises(ConfigError, match="submitit refuses these parameters"):
        work(Slurm(tmp_path, {"no_such": 1}, "local"), tasks(tmp_path, 1))


class Jobs:
    """submitit's border: what of it is used, and nothing else."""

    def __init__(self, results: dict[int, Any]) -> None:
        self.results, self.submitted, self.parameters, self.cancelled = results, [], {}, []

    def module(self) -> types.ModuleType:
        module = types.ModuleType("submitit")
        module.AutoExecutor = lambda folder, cluster: self  # type: ignore[attr-defined]
        module.helpers = types.SimpleNamespace(DelayedSubmission=lambda task: ("again", task))  # type: ignore[attr-defined]
        return module

    def update_parameters(self, **parameters: Any) -> None:
        self.parameters = parameters

    def submit(self, handed: Any) -> Any:
        seed, jobs = handed.task.seed, self
        self.submitted.append(handed)

        class Job:
            job_id = f"4{seed}"

            def done(self) -> bool:
                return seed in jobs.results

            def result(self) -> Any:
                found = jobs.results[seed]
                if isinstance(found, Exception):
                    raise found
                return found

            def cancel(self) -> None:
                jobs.cancelled.append(seed)

        return Job()


def test_a_lost_job_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs({0: Outcome("done", 3.0), 1: RuntimeError("node\nfailed"), 2: None})
    monkeypatch.setitem(sys.modules, "submitit", jobs.module())
    found = list(Slurm(tmp_path, {"gpus_per_node": 1}).run(tasks(tmp_path), lambda task: None, Stop()))
    assert {task.seed: (o.status, o.message) for task, o in found} == {
        0: ("done", ""),
        1: ("failed", "job 41: node\nfailed"),
        2: ("failed", "job 42 returned None"),
    }
    assert jobs.parameters == {"name": "reg2rg-ablate", "gpus_per_node": 1}


def test_stopping_cancels_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, stop = Jobs({0: Outcome("done")}), Stop()
    monkeypatch.setitem(sys.modules, "submitit", jobs.module())
    ended = {}
    for task, outcome in Slurm(tmp_path, {}).run(tasks(tmp_path), lambda task: None, stop):
        ended[task.seed] = outcome.status
        stop()
    assert ended == {0: "done", 1: "stopped", 2: "stopped"}
    assert sorted(jobs.cancelled) == [1, 2]


def test_a_preempted_job_is_submitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs({})
    monkeypatch.setitem(sys.modules, "submitit", jobs.module())
    handed = runners.Handed(tasks(tmp_path, 1)[0])
    word, again = handed.checkpoint()
    assert (word, again.task) == ("again", handed.task)


# ---- Ray at its border: it is too large to install for a test


class FakeRay(types.ModuleType):
    """What of Ray is used: tasks that end one after another."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.started, self.options_given, self.cancelled = False, {}, []

    def is_initialized(self) -> bool:
        return self.started

    def init(self, log_to_driver: bool) -> None:
        self.started = True

    def remote(self, function: Any) -> Any:
        ray = self

        class Remote:
            def options(self, **options: Any) -> Any:
                if "no_such" in options:
                    raise ValueError("Invalid option keyword no_such")
                ray.options_given = options
                return self

            def remote(self, task: Task) -> Any:
                return function, task

        return Remote()

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return references[:num_returns], references[num_returns:]

    def get(self, reference: Any) -> Outcome:
        function, task = reference
        if task.seed == 2:
            raise RuntimeError("worker died")
        return function(task)

    def cancel(self, reference: Any) -> None:
        self.cancelled.append(reference[1].seed)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    # a Task is hashable only by identity in Ray, where references are their own type
    monkeypatch.setattr(Task, "__hash__", lambda self: hash((self.run, self.seed)))
    return fake


def test_ray_gets_whole_tasks(tmp_path: Path, executed: list[Task], ray: FakeRay) -> None:
    begun, ended = work(Ray({"num_gpus": 1}), tasks(tmp_path))
    assert begun == [0, 1, 2]
    assert ended == {0: "done", 1: "failed", 2: "failed"}
    assert ray.options_given == {"num_gpus": 1}
    assert [task.cwd for task in executed] == [tmp_path, tmp_path]


def test_stopping_cancels_rays_tasks(tmp_path: Path, executed: list[Task], ray: FakeRay) -> None:
    stop, ended = Stop(), {}
    for task, outcome in Ray({}).run(tasks(tmp_path), lambda task: None, stop):
        ended[task.seed] = outcome.status
        stop()
    assert ended == {0: "done", 1: "stopped", 2: "stopped"}
    assert ray.cancelled == [1, 2]


def test_ray_refuses_parameters(tmp_path: Path, ray: FakeRay) -> None:
    with pytest.raises(ConfigError, match="ray refuses these parameters: Invalid option keyword"):
        work(Ray({"no_such": 1}), tasks(tmp_path))


def test_ray_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners.importlib, "import_module", missing("ray"))
    with pytest.raises(MissingExtraError, match=r"pip install 'reg2rg\[ray\]'"):
        work(Ray({}), tasks(tmp_path))
