"""A table in all its forms: what stands where, what is marked, and that programs can read it."""

from __future__ import annotations

import csv
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markdown import markdown
from rich.console import Console

from reg2rg.ablation.compare import Comparer, Comparison
from reg2rg.ablation.paper import paper_tables, with_paper
from reg2rg.ablation.scoring import Scores
from reg2rg.ablation.sweep import Run, TableSpec, load_sweep, packaged_sweeps
from reg2rg.ablation.table import AblationTable, Cell, Collected, Costs, build_table, mark
from reg2rg.core.progress import duration
from reg2rg.evaluation.bootstrap import Statistic
from reg2rg.show.ablation_files import write_table
from reg2rg.show.ablation_plots import draw_table
from reg2rg.show.ablation_tables import build_tables, long_frame
from reg2rg.show.ablation_terminal import print_table
from reg2rg.show.render import to_csv, to_latex, to_markdown

SPEC = TableSpec("toy", "A <toy> & more", "About_it.", "full", ("full", "small", "blind"), "V")
RUNS = {
    "full": Run("full", "full model", paper="Reg2RG"),
    "small": Run("small", "50 % smaller", paper="without LFD"),
    "blind": Run("blind", "no image", floor=True),
}


def scores(level: float) -> Scores:
    units = np.stack([level + np.linspace(-0.1, 0.1, 30), np.ones(30)], axis=1)
    made = {
        name: Statistic("language", "report", name, "", units, lambda s: s[..., 0] / s[..., 1], 30)
        for name in ("CE F1 (micro)", "BLEU-4")
    }
    studies = tuple(f"s{i}" for i in range(30))
    return Scores(studies, studies, made)


@pytest.fixture
def table() -> AblationTable:
    full = {0: scores(0.50), 1: scores(0.52), 2: scores(0.51)}
    collected = {
        "full": Collected(RUNS["full"], full, Costs(1234567, (8, 1, 8), 400.0, 30.0, 1.5)),
        "small": Collected(RUNS["small"], {0: scores(0.30), 1: scores(0.32)}, missing=(2,)),
        "blind": Collected(RUNS["blind"], {0: scores(0.1), 1: scores(0.1), 2: scores(0.1)}),
    }
    metrics = ("CE F1 (micro)", "BLEU-4", "METEOR")
    floors = {"every finding in every study": {"CE F1 (micro)": 0.2, "Recognition": 1.0}}
    return build_table(SPEC, collected, metrics, floors, Comparer(full, 200))


def cells_of(table: AblationTable, which: int = 0) -> list[list[str]]:
    """Headings and cells of one of its tables."""
    frame = build_tables(table)[which].frame()
    return [list(frame.columns), *frame.to_numpy().tolist()]


def as_markdown(table: AblationTable) -> str:
    return "\n".join(map(to_markdown, build_tables(table)))


def test_rows_stand_in_their_order(table: AblationTable) -> None:
    assert [(row.name, row.kind) for row in table.rows] == [
        ("full", "full"),
        ("small", "run"),
        ("blind", "floor"),
        ("every finding in every study", "floor"),
    ]
    assert table.metrics == ("CE F1 (micro)", "BLEU-4"), "a metric that nothing has is left out"
    assert [row[0] for row in cells_of(table)] == [
        "run",
        "noise floor: full model against itself",
        "full model",
        "50 % smaller (without seed 2)",
        "floor: no image",
        "floor: every finding in every study",
    ]


def test_numbers_and_marks(table: AblationTable) -> None:
    grid = {row[0]: row[1:] for row in cells_of(table)}
    assert grid["noise floor: full model against itself"] == ["±2.0", "±2.0"]
    assert grid["full model"] == ["51.0 ± 1.0", "51.0 ± 1.0"]
    assert grid["50 % smaller (without seed 2)"] == ["31.0 ± 1.4*", "31.0 ± 1.4*"]
    assert grid["floor: every finding in every study"] == ["20.0", "–"]
    small = table.rows[1].cells["CE F1 (micro)"].comparison
    assert small is not None
    assert small.difference == pytest.approx(-0.20)
    assert small.seeds == (0, 1)
    assert small.within_noise is False


