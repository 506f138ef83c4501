"""``reg2rg data summary``: what a data set holds, by its tables and headers, as one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reg2rg.cli.data import command_parser, config_arguments, folder_of, section_of_folder
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place

PAGE, NUMBERS, KEPT = "summary.html", "summary.json", "headers.jsonl"


def parser() -> argparse.ArgumentParser:
    """Options of ``reg2rg data summary``."""
    made = command_parser("summary", "Spacing, slices, regions, labels, lengths and scripts of reports. Headers alone.")
    made.usage = "reg2rg data summary [-h] (DIR | --config FILE ...) [--data.KEY VALUE ...] [options]"
    config_arguments(made)
    made.add_argument("--out", type=place, default=Path("summary"), help=f"folder for {PAGE} and {NUMBERS}")
    made.add_argument("--workers", type=whole(0), default=None, help="processes; one a core for DICOM, else none")
    return made


def run(invocation: Invocation) -> int:
    """Run ``reg2rg data summary``; see `reg2rg.cli.main`."""
    from rich.console import Console

    from reg2rg.check.summary import summarise
    from reg2rg.cli.section import read_section
    from reg2rg.core.files import Outputs, json_text
    from reg2rg.show.render import print_tables
    from reg2rg.show.summary_page import summary_page, summary_tables

    options, rest = parser().parse_known_args(list(invocation.args))
    folder, rest = folder_of(rest)
    if folder is None:
        section = read_section(invocation, rest, options.config)
    else:
        section = section_of_folder(folder, invocation, rest, options.config)
    read = section.data.read.for_views(section.task.views)
    summary = summarise(section.data.dataset, section.task.region_set, read, options.workers, options.out / KEPT)
    print_tables([table for table in summary_tables(summary) if not table.lengthy], Console())
    source = str(folder) if folder is not None else ", ".join(options.config) or "the command line"
    facts = {"data": source, "dataset": type(section.data.dataset).__name__, "regions": section.task.region_set.name}
    outputs = Outputs()
    outputs.write(options.out / NUMBERS, lambda: json_text(summary.as_json()))
    outputs.write(options.out / PAGE, lambda: summary_page(summary, source, facts))
    for path in outputs.written:
        sys.stdout.write(f"written: {path}\n")
    outputs.check()
    return 0
