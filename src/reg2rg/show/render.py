"""The one module that draws: a table in the terminal, as Markdown, CSV, LaTeX and HTML; pages; files of them all."""

from __future__ import annotations

import functools
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from reg2rg import __version__
from reg2rg.core.files import Content, Outputs
from reg2rg.evaluation.records import as_cell
from reg2rg.show.phrases import format_interval
from reg2rg.show.plots import BLUE, GREY, INK, ON_DARK
from reg2rg.show.table import Style, Table, format_value

_FIRST_WIDTH, _ANY_WIDTH = 34, 10_000
_TERMINAL: Mapping[Style, str] = {
    "": "", "marked": "bold yellow", "strong": "bold", "soft": "dim", "noise": "cyan"
}  # fmt: skip
_SCHEME = {INK: "currentColor", BLUE: "var(--blue)", ON_DARK: "var(--on-dark)", GREY: "var(--grey)"}
# Whatever Markdown would read as its own. MkDocs cannot escape all of it by a backslash; a reference works everywhere.
_MARKDOWN = re.compile(r"[\\`|*<\[\]]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
_LATEX = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {letter: f"${letter}$" for letter in "<>|"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"$^\sim$", "*": "$^*$", "±": r"$\pm$", "–": "--"}
    | {"−": "$-$", "…": r"\dots{}", "[": "{[}"}  # a bracket that begins a row would belong to the break before it
)


# ---- terminal


def print_tables(tables: Iterable[Table], console: Console) -> None:
    """Print tables, each with its notes below.

    No cell is cut: columns that a terminal is too narrow for are continued in another part, below.
    """
    for table in tables:
        console.print()
        console.print(Text(table.title, style="bold"))
        parts = [[0]]
        for index in range(1, len(table.columns)):
            if len(parts[-1]) > 1 and _width(_drawn(table, [*parts[-1], index]), console) > console.width:
                parts.append([0])
            parts[-1].append(index)
        for number, part in enumerate(parts):
            if number:
                console.print()
            console.print(_drawn(table, part))
        print_items(table.notes, console, "dim")


def print_items(notes: Iterable[str], console: Console, style: str = "") -> None:
    """Print sentences as a list."""
    for note in notes:
        drawn = RichTable.grid(padding=(0, 1))
        drawn.add_row(Text("-", style=style), Text(note, style=style))
        console.print(Padding(drawn, (0, 0, 0, 1), expand=False))


def _width(drawn: RichTable, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=_ANY_WIDTH), drawn).maximum


def _drawn(table: Table, columns: Sequence[int]) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    for index in columns:
        column = table.columns[index]
        words = column.kind != "" or index == 0
        # A heading is broken between words only, to about the width of what stands below it.
        widths = [len(row.cells[index].text) for row in table.rows] + [len(word) for word in column.title.split()]
        drawn.add_column(
            Text("\n".join(textwrap.wrap(column.title, max(8, *widths), break_on_hyphens=False))),
            justify="left" if words else "right",
            no_wrap=not words,
            max_width=_FIRST_WIDTH if words else None,
            overflow="fold",
        )
    for heading, row in table.grouped():
        if heading:
            drawn.add_row(Text(heading, style="bold cyan"))
        elif row.rule:
            drawn.add_section()
        # Text, not markup: names come from files, and "[red]" in one must print as it stands.
        drawn.add_row(*(Text(row.cells[i].text, style=_TERMINAL[row.cells[i].style]) for i in columns))
    return drawn


# ---- text


