"""``reg2rg completion bash|zsh|tcsh``: a script that completes commands, keys and component names."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from reg2rg.cli.main import COMMANDS, Invocation


def run(invocation: Invocation) -> int:
    """Print the script; see `reg2rg.cli.main`."""
    options = argparse.ArgumentParser(prog="reg2rg completion", description="Print a shell completion script.")
    options.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    shell = options.parse_args(list(invocation.args)).shell
    sys.stdout.write(script(shell))
    return 0


def script(shell: str) -> str:
    """The completion script for `shell`."""
    import jsonargparse

    from reg2rg.cli.trainer import command_parser
    from reg2rg.registry import load_plugins

    load_plugins()
    root = jsonargparse.ArgumentParser(prog="reg2rg")
    commands = root.add_subcommands(required=False)
    for name, command in COMMANDS.items():
        if command.target.startswith("reg2rg.cli.trainer"):
            parser = command_parser(name)
        else:
            parser = jsonargparse.ArgumentParser()
            parser.add_argument("-c", "--config", help="a config file")
            parser.add_argument("--debug", help="show tracebacks")
        commands.add_subcommand(name, parser, help=command.help)
        if name == "data":
            _add_data_commands(parser)
    text: str = root.get_completion_script(f"shtab-{shell}")
    return text


def _add_data_commands(parser: Any) -> None:
    """The sub-commands of ``reg2rg data`` with their options."""
    import jsonargparse

    from reg2rg.cli.data import PARSERS

    commands = parser.add_subcommands(required=False)
    for name, (make, _) in PARSERS.items():
        command = jsonargparse.ArgumentParser()
        for action in make()._actions:
            if action.option_strings and action.dest != "help" and "." not in action.dest:
                command.add_argument(*action.option_strings, help=action.help)
        commands.add_subcommand(name, command)
