from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from reg2rg.core.errors import Reg2RGError
from reg2rg.core.parallel import run_tasks


class UnpicklableError(Exception):
    def __init__(self, one, two):  # pickled with one argument, so it cannot be built again
        super().__init__(f"{one} {two}")


def work(item: str) -> str:
    if item == "raise":
        raise UnpicklableError("no", "way")
    if item == "local":

        class LocalError(Exception):
            pass

        raise LocalError("made here")
    if item == "exit":
        sys.exit("no mask")
    if item == "die":
        os._exit(3)
    if item == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "hang":
        time.sleep(600)
    return item.upper()


def run(items, workers=1, **options):
    return dict(run_tasks(work, items, name=lambda item: f"item {item}", workers=workers, title="test", **options))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_item_is_answered(workers, capfd):
    items = [f"i{n}" for n in range(9)]
    assert run(items, workers) == {item: item.upper() for item in items}
    assert "test: 9/9" in capfd.readouterr().err
    assert run([], workers) == {}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("raise", r"item raise: UnpicklableError: no way \(test_parallel.py:\d+\)"),
        ("local", "item local: LocalError: made here"),
        ("exit", "item exit: SystemExit: no mask"),
    ],
)
def test_an_exception_of_any_kind_names_the_item(item, message, workers):
    with pytest.raises(Reg2RGError, match=message):
        run(["a", item, "b"], workers)


@pytest.mark.parametrize("item", ["die", "kill"])
def test_a_worker_that_dies_is_named(item):
    with pytest.raises(Reg2RGError, match=rf"ended from outside.*item {item}.*fewer workers"):
        run(["a", item, "b", "c", "d"])


def test_a_worker_that_hangs_is_given_up():
    start = time.monotonic()
    with pytest.raises(Reg2RGError, match=r"no worker finished anything for 3 s; in work: item hang"):
        run(["hang"], stall_seconds=3)
    assert time.monotonic() - start < 30


def test_workers_use_one_thread_and_the_parent_is_left_alone():
    before = os.environ.get("OMP_NUM_THREADS")
    found = dict(run_tasks(os.getenv, ["OMP_NUM_THREADS"], name=str, workers=1, title="env"))
    assert found == {"OMP_NUM_THREADS": "1"}
    assert os.environ.get("OMP_NUM_THREADS") == before
