"""A table of a sweep as files: Markdown, CSV, LaTeX, HTML, and a plot. Each is whole or absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from reg2rg.ablation.table import AblationTable
from reg2rg.core.files import Content, Outputs
from reg2rg.show.ablation_plots import draw_table
from reg2rg.show.ablation_tables import build_tables, long_frame
from reg2rg.show.plots import png, svg
from reg2rg.show.render import to_csv, to_figure, to_latex, to_markdown, to_page, write_files

_CAPTION = (
    "Each run in each metric: circles are seeds, diamonds their means, crosses floors without a seed; bars are the "
    "intervals of the difference, drawn from the full model on; the band is the noise floor."
)


def write_table(table: AblationTable, folder: Path, outputs: Outputs | None = None) -> list[Path]:
    """Write all forms of a table, each on its own.

    Args:
        table: what to write.
        folder: created if it is not there.
        outputs: as in `reg2rg.show.render.write_files`.

    Returns:
        the files.

    Raises:
        OutputsFailedError: some could not be written, and `outputs` is ``None``.
    """
    tables = build_tables(table)
    drawing: list[str] = []

    def draw() -> Figure | None:
        return draw_table(table)

    def vector() -> str | None:
        figure = draw()
        if figure is not None:
            drawing.append(svg(figure))
        return drawing[0] if drawing else None

    def page() -> str:
        values = {
            "title": table.title,
            "tables": [replace(tables[0], title="Scores"), *tables[1:]],
            "plot": to_figure("runs", drawing[0], _CAPTION) if drawing else "",
        }
        return to_page("ablation.html.j2", values)

    contents: dict[str, Callable[[], Content]] = {
        "md": lambda: "\n".join(map(to_markdown, tables)),
        "csv": lambda: to_csv(long_frame(table)),
        "tex": lambda: to_latex(tables[0]),
        "svg": vector,
        "png": lambda: png(figure) if (figure := draw()) is not None else None,
        "html": page,
    }
    return write_files(folder, {f"{table.name}.{ending}": content for ending, content in contents.items()}, outputs)
