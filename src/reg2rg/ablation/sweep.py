"""A sweep as its YAML file describes it: a base config, named runs, seeds, data to make, what to evaluate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from reg2rg.ablation.sweep_file import SweepFile
from reg2rg.config.overlay import find_config, packaged_folder
from reg2rg.config.reading import Key, Tree, lookup
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean
from reg2rg.evaluation.metrics.base import tabled_names
from reg2rg.evaluation.protocols import find_protocol

FOLDER = "sweeps"
METRICS = tabled_names()
"""What a table shows where the sweep does not say otherwise; numbers that a data set does not have are left out."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_SPLITS = ("train", "val", "test")
_CHECKPOINTS = ("last", "best")


@dataclass(frozen=True, slots=True)
class Step:
    """A command that makes data which runs need.

    Attributes:
        run: words of a ``reg2rg`` command; ``${key}`` refers to the config, ``{config}`` is a file that holds it.
        makes: what is there when it is done; written last, or the step must be one that resumes.
        resumes: the command finds out by itself what is left to do, so that it may run again.
        only: for bases that are this packaged config or lie over it; "" for all.
        into: the folder that it fills, where it must be nobody else's: what somebody has there is taken as it is.
    """

    run: str
    makes: str
    resumes: bool = False
    only: str = ""
    into: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a sweep, without its seed.

    Attributes:
        name: folder and key.
        title: row of the table.
        overlays: configs over the base.
        by_base: (packaged base, configs over it) where they depend on the base; of others the run is no part.
        values: of the key ``set``: written over the overlays.
        only: as in `Step`.
        floor: shown below the table's rule, and not tested against the full model.
        paper: row of the paper's table that it corresponds to.
        data: further steps that this run needs.
    """

    name: str
    title: str
    overlays: tuple[str, ...] = ()
    by_base: tuple[tuple[str, tuple[str, ...]], ...] = ()
    values: Tree = field(default_factory=Tree, compare=False)
    only: str = ""
    floor: bool = False
    paper: str = ""
    data: tuple[Step, ...] = ()

    @property
    def content(self) -> tuple[Any, ...]:
        """What decides how it is trained."""
        return self.overlays, self.by_base, repr(self.values.values), self.only, self.data


@dataclass(frozen=True, slots=True)
class Scoring:
    """What is evaluated, and how.

    Attributes:
        protocol: of `reg2rg evaluate`.
        labeler: ``rules``, ``none``, or the folder of a classifier.
        split: that reports are generated for.
        checkpoint: ``last`` or ``best``.
        metrics: names of the numbers in tables.
        resamples: of bootstraps.
    """

    protocol: str = "strict"
    labeler: str = "rules"
    split: str = "test"
    checkpoint: str = "last"
    metrics: tuple[str, ...] = METRICS
    resamples: int = 1000


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table of a sweep.

    Attributes:
        name: of its files.
        title: above it.
        about: a paragraph below the title.
        full: name of the run that the others are compared with.
        runs: names, in the order of the rows.
        paper: name of the paper's table, or "".
        protocol: that its numbers are made by.
        metrics: its columns.
    """

    name: str
    title: str
    about: str
    full: str
    runs: tuple[str, ...]
    paper: str = ""
    protocol: str = "strict"
    metrics: tuple[str, ...] = METRICS


@dataclass(frozen=True, slots=True)
class Sweep:
    """A whole sweep.

    Attributes:
        name: stem of its file.
        base: config files that all runs lie over.
        seeds: of ``seed_everything``.
        runs: by name.
        tables: what is made of them.
        scoring: what is evaluated.
        data: steps that make what all runs need.
        minutes: packaged base -> minutes that a run was measured to take, where the file gives it.
    """

    name: str
    base: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: Mapping[str, Run]
    tables: tuple[TableSpec, ...]
    scoring: Scoring
    data: tuple[Step, ...] = ()
    minutes: Mapping[str, float] = field(default_factory=dict)


def packaged_sweeps() -> list[str]:
    """Names of the packaged sweeps."""
    return sorted(path.stem for path in (packaged_folder() / FOLDER).glob("*.yaml"))


