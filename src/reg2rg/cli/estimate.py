"""``reg2rg estimate``: what a config takes, before anything is downloaded, prepared or bought."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reg2rg.cli.help import HelpFormatter
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import above_zero, whole
from reg2rg.core.errors import EXIT_OK, EXIT_RUNTIME, ConfigError

if TYPE_CHECKING:
    from reg2rg.training.estimate import Estimate, Phase
    from reg2rg.training.outline import Amounts

GB = 1e9


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    made = argparse.ArgumentParser(
        prog="reg2rg estimate",
        usage="reg2rg estimate [-h] (CONFIG ... | --config FILE ...) [--KEY.KEY VALUE ...] [options]",
        description="Parameters, operations, bytes and peak memory of a training step and of reports, and what to "
        "change if a step does not fit. Nothing is read but configs and the language model's config.json.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    add = made.add_argument
    add("--memory", type=above_zero, default=24.0, metavar="GB", help="of the device, in 10^9 bytes")
    add("--studies", type=whole(1), help="of a step, and reports at once; the config's batch sizes by default")
    add("--regions", type=whole(0), help="of a study; all of the set by default")
    add("--positions", type=whole(2), help="of a sample; task.max_length by default, which few samples reach")
    add("--answer", type=whole(1), help="positions of a sample that are report; by default what the prompt leaves")
    return made


def run(invocation: Invocation) -> int:
    """Run ``reg2rg estimate``; see `reg2rg.cli.main`. Exit code 1 where a step does not fit."""
    options, rest = parser().parse_known_args(list(invocation.args))
    named = 0
    while named < len(rest) and not rest[named].startswith("-"):
        named += 1
    config = _resolved(invocation, rest[:named], rest[named:])

    from reg2rg.config.imports import import_policy
    from reg2rg.core.registry import load_plugins
    from reg2rg.training.estimate import estimate, ways_to_fit

    load_plugins()
    with import_policy(invocation.allow_import):
        found = estimate(config)
        given: Amounts | None = _changed(found.step.amounts, options)
        if given is not None and given != found.step.amounts:
            found = estimate(config, given, _changed(found.report.amounts, options, prompt=True))
        else:
            given = None
        out = sys.stdout.write
        out("\n".join(_lines(found)) + "\n")
        budget = options.memory * GB
        if found.step.peak <= budget:
            out(f"A step fits in {options.memory:g} GB.\n")
            return EXIT_OK
        out(f"A step does not fit in {options.memory:g} GB. Changes, each upon those before:\n")
        last = found.step.peak
        for change in ways_to_fit(config, int(budget), given):
            last = change.peak
            out(f"  {change.peak / GB:6.1f} GB with {change.said}\n")
    out("That fits.\n" if last <= budget else "That is not enough: a smaller model, or strategies/fsdp2.yaml.\n")
    return EXIT_RUNTIME


def _changed(amounts: Amounts, options: argparse.Namespace, prompt: bool = False) -> Amounts:
    wanted = {"studies": options.studies, "regions": options.regions}
    if not prompt:
        wanted |= {"positions": options.positions, "answer": options.answer}
        if options.positions is not None and options.answer is None:
            wanted["answer"] = max(1, options.positions - (amounts.positions - amounts.answer))
    return replace(amounts, **{name: value for name, value in wanted.items() if value is not None})


def _resolved(invocation: Invocation, configs: Sequence[str], args: Sequence[str]) -> dict[str, Any]:
    from reg2rg.config.explain import resolved_values
    from reg2rg.config.imports import check_class_paths, import_policy
    from reg2rg.config.options import apply_options, split_config_options
    from reg2rg.config.overlay import fold

    more, options = split_config_options(args)
    if not (configs or more):
        raise ConfigError("command line: no config. Expected: reg2rg estimate CONFIG, such as reg2rg_24gb.yaml")
    tree = fold((*configs, *more))
    apply_options(tree, options)
    with import_policy(invocation.allow_import) as allowed:
        check_class_paths(tree, allowed)
    if "model" not in tree.values:
        raise ConfigError("command line: no config gives a 'model' section, which is what has a size")
    return resolved_values(tree)


def _lines(found: Estimate) -> list[str]:
    lines = [f"{'parameters':18}{'all':>12}{'trained':>12}"]
    lines += [f"  {part:16}{_number(n):>12}{_number(trained):>12}" for part, (n, trained) in found.parameters.items()]
    lines += _phase("a training step", found.step)
    lines += _phase("reports", found.report)
    lines.append(f"  reads {found.report.read / 1e12:.2f} TB of weights and cache while it writes")
    lines.append(f"a checkpoint: {found.optimizer / GB:.2f} GB, what trains and its optimiser's state")
    if found.left_out:
        lines.append(f"not counted: {', '.join(found.left_out)}")
    return lines


def _phase(title: str, phase: Phase) -> list[str]:
    amounts = phase.amounts
    what = f"{amounts.studies} x {amounts.regions} regions, {amounts.positions} positions, answer {amounts.answer}"
    parts = sorted(phase.parts.items(), key=lambda item: -item[1])
    return [
        f"{title} ({what}): {phase.peak / GB:.2f} GB at the peak, {phase.flops / 1e12:.2f} T operations",
        "  " + ", ".join(f"{part} {size / GB:.2f}" for part, size in parts if size > 0.005 * phase.peak),
    ]


def _number(count: int) -> str:
    return f"{count / 1e6:,.1f} M"
