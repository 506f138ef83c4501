"""What a killed sweep leaves behind: nothing that runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reg2rg.runners.parent import PARENT, end_with_parent

CHILD = """
import subprocess, sys, time
from reg2rg.runners.parent import end_with_parent
end_with_parent()
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
time.sleep(60)
"""
PARENT_SCRIPT = f"""
import os, subprocess, sys, time
read, write = os.pipe()
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], env=os.environ | {{{PARENT!r}: str(read)}},
    pass_fds=[read], start_new_session=True, stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline(), flush=True)
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks at /proc")
def test_a_killed_parent_takes_its_child_and_the_child_s_children_along() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT_SCRIPT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(is_alive, pids))
    parent.kill()
    parent.wait()
    end = time.monotonic() + 2
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(is_alive, pids))


def test_without_a_parent_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PARENT, raising=False)
    end_with_parent()
    monkeypatch.setenv(PARENT, "no number")
    end_with_parent()
    assert PARENT not in os.environ