def find_sweep(name: str, asked_by: str = "command line", beside: Path | None = None) -> Path:
    """The file that `name` means: in the working folder (or `beside`) first, then among the packaged sweeps.

    Raises:
        ConfigError: found nowhere.
    """
    bare = name.removeprefix(f"{FOLDER}/").removesuffix(".yaml")
    if bare in packaged_sweeps() and not any(
        (folder / word).is_file() for folder in (beside or Path(), Path()) for word in (name, f"{name}.yaml")
    ):
        return packaged_folder() / FOLDER / f"{bare}.yaml"
    try:
        return find_config(name, asked_by, beside)
    except ConfigError:
        raise ConfigError(
            f"{asked_by}: no sweep file '{name}' in {Path.cwd()}.{did_you_mean(bare, packaged_sweeps())} "
            f"Packaged: {', '.join(packaged_sweeps())}."
        ) from None


def load_sweep(name: str) -> Sweep:
    """Read a sweep and those that it includes.

    Raises:
        ConfigError: with file, line and key: an unknown key, a wrong type, two different runs of one name, no run.
    """
    sweep = _load(find_sweep(name), ())
    if not sweep.runs:
        raise ConfigError(f"{name}: the sweep has no run. Fix: name some under 'runs:', or include another sweep")
    if not sweep.base:
        raise ConfigError(f"{name}: the sweep has no base config. Fix: name one under 'base:', such as phantom.yaml")
    return sweep


_TOP = (
    "title",
    "about",
    "include",
    "base",
    "seeds",
    "full",
    "paper",
    "runs",
    "data",
    "evaluate",
    "compare",
    "minutes_per_run",
)
_RUN = ("title", "overlays", "set", "for", "floor", "paper", "data")
_COMPARE = ("protocol", "metrics")
_STEP = ("run", "makes", "resumes", "for", "into")
_SCORING = tuple(item.name for item in fields(Scoring))


def _load(path: Path, above: tuple[Path, ...]) -> Sweep:
    file = SweepFile(path)
    file.keys((), _TOP)
    parts = []
    for place, name in enumerate(file.texts(("include",))):
        where = f"{file.tree.origin(('include', place))}: include"
        other = find_sweep(name, where, path.parent)
        if other.resolve() in {p.resolve() for p in (*above, path)}:
            raise ConfigError(f"{where}: '{name}' leads back to this file. Remove one of the two 'include' lines.")
        parts.append(_load(other, (*above, path)))
    runs: dict[str, Run] = {}
    for part in parts:
        _join(runs, part.runs.values(), path)
    own = list(_runs(file))
    _join(runs, own, path)
    scoring = _scoring(file, parts[0].scoring if parts else Scoring())
    steps = list(dict.fromkeys(step for part in parts for step in part.data))
    steps += [step for step in _steps(file, ("data",)) if step not in steps]
    return Sweep(
        name=path.stem,
        base=file.texts(("base",)) or (parts[0].base if parts else ()),
        seeds=_seeds(file) or (parts[0].seeds if parts else (0,)),
        runs=runs,
        tables=_tables(file, parts, runs, bool(own), scoring),
        scoring=scoring,
        data=tuple(steps),
        minutes={key: value for part in parts for key, value in part.minutes.items()} | _minutes(file),
    )


def _join(runs: dict[str, Run], more: Sequence[Run] | Any, path: Path) -> None:
    for run in more:
        if run.name in runs and runs[run.name].content != run.content:
            raise ConfigError(
                f"{path}: runs.{run.name}: another sweep has a different run of this name. Fix: give it another name"
            )
        runs.setdefault(run.name, run)


