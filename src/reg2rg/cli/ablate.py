"""``reg2rg ablate``: a sweep of runs and seeds, trained, scored and compared in one table."""

from __future__ import annotations

import argparse
import contextlib
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import yaml

from reg2rg.cli.main import EXIT_INTERRUPTED, Invocation, main
from reg2rg.errors import EXIT_OK, EXIT_RUNTIME, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from reg2rg.ablation.execute import Task
    from reg2rg.ablation.facts import Facts
    from reg2rg.ablation.plan import Job, Plan
    from reg2rg.ablation.progress import Estimate
    from reg2rg.ablation.runners import Runner
    from reg2rg.ablation.table import AblationTable

EXIT_UNFINISHED = 4
EXIT_TERMINATED = 143
_GRACE_S = 120.0


def run(invocation: Invocation) -> int:
    """Run ``reg2rg ablate``; see `reg2rg.cli.main`."""
    options = _parser().parse_args(list(invocation.args))
    return Ablation(invocation, options).run()


def _parser() -> argparse.ArgumentParser:
    from reg2rg.ablation.sweep import packaged_sweeps

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
    add("--out", type=Path, metavar="DIR", help="folder of runs and tables (default: ablations/<name of the base>)")
    add("--seeds", type=_seed, nargs="+", default=[], metavar="N", help="in place of the sweep's own")
    add("--runs", nargs="+", default=[], metavar="NAME", help="only these runs")
    add("--dry-run", action="store_true", help="list runs, their state and the time they need; change nothing")
    add("--tables", action="store_true", help="write the tables of what is finished; run nothing")
    add("--paper", action="store_true", help="show the paper's own figures in columns of their own")
    add("--jobs", type=_count, default=1, metavar="N", help="runs at a time (default 1); 0: in this process")
    add("--threads", type=_positive, metavar="N", help="threads of each run (default: the cores shared by --jobs)")
    add("--max-hours", type=float, metavar="H", help="stop after so many hours; what runs saves itself first")
    add("--runner", choices=("local", "slurm", "ray"), default="local", help="who works on the runs (default local)")
    add(
        "--cluster",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="parameters for slurm (submitit's, such as slurm_partition=gpu gpus_per_node=1 timeout_min=600) or ray "
        "(num_gpus=1)",
    )
    add("--same-code", action="store_true", help="runs that other code finished count as not done")
    return parser


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, found {value}")
    return value


_count = _seed


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {value}")
    return value


