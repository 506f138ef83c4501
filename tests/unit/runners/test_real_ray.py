"""The Ray runner on a real local cluster, where Ray is installed: workers that die, cancelling by force, stopping."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from reg2rg.runners import Command, Job, Outcome, Ray, Stop

pytestmark = pytest.mark.slow
SLEEP = "import os, time; open(f'begun-{os.getpid()}', 'w').close(); time.sleep(60)"


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of two cores."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "300"}  # read when it is imported
    ray = pytest.importorskip("ray", reason="ray is not installed (extra 'ray')")
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ray.init(num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@dataclass(frozen=True)
class Dying(Job):
    """Ends its worker as memory killers do; counts how often it was begun."""

    @property
    def name(self) -> str:
        return "dying"

    def execute(self, stop: Stop) -> Outcome:
        (self.cwd / f"begun-{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """A command that sleeps in a process of its own."""
    (tmp_path / "reg2rg/cli").mkdir(parents=True)
    for name in ("__init__", "cli/__init__"):
        (tmp_path / f"reg2rg/{name}.py").touch()
    (tmp_path / "reg2rg/cli/main.py").write_text(SLEEP)
    return Command((), Path("log"), cwd=tmp_path, environment={"PYTHONPATH": str(tmp_path)})


def begun(folder: Path) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in folder.glob("begun-*")]


def wait_for(happened: Callable[[], object]) -> None:
    limit = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_worker_that_dies_is_a_failure_and_is_not_begun_again(ray: Any, tmp_path: Path) -> None:
    found = list(Ray(tmp_path, {"num_cpus": 1}).run([Dying(cwd=tmp_path)], lambda job: None, Stop()))
    assert [outcome.status for _, outcome in found] == ["failed"]
    assert len(begun(tmp_path)) == 1


def test_told_to_stop_the_command_ends_too(ray: Any, command: Command, tmp_path: Path) -> None:
    stop = Stop()
    threading.Thread(target=lambda: (wait_for(lambda: begun(tmp_path)), stop())).start()
    found = list(Ray(tmp_path, {"num_cpus": 1}).run([command], lambda job: None, stop))
    assert [outcome.status for _, outcome in found] == ["stopped"]
    wait_for(lambda: not psutil.pid_exists(begun(tmp_path)[0]))


def test_cancelled_by_force_it_is_not_done(ray: Any, command: Command, tmp_path: Path, monkeypatch) -> None:
    """Ray kills the children first: the task sees its command end, and must not take that for success."""
    tasks: list[Any] = []
    waited = ray.wait
    monkeypatch.setattr(ray, "wait", lambda given, **options: (tasks.extend(given), waited(given, **options))[1])
    threading.Thread(target=lambda: (wait_for(lambda: begun(tmp_path)), ray.cancel(tasks[0], force=True))).start()
    found = list(Ray(tmp_path, {"num_cpus": 1}).run([command], lambda job: None, Stop()))
    assert [outcome.status for _, outcome in found] == ["failed"]
    wait_for(lambda: not psutil.pid_exists(begun(tmp_path)[0]))