def _tables(
    file: SweepFile, parts: Sequence[Sweep], runs: Mapping[str, Run], own: bool, scoring: Scoring
) -> tuple[TableSpec, ...]:
    """A file with runs makes one table, with the included runs; one without: those of its parts, and one of all."""
    name = file.path.stem
    inherited = next((table for part in parts for table in part.tables), None)
    full = file.text(("full",), inherited.full if inherited else next(iter(runs), ""))
    if runs and full not in runs:
        raise ConfigError(
            f"{file.tree.origin(('full',)) or file.path}: full: there is no run '{full}' to compare with. "
            f"Runs: {', '.join(runs)}."
        )
    order = sorted(runs, key=lambda key: (runs[key].floor, key != full))
    file.keys(("compare",), _COMPARE)
    table = TableSpec(
        name=name,
        title=file.text(("title",), name),
        about=file.text(("about",)),
        full=full,
        runs=tuple(order),
        paper=file.text(("paper",)),
        protocol=_protocol(file, ("compare", "protocol"), scoring.protocol),
        metrics=file.texts(("compare", "metrics")) or scoring.metrics,
    )
    if own or len(parts) < 2:
        return (table,)
    return (*dict.fromkeys(table for part in parts for table in part.tables), table)


def _runs(file: SweepFile) -> Iterator[Run]:
    for name in file.get(("runs",), dict, "a mapping of names to runs", {}):
        at = ("runs", name)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            text = "a run's name is a folder's: letters, digits and _ . + - are expected."
            raise ConfigError(file.tree.say(at, text))
        file.keys(at, _RUN)
        overlays = lookup(file.tree.values, (*at, "overlays"))
        bases = list(overlays) if isinstance(overlays, dict) else []
        yield Run(
            name=name,
            title=file.text((*at, "title"), name.replace("_", " ")),
            overlays=() if bases else file.texts((*at, "overlays")),
            by_base=tuple((str(base), file.texts((*at, "overlays", base))) for base in bases),
            values=file.below((*at, "set")),
            only=file.text((*at, "for")),
            floor=file.flag((*at, "floor")),
            paper=file.text((*at, "paper")),
            data=tuple(_steps(file, (*at, "data"))),
        )


def _steps(file: SweepFile, at: Key) -> Iterator[Step]:
    for place in range(len(file.get(at, list, "a list of steps, each with 'run' and 'makes'", []))):
        here = (*at, place)
        file.keys(here, _STEP)
        step = Step(
            file.text((*here, "run")),
            file.text((*here, "makes")),
            file.flag((*here, "resumes")),
            file.text((*here, "for")),
            file.text((*here, "into")),
        )
        if not step.run or not step.makes:
            raise file.wrong(here, "a step with 'run' (a reg2rg command) and 'makes' (the path that it writes last)")
        yield step


def _scoring(file: SweepFile, inherited: Scoring) -> Scoring:
    at: Key = ("evaluate",)
    given = file.keys(at, _SCORING)
    resamples = given.get("resamples", inherited.resamples)
    if not isinstance(resamples, int) or resamples < 1:
        raise file.wrong((*at, "resamples"), "a whole number above 0")
    return replace(
        inherited,
        protocol=_protocol(file, (*at, "protocol"), inherited.protocol),
        labeler=file.text((*at, "labeler"), inherited.labeler),
        split=file.choice((*at, "split"), _SPLITS, inherited.split),
        checkpoint=file.choice((*at, "checkpoint"), _CHECKPOINTS, inherited.checkpoint),
        metrics=file.texts((*at, "metrics")) or inherited.metrics,
        resamples=resamples,
    )


def _protocol(file: SweepFile, at: Key, default: str) -> str:
    name = file.text(at, default)
    try:
        return find_protocol(name).name
    except ConfigError as error:
        raise ConfigError(file.tree.say(at, str(error))) from None


def _seeds(file: SweepFile) -> tuple[int, ...]:
    value = lookup(file.tree.values, ("seeds",))
    if value is None:
        return ()
    if not isinstance(value, list) or not value or not all(type(item) is int and item >= 0 for item in value):
        raise file.wrong(("seeds",), "a list of whole numbers from 0 on, such as [0, 1, 2]")
    return tuple(dict.fromkeys(value))


def _minutes(file: SweepFile) -> dict[str, float]:
    expected = "a mapping of base configs to minutes, such as {phantom.yaml: 6}"
    value: dict[str, Any] = file.get(("minutes_per_run",), dict, expected, {})
    if not all(isinstance(item, int | float) for item in value.values()):
        raise file.wrong(("minutes_per_run",), expected)
    return {str(key): float(item) for key, item in value.items()}
