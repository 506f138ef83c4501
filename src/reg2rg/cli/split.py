"""``reg2rg data split``: a table with one report column -> one with a text a region, and the reason per sentence."""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from reg2rg.cli.data import command_parser, config_arguments, folder_of
from reg2rg.cli.main import Invocation
from reg2rg.cli.paths import place
from reg2rg.core.errors import EXIT_OK, EXIT_SKIPPED, ConfigError

if TYPE_CHECKING:
    from reg2rg.datasets import Manifest
    from reg2rg.datasets.split_table import SplitRow
    from reg2rg.datasets.splitters import Placement, Splitter
    from reg2rg.show.table import Table

_SENTENCES = ("id", "number", "sentence", "regions", "reason")
_SHOWN = 20


def parser() -> argparse.ArgumentParser:
    """Options of ``reg2rg data split``."""
    made = command_parser("split", "Put the sentences of whole reports under regions, and write why each went where.")
    made.usage = "reg2rg data split [-h] (TABLE | --config FILE ...) [-o OUT] [options]"
    made.epilog = (
        "OUT has the rows of TABLE with a column report:<region> for each region, for Manifest to read; beside it a "
        "table has a row a sentence with its regions and the reason, for people to look at."
    )
    config_arguments(made)
    made.add_argument("-o", "--out", type=place, default=None, help="table to write; beside TABLE by default")
    made.add_argument("--id-column", metavar="NAME", help="of the study id, if not id")
    made.add_argument("--report-column", metavar="NAME", help="of the report, if not report")
    made.add_argument("--splitter", metavar="NAME", default=None, help="component that places sentences [RuleSplitter]")
    made.add_argument(
        "--ask", type=place, metavar="FILE", help="write sentences without an answer as JSON lines, and stop"
    )
    made.add_argument("--answers", type=place, metavar="FILE", help="JSON lines with the regions of these sentences")
    return made


def run(invocation: Invocation) -> int:
    """Run ``reg2rg data split``; see `reg2rg.cli.main`."""
    from reg2rg.datasets.split_table import manifest_of
    from reg2rg.datasets.splitters import RuleSplitter

    options, rest = parser().parse_known_args(list(invocation.args))
    manifest = manifest_of(_section(options, rest, invocation).data.dataset)
    splitter = manifest.splitter or RuleSplitter()
    if options.ask is not None:
        return _ask(manifest, splitter, options.ask)
    out = options.out or manifest.path.with_name(f"{manifest.path.stem}_split.csv")
    if out.resolve() == manifest.path.resolve():
        raise ConfigError(f"--out {out}: this is the table itself. Fix: another name")
    return _write(manifest, splitter, out)


def _section(options: argparse.Namespace, rest: Sequence[str], invocation: Invocation) -> Any:
    """The data of a config, or of a table alone, with the options over it."""
    from reg2rg.cli.section import read_section, section_of
    from reg2rg.config.options import apply_options
    from reg2rg.config.reading import Tree

    table, rest = folder_of(rest)
    if options.splitter is not None and options.answers is not None:
        raise ConfigError("command line: both --splitter and --answers. Fix: give one of the two.")
    if (table is None) == (not options.config):
        raise ConfigError("command line: a TABLE, or a --config whose data.dataset is a Manifest, is expected.")
    start = "--data.dataset.init_args"
    named = {"id": options.id_column, "report": options.report_column}
    more = [word for name, text in named.items() if text for word in (f"{start}.columns.{name}", text)]
    if options.answers is not None:
        more += [f"{start}.splitter.class_path", "AnsweredSplitter"]
        more += [f"{start}.splitter.init_args.answers", str(options.answers.absolute())]
    elif options.splitter is not None:
        more += [f"{start}.splitter.class_path", options.splitter]
    if table is None:
        return read_section(invocation, [*more, *rest], options.config)
    if not table.is_file():
        raise ConfigError(
            f"{table}: {'a folder' if table.is_dir() else 'no such file'} (expected a table). Fix: the path"
        )
    dataset = {"class_path": "Manifest", "init_args": {"path": str(table.absolute()), "regions": "${task.regions}"}}
    tree = Tree.of({"task": {"regions": "radgenome"}, "data": {"dataset": dataset}}, f"of the table {table}")
    apply_options(tree, [*more, *rest])
    return section_of(tree, invocation.allow_import)


def _ask(manifest: Manifest, splitter: Splitter, path: Path) -> int:
    from reg2rg.core.files import atomic_write
    from reg2rg.datasets.split_table import whole_reports
    from reg2rg.datasets.splitters import AnsweredSplitter
    from reg2rg.datasets.splitters.answers import answer_line

    asked: set[tuple[str, ...]] = set()
    known = 0
    with atomic_write(path, "w") as stream:
        for study, sentences in whole_reports(manifest):
            if isinstance(splitter, AnsweredSplitter) and splitter.knows(sentences):
                known += 1
            elif tuple(sentences) not in asked:
                asked.add(tuple(sentences))
                stream.write(answer_line(study, sentences, None, choose_from=list(manifest.regions.names)))
    told = f" ({known} are answered)" if known else ""
    sys.stdout.write(
        f"written: {path}: {len(asked)} reports to be answered{told}.\nEach answer repeats the line with a list of "
        'regions for each sentence, "regions": [["lung"], []]; then: reg2rg data split ... --answers FILE\n'
    )
    return EXIT_OK


