"""``reg2rg data phantom``: synthetic chest CTs with masks and reports."""

from __future__ import annotations

import argparse

from reg2rg.cli.data import command_parser
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place
from reg2rg.core.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = command_parser(
        "phantom", "Write synthetic chest CTs with masks and reports, in RadGenome-ChestCT's layout or another one."
    )
    parser.add_argument("out", type=place, metavar="OUT", help="folder to write into")
    parser.add_argument("--studies", type=whole(1), default=300, help="how many; the last fifth is held out")
    parser.add_argument("--seed", type=whole(0), default=0, help="the same seed writes the same bytes")
    parser.add_argument("--size", type=whole(1), nargs=3, default=(96, 96, 64), metavar=("H", "W", "D"), help="voxels")
    parser.add_argument("--first", type=whole(0), default=0, help="number of the first study, to write in several runs")
    parser.add_argument("--one-column", action="store_true", help="write studies.csv too: one report column a study")
    parser.add_argument(
        "--layout",
        default="radgenome",
        metavar="NAME",
        help="radgenome | radgenome-archives | ct-rate-v1 | ct-rate-v2 | ctrg-nifti, -csv, -npz or -slices",
    )
    parser.add_argument("--dicom", type=place, metavar="DIR", help="write the last study as a DICOM study too")
    parser.add_argument("--features", type=place, metavar="DIR", help="write features of the scans too, as ORCA-3DCT")
    parser.add_argument("--mr", action="store_true", help="MR-like values and other regions, with regions.yaml")
    parser.add_argument("--workers", type=whole(0), default=None, help="processes; 0 for none; one a core by default")
    return parser


def run(invocation: Invocation) -> int:
    """Run ``reg2rg data phantom``; see `reg2rg.cli.main`."""
    from reg2rg.extras.dicom_study import write_dicom_study
    from reg2rg.extras.phantom.features import write_features
    from reg2rg.extras.phantom.layouts import RADGENOME, write_layout
    from reg2rg.extras.phantom.one_column import write_one_column
    from reg2rg.extras.phantom.writer import plan

    options, rest = parser().parse_known_args(list(invocation.args))
    for option, given in (("--dicom", options.dicom), ("--one-column", options.one_column or None)):
        if given is not None and options.layout != RADGENOME:
            raise ConfigError(f"command line: {option} goes with --layout {RADGENOME} alone, not with {options.layout}")
    if rest:
        raise ConfigError(f"command line: unexpected {' '.join(rest)}. See: reg2rg data phantom --help")
    if options.mr and (options.features is not None or options.dicom is not None):
        raise ConfigError("command line: --mr with --features or --dicom, which are made of CTs. Fix: leave one out")
    write_layout(
        options.out,
        options.layout,
        studies=options.studies,
        seed=options.seed,
        size=tuple(options.size),
        workers=options.workers,
        first=options.first,
        mr=options.mr,
    )
    jobs = plan(options.out, options.studies, options.seed, tuple(options.size), options.first, options.mr)
    if options.one_column:
        write_one_column(options.out, jobs)
    if options.dicom is not None:
        write_dicom_study(jobs[-1].image, options.dicom / jobs[-1].id)
    if options.features is not None:
        write_features(jobs, options.features)
    return 0
