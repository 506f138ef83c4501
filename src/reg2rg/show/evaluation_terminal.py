"""An evaluation in the terminal: the verdict first, then its tables."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from reg2rg.evaluation.results import Evaluation
from reg2rg.show.evaluation_tables import build_tables
from reg2rg.show.phrases import below_floor, headline, verdict
from reg2rg.show.render import print_items, print_tables
from reg2rg.show.table import MARK


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print an evaluation: what was scored and how, then each table with its definitions below."""
    console.print(Text(f"Evaluation of {evaluation.name}", style="bold"))
    console.print(Text(headline(evaluation)))
    if evaluation.protocol_text:
        console.print(Text(evaluation.protocol_text, style="dim"))
    print_items(evaluation.notes, console)
    if said := verdict(evaluation):
        beaten = not below_floor(evaluation)
        console.print(Text(said if beaten else f"{MARK} {said}", style="" if beaten else "bold yellow"))
    tables = build_tables(evaluation)
    print_tables([table for table in tables if not table.lengthy], console)
    if lengthy := [table.title for table in tables if table.lengthy]:
        console.print()
        console.print(Text(f"On the page only (--out): {'; '.join(lengthy)}.", style="dim"))
