"""A table of a sweep as files: Markdown, CSV, LaTeX, HTML, and a plot. Each is whole or absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reg2rg.ablation.table import AblationTable
from reg2rg.show.ablation_plots import draw_table
from reg2rg.show.ablation_tables import build_tables, long_frame
from reg2rg.show.plots import png, svg
from reg2rg.show.render import to_csv, to_figure, to_latex, to_markdown, to_page, write_files

_CAPTION = (
    "Each run in each metric: circles are seeds, diamonds their means, crosses floors without a seed; bars are the "
    "intervals of the difference, drawn from the full model on; the band is the noise floor."
)


def write_table(table: AblationTable, folder: Path) -> list[Path]:
    """Write all forms of a table.

    Returns:
        the files.
    """
    tables, figure = build_tables(table), draw_table(table)
    drawing = svg(figure) if figure is not None else None
    page = {
        "title": table.title,
        "tables": [replace(tables[0], title="Scores"), *tables[1:]],
        "plot": to_figure("runs", drawing, _CAPTION) if drawing else "",
    }
    contents = {
        "md": "\n".join(map(to_markdown, tables)),
        "csv": to_csv(long_frame(table)),
        "tex": to_latex(tables[0]),
        "html": to_page("ablation.html.j2", page),
        "svg": drawing,
        "png": png(figure) if figure is not None else None,
    }
    return write_files(folder, {f"{table.name}.{ending}": content for ending, content in contents.items()})
