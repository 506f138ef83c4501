"""Entry point of the ``reg2rg`` command: finds the sub-command, runs it, turns errors into one message and a code.

Nothing heavy is imported here: ``--help``, ``--version`` and ``list`` answer at once, and each sub-command imports what
it needs when it runs.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from reg2rg import __version__
from reg2rg.cli.terminal import leave_terminal, open_terminal
from reg2rg.core.errors import EXIT_OK, EXIT_RUNTIME, EXIT_USAGE, ConfigError, Reg2RGError
from reg2rg.core.files import disk_trouble
from reg2rg.core.registry import did_you_mean
from reg2rg.runners.parent import end_with_parent

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
COMMAND_GROUP = "reg2rg.commands"
"""Entry points of plug-ins that bring commands of their own."""


def exit_of(number: int) -> int:
    """Exit code of a command that a signal told to end, and that did so in order."""
    return EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED


@dataclass(frozen=True, slots=True)
class Command:
    """A sub-command.

    Attributes:
        target: ``module:function``; the function takes `Invocation` and returns an exit code.
        help: one line for ``reg2rg --help``.
        parser: ``module:function`` that gives the parser of its options, for shell completion; ``""`` for none.
    """

    target: str
    help: str
    parser: str = ""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a sub-command is called with.

    Attributes:
        command: its name.
        args: the arguments after its name, without the options that every sub-command has.
        allow_import: packages that configs may name although they are not on the allow-list.
    """

    command: str
    args: tuple[str, ...]
    allow_import: tuple[str, ...] = ()


COMMANDS: dict[str, Command] = {
    "fit": Command("reg2rg.cli.checking:run", "train a model"),
    "validate": Command("reg2rg.cli.checking:run", "loss and region recognition on the validation studies"),
    "test": Command("reg2rg.cli.checking:run", "loss and region recognition on the test studies"),
    "predict": Command("reg2rg.cli.predict:run", "write a report for every study; resumable"),
    "estimate": Command(
        "reg2rg.cli.estimate:run",
        "parameters, operations and memory of a config, and what to change if it does not fit",
        "reg2rg.cli.estimate:parser",
    ),
    "data check": Command(
        "reg2rg.cli.data:check",
        "list every fault of a data folder, as a table and as JSON",
        "reg2rg.cli.data:check_parser",
    ),
    "data segment": Command(
        "reg2rg.cli.segment:run",
        "make the region masks of a data set's scans; resumable",
        "reg2rg.cli.segment:parser",
    ),
    "data summary": Command(
        "reg2rg.cli.summary:run",
        "what a data set holds, by tables and headers, as one page",
        "reg2rg.cli.summary:parser",
    ),
    "data split": Command(
        "reg2rg.cli.split:run", "put the sentences of whole reports under regions", "reg2rg.cli.split:parser"
    ),
    "data prepare": Command(
        "reg2rg.cli.data:prepare",
        "bring the studies of a data folder into a store; resumable",
        "reg2rg.cli.data:prepare_parser",
    ),
    "data encode": Command(
        "reg2rg.cli.encode:run",
        "keep what frozen encoders give for every study; resumable",
        "reg2rg.cli.encode:parser",
    ),
    "calibrate": Command(
        "reg2rg.cli.calibrate:run",
        "bound how often a paragraph leaves a finding out unmarked, on studies of their own",
        "reg2rg.cli.calibrate:parser",
    ),
    "report": Command(
        "reg2rg.cli.report:run", "report on a scan, a DICOM study or a list of studies", "reg2rg.cli.report:parser"
    ),
    "listen": Command(
        "reg2rg.cli.listen:run", "a DICOM node that reports on every study that it is sent", "reg2rg.cli.listen:parser"
    ),
    "evaluate": Command("reg2rg.cli.evaluate:run", "score files of reports, of any system, beside their floors"),
    "audit": Command(
        "reg2rg.cli.audit:run",
        "whether each paragraph depends on its own region, and what reports tell as text alone",
        "reg2rg.cli.audit:parser",
    ),
    "export": Command("reg2rg.cli.export:run", "a checkpoint to a folder that others can load, with a model card"),
    "ablate": Command("reg2rg.cli.ablate:run", "train, score and compare the runs of a sweep, in one table"),
    "page": Command("reg2rg.cli.page:run", "score predictions beside their floors, and write a page to look at"),
    "list": Command("reg2rg.cli.listing:run", "components with their arguments, region sets and packaged configs"),
    "completion": Command("reg2rg.cli.completion:run", "print a completion script for bash, zsh or tcsh"),
}

