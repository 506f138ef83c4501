"""``reg2rg data segment``: the masks of a data set's scans, here or as jobs of a runner."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reg2rg.cli.data import command_parser, config_arguments, folder_of, section_of_folder
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place
from reg2rg.cli.shards import add_shard_options, campaign_of, hand_out, remove_campaign, shard_of
from reg2rg.core.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from reg2rg.cli.section import Sections


def parser() -> argparse.ArgumentParser:
    """Options of ``reg2rg data segment``."""
    parser = command_parser("segment", "Make the region masks of a data set's scans. Run it again to go on.")
    parser.usage = "reg2rg data segment [-h] (DIR | --config FILE ...) [--segmenter NAME] [--out DIR] [options]"
    parser.epilog = (
        "DIR: a folder, or a table, in a known layout, without a config. Masks lie in OUT/<study>/<region>.nii.gz. "
        "'reg2rg list' has the segmenters with their arguments; --segmenter.KEY VALUE gives one."
    )
    config_arguments(parser)
    add = parser.add_argument
    add("--segmenter", metavar="NAME", help="makes the masks; the config's data.segmenter by default")
    add("--out", type=place, default=Path("masks"), help="folder of the studies' folders")
    add("--folder", default="{id}", help="name of a study's folder; seg_{id} is RadGenome-ChestCT's")
    add("--workers", type=whole(0), default=0, help="processes; 0 for none, which is right for a GPU")
    add("--max_skip", type=float, default=0.05, help="share of studies that may be skipped")
    add_shard_options(parser)
    return parser


def run(invocation: Invocation) -> int:
    """Run ``reg2rg data segment``; see `reg2rg.cli.main`."""
    words = list(invocation.args)
    options, rest = parser().parse_known_args(words)
    shard = shard_of(options)
    section = _section(invocation, options, rest)  # what is wrong is said before any job begins
    if section.data.segmenter is None:
        from reg2rg.scans.segmenters import SEGMENTERS

        raise ConfigError(
            f"command line: what makes the masks? Give --segmenter NAME, or data.segmenter in a config. Known: "
            f"{', '.join(SEGMENTERS)}."
        )
    from reg2rg.datasets.segment import segment

    if options.shards > 1:
        code = hand_out(invocation, options, [*words, "--max_skip=1"], ("data", "segment"), options.out)
        if code != EXIT_OK:
            return code
    summary = segment(
        section.data.dataset.scans(),
        section.data.segmenter,
        section.task.region_set,
        options.out,
        options.folder,
        options.workers,
        shard,
        options.max_skip,
        section.data.read if section.task.views.is_hu else section.data.read.for_views(section.task.views),
        campaign_of(options),
    )
    if options.shards > 1:
        remove_campaign(options.out)
    sys.stdout.write(f"{summary.describe()}\n")
    return EXIT_OK


def _section(invocation: Invocation, options: argparse.Namespace, rest: Sequence[str]) -> Sections:
    """What configs, folder and options describe, the segmenter among it."""
    from reg2rg.cli.section import read_section

    folder, rest = folder_of(rest)
    arguments = [f"--data.{word[2:]}" if word.startswith("--segmenter.") else word for word in rest]
    if options.segmenter is not None:
        arguments.insert(0, f"--data.segmenter={options.segmenter}")
    if folder is None:
        return read_section(invocation, arguments, options.config)
    return section_of_folder(folder, invocation, arguments, options.config)
