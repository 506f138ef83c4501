"""The tables of a plan, made from whatever is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reg2rg.ablation.collect import collect, floors_of
from reg2rg.ablation.compare import Comparer
from reg2rg.ablation.execute import Task
from reg2rg.ablation.facts import Facts
from reg2rg.ablation.paper import with_paper
from reg2rg.ablation.plan import Plan
from reg2rg.ablation.scoring import Scorer
from reg2rg.ablation.table import AblationTable, build_table
from reg2rg.metrics.labelers import Labeler
from reg2rg.regions import load_region_set


def make_tables(
    plan: Plan, tasks: Sequence[Task], facts: Facts, labeler: Labeler | None, paper: bool = False
) -> list[AblationTable]:
    """All tables of a sweep; none while no run is finished.

    Args:
        plan: of the whole sweep, not of chosen runs alone.
        tasks: its jobs.
        facts: of the data; for truth labels and floors.
        labeler: reads findings.
        paper: show the paper's figures.
    """
    scoring = plan.sweep.scoring
    by_run: dict[str, list[Task]] = {}
    for task in tasks:
        by_run.setdefault(task.run, []).append(task)
    regions = (plan.jobs[0].config.get("data") or {}).get("regions", "radgenome")
    scorer = Scorer(scoring.protocol, labeler, load_region_set(regions), scoring.metrics, facts.truth)
    found = collect(by_run, scorer, plan.sweep.runs)
    if not any(item.scores for item in found.values()):
        return []
    tables = []
    comparers: dict[str, Comparer] = {}  # most tables share the full model, and so its draws
    floors: dict[str, Mapping[str, Mapping[str, float]]] = {}
    for spec in plan.sweep.tables:
        full = found.get(spec.full)
        if spec.full not in comparers:
            comparers[spec.full] = Comparer(full.scores if full is not None else {}, scoring.resamples)
            done = [task for task in by_run.get(spec.full, []) if full is not None and task.seed in full.scores]
            floors[spec.full] = floors_of(done[0], scorer, facts.train) if done else {}
        table = build_table(spec, found, scoring.metrics, floors[spec.full], comparers[spec.full])
        tables.append(with_paper(table, spec, plan.sweep.runs) if paper else table)
    return tables