_ONE = "'reg2rg COMMAND --help' tells the options of one.\n"
_OPTIONS = """\
options of every command:
  -c, --config FILE    a config; may be given several times, the later one wins; looked up in
                       the working folder first, then among the packaged ones
  --KEY.KEY VALUE      any key of the config, over the files
  --print_config       print the folded config, which runs, and stop
  --allow-import PKG   let configs name classes of this package
  --debug              show the traceback of an error (also REG2RG_DEBUG=1)
  -h, --help           help; 'reg2rg COMMAND --help' for one command
  --version            print the version

exit codes: 0 done, 1 failed while running, 2 wrong usage, config or data, 3 too many studies skipped,
130 interrupted, 143 told to end
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: arguments without the program's name; those of the process if ``None``.

    Returns:
        the exit code.
    """
    end_with_parent()
    open_terminal()
    words = list(sys.argv[1:] if args is None else args)
    debug = os.environ.get("REG2RG_DEBUG", "0") not in ("", "0")
    try:
        debug = debug or "--debug" in words
        return _dispatch([word for word in words if word != "--debug"])
    except Reg2RGError as error:
        return _report(error, str(error), error.exit_code, debug)
    except KeyboardInterrupt as error:
        return _report(error, "interrupted", EXIT_INTERRUPTED, debug=False)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit code 1
            return _report(error, "interrupted", EXIT_INTERRUPTED, debug=False)
        return _exit_code(error)
    except BrokenPipeError:
        return leave_terminal()
    except Exception as error:
        return _report(error, *_explained(error), debug)


def _dispatch(words: list[str]) -> int:
    words, allow_import = _take_values(words, "--allow-import")
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return EXIT_OK if words else EXIT_USAGE
    if words[0] == "--version":
        sys.stdout.write(f"reg2rg {__version__}\n")
        return EXIT_OK
    known = commands()
    group = {name: command for name, command in known.items() if name.startswith(f"{words[0]} ")}
    if group and (len(words) == 1 or words[1] in ("-h", "--help")):
        sys.stdout.write(f"usage: reg2rg {words[0]} COMMAND ...\n\n{_listed(group)}\n\n{_ONE}")
        return EXIT_OK if len(words) > 1 else EXIT_USAGE
    name = " ".join(words[:2]) if group else words[0]
    if name not in known:
        what = "option" if name.startswith("-") else "command"
        fitting = list(group or known)
        raise ConfigError(
            f"there is no {what} '{name}'.{did_you_mean(name, fitting)} Commands: {', '.join(fitting)}. "
            "See: reg2rg --help"
        )
    rest = words[len(name.split()) :]
    code: int = load_target(known[name].target)(Invocation(name, tuple(rest), tuple(allow_import)))
    sys.stdout.flush()  # here, where a reader that has left is told from a failure
    return code


def commands() -> dict[str, Command]:
    """Every command by its name of one or two words, with those that plug-ins have under ``reg2rg.commands``.

    A plug-in's entry names a dict of `Command` objects; what this package has stays what it is.
    """
    plugged: dict[str, Command] = {}
    for entry in sorted(entry_points(group=COMMAND_GROUP), key=lambda entry: entry.value):
        plugged |= entry.load()
    return {**plugged, **COMMANDS}


def load_target(target: str) -> Callable[..., Any]:
    """The function that a field of `Command` names."""
    module, _, function = target.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return loaded


def usage() -> str:
    """Text of ``reg2rg --help``."""
    return (
        "usage: reg2rg COMMAND [--config FILE ...] [--KEY.KEY VALUE ...]\n\n"
        "Chest-CT reports, region by region.\n\n"
        f"commands:\n{_listed(commands())}\n\n{_OPTIONS}"
    )


def _listed(found: Mapping[str, Command]) -> str:
    width = max(map(len, found))
    return "\n".join(f"  {name:<{width}}  {command.help}" for name, command in found.items())


def _take_values(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """Take every ``option VALUE`` and ``option=VALUE`` out of `words`; a value may list several after commas."""
    rest, values = [], []
    waiting = False
    for word in words:
        if waiting:
            values += word.split(",")
            waiting = False
        elif word == option:
            waiting = True
        elif word.startswith(f"{option}="):
            values += word.partition("=")[2].split(",")
        else:
            rest.append(word)
    wrong = [value for value in values if not all(part.isidentifier() for part in value.split("."))]
    if waiting or wrong:
        raise ConfigError(f"command line: {option} needs the name of a Python package, found {wrong or 'nothing'}.")
    return rest, values


def _report(error: BaseException, message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.write(f"error: {textwrap.dedent(message).strip()}\n")
    sys.stderr.flush()
    return code


def _explained(error: Exception) -> tuple[str, int]:
    """Message and exit code of an error that is none of ours."""
    if isinstance(error, OSError) and (told := disk_trouble(error)) is not None:
        return told, EXIT_RUNTIME
    cause = _known_cause(error)
    if cause is not None:
        return str(cause), cause.exit_code
    return f"{type(error).__name__}: {_last_words(error)}\n(run again with --debug for the traceback)", EXIT_RUNTIME


def _known_cause(error: BaseException) -> Reg2RGError | None:
    """An error of ours that another library wrapped in one of its own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, Reg2RGError):
            return seen
        seen = seen.__cause__
    return None


def _last_words(error: BaseException) -> str:
    """The message without the traceback that a DataLoader worker puts into it."""
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:
        text = text.splitlines()[-1]
    return text or "no message"


def _exit_code(error: SystemExit) -> int:
    if isinstance(error.__context__, BrokenPipeError):  # rich turns it into exit code 1
        return leave_terminal()
    if error.code is None:
        return EXIT_OK
    if isinstance(error.code, int):
        return error.code
    sys.stderr.write(f"error: {error.code}\n")
    return EXIT_RUNTIME


if __name__ == "__main__":
    sys.exit(main())
