"""``reg2rg ablate``: a sweep of runs and seeds, trained, scored and compared in one table."""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from reg2rg.ablation import steps
from reg2rg.ablation.execute import Task, what_changed
from reg2rg.ablation.facts import TRAIN_REFERENCES, Facts, gather, keep_facts, kept_facts, language_model_digest
from reg2rg.ablation.interrupt import time_limit, told_to_end
from reg2rg.ablation.plan import Plan, make_plan, resolved
from reg2rg.ablation.progress import Estimate, Watch, measured_seconds
from reg2rg.ablation.state import code_digest, read_run, state_of
from reg2rg.ablation.sweep import load_sweep, packaged_sweeps
from reg2rg.cli.main import EXIT_INTERRUPTED, Invocation, exit_of, main
from reg2rg.cli.numbers import above_zero, whole
from reg2rg.cli.paths import place
from reg2rg.cli.runner import add_runner_options, build_runner
from reg2rg.config.paths import absolute
from reg2rg.config.reading import Tree
from reg2rg.core.errors import EXIT_OK, EXIT_RUNTIME, ConfigError, Reg2RGError
from reg2rg.runners import Local, Runner, Stop

if TYPE_CHECKING:
    from reg2rg.cli.section import Sections

EXIT_UNFINISHED = 4
_OF_DATA = ("dataset", "store", "read")


def run(invocation: Invocation) -> int:
    """Run ``reg2rg ablate``; see `reg2rg.cli.main`."""
    options = _parser().parse_args(list(invocation.args))
    return Ablation(invocation, options).run()


