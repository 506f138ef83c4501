"""Encodings of terminals and closed pipes, with the program in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ROW = "id,reference,prediction\na,双肺 Größe ± 4 × 5 mm,Größe – normal…\nb,Clear.,Clear.\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_no_encoding_ends_a_run(tmp_path, encoding):
    (tmp_path / "größe_双.csv").write_text(ROW, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "reg2rg.cli.main", "evaluate", "größe_双.csv", "--resamples", "0", "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    said = run.stdout.decode(encoding)
    assert ("größe" in said) == (encoding != "ascii")
    assert (tmp_path / "out" / "metrics.json").is_file()


@pytest.mark.parametrize("command", [["list"], ["evaluate", "a.csv", "--resamples", "0"]])
def test_a_reader_that_leaves_ends_the_run_quietly(tmp_path, command):
    (tmp_path / "a.csv").write_text(ROW, encoding="utf-8")
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, "-m", "reg2rg.cli.main", *command],
        cwd=tmp_path,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (run.returncode, run.stderr) == (0, "")
