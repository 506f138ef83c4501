"""What may be skipped is a committed list: a test that silently stops running fails continuous integration.

The list, ``tests/skips.txt``, has a line for each file and reason. It is held with ``CI=true`` in the environment or
with ``--strict-skips``; ``--write-skips`` adds what was skipped and drops the lines of files that are gone (``make
skips``). A line that nothing needs on this machine stays: others lack a GPU or an optional package.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("skips.txt")
_HEAD = "# What may be skipped: file::reason, with <path> for paths. Renewed by `make skips`.\n"
_PATH = re.compile(r"(?<![\w.<])~?/[^\s:;,()'\"]+")


class SkipList:
    """Collects what is skipped, in the main process alone.

    Args:
        config: of the run.
        path: the list.
    """

    def __init__(self, config: pytest.Config, path: Path = LIST) -> None:
        self.path, self.root = path, config.rootpath
        self.write = config.getoption("write_skips")
        self.strict = config.getoption("strict_skips") or os.environ.get("CI", "").lower() == "true"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.known = {line for line in lines if line and not line.startswith("#")}
        self.found: set[str] = set()

    @property
    def new(self) -> list[str]:
        """What the list lacks."""
        return sorted(self.found - self.known)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skipped test; one that is expected to fail is none."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self.found.add(entry(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that is skipped whole."""
        if report.skipped:
            self.found.add(entry(report))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the list, or fail."""
        if self.write:
            kept = {line for line in self.known if (self.root / line.partition("::")[0]).is_file()}
            self.path.write_text(_HEAD + "".join(f"{line}\n" for line in sorted(kept | self.found)), encoding="utf-8")
        elif self.strict and self.new and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell what is new."""
        if self.new and self.strict and not self.write:
            terminalreporter.section("skips that tests/skips.txt does not have", red=True)
            for line in self.new:
                terminalreporter.line(line)
            terminalreporter.line("Fix: provide what they need, or run `make skips` and commit the list with a reason")


def entry(report: pytest.TestReport | pytest.CollectReport) -> str:
    """A line of the list."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = " ".join(_PATH.sub("<path>", reason.removeprefix("Skipped: ")).split())
    return f"{report.nodeid.partition('::')[0]}::{reason}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
    group = parser.getgroup("skips")
    group.addoption("--strict-skips", action="store_true", help="fail if a skip is not on the list (CI=true: always)")
    group.addoption("--write-skips", action="store_true", help="add this run's skips to the list")


def pytest_configure(config: pytest.Config) -> None:
    """Watch in the main process; workers send it their reports."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipList(config), "skip-list")