def test_marks() -> None:
    def cell(corrected: float, within: bool | None) -> Cell:
        return Cell({0: 1.0}, 1.0, None, Comparison(0.1, 0.0, 0.2, 0.001, (0,), corrected, within))

    assert [mark(cell(0.01, False), 0.95), mark(cell(0.01, True), 0.95), mark(cell(0.2, True), 0.95)] == [
        "*",
        "*~",
        "~",
    ]
    assert mark(cell(0.2, None), 0.95) == mark(Cell({}, 1.0), 0.95) == ""
    assert mark(cell(0.05, None), 0.95) == "", "at the level is not below it"


def test_p_values_are_corrected_over_the_runs_and_not_the_floors() -> None:
    full = {0: scores(0.5)}
    names = ("full", "a", "b", "c", "f")
    runs = {name: Run(name, name, floor=name == "f") for name in names}
    collected = {name: Collected(runs[name], {0: scores(0.4)}) for name in names}
    collected["full"] = Collected(runs["full"], full)
    made = build_table(replace(SPEC, runs=names), collected, ("BLEU-4",), {}, Comparer(full, 200))
    found = {row.name: row.cells["BLEU-4"].comparison for row in made.rows if row.kind != "full"}
    assert {name: round(c.corrected / c.p) for name, c in found.items() if c is not None} == {
        "a": 3, "b": 3, "c": 3, "f": 1,
    }  # fmt: skip


def test_other_studies_are_not_compared() -> None:
    full, other = {0: scores(0.5)}, scores(0.4)
    other = replace(other, studies=tuple(f"x{i}" for i in range(30)))
    collected = {"full": Collected(RUNS["full"], full), "small": Collected(RUNS["small"], {0: other})}
    made = build_table(SPEC, collected, ("BLEU-4",), {}, Comparer(full, 50))
    assert made.rows[1].cells["BLEU-4"].comparison is None
    assert made.rows[1].cells["BLEU-4"].mean == pytest.approx(0.4)
    assert "Not compared, for it has other studies than the full model: small." in made.notes


def test_without_the_full_model_there_is_no_comparison_and_no_noise() -> None:
    made = build_table(SPEC, {"small": Collected(RUNS["small"], {0: scores(0.4)})}, ("BLEU-4",), {}, Comparer({}))
    assert made.notes[-1] == "Not compared yet: no seed of full is finished."
    assert made.noise == {}
    assert made.rows[0].cells["BLEU-4"].comparison is None
    assert "No noise floor: it takes two seeds of the full model." in as_markdown(made)


def test_markdown(table: AblationTable) -> None:
    lines = as_markdown(table).splitlines()
    assert lines[0] == "## A &lt;toy> & more"
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows[:7]} == {4}
    assert "| 50 % smaller (without seed 2) | 31.0 ± 1.4\\* | 31.0 ± 1.4\\* |" in rows
    assert any(row.startswith("| 50 % smaller | -20.0 \\[-") for row in rows)
    assert "| full model | 1,234,567 | 8 + 1 a region, 8 the image | 6.7 min | 30 s | 1.50 GiB |" in rows


def test_markdown_shows_marks_and_no_escapes(table: AblationTable) -> None:
    page = html.unescape(markdown(as_markdown(replace(table, title="~a~ [b] *c*")), extensions=["tables"]))
    assert "~a~ [b] *c*" in page
    assert "\\" not in page
    assert "31.0 ± 1.4*" in page


def test_csv_has_every_number_unrounded(table: AblationTable) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(long_frame(table)))))
    by_key = {(row["run"], row["metric"]): row for row in rows}
    small = by_key["small", "CE F1 (micro)"]
    assert float(small["mean"]) == pytest.approx(0.31)
    assert small["seeds"] == "2"
    assert [float(item.partition(":")[2]) for item in small["values"].split(";")] == pytest.approx([0.30, 0.32])
    assert small["significant"] == "True"
    assert [float(small[key]) for key in ("low", "difference", "high")] == pytest.approx([-0.2] * 3)
    assert float(by_key["full", "parameters_trained"]["mean"]) == 1234567
    assert float(by_key["noise floor: full model against itself", "BLEU-4"]["high"]) == pytest.approx(0.02)
    assert by_key["every finding in every study", "CE F1 (micro)"]["seeds"] == ""