def to_markdown(table: Table) -> str:
    """The table for documentation, its heading above and its notes below."""
    aligned = ["---" if index == 0 or column.kind else "---:" for index, column in enumerate(table.columns)]
    lines = [[_markdown(column.title) for column in table.columns], aligned]
    for heading, row in table.grouped():
        if heading:
            lines.append([f"**{_markdown(heading)}**", *[""] * (len(aligned) - 1)])
        lines.append([f"**{_markdown(c.text)}**" if c.style == "strong" else _markdown(c.text) for c in row.cells])
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    parts = [f"## {_markdown(table.title)}", drawn, "\n".join(f"- {_markdown(note)}" for note in table.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(text: str) -> str:
    """For GitHub and MkDocs alike: one tilde means nothing to either, two strike out, and MkDocs cannot escape one."""
    kept = {"<": "&lt;"} | {letter: f"\\{letter}" for letter in "|*[]"}
    text = _MARKDOWN.sub(lambda found: kept.get(found[0], f"&#{ord(found[0])};"), _line(text))
    return text.replace("~", "&#126;") if text.count("~") > 1 else text


def to_latex(table: Table) -> str:
    """A ``tabular`` with booktabs rules; title and notes are comments."""
    align = "".join("l" if index == 0 or column.kind else "r" for index, column in enumerate(table.columns))
    lines = [f"% {_line(text)}" for text in (table.title, *table.notes)]
    lines += [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    lines += [_latex_row([_latex(column.title) for column in table.columns]), r"\midrule"]
    for heading, row in table.grouped():
        if row.rule:
            lines.append(r"\midrule")
        if heading:
            lines.append(_latex_row([rf"\multicolumn{{{len(align)}}}{{l}}{{\emph{{{_latex(heading)}}}}}"]))
        looks = [r"\textbf{%s}" if c.style == "strong" else "%s" for c in row.cells]
        lines.append(_latex_row([look % _latex(c.text) for look, c in zip(looks, row.cells, strict=True)]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex(text: str) -> str:
    return _line(text).translate(_LATEX)


def _line(text: str) -> str:
    return " ".join(text.splitlines())


def to_csv(table: Table | pd.DataFrame) -> str:
    """For programs: cells without notes. A spreadsheet can open it without running any of its texts."""
    safe = table.frame() if isinstance(table, Table) else table.copy()
    for name in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            # Of objects: a whole number stays one beside what is missing.
            safe[name] = pd.Series([_csv(value) for value in safe[name]], index=safe.index, dtype=object)
    safe.columns = pd.Index([as_cell(str(name)) for name in safe.columns])
    return str(safe.to_csv(index=False, lineterminator="\n"))


def _csv(value: object) -> object:
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return as_cell(value) if isinstance(value, str) else value


# ---- pages


def to_html(table: Table, drawing: str = "", sortable: bool = False) -> Markup:
    """A section of a page: heading, a drawing of `to_figure`, the table, its notes.

    Args:
        table: what to show.
        drawing: stands above the table.
        sortable: a click on a heading sorts by it; the table scrolls by itself.
    """
    values = {"table": table, "drawing": drawing, "sortable": sortable}
    return Markup(_pages().get_template("table.html.j2").render(values))


def to_figure(name: str, drawing: str, caption: str) -> Markup:
    """An ``<svg>`` element in the page's colours, with ids of its own, named for those who do not see it.

    The drawing's text is black on white where it stands alone; here it takes the page's ink, light or dark.
    """
    for colour, variable in _SCHEME.items():
        drawing = drawing.replace(colour, variable)
    # Every drawing counts its parts from 1; in one page each needs ids of its own.
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    drawing = drawing.replace("<svg ", f'<svg role="img" aria-labelledby="caption-{name}" ', 1)
    whole = Markup('<figure id="plot-{0}">{1}<figcaption id="caption-{0}">{2}</figcaption></figure>')
    return whole.format(name, Markup(drawing), caption)


def to_page(template: str, values: Mapping[str, Any]) -> str:
    """A self-contained page: a template that extends ``base.html.j2``, filled."""
    return _pages().get_template(template).render({"version": __version__, **values})


@functools.cache
def _pages() -> jinja2.Environment:
    loader = jinja2.PackageLoader("reg2rg.show", "")
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters |= {"section": to_html, "value": format_value, "interval": format_interval}
    return pages


# ---- files


def write_files(
    folder: Path, contents: Mapping[str, Content | Callable[[], Content]], outputs: Outputs | None = None
) -> list[Path]:
    """Write files, each whole or absent, and each on its own.

    Args:
        folder: created if it is not there.
        contents: name -> what it holds, or a function that makes it; see `reg2rg.core.files.Outputs`.
        outputs: collects what was written and what failed, for who goes on; ``None`` raises at the end.

    Returns:
        the files written, in that order.

    Raises:
        OutputsFailedError: some could not be written, and `outputs` is ``None``.
    """
    own = outputs or Outputs()
    for name, content in contents.items():
        own.write(folder / name, content)
    if outputs is None:
        own.check()
    return own.written