def _parser() -> argparse.ArgumentParser:

    parser = argparse.ArgumentParser(
        prog="reg2rg ablate",
        description="Train, predict and evaluate every run of a sweep with every seed, and write one table with mean, "
        "spread, noise floor and a paired bootstrap against the full model. What is finished is not done again; what "
        f"was interrupted goes on. Packaged sweeps: {', '.join(packaged_sweeps())}.",
        epilog=f"exit codes: 0 all done, 1 a run failed, 2 wrong usage or config, {EXIT_UNFINISHED} time limit reached "
        "with runs left, 130 and 143 interrupted",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("sweep", metavar="SWEEP", help="a sweep file, or the name of a packaged one")
    add("-c", "--config", action="append", default=[], metavar="FILE", help="overlay over the base, in every run")
    add("--base", action="append", default=[], metavar="FILE", help="base config in place of the sweep's own")
    add("--out", type=place, metavar="DIR", help="folder of runs and tables (default: ablations/<name of the base>)")
    add("--seeds", type=whole(0), nargs="+", default=[], metavar="N", help="in place of the sweep's own")
    add("--runs", nargs="+", default=[], metavar="NAME", help="only these runs")
    add("--dry-run", action="store_true", help="list runs, their state and the time they need; change nothing")
    add("--tables", action="store_true", help="write the tables of what is finished; run nothing")
    add("--paper", action="store_true", help="show the paper's own figures in columns of their own")
    add_runner_options(parser, "runs")
    add("--max-hours", type=above_zero, metavar="H", help="stop after so many hours; what runs saves itself first")
    add("--same-code", action="store_true", help="runs that other code finished count as not done")
    return parser


class Ablation:
    """One call of the command.

    Args:
        invocation: of the command line.
        options: parsed.
    """

    def __init__(self, invocation: Invocation, options: argparse.Namespace) -> None:
        self.invocation, self.options = invocation, options
        self.console = Console(stderr=True)
        self.sweep = load_sweep(options.sweep)
        self.plan = self._plan(options.runs, options.seeds)
        self._facts: dict[str, Facts] = {}
        self.local = issubclass(options.runner, Local)
        self.here = self.local and options.jobs == 0  # in this process

    def run(self) -> int:
        """Do what the options ask for."""
        if self.options.dry_run:
            self._check_configs()
            self._list()
            return EXIT_OK
        code = EXIT_OK if self.options.tables else self._work()
        self._write_tables()
        return code

    # ---- plan, data and tasks

    def _plan(self, names: Sequence[str], seeds: Sequence[int]) -> Plan:
        options = self.options
        return make_plan(self.sweep, options.out, base=options.base, extra=options.config, seeds=seeds, names=names)

    def _data(self, config: Mapping[str, Any]) -> Facts:
        """Facts of the data that a config names; empty while they are not there."""
        data = config.get("data") or {}
        key = yaml.safe_dump({name: data.get(name) for name in _OF_DATA}, sort_keys=True)
        if key not in self._facts:
            try:
                section = self._section(config)
                self._facts[key] = gather(section.data.dataset.studies(), section.data.store)
            except (Reg2RGError, OSError):  # not there, or not yet
                self._facts[key] = Facts("")
        return self._facts[key]

    def _require_data(self, config: Mapping[str, Any]) -> None:
        """Say once what is wrong with the data, and not for every run."""
        self._facts.clear()
        store = Path(absolute(str((config.get("data") or {}).get("store"))))
        if not store.is_dir():
            raise ConfigError(
                f"data.store: no store at '{store}', and no step of the sweep makes it. Fix: "
                f"reg2rg data prepare --config {' --config '.join((*self.plan.base, *self.plan.extra))}"
            )
        if not self._data(config).digest:
            self._section(config)

    def _section(self, config: Mapping[str, Any]) -> Sections:
        """The data that a config names.

        Raises:
            Reg2RGError: they cannot be read.
        """
        from reg2rg.cli.section import section_of

        data = config.get("data") or {}
        kept = {key: copy.deepcopy(data[key]) for key in _OF_DATA if key in data}
        return section_of(Tree.of({"data": kept}, f"sweep {self.sweep.name}"), self.invocation.allow_import)

    def _studies(self) -> str:
        """Digest of the base's data as they are now."""
        self._facts.clear()
        return self._data(resolved(self.plan.tree, "")).digest

    def _tasks(self, plan: Plan) -> list[Task]:
        """The jobs as they are handed over."""
        found = []
        for job in plan.jobs:
            facts = self._data(job.config)
            known = f"{facts.digest} {language_model_digest(job.config)}"
            if not facts.digest:  # the data are gone; what was made of them stands
                record = read_run(job.folder)
                known = str(record.get("data", "")) if record.get("config") == job.digest else ""
            references = plan.out / TRAIN_REFERENCES
            found.append(
                Task(
                    run=job.run.name,
                    seed=job.seed,
                    title=job.run.title,
                    folder=job.folder,
                    config=job.config,
                    digest=job.digest,
                    data=known,
                    scoring=plan.sweep.scoring,
                    code=code_digest() if self.options.same_code else "",
                    train_references=references if facts.train or references.is_file() else None,
                    allow_import=self.invocation.allow_import,
                    call=main if self.here else None,
                    threads=self.options.threads,
                )
            )
        return found

    def _check_configs(self) -> None:
        """Every config through the trainer's own checks before hours are spent; what only a run can tell waits.

        Seeds of a run differ in nothing that is checked, and what is done needs no check.
        """
        from reg2rg.cli.trainer import check_config

        left = {task.run for task in self._tasks(self.plan) if state_of(task.place, task.keys, task.code) != "done"}
        for job in {job.run.name: job for job in self.plan.jobs if job.run.name in left}.values():
            tree = Tree.of(copy.deepcopy(dict(job.config)), f"run {job.run.name}")
            check_config("fit", tree, self.invocation.allow_import)

    # ---- working

    def _work(self) -> int:
        begun, runner = time.monotonic(), build_runner(self.options, self.plan.out)
        self._check_configs()
        steps.make_data(self.plan, main, self._say, self._studies)
        self._require_data(self.plan.jobs[0].config)
        keep_facts(self.plan.out, self._data(self.plan.jobs[0].config))
        todo = self._todo(self._tasks(self.plan))
        return self._work_on(todo, runner, begun) if todo else EXIT_OK

    def _todo(self, tasks: Sequence[Task]) -> list[Task]:
        todo = []
        for task in tasks:
            state = state_of(task.place, task.keys, task.code)
            if state == "changed":
                self._say(f"{task.name}: {what_changed(task)}; the earlier run is kept beside it")
            if state != "done":
                todo.append(task)
        if len(todo) < len(tasks):
            self._say(f"{len(tasks) - len(todo)} of {len(tasks)} runs are done")
        return todo

    def _work_on(self, todo: Sequence[Task], runner: Runner, begun: float) -> int:
        jobs = max(1, self.options.jobs) if self.local else len(todo)
        stop, statuses = Stop(), []
        with (
            told_to_end(stop, here=self.here) as got,
            time_limit(stop, self.options.max_hours, begun),
            Watch(self.console, len(todo), self._estimate(), jobs) as watch,
        ):
            watch.wait_for(todo)
            for task, outcome in runner.run(todo, watch.begin, stop):
                watch.end(task, outcome)
                statuses.append(outcome.status)
        if got:
            return exit_of(got[0])
        if (
            self.here and "stopped" in statuses and not stop.event.is_set()
        ):  # the run heard the signal, and saved itself
            return EXIT_INTERRUPTED
        if "failed" in statuses:
            return EXIT_RUNTIME
        return EXIT_OK if statuses.count("done") == len(todo) else EXIT_UNFINISHED

    # ---- telling

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _estimate(self) -> Estimate:
        given = self.plan.sweep.minutes
        minutes = next((given[name] for name in self.plan.base if name in given), None)
        measured = measured_seconds(self.plan.out, platform.node())
        return Estimate(measured, None if minutes is None else 60 * minutes)

    def _list(self) -> None:
        from reg2rg.show.ablation_terminal import print_plan

        studies = self._studies()
        planned = [(step, step.done(studies) or step.is_elsewhere()) for step in steps.planned_steps(self.plan)]
        jobs = max(1, self.options.jobs)
        print_plan(self.plan, self._tasks(self.plan), planned, self._estimate(), jobs, Console())

    def _write_tables(self) -> None:
        from reg2rg.ablation.tables import make_tables
        from reg2rg.cli.evaluate import load_labeler
        from reg2rg.core.files import Outputs
        from reg2rg.show.ablation_files import write_table
        from reg2rg.show.ablation_terminal import print_table

        # Of all runs and seeds, also those that were not worked on this time.
        plan = self._plan((), sorted({*self.sweep.seeds, *self.options.seeds}))
        facts = self._data(plan.jobs[0].config)
        facts = facts if facts.digest else kept_facts(plan.out)
        tables = make_tables(
            plan, self._tasks(plan), facts, load_labeler(plan.sweep.scoring.labeler), self.options.paper
        )
        if not tables:
            self._say("no run is finished: no table yet")
        console, outputs = Console(), Outputs()
        for table in tables:
            before = len(outputs.written)
            write_table(table, plan.out / "tables", outputs)
            print_table(table, console)
            sys.stdout.writelines(f"written: {path}\n" for path in outputs.written[before:])
        outputs.check()
