"""A table in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reg2rg.ablation.table import AblationTable
from reg2rg.ablation.writing import cost_grid, difference_grid, legend, score_grid


def print_table(table: AblationTable, console: Console) -> None:
    """Print scores, differences and costs, and what they mean."""
    console.print()
    for title, grid in (
        (table.title, score_grid(table)),
        ("Differences to the full model, in percent points", difference_grid(table)),
        ("What a run takes", cost_grid(table)),
    ):
        if len(grid) < 2:
            continue
        drawn = Table(title=title, title_justify="left")
        for place, column in enumerate(grid[0]):
            drawn.add_column(Text(column), justify="left" if place == 0 else "right", overflow="fold")
        for row in grid[1:]:
            drawn.add_row(*map(Text, row))  # brackets are no markup here
        console.print(drawn)
    for sentence in legend(table):
        console.print(f"- {sentence}", markup=False, highlight=False)
