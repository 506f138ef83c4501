"""``reg2rg predict``: a trainer command whose studies may be cut into parts, which a runner works on."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from reg2rg.cli.checking import checked
from reg2rg.cli.main import Invocation
from reg2rg.cli.predicted import Asked
from reg2rg.cli.shards import Part, add_shard_options, campaign_of, campaigns, hand_out, remove_campaign, shard_of
from reg2rg.core.claims import COMPLETE
from reg2rg.core.documents import read_record
from reg2rg.core.errors import EXIT_OK, EXIT_SKIPPED, Reg2RGError


def run(invocation: Invocation) -> int:
    """Run ``reg2rg predict``; see `reg2rg.cli.main`."""
    options, rest = _parser().parse_known_args(list(invocation.args))
    if {"-h", "--help"} & {*rest}:
        sys.stdout.write(f"{_parser().format_help()}\n")
    part = Part(shard_of(options), campaign_of(options))
    command = checked(replace(invocation, args=tuple(rest)))
    asked = Asked.of(command)
    if asked is not None and (studies := asked.done(command.allow_import)) is not None:
        sys.stdout.write(f"{asked.out}: {studies} studies are complete; nothing to do\n")
        return EXIT_OK
    from reg2rg.cli.trainer import check_prediction
    from reg2rg.cli.trainer import run as run_trainer

    if options.shards == 1:
        return run_trainer(command, part, asked if part == Part() else None)
    out = check_prediction(command)
    listed = {} if asked is None else asked.listed(asked.dataset(command.allow_import))
    for folder in campaigns(out):  # the last part that ends says it anew
        (folder / COMPLETE).unlink(missing_ok=True)
    code = hand_out(invocation, options, invocation.args, ("predict",), out)
    if code not in (EXIT_OK, EXIT_SKIPPED):
        return code
    skipped = _skipped(out)
    sys.stdout.write(f"the predictions in {out} are complete{f'; {skipped} studies were left out' * bool(skipped)}\n")
    remove_campaign(out)
    if asked is not None and not skipped:
        asked.note(listed)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reg2rg predict", usage="reg2rg predict --config FILE [options]", add_help=False, allow_abbrev=False
    )
    add_shard_options(parser)
    return parser


def _skipped(out: Path) -> int:
    """How many studies were left out of what is complete.

    Raises:
        Reg2RGError: some are neither reported on nor left out.
    """
    for folder in campaigns(out):
        if (folder / COMPLETE).is_file():
            return int(read_record(folder / COMPLETE, "run again")["skipped"])
    raise Reg2RGError(f"{out}: all parts have ended, but not all studies are reported on. Fix: run again")
