"""Who works on jobs: side by side here, or handed to submitit and Ray whole."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import signal
import sys
import threading
import time
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from reg2rg.core.documents import read_record
from reg2rg.core.errors import ConfigError, MissingExtraError
from reg2rg.core.registry import UnknownComponentError
from reg2rg.runners import RUNNERS, Command, Job, Local, Outcome, Ray, Slurm, Stop, local, slurm
from reg2rg.runners.local import shares, visible_gpus
from reg2rg.runners.process import log_tail
from reg2rg.runners.slurm import Handed
from reg2rg.testing import check_runner


@dataclass(frozen=True)
class Numbered(Job):
    """Seed 1 fails; what a job was given to run with stands beside it."""

    seed: int

    @property
    def name(self) -> str:
        return f"seed {self.seed}"

    def execute(self, stop: Stop) -> Outcome:
        found = {"threads": self.threads, "environment": dict(self.environment), "cwd": str(self.cwd)}
        (self.cwd / f"{self.seed}.json").write_text(json.dumps(found))
        return Outcome("failed", 1.0, "broken") if self.seed == 1 else Outcome("done", 1.0)


@dataclass(frozen=True)
class Broken(Numbered):
    def execute(self, stop: Stop) -> Outcome:
        raise OSError("no space left on device")


def jobs(tmp_path: Path, count: int = 3) -> list[Numbered]:
    return [Numbered(seed, cwd=tmp_path) for seed in range(count)]


def given(tmp_path: Path) -> list[dict[str, Any]]:
    """What the jobs were run with."""
    return [json.loads(path.read_text()) for path in sorted(tmp_path.glob("?.json"))]


def work(runner: Any, todo: list[Any], stop: Stop | None = None) -> tuple[list[int], dict[int, str]]:
    begun: list[int] = []
    ended = {
        job.seed: outcome.status for job, outcome in runner.run(todo, lambda j: begun.append(j.seed), stop or Stop())
    }
    return begun, ended


@pytest.mark.parametrize("count", [0, 1, 2])
def test_one_failure_does_not_stop_the_rest(tmp_path: Path, count: int) -> None:
    begun, ended = work(Local(count), jobs(tmp_path))
    assert sorted(begun) == [0, 1, 2]
    assert ended == {0: "done", 1: "failed", 2: "done"}


@pytest.mark.parametrize("count", [0, 2])
def test_told_to_stop_nothing_is_begun(tmp_path: Path, count: int) -> None:
    stop = Stop()
    stop()
    assert work(Local(count), jobs(tmp_path), stop) == ([], {})


def test_a_job_that_cannot_even_begin_is_a_failure(tmp_path: Path) -> None:
    todo = [Broken(seed, cwd=tmp_path) for seed in range(3)]
    found = list(Local(2).run(todo, lambda job: None, Stop()))
    assert [(o.status, o.message) for _, o in found] == [("failed", "OSError: no space left on device")] * 3


def test_threads_and_gpus_are_shared_among_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    work(Local(2), jobs(tmp_path))
    assert {one["threads"] for one in given(tmp_path)} == {4}
    assert {one["environment"]["CUDA_VISIBLE_DEVICES"] for one in given(tmp_path)} <= {"0", "1"}
    work(Local(1), jobs(tmp_path))
    assert {one["threads"] for one in given(tmp_path)} == {None}
    assert all(not one["environment"] for one in given(tmp_path)), "one job at a time sees all that there is"
    work(Local(2, threads=3), jobs(tmp_path))
    assert {one["threads"] for one in given(tmp_path)} == {3}


def test_gpus_are_shared_among_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shares(["0", "1", "2", "3"], 2) == ["0,1", "2,3"]
    assert shares(["a", "b", "c"], 2) == ["a", "b"]
    assert shares(["0"], 3) == ["0", "0", "0"]
    assert shares([], 2) == shares(["0", "1"], 1) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert visible_gpus() == ["4", "6"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_an_unknown_runner_is_named() -> None:
    with pytest.raises(UnknownComponentError, match=r"runner 'Slrum'. Did you mean 'Slurm'\? Known: Local, Ray"):
        RUNNERS.get("Slrum")


# ---- commands


def test_a_command_is_a_process_of_its_own(tmp_path: Path) -> None:
    good = Command(("--version",), Path("logs/good.txt"), cwd=tmp_path)
    bad = Command(("evaluate", "nowhere"), Path("logs/bad.txt"), cwd=tmp_path)
    found = {job.name: outcome for job, outcome in Local(2).run([good, bad], lambda job: None, Stop())}
    assert found["reg2rg --version"].status == "done"
    assert (tmp_path / "logs/good.txt").read_text().startswith("reg2rg ")
    assert found[bad.name].status == "failed"
    first, second = found[bad.name].message.splitlines()[:2]
    assert first == "reg2rg evaluate nowhere ended with exit code 2; the end of logs/bad.txt:"
    assert second.startswith("error: ")


def test_a_command_gets_folder_threads_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reg2rg/cli").mkdir(parents=True)
    (tmp_path / "reg2rg/__init__.py").touch()
    (tmp_path / "reg2rg/cli/__init__.py").touch()
    (tmp_path / "reg2rg/cli/main.py").write_text(
        "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['OMP_NUM_THREADS'], os.environ['A'], "
        "'COLUMNS' in os.environ)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    job = Command(("a", "b c"), Path("log.txt"), cwd=tmp_path, threads=3, environment={"A": "1"})
    assert job.execute(Stop()).status == "done"
    assert (tmp_path / "log.txt").read_text() == f"['a', 'b c'] {tmp_path} 3 1 False\n"


def test_told_to_stop_a_command_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reg2rg/cli").mkdir(parents=True)
    (tmp_path / "reg2rg/__init__.py").touch()
    (tmp_path / "reg2rg/cli/__init__.py").touch()
    (tmp_path / "reg2rg/cli/main.py").write_text("import time; open('begun', 'w'); time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stop, ended = Stop(), []
    thread = threading.Thread(target=lambda: ended.append(Command((), Path("log"), cwd=tmp_path).execute(stop)))
    thread.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    stop()
    thread.join(timeout=30)
    assert [outcome.status for outcome in ended] == ["stopped"]


def missing(package: str) -> Any:
    def import_module(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    return import_module


def test_a_broken_package_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", missing("jsonschema"))
    with pytest.raises(ModuleNotFoundError, match="jsonschema"):
        Ray(tmp_path, {})


# ---- submitit: the package itself where it is installed


def test_slurm_without_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", missing("submitit"))
    with pytest.raises(MissingExtraError, match=r"pip install 'reg2rg\[slurm\]'"):
        work(Slurm(tmp_path, {}), jobs(tmp_path))


@pytest.mark.parametrize("cluster", ["debug", pytest.param("local", marks=pytest.mark.slow)])
def test_submitit_runs_whole_jobs(tmp_path: Path, cluster: str) -> None:
    """With submitit's own executors; each task ends as failed, for its config is empty, and says so."""
    pytest.importorskip("submitit", reason="submitit is not installed (extra 'slurm')")
    runner = Slurm(tmp_path / "slurm", {"timeout_min": 5, "cluster": cluster})
    todo = [Command(("--version",), Path("log.txt"), cwd=tmp_path)]
    assert [outcome.status for _, outcome in runner.run(todo, lambda job: None, Stop())] == ["done"]
    assert (tmp_path / "log.txt").read_text().startswith("reg2rg ")


