"""What is shown of long work: lines without a terminal, a bar on one."""

import io
import re
import sys

import pytest

from reg2rg.core.progress import progress


def told(total, steps, every_seconds=0.0):
    with progress("work", total, every_seconds) as step:
        for what in steps:
            step(what)


def test_without_a_terminal_steps_are_counted_in_lines(capsys):
    told(2, ["", ""])
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"work: 1/2, [\d.]+/s, \d+ s left", first)
    assert re.fullmatch(r"work: 2/2, [\d.]+/s, 0 s left", last)


def test_between_lines_some_time_passes_but_the_end_is_told(capsys):
    told(3, [""] * 3, every_seconds=60.0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("work: 3/3, ")


def test_without_a_total_what_is_done_is_told(capsys):
    told(None, ["reading", ""])
    assert capsys.readouterr().err == "0 s: reading\n0 s: work\n"


@pytest.mark.parametrize(("total", "shown"), [(2, "2/2"), (None, "reading")])
def test_a_terminal_gets_a_bar(total, shown, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    told(total, ["", "reading"])
    assert shown in screen.getvalue()
