"""Tables of a sweep: scores, differences to the full model, and what runs take."""

from __future__ import annotations

import math
from dataclasses import asdict

import pandas as pd

from reg2rg.ablation.table import IN_NOISE, SIGNIFICANT, AblationTable, Cell, Row, head, is_significant, level, mark
from reg2rg.core.progress import MISSING, duration
from reg2rg.show.table import Table, make_row, make_table

NOISE_TITLE = "noise floor: full model against itself"
_LONG = (
    "table", "run", "kind", "metric", "mean", "std", "seeds", "values", "difference", "low", "high", "p",
    "p_corrected", "significant", "within_noise", "paper",
)  # fmt: skip


def build_tables(table: AblationTable) -> list[Table]:
    """Scores with their legend, then differences and costs where there are any."""
    scores, *others = _scores(table), _differences(table), _costs(table)
    return [scores, *(other for other in others if other.rows)]


def row_title(row: Row) -> str:
    """What a row is called in tables and plots."""
    return f"floor: {row.title}" if row.kind == "floor" else row.title


def _scores(table: AblationTable) -> Table:
    """Noise floor, full model, runs, floors: mean and spread in percent, with marks."""
    published = [m for m in table.metrics if any(m in row.paper for row in table.rows)]
    rows = []
    if table.noise:
        noise = [f"±{_percent(n.largest)}" if (n := table.noise.get(m)) else MISSING for m in table.metrics]
        rows.append(make_row([NOISE_TITLE, *noise, *[""] * len(published)], style="noise"))
    first_floor = next((row for row in table.rows if row.kind == "floor"), None)
    for row in table.rows:
        without = f" (without seed {', '.join(map(str, row.missing))})" if row.missing else ""
        cells = [_score(row.cells.get(m), table.confidence) for m in table.metrics]
        paper = [f"{row.paper[m]:.1f}" if m in row.paper else MISSING for m in published]
        rule = row is first_floor or (bool(table.noise) and row is table.rows[0])
        texts = [row_title(row) + without, *cells, *paper]
        rows.append(make_row(texts, style="soft" if row.kind == "floor" else "", rule=rule))
    heads = ["run", *map(head, table.metrics), *(f"{head(m)}, paper" for m in published)]
    return make_table("scores", table.title, heads, rows, _legend(table))


def _differences(table: AblationTable) -> Table:
    """Differences to the full model with their intervals; p is the corrected one."""
    rows = []
    for row in table.rows:
        if any(cell.comparison is not None for cell in row.cells.values()):
            cells = [_difference(row.cells.get(m), table.confidence) for m in table.metrics]
            rows.append(make_row([row_title(row), *cells], style="soft" if row.kind == "floor" else ""))
    heads = [f"run − full [{table.confidence:.0%} interval] p", *map(head, table.metrics)]
    return make_table("differences", "Differences to the full model, in percent points", heads, rows)


def _costs(table: AblationTable) -> Table:
    rows = []
    for row in table.rows:
        costs = row.costs
        if costs.parameters_trained is not None:
            tokens = "{} + {} a region, {} the image".format(*costs.tokens) if costs.tokens else MISSING
            times = duration(costs.train_seconds), duration(costs.predict_seconds)
            memory = f"{costs.peak_memory_gib:.2f} GiB" if costs.peak_memory_gib else MISSING
            rows.append((row.title, costs.parameters_trained, tokens, *times, memory))
    heads = ("run", "parameters trained", "visual tokens", "training", "prediction", "peak memory")
    return make_table("costs", "What a run takes", heads, rows)


def _score(cell: Cell | None, confidence: float) -> str:
    """``27.4 ± 1.2*``."""
    if cell is None:
        return MISSING
    spread = f" ± {_percent(cell.std)}" if cell.std is not None else ""
    return f"{_percent(cell.mean)}{spread}{mark(cell, confidence)}"


def _difference(cell: Cell | None, confidence: float) -> str:
    """``-3.1 [-5.0, -1.2] 0.004*``."""
    found = cell.comparison if cell is not None else None
    if cell is None or found is None:
        return MISSING
    difference, low, high = (f"{100 * value:+.1f}" for value in (found.difference, found.low, found.high))
    return f"{difference} [{low}, {high}] {found.corrected:.3f}{mark(cell, confidence)}"


def _percent(value: float) -> str:
    return MISSING if not math.isfinite(value) else f"{100 * value:.1f}"


def _legend(table: AblationTable) -> list[str]:
    """What the numbers are, one sentence each."""
    seeds = sorted({seed for row in table.rows for cell in row.cells.values() for seed in cell.values})
    found = [
        *([table.about.strip()] if table.about.strip() else []),
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


def long_frame(table: AblationTable) -> pd.DataFrame:
    """One line a row and metric, unrounded, for programs. Costs are metrics without comparison."""
    lines: list[dict[str, object]] = [
        {"run": NOISE_TITLE, "kind": "noise", "metric": metric, "seeds": noise.pairs, "difference": noise.mean,
         "high": noise.largest}
        for metric, noise in table.noise.items()
    ]  # fmt: skip
    for row in table.rows:
        kept = {"run": row.name, "kind": row.kind}
        for metric in table.metrics:
            if metric in row.cells or metric in row.paper:
                figures = _figures(row.cells.get(metric), table.confidence)
                lines.append({**kept, "metric": metric, **figures, "paper": row.paper.get(metric)})
        costs = asdict(row.costs)
        tokens = costs.pop("tokens") or ()
        costs |= zip(("texture_tokens", "geometry_tokens", "global_tokens"), tokens, strict=False)
        lines += [{**kept, "metric": name, "mean": value} for name, value in costs.items() if value is not None]
    cells = [[table.name, *(line.get(name) for name in _LONG[1:])] for line in lines]
    return pd.DataFrame(cells, columns=_LONG, dtype=object)


def _figures(cell: Cell | None, confidence: float) -> dict[str, object]:
    if cell is None:
        return {}
    found: dict[str, object] = {
        "mean": cell.mean,
        "std": cell.std,
        "seeds": len(cell.values) or None,
        "values": ";".join(f"{seed}:{value!r}" for seed, value in cell.values.items()),
    }
    if (compared := cell.comparison) is not None:
        found |= {name: getattr(compared, name) for name in ("difference", "low", "high", "p", "within_noise")}
        found |= {"p_corrected": compared.corrected, "significant": is_significant(compared, confidence)}
    return found
