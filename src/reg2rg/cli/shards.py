"""The options by which a command is cut into shards, and how these are handed to a runner."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reg2rg.cli.main import Invocation, exit_of
from reg2rg.cli.numbers import above_zero, whole
from reg2rg.cli.runner import add_runner_options, build_runner
from reg2rg.core.claims import CAMPAIGNS, LEASE_SECONDS, Campaign
from reg2rg.core.errors import EXIT_OK, EXIT_RUNTIME, EXIT_SKIPPED, EXIT_USAGE, ConfigError
from reg2rg.runners import Command, Job, Runner, Stop

_CAMPAIGN = "shards"
"""Name of the campaign of ``--shards N``, which goes on where an earlier one was left."""
_ROUNDS = 3
_LOGS = ".logs"


@dataclass(frozen=True, slots=True)
class Part:
    """What of the studies a process does.

    Attributes:
        shard: (i, n): the i-th of n equal parts, counted from 1.
        campaign: in which it takes over what others leave; ``None`` for a part alone.
    """

    shard: tuple[int, int] = (1, 1)
    campaign: Campaign | None = None


@dataclass(frozen=True)
class Shard(Command):
    """One part of the studies."""

    kind: ClassVar[str] = "shard"


def add_shard_options(parser: argparse.ArgumentParser) -> None:
    """Options ``--shard``, ``--shards``, ``--campaign`` and those of runners."""
    add = parser.add_argument
    add("--shard", metavar="I/N", help="do the I-th of N equal parts")
    add("--shards", type=whole(1), default=1, metavar="N", help="cut the studies into N parts, a job each")
    add(
        "--campaign",
        default="",
        metavar="NAME",
        help="for --shard in job arrays: parts with the same NAME take over what others leave",
    )
    add(
        "--lease",
        type=above_zero,
        default=LEASE_SECONDS,
        metavar="S",
        help="seconds after which a part that is not heard of is taken for dead",
    )
    add_runner_options(parser, "jobs of --shards")


def shard_of(options: argparse.Namespace) -> tuple[int, int]:
    """The part that this process does.

    Raises:
        ConfigError: no such part, or options that contradict each other.
    """
    if options.shards > 1 and options.shard is not None:
        raise ConfigError("command line: both --shard and --shards. Fix: --shards N alone makes all N parts")
    if options.campaign and options.shard is None:
        raise ConfigError("command line: --campaign without --shard. Fix: --shard I/N --campaign NAME, or --shards N")
    if any(sign in options.campaign for sign in "/\\\0"):
        raise ConfigError(f"command line: --campaign {options.campaign!r}: expected a name without slashes")
    text = options.shard or "1/1"
    part, _, parts = text.partition("/")
    if part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts):
        return int(part), int(parts)
    raise ConfigError(f"command line: --shard: expected I/N with 1 <= I <= N, such as 3/8, found '{text}'.")


def hand_out(
    invocation: Invocation, options: argparse.Namespace, words: Sequence[str], command: Sequence[str], out: Path
) -> int:
    """A job for each part of the studies. One that fails is handed out again; the others take over meanwhile.

    Args:
        invocation: of the command.
        options: parsed.
        words: the command's, which its jobs get too, but for those that say how they are handed out.
        command: as typed behind ``reg2rg``.
        out: folder of what is made, where logs and the campaign lie.

    Returns:
        the exit code: `EXIT_OK` when all parts are done, `EXIT_SKIPPED` where one of them says so. One that ends for
        wrong usage, config or data is not handed out again: it would end so again.
    """
    from reg2rg.ablation.interrupt import told_to_end

    runner, allow = build_runner(options, out), ",".join(invocation.allow_import)
    base = (*(("--allow-import", allow) if allow else ()), *command, *_without_runner(words))
    left = [
        Shard(
            words=(*base, f"--shard={part}/{options.shards}", f"--campaign={_CAMPAIGN}"),
            log=out / _LOGS / f"{command[-1]}-{part}-of-{options.shards}.txt",
        )
        for part in range(1, options.shards + 1)
    ]
    for path in campaigns(out):
        sys.stdout.write(f"going on where an earlier run was ended; remove {path} to begin anew\n")
    stop, codes = Stop(), {EXIT_OK}
    with told_to_end(stop, here=options.jobs == 0) as got:
        for _ in range(_ROUNDS):
            left, more = _run(runner, left, stop, options.shards)
            codes |= more
            if not left or stop.event.is_set() or EXIT_USAGE in codes:
                break
    if got:
        return exit_of(got[0])
    if left:
        return EXIT_USAGE if EXIT_USAGE in codes else EXIT_RUNTIME
    return max(codes)


def _run(runner: Runner, jobs: Sequence[Shard], stop: Stop, shards: int) -> tuple[list[Shard], set[int]]:
    """Parts that were not done, and the exit codes that say why a part need not be handed out again."""
    done, codes = shards - len(jobs), set()
    failed: list[Shard] = []
    for job, outcome in runner.run(jobs, _begun, stop):
        is_done = outcome.status == "done" or outcome.code == EXIT_SKIPPED
        done += is_done
        if not is_done:
            failed.append(job)
        if outcome.code in (EXIT_USAGE, EXIT_SKIPPED):
            codes.add(outcome.code)
        sys.stdout.write(f"{done} of {shards} parts done; {job.log}: {outcome.message or outcome.status}\n")
        sys.stdout.flush()
    return failed, codes


def _begun(job: Job) -> None:
    """Nothing is said when a part begins."""


def campaign_of(options: argparse.Namespace) -> Campaign | None:
    """What this process shares its work with."""
    name = _CAMPAIGN if options.shards > 1 else options.campaign
    return Campaign(name, options.lease) if name else None


def campaigns(out: Path) -> list[Path]:
    """Folders of the campaigns of ``--shards``: one, unless settings or studies have changed."""
    return sorted((out / CAMPAIGNS).glob(f"{_CAMPAIGN}-*"))


def remove_campaign(out: Path) -> None:
    """Forget the campaign of ``--shards``, when all is done."""
    for path in campaigns(out):
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # job arrays have campaigns of their own there
        (out / CAMPAIGNS).rmdir()


def _without_runner(words: Sequence[str]) -> list[str]:
    """The words of the command without what tells how jobs are handed out."""
    runner = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    runner.add_argument("--shards")
    add_runner_options(runner, "")
    return runner.parse_known_args(list(words))[1]
