"""``reg2rg completion bash|zsh|tcsh``: a script that completes commands, keys and component names.

Written by shtab from keys that are read from the source text, like ``reg2rg list``. jsonargparse's own generator cannot
serve here: it follows components into components, and an encoder that wraps an encoder never ends.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from typing import Any

from reg2rg.cli.main import Command, Invocation, commands, load_target
from reg2rg.config.overlay import packaged_configs
from reg2rg.config.sources import SECTIONS, Component, components, constructor_arguments

# Names in annotations that stand for a component, by kind.
_KINDS = {"Encoder": "encoder", "ProjectorFactory": "projector", "LanguageModel": "llm", "Dataset": "dataset"}
# Settings that are written as a mapping of their fields.
_RECORDS = {
    "OptimizerConfig": "reg2rg.training.optimization",
    "Views": "reg2rg.core.task",
    "ReadOptions": "reg2rg.scans.base",
}


def run(invocation: Invocation) -> int:
    """Print the script; see `reg2rg.cli.main`."""
    options = argparse.ArgumentParser(prog="reg2rg completion", description="Print a shell completion script.")
    options.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    sys.stdout.write(script(options.parse_args(list(invocation.args)).shell))
    return 0


def script(shell: str) -> str:
    """The completion script for `shell`."""
    import shtab

    root = argparse.ArgumentParser(prog="reg2rg")
    words = root.add_subparsers()
    groups: dict[str, Any] = {}
    keys = dict(training_keys(components()))
    for name, command in commands().items():
        first, _, second = name.partition(" ")
        if second:
            if first not in groups:
                groups[first] = words.add_parser(first, help=f"what works on {first}").add_subparsers()
            _add_command(groups[first], second, command)
            continue
        parser = words.add_parser(name, help=command.help)
        parser.add_argument("-c", "--config", choices=packaged_configs(), help="a config")
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if command.target.startswith("reg2rg.cli.checking"):
            parser.add_argument("--print_config", action="store_true", help="print the folded config")
            parser.add_argument("--ckpt_path", help="checkpoint, or last, best, or a model's folder")
            for key, choices in keys.items():
                parser.add_argument(f"--{key}", choices=choices or None, help=key)
    text: str = shtab.complete(root, shell)
    return text


def training_keys(found: list[Component]) -> Iterator[tuple[str, list[str]]]:
    """Dotted keys of a training config, each with the component names that it takes, if any."""
    for section, named in SECTIONS.items():
        for argument in constructor_arguments(*named):
            key, words = f"{section}.{argument.name}", re.findall(r"\w+", argument.annotation)
            kinds = [_KINDS[word] for word in words if word in _KINDS]
            chosen = [item for item in found if item.kind in kinds]
            yield key, [item.name for item in chosen]
            below = {part.name for item in chosen for part in item.arguments}
            for word in _RECORDS.keys() & set(words):
                below |= {part.name for part in constructor_arguments(_RECORDS[word], word)}
            yield from ((f"{key}.{part}", []) for part in sorted(below))


def _add_command(group: Any, name: str, command: Command) -> None:
    """A command of two words with its options."""
    parser = group.add_parser(name, help=command.help)
    for action in load_target(command.parser)()._actions if command.parser else []:
        if action.option_strings and action.dest != "help" and "." not in action.dest:
            parser.add_argument(*action.option_strings, help=action.help)
