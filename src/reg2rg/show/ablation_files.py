"""A table as files: Markdown, CSV, LaTeX, HTML, and a plot. Each is whole or absent."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from reg2rg.ablation.table import IN_NOISE, SIGNIFICANT, AblationTable, Cell, Row, head, is_significant, level, mark
from reg2rg.core.files import atomic_write
from reg2rg.core.progress import MISSING, duration
from reg2rg.evaluation.records import as_cell
from reg2rg.show.ablation_plots import draw_table
from reg2rg.show.plots import png, svg

NOISE_TITLE = "noise floor: full model against itself"
COSTS = ("parameters trained", "visual tokens", "training", "prediction", "peak memory")
Grid = list[list[str]]


def write_table(table: AblationTable, folder: Path) -> list[Path]:
    """Write all forms of a table.

    Returns:
        the files.
    """
    figure = draw_table(table)
    drawing = svg(figure) if figure is not None else ""
    contents: dict[str, bytes] = {
        "md": as_markdown(table).encode(),
        "csv": as_csv(table).encode(),
        "tex": as_latex(table).encode(),
        "html": as_html(table, drawing).encode(),
    }
    if figure is not None:
        contents |= {"svg": drawing.encode(), "png": png(figure)}
    written = []
    for ending, content in contents.items():
        path = folder / f"{table.name}.{ending}"
        with atomic_write(path) as stream:
            stream.write(content)
        written.append(path)
    return written


def score_grid(table: AblationTable) -> Grid:
    """Heading, noise floor, full model, runs, floors: mean and spread in percent, with marks."""
    paper = [f"{head(m)}, paper" for m in table.metrics if any(m in row.paper for row in table.rows)]
    shown = [m for m in table.metrics if any(m in row.paper for row in table.rows)]
    grid: Grid = [["run", *map(head, table.metrics), *paper]]
    if table.noise:
        noise = [f"±{_percent(n.largest)}" if (n := table.noise.get(m)) else MISSING for m in table.metrics]
        grid.append([NOISE_TITLE, *noise, *([""] * len(paper))])
    for row in table.rows:
        title = f"floor: {row.title}" if row.kind == "floor" else row.title
        cells = [score_text(row.cells.get(m), table.confidence) for m in table.metrics]
        published = [f"{row.paper[m]:.1f}" if m in row.paper else MISSING for m in shown]
        grid.append([title + _missing(row), *cells, *published])
    return grid


def difference_grid(table: AblationTable) -> Grid:
    """Differences to the full model with their intervals, in percent points."""
    level = f"{table.confidence:.0%}"
    grid: Grid = [[f"run − full [{level} interval] p", *map(head, table.metrics)]]
    for row in table.rows:
        if any(cell.comparison is not None for cell in row.cells.values()):
            title = f"floor: {row.title}" if row.kind == "floor" else row.title
            grid.append([title, *(difference_text(row.cells.get(m), table.confidence) for m in table.metrics)])
    return grid


def cost_grid(table: AblationTable) -> Grid:
    """What runs take."""
    grid: Grid = [["run", *COSTS]]
    for row in table.rows:
        costs = row.costs
        if costs.parameters_trained is None:
            continue
        tokens = MISSING
        if costs.tokens is not None:
            texture, geometry, image = costs.tokens
            tokens = f"{texture} + {geometry} a region, {image} the image"
        grid.append(
            [
                row.title,
                f"{costs.parameters_trained:,}",
                tokens,
                duration(costs.train_seconds),
                duration(costs.predict_seconds),
                f"{costs.peak_memory_gib:.2f} GiB" if costs.peak_memory_gib else MISSING,
            ]
        )
    return grid


def score_text(cell: Cell | None, confidence: float) -> str:
    """``27.4 ± 1.2*``."""
    if cell is None:
        return MISSING
    spread = f" ± {_percent(cell.std)}" if cell.std is not None else ""
    return f"{_percent(cell.mean)}{spread}{mark(cell, confidence)}"


def difference_text(cell: Cell | None, confidence: float) -> str:
    """``-3.1 [-5.0, -1.2] 0.004*``; p is the corrected one."""
    found = cell.comparison if cell is not None else None
    if cell is None or found is None:
        return MISSING
    span = f"[{_signed(found.low)}, {_signed(found.high)}]"
    return f"{_signed(found.difference)} {span} {found.corrected:.3f}{mark(cell, confidence)}"


def legend(table: AblationTable) -> list[str]:
    """What the numbers are, one sentence each."""
    seeds = sorted({seed for row in table.rows for cell in row.cells.values() for seed in cell.values})
    found = [
        f"Percent; mean ± standard deviation over {len(seeds)} seed{'s' if len(seeds) != 1 else ''} "
        f"({', '.join(map(str, seeds))}). 'Truth' is against the data set's labels, 'CE' against labels read from the "
        "reference reports.",
        f"{SIGNIFICANT} differs from the full model (p < {level(table.confidence):g} after Holm's correction over the "
        "runs of this table): bootstrap over patients, paired by study and seed, with a t term for the few seeds. "
        f"{IN_NOISE} no further from the full model than two of its own seeds are from each other.",
    ]
    if table.noise:
        pairs = max(noise.pairs for noise in table.noise.values())
        by_chance = "; ".join(f"{head(m)} {n.different}" for m, n in table.noise.items() if n.different)
        found.append(
            f"Noise floor: the largest difference between two seeds of the full model ({pairs} "
            f"pair{'s' if pairs != 1 else ''}). Pairs of equal models that a bootstrap over patients alone calls "
            f"different: {by_chance or 'none'}."
        )
    else:
        found.append("No noise floor: it takes two seeds of the full model.")
    if table.paper:
        found.append(f"Columns 'paper': {table.paper} Other data; not to be compared digit by digit.")
    return [*found, *table.notes]


def as_markdown(table: AblationTable) -> str:
    """The table for people and for documentation."""
    parts = [f"## {_escaped(table.title)}", _escaped(table.about), _markdown(score_grid(table))]
    if len(differences := difference_grid(table)) > 1:
        parts += ["Differences, in percent points:", _markdown(differences)]
    if len(costs := cost_grid(table)) > 1:
        parts += ["What a run takes:", _markdown(costs)]
    parts.append("\n".join(f"- {_escaped(sentence)}" for sentence in legend(table)))
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def as_latex(table: AblationTable) -> str:
    """A ``tabular`` with booktabs rules, and its legend as comments."""
    heading, *rows = [[_tex(cell) for cell in row] for row in score_grid(table)]
    first_floor = next((i for i, row in enumerate(rows) if row[0].startswith("floor: ")), None)
    lines = [
        f"% {table.title}",
        *(f"% {sentence}" for sentence in legend(table)),
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * (len(heading) - 1)}}}",
        "\\toprule",
        f"{' & '.join(heading)} \\\\",
        "\\midrule",
    ]
    for place, row in enumerate(rows):
        if place == first_floor:
            lines.append("\\midrule")
        lines.append(f"{' & '.join(row)} \\\\")
        if place == 0 and table.noise:
            lines.append("\\midrule")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def as_csv(table: AblationTable) -> str:
    """One line a row and metric, unrounded, for programs. Costs are metrics without comparison."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ("table", "run", "kind", "metric", "mean", "std", "seeds", "values", "difference", "low", "high", "p",
         "p_corrected", "significant", "within_noise", "paper")
    )  # fmt: skip
    for metric, noise in table.noise.items():
        start = (as_cell(table.name), NOISE_TITLE, "noise", metric)
        writer.writerow((*start, "", "", noise.pairs, "", noise.mean, "", noise.largest, *[""] * 5))
    for row in table.rows:
        for metric in table.metrics:
            if metric in row.cells or metric in row.paper:
                writer.writerow(_csv_row(table, row, metric))
        for metric, value in _cost_values(row):
            writer.writerow((as_cell(table.name), as_cell(row.name), row.kind, metric, value, *[""] * 11))
    return stream.getvalue()


