"""``reg2rg data segment``: the masks of a data set's scans, here or as jobs of a runner."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from reg2rg.cli.data import command_parser, config_arguments, folder_of, section_of_folder, shard_of
from reg2rg.cli.main import Invocation, exit_of
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place
from reg2rg.cli.runner import add_runner_options, build_runner
from reg2rg.core.errors import EXIT_OK, EXIT_RUNTIME, ConfigError
from reg2rg.runners import Command, Stop

if TYPE_CHECKING:
    from reg2rg.cli.section import Sections


@dataclass(frozen=True)
class _Shard(Command):
    """The masks of one part of the studies."""

    kind: ClassVar[str] = "segment"


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
    add("--shard", default=None, metavar="I/N", help="do the I-th of N equal parts")
    add("--shards", type=whole(1), default=1, metavar="N", help="cut the studies into N parts, a job each")
    add("--max_skip", type=float, default=0.05, help="share of studies that may be skipped")
    add_runner_options(parser, "jobs of --shards")
    return parser


def run(invocation: Invocation) -> int:
    """Run ``reg2rg data segment``; see `reg2rg.cli.main`."""
    words = list(invocation.args)
    options, rest = parser().parse_known_args(words)
    if options.shards > 1 and options.shard is not None:
        raise ConfigError("command line: both --shard and --shards. Fix: --shards N alone makes all N parts")
    section = _section(invocation, options, rest)  # what is wrong is said before any job begins
    if section.data.segmenter is None:
        from reg2rg.scans.segmenters import SEGMENTERS

        raise ConfigError(
            f"command line: what makes the masks? Give --segmenter NAME, or data.segmenter in a config. Known: "
            f"{', '.join(SEGMENTERS)}."
        )
    if options.shards > 1:
        return _hand_out(invocation, options, words)
    from reg2rg.datasets.segment import segment

    summary = segment(
        section.data.dataset.scans(),
        section.data.segmenter,
        section.task.region_set,
        options.out,
        options.folder,
        options.workers,
        shard_of(options.shard or "1/1"),
        options.max_skip,
        section.data.read if section.task.views.is_hu else section.data.read.for_views(section.task.views),
    )
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


def _hand_out(invocation: Invocation, options: argparse.Namespace, words: Sequence[str]) -> int:
    """A job for each part of the studies; one that is run again goes on."""
    from reg2rg.ablation.interrupt import told_to_end

    runner, allow = build_runner(options, options.out), ",".join(invocation.allow_import)
    base = (*(("--allow-import", allow) if allow else ()), "data", "segment", *_without_runner(words))
    jobs = [
        _Shard(
            words=(*base, f"--shard={part}/{options.shards}"),
            log=options.out / ".logs" / f"segment-{part}-of-{options.shards}.txt",
        )
        for part in range(1, options.shards + 1)
    ]
    stop, done = Stop(), 0
    with told_to_end(stop, here=options.jobs == 0) as got:
        for job, outcome in runner.run(jobs, lambda job: None, stop):
            done += outcome.status == "done"
            sys.stdout.write(f"{done} of {len(jobs)} parts done; {job.log}: {outcome.message or outcome.status}\n")
            sys.stdout.flush()
    if got:
        return exit_of(got[0])
    return EXIT_OK if done == len(jobs) else EXIT_RUNTIME


def _without_runner(words: Sequence[str]) -> list[str]:
    """The words of the command without what tells how jobs are handed out."""
    runner = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    runner.add_argument("--shards")
    add_runner_options(runner, "")
    return runner.parse_known_args(list(words))[1]
