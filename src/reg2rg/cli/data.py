"""``reg2rg data phantom | check | prepare``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean

_DESCRIPTION = """\
usage: reg2rg data phantom OUT [--studies N] [--seed N] ...
       reg2rg data check   --config FILE [--out DIR] ...
       reg2rg data prepare --config FILE [--shard I/N] ...

  phantom  write synthetic chest CTs with masks and reports, in RadGenome-ChestCT's layout
  check    list every fault of a data folder, as a table and as JSON
  prepare  bring the studies of a data folder into a store; resumable

'reg2rg data COMMAND --help' tells the options of one.
"""


def run(invocation: Invocation) -> int:
    """Run ``reg2rg data``; see `reg2rg.cli.main`."""
    args = invocation.args
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(_DESCRIPTION)
        return 0 if args else 2
    name = args[0]
    if name not in PARSERS:
        raise ConfigError(
            f"there is no command 'data {name}'.{did_you_mean(name, list(PARSERS))} Commands: {', '.join(PARSERS)}."
        )
    parser, command = PARSERS[name][0](), PARSERS[name][1]
    options, rest = parser.parse_known_args(list(args[1:]))
    return command(invocation, options, rest)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"reg2rg data {name}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def _phantom_parser() -> argparse.ArgumentParser:
    parser = _parser("phantom", "Write synthetic chest CTs with masks and reports.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write into")
    parser.add_argument("--studies", type=whole(1), default=300, help="how many; the last fifth is held out")
    parser.add_argument("--seed", type=whole(0), default=0, help="the same seed writes the same bytes")
    parser.add_argument("--size", type=whole(1), nargs=3, default=(96, 96, 64), metavar=("H", "W", "D"), help="voxels")
    parser.add_argument("--first", type=whole(0), default=0, help="number of the first study, to write in several runs")
    parser.add_argument("--workers", type=whole(0), default=None, help="processes; 0 for none; one a core by default")
    return parser


def _phantom(invocation: Invocation, options: argparse.Namespace, rest: Sequence[str]) -> int:
    from reg2rg.extras.phantom.writer import write_phantoms

    _no_more(rest, "phantom")
    write_phantoms(
        options.out,
        studies=options.studies,
        seed=options.seed,
        size=tuple(options.size),
        workers=options.workers,
        first=options.first,
    )
    return 0


def _no_more(rest: Sequence[str], name: str) -> None:
    if rest:
        raise ConfigError(f"command line: unexpected {' '.join(rest)}. See: reg2rg data {name} --help")


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("config")
    group.add_argument("-c", "--config", action="append", metavar="FILE", default=[], help="as for reg2rg fit")
    group.add_argument("--data.KEY", metavar="VALUE", help="any key of the data section, over the files")
    parser.add_argument("--workers", type=whole(0), default=None, help="processes; 0 for none; one a core by default")


def _check_parser() -> argparse.ArgumentParser:
    parser = _parser("check", "List every fault of a data folder, with counts per reason and region coverage.")
    _config_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("check"), help="folder for check.json and overlays")
    parser.add_argument("--overlays", type=whole(0), default=6, help="studies to draw with their regions outlined")
    parser.add_argument("--sample", type=whole(1), default=None, help="read so many studies only, evenly spread")
    return parser


def _check(invocation: Invocation, options: argparse.Namespace, rest: Sequence[str]) -> int:
    from reg2rg.check.report import print_check
    from reg2rg.check.run import check_dataset
    from reg2rg.cli.section import read_section
    from reg2rg.core.regions import load_region_set

    section = read_section(invocation, _all_config_args(options, rest))
    result = check_dataset(
        section.dataset,
        load_region_set(section.regions),
        section.read,
        workers=options.workers,
        overlays=options.overlays,
        out=options.out,
        sample=options.sample,
    )
    print_check(result)
    return result.exit_code


def _prepare_parser() -> argparse.ArgumentParser:
    parser = _parser("prepare", "Bring the studies of a data folder into a store. Run it again to go on.")
    _config_arguments(parser)
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="do the I-th of N equal parts, for job arrays")
    parser.add_argument("--bake", action="store_true", help="keep the finished views too: faster to read, larger")
    parser.add_argument("--views-only", action="store_true", help="keep nothing but the finished views: smallest")
    parser.add_argument("--max_skip", type=float, default=0.05, help="share of studies that may be skipped")
    return parser


def _prepare(invocation: Invocation, options: argparse.Namespace, rest: Sequence[str]) -> int:
    from reg2rg.cli.section import read_section
    from reg2rg.core.regions import load_region_set
    from reg2rg.store.prepare import prepare

    shard = _shard(options.shard)
    section = read_section(invocation, _all_config_args(options, rest))
    if section.store is None:
        raise ConfigError("config: data.store: no folder to write to. Give it: --data.store FOLDER")
    summary = prepare(
        section.dataset,
        section.store,
        load_region_set(section.regions),
        section.read,
        bake=section.views if options.bake or options.views_only else None,
        workers=options.workers,
        shard=shard,
        max_skip=options.max_skip,
        native=not options.views_only,
    )
    sys.stdout.write(f"{summary.describe()}\n")
    return 0


def _all_config_args(options: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    return [*(word for name in options.config for word in ("--config", name)), *rest]


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts):
        return int(part), int(parts)
    raise ConfigError(f"command line: --shard: expected I/N with 1 <= I <= N, such as 3/8, found '{text}'.")


_Run = Callable[[Invocation, argparse.Namespace, Sequence[str]], int]
PARSERS: dict[str, tuple[Callable[[], argparse.ArgumentParser], _Run]] = {
    "phantom": (_phantom_parser, _phantom),
    "check": (_check_parser, _check),
    "prepare": (_prepare_parser, _prepare),
}
