"""The options by which a command hands its jobs to a runner."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reg2rg.cli.numbers import whole
from reg2rg.config.reading import parse_value
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import UnknownComponentError, load_plugins
from reg2rg.runners import RUNNERS, Local, Runner


def add_runner_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Options ``--jobs``, ``--threads``, ``--runner`` and ``--cluster``.

    Args:
        parser: gets them.
        what: the jobs are, for the help: ``"runs"``.
    """
    add = parser.add_argument
    add("--jobs", type=whole(0), default=1, metavar="N", help=f"{what} at a time (default 1); 0: in this process")
    add("--threads", type=whole(1), metavar="N", help=f"threads for each of the {what} (default: the cores shared)")
    add(
        "--runner",
        type=runner_class,
        default="local",
        metavar="NAME",
        help=f"who works on the {what}: local (default), slurm, ray, or one of a plug-in",
    )
    add(
        "--cluster",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="parameters for slurm (submitit's, such as slurm_partition=gpu gpus_per_node=1 timeout_min=600) or ray "
        "(num_gpus=1)",
    )


def build_runner(options: argparse.Namespace, folder: Path) -> Runner:
    """The runner that the options ask for.

    Args:
        options: parsed.
        folder: in which one of a cluster has a folder of its own.

    Raises:
        ConfigError: parameters that it does not take.
    """
    parameters = _parameters(options.cluster)
    kind: type[Runner] = options.runner
    if issubclass(kind, Local):
        if parameters:
            raise ConfigError("command line: --cluster is for --runner slurm and ray; the local runner has none")
        return Local(options.jobs, options.threads)
    return kind(folder / kind.__name__.lower(), parameters)


def _parameters(words: Sequence[str]) -> dict[str, Any]:
    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise ConfigError(f"command line: --cluster {word}: expected KEY=VALUE")
        found[key] = parse_value(text)
    return found


def runner_class(name: str) -> type[Runner]:
    """The class of a runner; the case of its name does not matter. Plug-ins are imported only for one of theirs."""

    def known() -> str:
        return next((entry for entry in RUNNERS if entry.lower() == name.lower()), name)

    if known() not in RUNNERS:
        load_plugins()
    try:
        return RUNNERS.get(known())
    except UnknownComponentError as error:
        raise ConfigError(f"command line: --runner: {error}") from error
