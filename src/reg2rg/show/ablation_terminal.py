"""Plans and tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from reg2rg.ablation.execute import Task
from reg2rg.ablation.plan import Plan
from reg2rg.ablation.progress import Estimate
from reg2rg.ablation.state import state_of
from reg2rg.ablation.steps import PlannedStep
from reg2rg.ablation.table import AblationTable
from reg2rg.core.progress import MISSING, duration
from reg2rg.show.ablation_tables import build_tables
from reg2rg.show.render import print_tables
from reg2rg.show.table import Column, make_table


def print_plan(
    plan: Plan,
    tasks: Sequence[Task],
    steps: Sequence[tuple[PlannedStep, bool]],
    estimate: Estimate,
    jobs: int,
    console: Console,
) -> None:
    """List data steps and runs with their state and the time that they need.

    Args:
        plan: of the sweep.
        tasks: its jobs.
        steps: data steps, and whether they are done.
        estimate: of the runs' time.
        jobs: runs at a time.
        console: where to.
    """
    for step, done in steps:
        console.print(f"data, {'done' if done else 'to do'}: {step.text}", markup=False, soft_wrap=True)
    overlays = {
        job.run.name: ", ".join([*job.run.overlays, *(["set: ..."] if job.run.values.values else [])]) or "none"
        for job in plan.jobs
    }
    left, rows = [], []
    for task in tasks:
        state = state_of(task.place, task.keys, task.code)
        known = estimate.of(task.run)
        time = "unknown" if known is None else f"{duration(known[0])}, {known[1]}"
        if state != "done":
            left.append(task.run)
        rows.append((task.run, task.seed, state, MISSING if state == "done" else time, overlays[task.run]))
    words = (Column("state", "words"), Column("time", "words"), Column("overlays", "prose"))
    print_tables([make_table("plan", plan.sweep.tables[-1].title, ("run", "seed", *words), rows)], console)
    total = estimate.total(left, jobs)
    needed = "unknown: no run was finished on this machine yet" if total is None else f"about {duration(total)}"
    console.print(f"{len(left)} of {len(tasks)} runs to do; time: {needed if left else 'none'}", markup=False)
    console.print(f"base: {', '.join((*plan.base, *plan.extra))}; folder: {plan.out}", markup=False)


def print_table(table: AblationTable, console: Console) -> None:
    """Print scores, differences and costs, and what they mean."""
    print_tables(build_tables(table), console)
