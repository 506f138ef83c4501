"""``reg2rg data check | prepare``, and what ``segment`` shares with them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reg2rg.cli.help import HelpFormatter
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place
from reg2rg.cli.shards import add_shard_options, campaign_of, hand_out, remove_campaign, shard_of
from reg2rg.core.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from reg2rg.cli.section import Sections


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Parser of one of the ``reg2rg data`` commands."""
    return argparse.ArgumentParser(
        prog=f"reg2rg data {name}",
        description=description,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )


def config_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name configs and override their keys."""
    group = parser.add_argument_group("config")
    group.add_argument("-c", "--config", action="append", metavar="FILE", default=[], help="as for reg2rg fit")
    group.add_argument("--data.KEY", metavar="VALUE", help="any key of the sections data and task, over the files")


def _workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=whole(0),
        default=None,
        help="processes at most; 0 for none; one a core by default, fewer where memory is short",
    )


def check_parser() -> argparse.ArgumentParser:
    """Options of ``reg2rg data check``."""
    parser = command_parser("check", "List every fault of a data folder, with counts per reason and region coverage.")
    parser.usage = "reg2rg data check [-h] (DIR | --config FILE ...) [--data.KEY VALUE ...] [options]"
    parser.epilog = "DIR: a folder, or a table, in a known layout, without a config; what it was taken for is said."
    config_arguments(parser)
    _workers(parser)
    parser.add_argument("--out", type=place, default=Path("check"), help="folder for check.json and overlays")
    parser.add_argument("--overlays", type=whole(0), default=6, help="studies to draw with their regions outlined")
    parser.add_argument("--series", metavar="UID", help="of a DICOM study the series to read, or the end of its UID")
    parser.add_argument("--check-contents", action="store_true", help="read again what has not changed since, too")
    parser.add_argument("--sample", type=whole(1), default=None, help="read so many studies only, evenly spread")
    return parser


def check(invocation: Invocation) -> int:
    """Run ``reg2rg data check``; see `reg2rg.cli.main`."""
    from reg2rg.check.report import print_check
    from reg2rg.check.run import check_dataset
    from reg2rg.cli.section import read_section
    from reg2rg.cli.series import print_series
    from reg2rg.datasets.scan_folder import ScanFolder

    options, rest = check_parser().parse_known_args(list(invocation.args))
    folder, rest = folder_of(rest)
    rest += ["--data.read.series", options.series] if options.series else []
    if folder is None:
        section = read_section(invocation, rest, options.config)
    else:
        section = section_of_folder(folder, invocation, rest, options.config)
    _refuse_segmenter(section)
    if isinstance(section.data.dataset, ScanFolder):
        print_series([study.image for study in section.data.dataset.studies()], section.data.read)
    result = check_dataset(
        section.data.dataset,
        section.task.region_set,
        section.data.read.for_views(section.task.views),
        workers=options.workers,
        overlays=options.overlays,
        out=options.out,
        sample=options.sample,
        needs_regions=section.task.target == "regions",
        check_contents=options.check_contents,
    )
    print_check(result)
    return result.exit_code


def _refuse_segmenter(section: Sections) -> None:
    if section.data.segmenter is not None:
        raise ConfigError(
            "config: data.segmenter is for `reg2rg data segment`, whose masks the other commands read. Fix: run that "
            "first, and leave it out here"
        )


def folder_of(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The word that is neither an option nor the value of one, and the others."""
    rest, folders = [], []
    waiting = False
    for word in words:
        if waiting or word.startswith("-"):
            waiting = not waiting and "=" not in word
            rest.append(word)
        else:
            folders.append(place(word))
    if len(folders) > 1:
        raise ConfigError(f"command line: one folder is expected, found {', '.join(map(str, folders))}.")
    return next(iter(folders), None), rest


def section_of_folder(folder: Path, invocation: Invocation, options: Sequence[str], configs: Sequence[str]) -> Sections:
    """The data of a folder without a config, recognised by its layout, with options over it."""
    from reg2rg.cli.section import section_of
    from reg2rg.config.options import apply_options
    from reg2rg.config.reading import Tree
    from reg2rg.datasets.recognise import recognise

    if configs:
        raise ConfigError(f"command line: both a folder, {folder}, and --config. Fix: give one of the two.")
    found = recognise(folder.absolute())
    dataset = {"class_path": found.dataset, "init_args": {"regions": "${task.regions}", **found.arguments}}
    task = {"regions": "radgenome", "target": "regions" if found.regions else "whole"}
    tree = Tree.of({"task": task, "data": {"dataset": dataset}}, f"recognised in {folder}")
    apply_options(tree, options)
    sys.stdout.write(f"{folder}: {found.what}. Read as {found.dataset}.\n")
    return section_of(tree, invocation.allow_import)


def prepare_parser() -> argparse.ArgumentParser:
    """Options of ``reg2rg data prepare``."""
    parser = command_parser("prepare", "Bring the studies of a data folder into a store. Run it again to go on.")
    config_arguments(parser)
    _workers(parser)
    parser.add_argument("--bake", action="store_true", help="keep the finished views too: faster to read, larger")
    parser.add_argument("--views-only", action="store_true", help="keep nothing but the finished views: smallest")
    parser.add_argument("--check-contents", action="store_true", help="read all inputs again to see if they changed")
    parser.add_argument("--max_skip", type=float, default=0.05, help="share of studies that may be skipped")
    add_shard_options(parser)
    return parser


def prepare(invocation: Invocation) -> int:
    """Run ``reg2rg data prepare``; see `reg2rg.cli.main`."""
    from reg2rg.cli.section import read_section
    from reg2rg.store.prepare import prepare as prepare_studies

    words = list(invocation.args)
    options, rest = prepare_parser().parse_known_args(words)
    shard = shard_of(options)
    section = read_section(invocation, rest, options.config)
    _refuse_segmenter(section)
    if section.data.store is None:
        raise ConfigError("config: data.store: no folder to write to. Give it: --data.store FOLDER")
    store = Path(section.data.store)
    if options.shards > 1:
        code = hand_out(invocation, options, [*words, "--max_skip=1"], ("data", "prepare"), store)
        if code != EXIT_OK:
            return code
    summary = prepare_studies(
        section.data.dataset,
        section.data.store,
        section.task.region_set,
        section.data.read.for_views(section.task.views),
        bake=section.task.views if options.bake or options.views_only else None,
        workers=options.workers,
        shard=shard,
        max_skip=options.max_skip,
        native=not options.views_only,
        needs_regions=section.task.target == "regions",
        check_contents=options.check_contents,
        campaign=campaign_of(options),
    )
    if options.shards > 1:
        remove_campaign(store)
    sys.stdout.write(f"{summary.describe()}\n")
    return 0
