"""Commands of this folder; the command line finds them through the entry point ``reg2rg.commands``."""

from __future__ import annotations

from reg2rg.cli.main import Command

COMMANDS = {
    "convert": Command(
        "reg2rg.extras.convert.command:run", "published weights to a folder of this package, every key checked"
    ),
    "lm": Command(
        "reg2rg.extras.tiny_llm.command:run", "build a tiny language model from the training reports of a data set"
    ),
    "data phantom": Command(
        "reg2rg.extras.phantom.command:run",
        "write synthetic chest CTs with masks and reports, in RadGenome-ChestCT's layout",
        "reg2rg.extras.phantom.command:parser",
    ),
}