def test_latex_has_no_character_that_breaks_it(table: AblationTable) -> None:
    text = to_latex(build_tables(table)[0])
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[0] == "\\begin{tabular}{lrr}"
    assert "50 \\% smaller (without seed 2) & 31.0 $\\pm$ 1.4$^*$ & 31.0 $\\pm$ 1.4$^*$ \\\\" in body
    assert all(line.count("&") == 2 for line in body if line.endswith("\\\\"))
    assert not any(character in "".join(body) for character in "±–−~#")


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def test_all_files_are_written(table: AblationTable, tmp_path: Path) -> None:
    written = write_table(table, tmp_path)
    assert [path.name for path in written] == ["toy.md", "toy.csv", "toy.tex", "toy.svg", "toy.png", "toy.html"]
    page = Page()
    text = (tmp_path / "toy.html").read_text(encoding="utf-8")
    page.feed(text)
    assert "A <toy> & more" in page.cells
    assert "31.0 ± 1.4*" in page.cells
    assert {"svg", "table"} <= set(page.tags)
    assert not re.search(r"(?:src|href)=\"https?:", text), "self-contained"


def test_the_plot_shows_seeds_means_intervals_and_the_noise(table: AblationTable) -> None:
    figure = draw_table(table)
    assert figure is not None
    first = figure.axes[0]
    assert first.get_title(loc="left") == "CE F1"
    assert [label.get_text() for label in first.get_yticklabels()] == [
        "full model", "50 % smaller", "floor: no image", "floor: every finding in every study",
    ]  # fmt: skip
    points = sorted(len(line.get_xdata()) for line in first.lines if line.get_marker() == "o")
    assert points == [0, 2, 3, 3]
    band = first.patches[0].get_extents().transformed(first.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((49.0, 53.0))


def test_no_run_no_plot(table: AblationTable) -> None:
    assert draw_table(replace(table, rows=table.rows[2:])) is None


def test_a_narrow_terminal_continues_the_columns_below(table: AblationTable) -> None:
    out = io.StringIO()
    print_table(table, Console(file=out, width=52, force_terminal=True, no_color=True))
    lines = re.sub(r"\x1b\[\d*m", "", out.getvalue()).splitlines()
    assert max(map(len, lines)) <= 52
    assert "\n".join(lines).count("31.0 ± 1.4*") == 2
    assert "\n".join(lines).count("noise floor: full model") == 2, "rows are named in each part"


def test_costs_are_of_runs_alone(table: AblationTable) -> None:
    assert [row[0] for row in cells_of(table, 2)] == ["run", "full model"]
    assert [duration(s) for s in (None, 5, 89, 90, 5399, 7200)] == ["–", "5 s", "89 s", "1.5 min", "90.0 min", "2.0 h"]


# ---- the paper's figures


def test_the_papers_figures_stand_in_columns_of_their_own(table: AblationTable) -> None:
    beside = with_paper(table, SPEC, RUNS)
    grid = cells_of(beside)
    assert grid[0] == ["run", "CE F1", "BLEU-4", "CE F1, paper", "BLEU-4, paper"]
    assert grid[2][3:] == ["25.3", "24.9"]
    assert grid[3][3:] == ["20.0", "25.7"]
    assert [row[1:3] for row in grid] == [row[1:] for row in cells_of(table)], "what was measured is untouched"
    assert "arXiv 2411.15539" in as_markdown(beside)
    assert "paper" not in as_markdown(table)


def test_every_row_of_the_paper_is_a_run_of_a_packaged_sweep() -> None:
    tables = paper_tables()
    for sweep in map(load_sweep, packaged_sweeps()):
        for spec in sweep.tables:
            named = {sweep.runs[name].paper for name in spec.runs} - {""}
            if spec.paper in tables:
                assert named == set(tables[spec.paper].rows), spec.name
                tables.pop(spec.paper) if spec.name == sweep.name else None
    assert not tables


def test_the_papers_figures_are_those_of_the_published_files() -> None:
    """Where the shipped files have the number too: systems' own scoring of 1,564 volumes."""
    own = paper_tables()["I"].rows["Reg2RG"]
    assert own["BLEU-4"] == pytest.approx(24.87)
    assert own["CE F1 (micro)"] == 25.3
    for name, entry in paper_tables().items():
        assert "Reg2RG" in entry.rows, name
        assert entry.source.startswith("arXiv")
