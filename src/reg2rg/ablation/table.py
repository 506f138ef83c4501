"""The table of a sweep: rows of runs with mean and spread over seeds, the noise floor on top, the floors below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from reg2rg.ablation.compare import Comparer, Comparison, Noise, SeedScores, holm
from reg2rg.ablation.sweep import Run, TableSpec

Kind = Literal["full", "run", "floor"]
SIGNIFICANT, IN_NOISE = "*", "~"
_HEADS = {
    "Recognition (mean over regions)": "Recognition",
    "Truth precision (micro)": "Truth P",
    "Truth recall (micro)": "Truth R",
    "Truth F1 (micro)": "Truth F1",
    "CE precision (micro)": "CE P",
    "CE recall (micro)": "CE R",
    "CE F1 (micro)": "CE F1",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One metric of one row.

    Attributes:
        values: seed -> number; empty for floors that have no seed.
        mean: over the seeds.
        std: sample standard deviation over the seeds; ``None`` with one.
        comparison: with the full model.
    """

    values: Mapping[int, float]
    mean: float
    std: float | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run takes; means over its seeds.

    Attributes:
        parameters_trained: numbers that train.
        tokens: visual tokens: texture and geometry of a region, the whole image.
        train_seconds: of training.
        predict_seconds: of generating the reports.
        peak_memory_gib: the most over the seeds.
    """

    parameters_trained: int | None = None
    tokens: tuple[int, int, int] | None = None
    train_seconds: float | None = None
    predict_seconds: float | None = None
    peak_memory_gib: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A run, or a floor.

    Attributes:
        name: of the run; the title for floors without a run.
        title: as shown.
        kind: where it stands.
        cells: metric -> cell.
        costs: what it takes.
        missing: seeds that are not finished.
        paper: metric -> the paper's figure, where it has one.
    """

    name: str
    title: str
    kind: Kind
    cells: Mapping[str, Cell]
    costs: Costs = Costs()
    missing: tuple[int, ...] = ()
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AblationTable:
    """Everything that the outputs of a table are made from.

    Attributes:
        name: of its files.
        title: above it.
        about: below the title.
        metrics: columns.
        rows: full model, runs, floors.
        noise: metric -> the full model against itself.
        notes: sentences below.
        confidence: of the intervals.
        paper: where the paper's figures come from, "" if they are not shown.
    """

    name: str
    title: str
    about: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    noise: Mapping[str, Noise]
    notes: tuple[str, ...] = ()
    confidence: float = 0.95
    paper: str = ""


@dataclass(frozen=True, slots=True)
class Collected:
    """Finished seeds of a run.

    Attributes:
        run: what it is.
        scores: seed -> scores.
        costs: what it takes.
        missing: seeds that are not finished.
    """

    run: Run
    scores: SeedScores
    costs: Costs = Costs()
    missing: tuple[int, ...] = ()


def build_table(
    spec: TableSpec,
    collected: Mapping[str, Collected],
    metrics: Sequence[str],
    floors: Mapping[str, Mapping[str, float]],
    comparer: Comparer,
    notes: Sequence[str] = (),
) -> AblationTable:
    """Put a table together from finished runs.

    Args:
        spec: which rows.
        collected: run -> its finished seeds.
        metrics: columns; one that no row has is left out.
        floors: floor -> metric -> value, for rows without a run.
        comparer: of the full model.
        notes: sentences below.
    """
    rows = [_row(collected[name], spec, metrics, comparer) for name in spec.runs if name in collected]
    rows = [row for row in rows if row.cells or row.missing]
    noise = {metric: found for metric in metrics if (found := comparer.noise(metric)) is not None}
    rows = _judged(rows, metrics, noise)
    for name, values in floors.items():
        cells = {metric: Cell({}, value) for metric, value in values.items() if metric in metrics}
        if cells:
            rows.append(Row(name, name, "floor", cells))
    shown = tuple(metric for metric in metrics if any(metric in row.cells for row in rows))
    order = {"full": 0, "run": 1, "floor": 2}
    rows.sort(key=lambda row: order[row.kind])
    more = []
    if not comparer.studies:
        more = [f"Not compared yet: no seed of {spec.full} is finished."]
    elif odd := [
        found.run.name for found in collected.values() if any(not comparer.comparable(s) for s in found.scores.values())
    ]:
        more = [f"Not compared, for it has other studies than the full model: {', '.join(odd)}."]
    return AblationTable(
        spec.name, spec.title, spec.about, shown, tuple(rows), noise, (*notes, *more), comparer.confidence
    )


def _row(found: Collected, spec: TableSpec, metrics: Sequence[str], comparer: Comparer) -> Row:
    run = found.run
    kind: Kind = "full" if run.name == spec.full else "floor" if run.floor else "run"
    cells = {}
    for metric in metrics:
        values = {seed: v for seed, s in sorted(found.scores.items()) if (v := s.value(metric)) is not None}
        if values:
            numbers = list(values.values())
            std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
            compared = comparer.compare(found.scores, metric) if kind != "full" else None
            cells[metric] = Cell(values, float(np.mean(numbers)), std, compared)
    return Row(run.name, run.title, kind, cells, found.costs, found.missing)


def _judged(rows: Sequence[Row], metrics: Sequence[str], noise: Mapping[str, Noise]) -> list[Row]:
    """Rows with p values corrected over the runs, and marked as noise; floors are no hypotheses, their p stay."""
    changed = {row.name: dict(row.cells) for row in rows}
    for metric in metrics:
        cells = [(row, row.cells[metric]) for row in rows if metric in row.cells]
        compared = [(row, cell, found) for row, cell in cells if (found := cell.comparison) is not None]
        tested = {row.name: found.p for row, _, found in compared if row.kind == "run"}
        corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
        for row, cell, found in compared:
            within = abs(found.difference) <= noise[metric].largest if metric in noise else None
            p = corrected.get(row.name, found.p)
            changed[row.name][metric] = replace(cell, comparison=replace(found, corrected=p, within_noise=within))
    return [replace(row, cells=changed[row.name]) for row in rows]


def mark(cell: Cell, confidence: float) -> str:
    """``*`` for a difference that is significant after correction, ``~`` for one within the noise, both for both."""
    found = cell.comparison
    if found is None:
        return ""
    significant = SIGNIFICANT if is_significant(found, confidence) else ""
    return significant + (IN_NOISE if found.within_noise else "")


def is_significant(found: Comparison, confidence: float) -> bool:
    """Whether the corrected p is below the level."""
    return found.corrected < level(confidence)


def level(confidence: float) -> float:
    """1 - confidence, without the dust of floating point."""
    return round(1 - confidence, 12)


def head(metric: str) -> str:
    """A metric's name as a narrow column has it."""
    return _HEADS.get(metric, metric)