def _csv_row(table: AblationTable, row: Row, metric: str) -> list[object]:
    cell = row.cells.get(metric)
    found: list[object] = [as_cell(table.name), as_cell(row.name), row.kind, metric]
    if cell is None:
        return [*found, *[""] * 11, row.paper.get(metric, "")]
    values = ";".join(f"{seed}:{value!r}" for seed, value in cell.values.items())
    found += [cell.mean, "" if cell.std is None else cell.std, len(cell.values) or "", values]
    compared = cell.comparison
    if compared is None:
        found += [""] * 7
    else:
        within = "" if compared.within_noise is None else compared.within_noise
        significant = is_significant(compared, table.confidence)
        found += [compared.difference, compared.low, compared.high, compared.p, compared.corrected, significant, within]
    return [*found, row.paper.get(metric, "")]


def _cost_values(row: Row) -> list[tuple[str, object]]:
    costs = row.costs
    found: list[tuple[str, object]] = [
        ("parameters_trained", costs.parameters_trained),
        ("train_seconds", costs.train_seconds),
        ("predict_seconds", costs.predict_seconds),
        ("peak_memory_gib", costs.peak_memory_gib),
    ]
    if costs.tokens is not None:
        names = ("texture_tokens", "geometry_tokens", "global_tokens")
        found += list(zip(names, costs.tokens, strict=True))
    return [(name, value) for name, value in found if value is not None]


def as_html(table: AblationTable, drawing: str) -> str:
    """One self-contained page."""
    source = (files("reg2rg.show") / "ablation.html.j2").read_text(encoding="utf-8")
    grids: list[tuple[str, Grid]] = [("Scores", score_grid(table))]
    if len(differences := difference_grid(table)) > 1:
        grids.append(("Differences to the full model, in percent points", differences))
    if len(costs := cost_grid(table)) > 1:
        grids.append(("What a run takes", costs))
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    return page.render(
        title=table.title, about=table.about, grids=grids, legend=legend(table), drawing=drawing, noise=NOISE_TITLE
    )


def _markdown(grid: Sequence[Sequence[str]]) -> str:
    heading, *rows = [[_escaped(cell) for cell in row] for row in grid]
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rows))


_ESCAPES = str.maketrans({"|": "\\|", "*": "\\*", "<": "&lt;", "[": "\\[", "]": "\\]"})


def _escaped(text: str) -> str:
    """For GitHub and MkDocs alike: one tilde means nothing to either, two strike out, and MkDocs cannot escape one."""
    text = text.translate(_ESCAPES)
    return text.replace("~", "&#126;") if text.count("~") > 1 else text


def _tex(text: str) -> str:
    special = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
    special |= {"~": r"$^\sim$", "*": r"$^*$", "±": r"$\pm$", "–": "--", "−": "$-$", "\\": r"\textbackslash{}"}
    return "".join(special.get(letter, letter) for letter in text)


def _missing(row: Row) -> str:
    return f" (without seed {', '.join(map(str, row.missing))})" if row.missing else ""


def _percent(value: float) -> str:
    return MISSING if not math.isfinite(value) else f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"
