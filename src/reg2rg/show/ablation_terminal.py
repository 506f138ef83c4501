"""Plans and tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reg2rg.ablation.execute import Task
from reg2rg.ablation.plan import Plan
from reg2rg.ablation.progress import Estimate
from reg2rg.ablation.state import state_of
from reg2rg.ablation.steps import PlannedStep
from reg2rg.ablation.table import AblationTable
from reg2rg.core.progress import MISSING, duration
from reg2rg.show.ablation_files import cost_grid, difference_grid, legend, score_grid

_FIRST = 30
_PADDING = 3


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
    drawn = Table("run", "seed", "state", "time", "overlays", title=plan.sweep.tables[-1].title)
    overlays = {
        job.run.name: ", ".join([*job.run.overlays, *(["set: ..."] if job.run.values.values else [])]) or "none"
        for job in plan.jobs
    }
    left = []
    for task in tasks:
        state = state_of(task.place, task.keys, task.code)
        known = estimate.of(task.run)
        time = "unknown" if known is None else f"{duration(known[0])}, {known[1]}"
        if state != "done":
            left.append(task.run)
        drawn.add_row(task.run, str(task.seed), state, MISSING if state == "done" else time, overlays[task.run])
    console.print(drawn)
    total = estimate.total(left, jobs)
    needed = "unknown: no run was finished on this machine yet" if total is None else f"about {duration(total)}"
    console.print(f"{len(left)} of {len(tasks)} runs to do; time: {needed if left else 'none'}", markup=False)
    console.print(f"base: {', '.join((*plan.base, *plan.extra))}; folder: {plan.out}", markup=False)


def print_table(table: AblationTable, console: Console) -> None:
    """Print scores, differences and costs, and what they mean. Columns that do not fit are left out and named."""
    console.print()
    for title, grid in (
        (table.title, score_grid(table)),
        ("Differences to the full model, in percent points", difference_grid(table)),
        ("What a run takes", cost_grid(table)),
    ):
        if len(grid) > 1:
            _print_grid(title, grid, console)
    for sentence in legend(table):
        console.print(f"- {sentence}", markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _print_grid(title: str, grid: Sequence[Sequence[str]], console: Console) -> None:
    widths = [max(len(row[place]) for row in grid) + _PADDING for place in range(len(grid[0]))]
    widths[0] = min(widths[0], _FIRST + _PADDING)
    room = console.width if console.is_terminal else sum(widths) + 1  # a file or a pipe takes any width
    shown, used = [0], widths[0] + 1
    for place in range(1, len(widths)):
        if used + widths[place] > room:
            break
        shown.append(place)
        used += widths[place]
    drawn = Table(title=title, title_justify="left")
    for place in shown:
        justify = "left" if place == 0 else "right"
        drawn.add_column(Text(grid[0][place]), justify=justify, no_wrap=place > 0)  # type: ignore[arg-type]
    for row in grid[1:]:
        drawn.add_row(*(Text(row[place]) for place in shown))  # Text: brackets are no markup here
    if not console.is_terminal:
        console.width = max(console.width, used)
    console.print(drawn)
    left_out = [grid[0][place] for place in range(len(widths)) if place not in shown]
    if left_out:
        console.print(
            f"too narrow for: {', '.join(left_out)}; the files below have them", markup=False, highlight=False
        )
