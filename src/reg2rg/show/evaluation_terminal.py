"""An evaluation in the terminal: its tables, made to fit the width, and the verdict first."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from reg2rg.evaluation.results import Evaluation
from reg2rg.show.evaluation_tables import Cell, Table, build_tables
from reg2rg.show.phrases import MARK, below_floor, headline, verdict

_KEY_WIDTH = 34
_ANY_WIDTH = 10_000


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print an evaluation: what was scored and how, then each table with its definitions below.

    A table that is wider than the terminal first loses its spread and counts, then is continued in a second table.
    """
    console.print(Text.assemble(("Evaluation of ", "bold"), (evaluation.name, "bold")))
    console.print(Text(headline(evaluation)))
    if evaluation.protocol_text:
        console.print(Text(evaluation.protocol_text, style="dim"))
    for note in evaluation.notes:
        console.print(_item(note))
    said = verdict(evaluation)
    if said:
        beaten = not below_floor(evaluation)
        console.print(Text(said if beaten else f"{MARK} {said}", style="" if beaten else "bold yellow"))
    tables = build_tables(evaluation)
    for table in tables:
        if not table.lengthy:
            _print_table(table, console)
    lengthy = [table.title for table in tables if table.lengthy]
    if lengthy:
        console.print()
        console.print(Text(f"On the page only (--out): {'; '.join(lengthy)}.", style="dim"))


def _print_table(table: Table, console: Console) -> None:
    console.print()
    console.print(Text(table.title, style="bold"))
    parts, dropped = _fit(table, console)
    for index, part in enumerate(parts):
        if index:
            console.print()
        console.print(_drawn(table, part))
    notes = [*table.notes, *([f"Left out for want of width: {', '.join(dropped)}."] if dropped else [])]
    for note in notes:
        console.print(_item(note, style="dim"))


def _fit(table: Table, console: Console) -> tuple[list[list[int]], list[str]]:
    """Which columns stand in which part, so that no cell is cut, and the titles of those left out."""
    every = list(range(len(table.columns)))
    needed = [index for index in every if not table.columns[index].optional]
    if _width(table, every, console) <= console.width:
        return [every], []
    if _width(table, needed, console) <= console.width:
        return [needed], [table.columns[index].title for index in every if index not in needed]
    parts = [[0]]
    for index in every[1:]:
        if len(parts[-1]) > 1 and _width(table, [*parts[-1], index], console) > console.width:
            parts.append([0])
        parts[-1].append(index)
    return parts, []


def _width(table: Table, columns: Sequence[int], console: Console) -> int:
    options = console.options.update(width=_ANY_WIDTH)
    return Measurement.get(console, options, _drawn(table, columns)).maximum


def _drawn(table: Table, columns: Sequence[int]) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    for index in columns:
        column = table.columns[index]
        words = column.prose or index == 0
        # A heading is broken between words only, to about the width of what stands below it.
        widths = [len(cells[index].text) for _, cells in table.rows] + [len(word) for word in column.title.split()]
        drawn.add_column(
            Text("\n".join(textwrap.wrap(column.title, max(8, *widths), break_on_hyphens=False))),
            justify="left" if words else "right",
            vertical="top",
            no_wrap=not words,
            max_width=_KEY_WIDTH if words else None,
            overflow="fold",
        )
    before = ""
    for group, cells in table.rows:
        if group != before:
            drawn.add_row(Text(group, style="bold cyan"), *("" for _ in columns[1:]))
            before = group
        drawn.add_row(*(_text(cells[index]) for index in columns))
    return drawn


def _text(cell: Cell) -> Text:
    # Text, not markup: names come from files, and "[red]" in one must print as it stands.
    if cell.marked:
        return Text(f"{MARK} {cell.text}", style="bold yellow")
    return Text(cell.text, style="bold" if cell.strong else "dim" if cell.soft else "")


def _item(note: str, style: str = "") -> Padding:
    drawn = RichTable.grid(padding=(0, 1))
    drawn.add_row(Text("-", style=style), Text(note, style=style))
    return Padding(drawn, (0, 0, 0, 1), expand=False)