@dataclass
class _Counts:
    """What was placed where."""

    sentences: Counter[str] = field(default_factory=Counter)
    studies: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    reports: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, row: SplitRow) -> None:
        from reg2rg.datasets.splitters import OTHER

        self.rows += 1
        self.reports += bool(row.sentences)
        if row.fault is not None:
            self.faults.append(str(row.fault))
        for sentence in row.sentences:
            self.sentences.update(sentence.regions or (OTHER,))
            self.reasons[(sentence.reason.split(":")[0].split() or ["none given"])[0]] += 1
        self.studies.update({name for sentence in row.sentences for name in sentence.regions or (OTHER,)})


def _write(manifest: Manifest, splitter: Splitter, out: Path) -> int:
    from rich.console import Console

    from reg2rg.core.files import atomic_write
    from reg2rg.core.progress import progress
    from reg2rg.datasets.split_table import region_columns, split_rows
    from reg2rg.evaluation.records import as_cell
    from reg2rg.show.render import print_tables

    counts, beside = _Counts(), out.with_name(f"{out.stem}_sentences.csv")
    columns = region_columns(manifest)
    journal = out.with_name(f"{out.stem}_answers.jsonl") if splitter.slow else None
    with (
        _kept(journal) as (known, answered),
        atomic_write(out, "w") as table,
        atomic_write(beside, "w") as lines,
        progress("split") as advance,
    ):
        rows, sentences = csv.writer(table, lineterminator="\n"), csv.writer(lines, lineterminator="\n")
        sentences.writerow(_SENTENCES)
        header: list[str] = []
        for row in split_rows(manifest, splitter, known, answered):
            if not header:
                header = [*(name for name in row.values if name not in columns), *columns]
                rows.writerow(header)
            cells = {**row.values, **row.texts}
            rows.writerow([cells.get(name, "") for name in header])
            for number, one in enumerate(row.sentences, start=1):
                found = (row.study, str(number), one.text, ", ".join(one.regions) or "other", one.reason)
                sentences.writerow([as_cell(text) for text in found])
            counts.add(row)
            advance(f"split, {counts.rows:,} rows")
    print_tables([_table(counts, manifest)], Console())
    for fault in counts.faults[:_SHOWN]:
        sys.stdout.write(f"not split: {fault}\n")
    if len(counts.faults) > _SHOWN:
        sys.stdout.write(f"... and {len(counts.faults) - _SHOWN} more\n")
    sys.stdout.write(f"written: {out}\nwritten: {beside}\n")
    if not out.resolve().parent.is_relative_to(manifest.root):
        sys.stdout.write(f"Its paths are relative to {manifest.root}: read it with root: {manifest.root}\n")
    return EXIT_SKIPPED if counts.faults else EXIT_OK


@contextlib.contextmanager
def _kept(journal: Path | None) -> Iterator[tuple[Mapping[tuple[str, ...], Sequence[Placement]], Any]]:
    """What a slow splitter has answered before, and a function that keeps what it answers now."""
    from reg2rg.datasets.splitters.answers import answer_line, read_answers

    if journal is None:
        yield {}, None
        return
    known = read_answers(journal, torn=True) if journal.is_file() else {}
    if known:
        sys.stdout.write(f"{journal}: {len(known)} reports were placed before. Delete it to place them anew.\n")
    with open(journal, "a+b") as stream:
        _end_line(stream)

        def answered(study: str, sentences: Sequence[str], places: Sequence[Placement]) -> None:
            stream.write(answer_line(study, sentences, places).encode())
            stream.flush()

        yield known, answered


def _end_line(stream: IO[bytes]) -> None:
    """Take away a line that a kill cut short."""
    stream.seek(0)
    whole = stream.read().rfind(b"\n") + 1
    stream.truncate(whole)
    stream.seek(0, os.SEEK_END)


def _table(counts: _Counts, manifest: Manifest) -> Table:
    from reg2rg.datasets.splitters import OTHER
    from reg2rg.show.table import make_row, make_table

    total = sum(counts.reasons.values())
    rows = [
        make_row([name, counts.sentences[name], counts.studies[name]], style="soft" if name == OTHER else "")
        for name in (*manifest.regions.names, OTHER)
    ]
    reasons = ", ".join(f"{word} {count / total:.1%}" for word, count in counts.reasons.most_common()) or "none"
    notes = [
        f"{total:,} sentences of {counts.reports:,} reports in {counts.rows:,} rows. One may stand under several.",
        f"Reasons: {reasons}.",
    ]
    return make_table("split", "Sentences by region", ["region", "sentences", "reports"], rows, notes)
