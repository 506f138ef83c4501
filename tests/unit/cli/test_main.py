from __future__ import annotations

import subprocess
import sys
from typing import NoReturn

import pytest

from reg2rg import __version__
from reg2rg.cli import main as entry
from reg2rg.cli.main import COMMANDS, Command, Invocation, main
from reg2rg.core.errors import ConfigError, Reg2RGError


class TooMany(Reg2RGError):
    exit_code = 3


def raises(error: BaseException) -> object:
    def run(invocation: Invocation) -> NoReturn:
        raise error

    return run


def wrapped(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def ended_by_lightning() -> SystemExit:
    error = SystemExit(1)
    error.__context__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("wrong"), 2, "error: wrong\n"),
        (TooMany("many"), 3, "error: many\n"),
        (RuntimeError("broken"), 1, "error: RuntimeError: broken\n(run again with --debug"),
        (RuntimeError(), 1, "error: RuntimeError: no message"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (ended_by_lightning(), 130, "error: interrupted\n"),
        (OSError(28, "No space left on device", "/x/y"), 1, "error: /x/y: no space left on device. Fix: free some"),
        (
            OSError(28, "No space left on device"),
            1,
            "error: writing or reading a file failed: no space left on device.",
        ),
        (PermissionError(13, "Permission denied", "z"), 1, "error: z: permission denied. Fix: name a folder that you"),
        (FileNotFoundError(2, "No such file or directory", "z"), 1, "error: z: no such file or directory (seen from /"),
        (OSError("of no system"), 1, "error: OSError: of no system\n(run again with --debug"),
        (SystemExit(143), 143, ""),
        (SystemExit(None), 0, ""),
        (SystemExit("bye"), 1, "error: bye\n"),
        (wrapped(RuntimeError("outer"), ConfigError("inner")), 2, "error: inner\n"),
        (
            RuntimeError("Caught\nTraceback (most recent call last):\n  File x\nValueError: the cause"),
            1,
            "error: RuntimeError: ValueError: the cause",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_exit_codes(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "fail", Command("x:y", ""))
    monkeypatch.setattr(entry, "load_target", lambda target: raises(error))
    assert main(["fail"]) == code
    message = capsys.readouterr().err
    assert message.startswith(words)
    assert "Traceback (most" not in message


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"reg2rg {__version__}\n"
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize("args", [["data"], ["data", "prepare"], ["data", "phantom"], ["lm"], ["list"], ["completion"]])
def test_help_of_each_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*args, "--help"]) == 0
    assert "usage: reg2rg" in capsys.readouterr().out


def test_every_target_exists() -> None:
    for command in COMMANDS.values():
        assert callable(entry.load_target(command.target))


def test_what_every_command_takes() -> None:
    words, values = entry._take_values(["a", "--allow-import", "x,y.z", "b", "--allow-import=w"], "--allow-import")
    assert (words, values) == (["a", "b"], ["x", "y.z", "w"])


@pytest.mark.parametrize("words", [["evaluate"], ["data", "check"], ["audit"], ["lm"]], ids=" ".join)
def test_help_says_of_no_option_that_it_is_none_by_default(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    help_ = " ".join(capsys.readouterr().out.split())
    assert not [word for word in ("None", "False", "[]") if f"(default: {word})" in help_]
    assert words == ["data", "check"] or "(default: " in help_


def test_help_version_and_list_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom reg2rg.cli.main import main\n"
        "for args in (['--help'], ['--version'], ['list'], ['list', 'encoder', '--json'], ['data', '--help']):\n"
        "    assert main(args) == 0\n"
        "heavy = {'torch', 'lightning', 'numpy', 'jsonargparse', 'transformers', 'monai', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
