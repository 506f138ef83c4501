"""``reg2rg completion bash|zsh|tcsh``: a script that completes commands, keys and component names."""

from __future__ import annotations

import argparse
import sys

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

    from reg2rg.cli.data import completion_parser as data_parser
    from reg2rg.cli.trainer import command_parser
    from reg2rg.registry import load_plugins

    load_plugins()
    root = jsonargparse.ArgumentParser(prog="reg2rg", description="Chest-CT reports, region by region.")
    commands = root.add_subcommands(required=False)
    for name, command in COMMANDS.items():
        if command.target.startswith("reg2rg.cli.trainer"):
            parser = command_parser(name)
        elif name == "data":
            parser = data_parser()
        else:
            parser = jsonargparse.ArgumentParser()
            parser.add_argument("-c", "--config", help="a config file")
        commands.add_subcommand(name, parser, help=command.help)
    text: str = root.get_completion_script(f"shtab-{shell}")
    return text
