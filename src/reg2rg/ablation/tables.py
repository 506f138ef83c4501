"""The tables of a plan, made from whatever is finished: runs are read back from their folders and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reg2rg.ablation.compare import Comparer
from reg2rg.ablation.execute import Task
from reg2rg.ablation.facts import Facts
from reg2rg.ablation.paper import with_paper
from reg2rg.ablation.plan import PREDICTIONS, Plan
from reg2rg.ablation.scoring import Scorer, Scores
from reg2rg.ablation.state import read_run, state_of
from reg2rg.ablation.sweep import Run, TableSpec
from reg2rg.ablation.table import AblationTable, Collected, Costs, build_table
from reg2rg.core.regions import load_region_set
from reg2rg.evaluation.labelers import Labeler


def make_tables(
    plan: Plan, tasks: Sequence[Task], facts: Facts, labeler: Labeler | None, paper: bool = False
) -> list[AblationTable]:
    """All tables of a sweep; none while no run is finished.

    Args:
        plan: of the whole sweep, not of chosen runs alone.
        tasks: its jobs.
        facts: of the data; for truth labels.
        labeler: reads findings.
        paper: show the paper's figures.
    """
    by_run: dict[str, list[Task]] = {}
    for task in tasks:
        by_run.setdefault(task.run, []).append(task)
    regions = load_region_set((plan.jobs[0].config.get("task") or {}).get("regions", "radgenome"))
    views: dict[str, _View] = {}  # tables of one protocol share scores and draws
    tables = []
    for spec in plan.sweep.tables:
        if spec.protocol not in views:
            metrics = [m for other in plan.sweep.tables if other.protocol == spec.protocol for m in other.metrics]
            scorer = Scorer(spec.protocol, labeler, regions, tuple(dict.fromkeys(metrics)), facts.truth)
            views[spec.protocol] = _View(plan, by_run, scorer)
        table = views[spec.protocol].table(spec)
        if any(row.cells for row in table.rows if row.kind != "floor"):
            tables.append(with_paper(table, spec, plan.sweep.runs) if paper else table)
    return tables


class _View:
    """All runs by one protocol.

    Args:
        plan: of the sweep.
        by_run: run -> its tasks.
        scorer: of the protocol.
    """

    def __init__(self, plan: Plan, by_run: Mapping[str, Sequence[Task]], scorer: Scorer) -> None:
        self.plan, self.by_run, self.scorer = plan, by_run, scorer
        self.found = _collect(by_run, scorer, plan.sweep.runs)
        self._comparers: dict[str, Comparer] = {}
        self._floors: dict[str, Mapping[str, Mapping[str, float]]] = {}

    def table(self, spec: TableSpec) -> AblationTable:
        """One table."""
        full = self.found.get(spec.full)
        if spec.full not in self._comparers:
            scores = full.scores if full is not None else {}
            self._comparers[spec.full] = Comparer(scores, self.plan.sweep.scoring.resamples)
            done = [task for task in self.by_run.get(spec.full, ()) if task.seed in scores]
            self._floors[spec.full] = _floors_of(done[0], self.scorer) if done else {}
        comparer, floors = self._comparers[spec.full], self._floors[spec.full]
        return build_table(spec, self.found, spec.metrics, floors, comparer, [f"Protocol: {spec.protocol}."])


def _collect(tasks: Mapping[str, Sequence[Task]], scorer: Scorer, runs: Mapping[str, Run]) -> dict[str, Collected]:
    """Score every finished seed of every run.

    Args:
        tasks: run -> its tasks, one a seed.
        scorer: how.
        runs: run -> what the sweep says of it.
    """
    found = {}
    for name, own in tasks.items():
        done = [task for task in own if state_of(task.place, task.keys, task.code) == "done"]
        scores: dict[int, Scores] = {}
        for task in done:
            identity = (task.config.get("task") or {}).get("identity", True) is not False
            scores[task.seed] = scorer.score(task.place / PREDICTIONS, identity)
        missing = tuple(task.seed for task in own if task not in done)
        found[name] = Collected(runs[name], scores, _costs(done), missing)
    return found


def _floors_of(task: Task, scorer: Scorer) -> dict[str, dict[str, float]]:
    """Floors without a run, of the studies that a run of the full model reports on: floor -> metric -> value."""
    references = task.train_references
    known = references is not None and (task.cwd / references).is_file()
    return scorer.floors(task.place / PREDICTIONS, references if known else None)


def _costs(tasks: Sequence[Task]) -> Costs:
    figures = [record.get("figures", {}) for task in tasks if (record := read_run(task.place))]
    if not figures:
        return Costs()

    def mean(key: str) -> float | None:
        values = [float(entry[key]) for entry in figures if entry.get(key) is not None]
        return float(np.mean(values)) if values else None

    tokens = figures[0].get("tokens")
    peaks = [float(entry["peak_memory_gib"]) for entry in figures if entry.get("peak_memory_gib")]
    return Costs(
        parameters_trained=figures[0].get("parameters_trained"),
        tokens=tuple(tokens) if tokens else None,
        train_seconds=mean("fit_seconds"),
        predict_seconds=mean("predict_seconds"),
        peak_memory_gib=max(peaks) if peaks else None,
    )