def test_submitit_refuses_parameters(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed (extra 'slurm')")
    with pytest.raises(ConfigError, match="submitit refuses these parameters"):
        work(Slurm(tmp_path, {"no_such": 1, "cluster": "local"}), jobs(tmp_path, 1))


class Jobs:
    """submitit's border: what of it is used, and nothing else.

    Args:
        ends: seed -> ``done`` runs it, an exception is what submitit says of it, others are under way for ever.
    """

    def __init__(self, ends: dict[int, Any]) -> None:
        self.ends, self.submitted, self.parameters, self.cancelled = ends, [], {}, []

    def module(self) -> types.ModuleType:
        module = types.ModuleType("submitit")
        module.AutoExecutor = lambda folder, cluster, slurm_max_num_timeout: self  # type: ignore[attr-defined]
        module.helpers = types.SimpleNamespace(DelayedSubmission=lambda task: ("again", task))  # type: ignore[attr-defined]
        return module

    def update_parameters(self, **parameters: Any) -> None:
        self.parameters = parameters

    def submit(self, handed: Any) -> Any:
        seed, jobs = handed.job.seed, self
        self.submitted.append(handed)
        end = self.ends.get(seed)
        if end == "done":
            handed()

        class Job:
            job_id = f"4{seed}"

            def done(self) -> bool:
                return isinstance(end, Exception)

            def exception(self) -> Any:
                return end

            def cancel(self, check: bool) -> None:
                jobs.cancelled.append(seed)

        return Job()


def test_a_lost_job_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Jobs({0: "done", 1: "done", 2: RuntimeError("node\nfailed")})
    monkeypatch.setitem(sys.modules, "submitit", cluster.module())
    found = list(Slurm(tmp_path, {"gpus_per_node": 1}).run(jobs(tmp_path), lambda job: None, Stop()))
    assert {job.seed: (o.status, o.message) for job, o in found} == {
        0: ("done", ""),
        1: ("failed", "broken"),
        2: ("failed", "job 42: node\nfailed"),
    }
    assert cluster.parameters == {"name": "reg2rg-job", "timeout_min": 240, "gpus_per_node": 1}
    assert cluster.cancelled == [0, 1]  # lest they begin again


SQUEUE = """#!/bin/sh
cat "{folder}/queue"
"""


def test_a_job_that_slurm_has_no_more_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without accounting submitit calls it under way for ever."""
    cluster, bin = Jobs({0: "done"}), tmp_path / "bin"
    bin.mkdir()
    (bin / "squeue").write_text(SQUEUE.format(folder=tmp_path))
    (bin / "squeue").chmod(0o755)
    (tmp_path / "queue").write_text("41 41\n42 42\n")
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "_ASK_S", 0.0)
    monkeypatch.setattr(slurm, "_POLL_S", 0.01)
    monkeypatch.setitem(sys.modules, "submitit", cluster.module())
    ended = {}
    for job, outcome in Slurm(tmp_path, {}).run(jobs(tmp_path), lambda job: None, Stop()):
        ended[job.seed] = outcome
        left = [f"4{seed}" for seed in (1, 2) if seed not in ended][1:]
        (tmp_path / "queue").write_text("".join(f"{one} {one}\n" for one in left))
    assert [ended[seed].status for seed in range(3)] == ["done", "failed", "failed"]
    assert ended[1].message == "job 41: Slurm has it no more, and it left no result"


def test_nothing_is_known_while_slurm_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "_ASK_S", 0.0)
    queue = slurm._Queue()
    assert [queue.missing(["1"]) for _ in range(3)] == [frozenset()] * 3


def test_stopping_cancels_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, stop = Jobs({0: "done"}), Stop()
    monkeypatch.setitem(sys.modules, "submitit", cluster.module())
    ended = {}
    for job, outcome in Slurm(tmp_path, {}).run(jobs(tmp_path), lambda job: None, stop):
        ended[job.seed] = outcome.status
        stop()
    assert ended == {0: "done", 1: "stopped", 2: "stopped"}
    assert sorted(cluster.cancelled) == [0, 1, 2]


@dataclass(frozen=True)
class Told(Numbered):
    """Ends as one that got a signal from outside."""

    def execute(self, stop: Stop) -> Outcome:
        return Outcome("stopped")


@dataclass(frozen=True)
class Leaving(Numbered):
    def execute(self, stop: Stop) -> Outcome:
        sys.exit(0)


def test_a_preempted_job_is_submitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Jobs({})
    monkeypatch.setitem(sys.modules, "submitit", cluster.module())
    record = tmp_path / "record.json"
    handed = Handed(jobs(tmp_path, 1)[0], record)
    word, again = handed.checkpoint()
    assert (word, again.job, again.record) == ("again", handed.job, record)
    with pytest.raises(SystemExit):
        Handed(Told(0, cwd=tmp_path), record)()
    assert not record.exists()  # Slurm begins it anew
    Handed(Leaving(0, cwd=tmp_path), record)()
    assert read_record(record, "")["message"] == "SystemExit: 0"  # which would be a success without a result


@dataclass(frozen=True)
class KilledOnce(Numbered):
    """Its first attempt gets SIGKILL, as preemption ends a job by default: nobody asks for a checkpoint."""

    def execute(self, stop: Stop) -> Outcome:
        try:
            (self.cwd / "begun").touch(exist_ok=False)
        except FileExistsError:
            return Outcome("done")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_job_that_was_killed_without_a_word_is_done_from_its_first_pickle(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    handed = pickle.dumps(Handed(KilledOnce(0, cwd=tmp_path), record))
    child = os.fork()
    if child == 0:
        pickle.loads(handed)()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not record.exists()
    pickle.loads(handed)()
    assert read_record(record, "")["status"] == "done"


PROGRAM = """
import os, sys, time
try:
    open('begun', 'w').close()
    time.sleep(60)
except Exception as error:  # as one that does many studies notes what befalls one of them
    open('noted', 'w').write(str(error))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command that sleeps."""
    (tmp_path / "reg2rg/cli").mkdir(parents=True)
    for name in ("__init__", "cli/__init__"):
        (tmp_path / f"reg2rg/{name}.py").touch()
    (tmp_path / "reg2rg/cli/main.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Command((), Path("log"), cwd=tmp_path)


def wait_for(path: Path) -> None:
    limit = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_time_limit_is_no_study_s_fault(program: Command, tmp_path: Path) -> None:
    """submitit raises an Exception wherever its process is: here, where nothing is at work but a wait."""

    def time_is_up(*_: Any) -> None:
        raise RuntimeError("submitit: Job not requeued because: timed-out too many times.")

    def limit() -> None:
        wait_for(tmp_path / "begun")
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, time_is_up)
    try:
        threading.Thread(target=limit).start()
        with pytest.raises(SystemExit):
            Handed(program, tmp_path / "record.json")()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert not (tmp_path / "record.json").exists()  # not this job's failure: it is begun anew, or lost
    assert not (tmp_path / "noted").exists()


def test_a_command_that_was_killed_is_not_done(program: Command, tmp_path: Path) -> None:
    """Ray's force-cancel kills children first, and lets the task go on for a moment."""
    ended: list[Outcome] = []
    thread = threading.Thread(target=lambda: ended.append(program.execute(Stop())))
    thread.start()
    wait_for(tmp_path / "begun")
    for child in psutil.Process().children():
        if child.cwd() == str(tmp_path):
            child.kill()
    thread.join(timeout=60)
    assert [(outcome.status, outcome.code) for outcome in ended] == [("failed", -signal.SIGKILL)]


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

    def remote(self, **options: Any) -> Any:
        assert options == {"max_retries": 0}
        return self._remote

    def _remote(self, function: Any) -> Any:
        ray = self

        class Remote:
            def options(self, **options: Any) -> Any:
                if "no_such" in options:
                    raise ValueError("Invalid option keyword no_such")
                ray.options_given = options
                return self

            def remote(self, job: Numbered) -> Any:
                return function, job

        return Remote()

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return references[:num_returns], references[num_returns:]

    def get(self, reference: Any) -> Outcome:
        function, job = reference
        if job.seed == 2:
            raise RuntimeError("worker died")
        return function(job)

    def cancel(self, reference: Any) -> None:
        self.cancelled.append(reference[1].seed)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    # in Ray references are hashable whatever they are of
    monkeypatch.setattr(Numbered, "__hash__", lambda self: hash(self.seed))
    return fake


def test_ray_gets_whole_jobs(tmp_path: Path, ray: FakeRay) -> None:
    begun, ended = work(Ray(tmp_path, {"num_gpus": 1}), jobs(tmp_path))
    assert begun == [0, 1, 2]
    assert ended == {0: "done", 1: "failed", 2: "failed"}
    assert ray.options_given == {"num_gpus": 1}
    assert [one["cwd"] for one in given(tmp_path)] == [str(tmp_path)] * 2


def test_what_ray_says_nothing_of_is_a_failure_of_that_job_alone(
    tmp_path: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TaskCancelledError(Exception):
        """As Ray raises it where a task was cancelled by force: without a word."""

    def get(reference: Any) -> Outcome:
        if reference[1].seed == 0:
            raise TaskCancelledError
        return Outcome("done")

    monkeypatch.setattr(ray, "get", get)
    found = {job.seed: outcome for job, outcome in Ray(tmp_path, {}).run(jobs(tmp_path), lambda job: None, Stop())}
    assert found == {0: Outcome("failed", message="TaskCancelledError"), 1: Outcome("done"), 2: Outcome("done")}


def test_stopping_cancels_rays_jobs(tmp_path: Path, ray: FakeRay) -> None:
    stop, ended = Stop(), {}
    for job, outcome in Ray(tmp_path, {}).run(jobs(tmp_path), lambda job: None, stop):
        ended[job.seed] = outcome.status
        stop()
    assert ended == {0: "done", 1: "stopped", 2: "stopped"}
    assert ray.cancelled == [1, 2]


def test_ray_refuses_parameters(tmp_path: Path, ray: FakeRay) -> None:
    with pytest.raises(ConfigError, match="ray refuses these parameters: Invalid option keyword"):
        work(Ray(tmp_path, {"no_such": 1}), jobs(tmp_path))


def test_ray_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", missing("ray"))
    with pytest.raises(MissingExtraError, match=r"pip install 'reg2rg\[ray\]'"):
        work(Ray(tmp_path, {}), jobs(tmp_path))


# ---- contracts


@pytest.mark.parametrize("count", [1, 2])
def test_local_keeps_the_contract(count: int) -> None:
    check_runner(lambda folder: Local(count))


def test_the_end_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("\n".join(f"line {i}" for i in range(50)))
    assert log_tail(path).splitlines() == [f"line {i}" for i in range(38, 50)]
    path.write_text("a\nerror: first\nb\nerror: second\n  detail\n\n")
    assert log_tail(path) == "error: second\n  detail"
    assert log_tail(tmp_path / "none") == ""