class Ablation:
    """One call of the command.

    Args:
        invocation: of the command line.
        options: parsed.
    """

    def __init__(self, invocation: Invocation, options: argparse.Namespace) -> None:
        from rich.console import Console

        from reg2rg.ablation.plan import make_plan
        from reg2rg.ablation.sweep import load_sweep

        self.invocation, self.options = invocation, options
        self.console: Console = Console(stderr=True)
        self.plan: Plan = make_plan(
            load_sweep(options.sweep),
            options.out,
            base=options.base,
            extra=options.config,
            seeds=options.seeds,
            names=options.runs,
        )
        self._facts: dict[str, Facts | None] = {}

    def run(self) -> int:
        """Do what the options ask for."""
        if self.options.dry_run:
            self._check_configs()
            self._list()
            return EXIT_OK
        if self.options.tables:
            self._write_tables(self.tasks())
            return EXIT_OK
        code = self._work()
        self._write_tables(self.tasks())
        return code

    # ---- data and tasks

    def _call(self, words: Sequence[str]) -> int:
        return main(words)

    def facts(self, job: Job) -> Facts | None:
        """Facts of a job's data; ``None`` while they are not there."""
        from reg2rg.ablation.facts import gather
        from reg2rg.cli.section import read_section

        data = {"data": job.config.get("data")}
        text = yaml.safe_dump(data, sort_keys=True)
        if text not in self._facts:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "data.yaml"
                path.write_text(text, encoding="utf-8")
                try:
                    section = read_section(self.invocation, ["--config", str(path)])
                    self._facts[text] = gather(section.dataset.studies(), section.store)
                except Exception:
                    self._facts[text] = None
        return self._facts[text]

    def tasks(self) -> list[Task]:
        """The jobs as they are handed over."""
        from reg2rg.ablation.execute import Task
        from reg2rg.ablation.facts import language_model_digest
        from reg2rg.ablation.state import code_digest

        found = []
        for job in self.plan.jobs:
            facts = self.facts(job)
            known = "" if facts is None else f"{facts.digest} {language_model_digest(job.config)}"
            references = self.plan.out / "data" / "train_references.csv"
            found.append(
                Task(
                    run=job.run.name,
                    seed=job.seed,
                    title=job.run.title,
                    folder=job.folder,
                    config=job.config,
                    digest=job.digest,
                    data=known,
                    scoring=self.plan.sweep.scoring,
                    code=code_digest() if self.options.same_code else "",
                    train_references=references if facts is not None and facts.train else None,
                    allow_import=self.invocation.allow_import,
                    threads=self.options.threads,
                )
            )
        return found

    def _check_configs(self) -> None:
        """Every config through the trainer's own checks before hours are spent; those that only a run can tell wait."""
        seen: set[str] = set()
        for job in self.plan.jobs:
            if job.run.name in seen:
                continue
            seen.add(job.run.name)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{job.run.name}.yaml"
                path.write_text(yaml.safe_dump(dict(job.config), sort_keys=False), encoding="utf-8")
                self._check(job, path)

    def _check(self, job: Job, path: Path) -> None:
        import io

        said = io.StringIO()
        words = [word for package in self.invocation.allow_import for word in ("--allow-import", package)]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = main(["fit", *words, "--config", str(path), "--print_config"])
        if code != 0:
            text = said.getvalue().strip().removeprefix("error: ").replace(str(path), f"run {job.run.name}")
            raise ConfigError(text or f"run {job.run.name}: its config is not accepted")

    # ---- working

    def _work(self) -> int:
        from reg2rg.ablation.facts import write_train_references
        from reg2rg.ablation.steps import make_data

        begun = time.monotonic()
        self._check_configs()
        make_data(self.plan, self._call, self._say)
        self._facts.clear()
        if self.plan.jobs and (facts := self.facts(self.plan.jobs[0])) is not None:
            write_train_references(self.plan.out / "data" / "train_references.csv", facts.train)
        todo = self._todo(self.tasks())
        if not todo:
            self._say("all runs are done")
            return EXIT_OK
        return self._work_on(todo, begun)

    def _todo(self, tasks: Sequence[Task]) -> list[Task]:
        from reg2rg.ablation.state import state_of

        todo = []
        for task in tasks:
            state = state_of(task.folder, task.keys, task.code)
            if state == "changed":
                self._say(f"{task.name}: {self._changes(task)}; the earlier run is kept beside it")
            if state != "done":
                todo.append(task)
        done = len(tasks) - len(todo)
        if done:
            self._say(f"{done} of {len(tasks)} runs are done")
        return todo

    def _work_on(self, todo: Sequence[Task], begun: float) -> int:
        from reg2rg.ablation.execute import Stop
        from reg2rg.ablation.progress import Watch

        jobs = self.options.jobs if self.options.runner == "local" else len(todo)
        stop, statuses = Stop(), []
        with _signals(stop) as got, Watch(self.console, len(todo), self._estimate(), max(1, jobs)) as watch:
            watch.wait_for(todo)
            limit = self._limit(stop, begun)
            try:
                for task, outcome in self._runner().run(todo, watch.begin, stop):
                    watch.end(task, outcome)
                    statuses.append(outcome.status)
            finally:
                if limit is not None:
                    limit.cancel()
        if got:
            return EXIT_INTERRUPTED if got[0] == signal.SIGINT else EXIT_TERMINATED
        if "failed" in statuses:
            return EXIT_RUNTIME
        return EXIT_OK if statuses.count("done") == len(todo) else EXIT_UNFINISHED

    def _limit(self, stop: Any, begun: float) -> threading.Timer | None:
        if self.options.max_hours is None:
            return None
        left = max(0.0, begun + 3600 * self.options.max_hours - time.monotonic())
        timer = threading.Timer(left, stop)
        timer.daemon = True
        timer.start()
        return timer

    def _runner(self) -> Runner:
        from reg2rg.ablation.runners import Local, Ray, Slurm

        options = self.options
        parameters = _parameters(options.cluster)
        if options.runner == "slurm":
            cluster = parameters.pop("cluster", "slurm")
            return Slurm(self.plan.out / "slurm", parameters, str(cluster))
        if options.runner == "ray":
            return Ray(parameters)
        if parameters:
            raise ConfigError("command line: --cluster is for --runner slurm and ray; the local runner has none")
        return Local(options.jobs, options.threads, self._call)

    # ---- telling

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _estimate(self) -> Estimate:
        from reg2rg.ablation.collect import measured_seconds
        from reg2rg.ablation.progress import Estimate

        minutes = next(
            (self.plan.sweep.minutes[name] for name in self.plan.base if name in self.plan.sweep.minutes), None
        )
        return Estimate(measured_seconds(self.plan.out, platform.node()), None if minutes is None else 60 * minutes)

    def _changes(self, task: Task) -> str:
        from reg2rg.ablation.plan import CONFIG, deciding, differences
        from reg2rg.ablation.state import read_run

        record = read_run(task.folder)
        if record.get("config") == task.digest:
            return "its data changed" if record.get("data") != task.data else "its code changed"
        try:
            old = yaml.safe_load((task.folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError):
            return "its config changed"
        found = list(differences(deciding(old), deciding(task.config)))
        shown = "; ".join(found[:4]) + (f"; {len(found) - 4} more" if len(found) > 4 else "")
        return f"its config changed ({shown})"

    def _list(self) -> None:
        from rich.console import Console
        from rich.table import Table

        from reg2rg.ablation.state import state_of
        from reg2rg.ablation.steps import planned_steps
        from reg2rg.ablation.writing import duration

        out = Console()
        steps = planned_steps(self.plan)
        for step in steps:
            out.print(f"data, {'done' if step.done else 'to do'}: {step.text}", markup=False, soft_wrap=True)
        estimate, tasks = self._estimate(), self.tasks()
        drawn = Table("run", "seed", "state", "time", "overlays", title=self.plan.sweep.tables[-1].title)
        jobs, left = {(job.run.name, job.seed): job for job in self.plan.jobs}, []
        for task in tasks:
            state = state_of(task.folder, task.keys, task.code)
            known = estimate.of(task.run)
            text = "unknown" if known is None else f"{duration(known[0])}, {known[1]}"
            if state == "done":
                text = MISSING_TIME
            else:
                left.append(task.run)
            job = jobs[task.run, task.seed]
            overlays = [*job.run.overlays, *(["set: ..."] if job.run.values.values else [])]
            drawn.add_row(task.run, str(task.seed), state, text, ", ".join(overlays) or "none")
        out.print(drawn)
        total = estimate.total(left, max(1, self.options.jobs))
        time_left = "unknown: no run was finished on this machine yet" if total is None else f"about {duration(total)}"
        out.print(f"{len(left)} of {len(tasks)} runs to do; time: {time_left if left else 'none'}", markup=False)
        out.print(f"base: {', '.join((*self.plan.base, *self.plan.extra))}; folder: {self.plan.out}", markup=False)

    # ---- tables

    def _write_tables(self, tasks: Sequence[Task]) -> None:
        tables = self._tables(tasks)
        if not tables:
            self._say("no run is finished: no table yet")
            return
        from rich.console import Console

        from reg2rg.ablation.terminal import print_table
        from reg2rg.ablation.writing import write_table

        out = Console()
        for table in tables:
            written = write_table(table, self.plan.out / "tables")
            print_table(table, out)
            for path in written:
                sys.stdout.write(f"written: {path}\n")

    def _tables(self, tasks: Sequence[Task]) -> list[AblationTable]:
        from reg2rg.ablation.collect import collect, floors_of
        from reg2rg.ablation.compare import Comparer
        from reg2rg.ablation.paper import with_paper
        from reg2rg.ablation.scoring import Scorer
        from reg2rg.ablation.table import build_table
        from reg2rg.cli.evaluate import _labeler
        from reg2rg.regions import load_region_set

        if not self.plan.jobs:
            return []
        scoring, facts = self.plan.sweep.scoring, self.facts(self.plan.jobs[0])
        by_run: dict[str, list[Task]] = {}
        for task in tasks:
            by_run.setdefault(task.run, []).append(task)
        regions = (self.plan.jobs[0].config.get("data") or {}).get("regions", "radgenome")
        scorer = Scorer(
            scoring.protocol,
            _labeler(scoring.labeler),
            load_region_set(regions),
            scoring.metrics,
            facts.truth if facts is not None else {},
        )
        found = collect(by_run, scorer, self.plan.sweep.runs)
        if not any(item.scores for item in found.values()):
            return []
        tables = []
        for spec in self.plan.sweep.tables:
            full = found.get(spec.full)
            comparer = Comparer(full.scores if full is not None else {}, scoring.resamples)
            floors: Mapping[str, Mapping[str, float]] = {}
            if full is not None and full.scores:
                first = next(task for task in by_run[spec.full] if task.seed in full.scores)
                floors = floors_of(
                    first, scoring.metrics, scorer.truth, facts.train if facts is not None else (), scorer.read
                )
            table = build_table(spec, found, scoring.metrics, floors, comparer)
            tables.append(with_paper(table, spec, self.plan.sweep.runs) if self.options.paper else table)
        return tables


MISSING_TIME = "–"


def _parameters(words: Sequence[str]) -> dict[str, Any]:
    from reg2rg.config.reading import parse_value

    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise ConfigError(f"command line: --cluster {word}: expected KEY=VALUE")
        found[key] = parse_value(text)
    return found


@contextlib.contextmanager
def _signals(stop: Any) -> Iterator[list[int]]:
    """SIGINT and SIGTERM end the runs in order; asked again, or after two minutes, they are killed."""
    got: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        stop(kill=bool(got))
        if not got:
            timer = threading.Timer(_GRACE_S, stop, kwargs={"kill": True})
            timer.daemon = True
            timer.start()
            sys.stderr.write("\ntold to end: the runs save themselves; once more to kill them\n")
        got.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield got
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
