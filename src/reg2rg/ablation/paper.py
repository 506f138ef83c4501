"""The paper's own figures, beside a table on request: of other data, and never mixed with what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from reg2rg.ablation.sweep import Run, TableSpec
from reg2rg.ablation.table import AblationTable
from reg2rg.core.documents import read_yaml

FILE = "paper.yaml"


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        title: what it shows.
        source: where the figures come from.
        rows: row -> metric -> figure, in percent.
    """

    title: str
    source: str
    rows: Mapping[str, Mapping[str, float]]


def paper_tables() -> dict[str, PaperTable]:
    """The packaged figures by the paper's number of the table."""
    content: dict[str, Any] = read_yaml(Path(str(files("reg2rg.ablation"))) / FILE)
    source = str(content["source"])
    return {
        name: PaperTable(entry["title"], source, {row: dict(values) for row, values in entry["rows"].items()})
        for name, entry in content["tables"].items()
    }


def with_paper(table: AblationTable, spec: TableSpec, runs: Mapping[str, Run]) -> AblationTable:
    """The table with the paper's figures in their own columns, where its table has a row for a run."""
    known = paper_tables()
    if spec.paper not in known:
        return table
    paper = known[spec.paper]
    rows = []
    for row in table.rows:
        name = runs[row.name].paper if row.name in runs else ""
        figures = {metric: value for metric, value in paper.rows.get(name, {}).items() if metric in table.metrics}
        rows.append(replace(row, paper=figures))
    return replace(table, rows=tuple(rows), paper=f"table {spec.paper} of the paper ({paper.title}); {paper.source}")
