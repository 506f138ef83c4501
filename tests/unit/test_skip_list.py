"""A skip that is not on the committed list fails the run, in this process and in the workers of pytest-xdist."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import skip_list

MODULE = """
import pytest

def test_data(tmp_path):
    pytest.skip(f"no data at {tmp_path}/data: (set REG2RG_SHARED)")

@pytest.mark.xfail
def test_known():
    assert False

def test_good():
    pass
"""
LINE = "test_some.py::no data at <path>: (set REG2RG_SHARED)"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    shutil.copy(skip_list.__file__, tmp_path / "skip_list.py")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["skip_list"]\n')
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (tmp_path / "test_some.py").write_text(MODULE)
    return tmp_path


def run(suite: Path, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=suite, env={"PATH": ""}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_new_skip_fails_until_it_is_listed(suite: Path) -> None:
    code, said = run(suite, "--strict-skips")
    assert code == 1
    assert f"{LINE}\n" in said
    assert "1 passed, 1 skipped, 1 xfailed" in said
    (suite / "skips.txt").write_text("gone.py::a reason\n")
    assert run(suite, "--write-skips")[0] == 0
    assert (suite / "skips.txt").read_text().splitlines()[1:] == [LINE]
    assert run(suite, "--strict-skips")[0] == 0


def test_skips_of_workers_and_of_whole_modules_count(suite: Path) -> None:
    (suite / "test_whole.py").write_text("import pytest\npytest.skip('no GPU', allow_module_level=True)\n")
    code, said = run(suite, "-n", "2", "--strict-skips")
    assert code == 1
    assert {LINE, "test_whole.py::no GPU"} <= set(said.splitlines())
    assert run(suite)[0] == 0, "asked for or in CI alone"
