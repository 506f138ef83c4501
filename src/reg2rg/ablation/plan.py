"""From a sweep to jobs: one resolved config for each run and seed, its hash, and its folder."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reg2rg.ablation.sweep import Run, Step, Sweep
from reg2rg.config.explain import check_references, refuse, resolved_values
from reg2rg.config.overlay import BASE_KEY, find_config, fold, merge, packaged_folder
from reg2rg.config.reading import COMMAND_LINE, Tree, read_tree
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean

CONFIG, CHECKPOINTS, PREDICTIONS, EVALUATION = "config.yaml", "checkpoints", "predictions", "evaluation"
RECORDER = "reg2rg.ablation.recorder.RunRecorder"

_PLACE = "@run@"
"""Stands for a run's folder while its hash is made."""
_NO_MATTER = {
    "trainer": {
        "default_root_dir",
        "logger",
        "enable_progress_bar",
        "enable_model_summary",
        "log_every_n_steps",
        "profiler",
    },
    "data": {"workers", "timeout", "cache", "cache_gb"},
}
"""Keys that change where and how fast a run works, not what comes out of it."""
_BARS = {"RichProgressBar", "TQDMProgressBar", "ProgressBar"}
_ONLOOKERS = _BARS | {
    "RichModelSummary",
    "ModelSummary",
    "DeviceStatsMonitor",
    "LearningRateMonitor",
    "PredictionWriter",
    "SaveLast",
    "RunRecorder",
}
"""Callbacks that look on."""


@dataclass(frozen=True)
class Job:
    """One run with one seed.

    Attributes:
        run: what the sweep says of it.
        seed: of ``seed_everything``.
        folder: where everything of it goes.
        config: resolved, as its folder holds it.
        digest: of all settings that decide what comes out.
    """

    run: Run
    seed: int
    folder: Path
    config: Mapping[str, Any]
    digest: str

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.run.name}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """What a call of the sweep covers.

    Attributes:
        sweep: the sweep, without the runs that are for other bases.
        base: config files that all runs lie over.
        extra: further overlays over the base.
        out: folder of all runs.
        jobs: in the order of working: seed by seed, so that a table with one seed is there early.
        steps: data to make, each with the name of the run that needs it, or "" for all.
        tree: of base and extra overlays alone.
    """

    sweep: Sweep
    base: tuple[str, ...]
    extra: tuple[str, ...]
    out: Path
    jobs: tuple[Job, ...]
    steps: tuple[tuple[Step, str], ...] = ()
    tree: Tree = field(default_factory=Tree, repr=False)


def make_plan(
    sweep: Sweep,
    out: Path | None = None,
    *,
    base: Sequence[str] = (),
    extra: Sequence[str] = (),
    seeds: Sequence[int] = (),
    names: Sequence[str] = (),
) -> Plan:
    """Resolve every run of a sweep.

    Args:
        sweep: as read.
        out: folder of the runs; ``ablations/<stem of the base>`` by default, which sweeps of one base share.
        base: config files in place of the sweep's own base.
        extra: overlays that lie over the base in every run.
        seeds: in place of the sweep's.
        names: of the runs to work on; all if empty. The full model is not added.

    Raises:
        ConfigError: an unknown run or config, a reference to nothing.
    """
    files = tuple(base) or sweep.base
    lineage = _lineage(files)
    runs = {name: _on(run, lineage) for name, run in sweep.runs.items() if _runs_on(run, lineage)}
    for name in names:
        if name not in runs:
            known = sweep.runs.get(name)
            other = f" It is for {known.only or ' and '.join(base for base, _ in known.by_base)}." if known else ""
            raise ConfigError(
                f"command line: --runs {name}: there is no such run.{other}{did_you_mean(name, list(runs))} Runs of "
                f"this sweep on {', '.join(files)}: {', '.join(runs)}."
            )
    out = out or Path("ablations") / Path(files[-1]).stem
    tree = fold([*files, *extra])
    chosen = [run for name, run in runs.items() if not names or name in names]
    order = sorted(chosen, key=lambda run: run.floor)  # stable: the sweep's order, floors last
    jobs = [_job(run, seed, out, _folded(tree, run)) for seed in tuple(seeds) or sweep.seeds for run in order]
    steps = [*((step, "") for step in sweep.data), *((step, run.name) for run in chosen for step in run.data)]
    kept = tuple((step, name) for step, name in steps if _meant_for(step.only, lineage))
    return Plan(_without(sweep, runs), files, tuple(extra), out, tuple(jobs), kept, tree)


def _without(sweep: Sweep, runs: Mapping[str, Run]) -> Sweep:
    tables = [replace(table, runs=tuple(name for name in table.runs if name in runs)) for table in sweep.tables]
    return replace(sweep, runs=runs, tables=tuple(tables))


def _lineage(names: Sequence[str]) -> set[str]:
    """Names of the packaged configs that `names` are or lie over."""
    found: set[str] = set()
    left = [find_config(name) for name in names]
    while left:
        path = left.pop()
        if path.resolve().is_relative_to(packaged_folder().resolve()):
            found.add(path.resolve().relative_to(packaged_folder().resolve()).as_posix())
        bases = read_tree(path).values.get(BASE_KEY) or []
        left += [find_config(name, beside=path.parent) for name in ([bases] if isinstance(bases, str) else bases)]
    return found


def _meant_for(only: str, lineage: set[str]) -> bool:
    return not only or only in lineage


def _runs_on(run: Run, lineage: set[str]) -> bool:
    return _meant_for(run.only, lineage) and (not run.by_base or any(base in lineage for base, _ in run.by_base))


def _on(run: Run, lineage: set[str]) -> Run:
    """The run with the overlays that belong to the base."""
    return replace(run, overlays=next((files for base, files in run.by_base if base in lineage), run.overlays))


def _folded(base: Tree, run: Run) -> Tree:
    tree = copy.deepcopy(base)
    merge(tree, fold(run.overlays))
    merge(tree, copy.deepcopy(run.values))
    return tree


def _job(run: Run, seed: int, out: Path, tree: Tree) -> Job:
    tree.values["seed_everything"] = seed
    tree.origins["seed_everything",] = COMMAND_LINE
    folder = out / run.name / f"seed{seed}"
    config = resolved(tree, _PLACE)
    return Job(run, seed, folder, _placed(_replaced(config, str(folder)), folder), digest_of(config))


def _replaced(value: Any, folder: str) -> Any:
    """`value` with the folder where `_PLACE` stands."""
    if isinstance(value, dict):
        return {key: _replaced(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, folder) for item in value]
    return value.replace(_PLACE, folder) if isinstance(value, str) else value


def resolved(tree: Tree, place: str) -> dict[str, Any]:
    """The values of `tree` with every reference resolved, for a run in the folder `place`.

    Raises:
        ConfigError: a reference to nothing.
    """
    values = copy.deepcopy(tree.values)
    trainer = values.setdefault("trainer", {})
    if isinstance(trainer, dict):
        trainer["default_root_dir"] = place
    placed = Tree(values, tree.origins)
    refuse(check_references(placed))
    config = resolved_values(placed)
    config.pop("vars", None)  # only references use them
    return config


def filled_in(text: str, tree: Tree) -> str:
    """`text` with its ``${key}`` references resolved against `tree`."""
    values = {**copy.deepcopy(tree.values), "_text": text}
    try:
        config: Any = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"data step '{text}': {str(error).splitlines()[0]}") from None
    return str(config["_text"])


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that decides what comes out of a run; the same before and after `_placed`."""
    found: dict[str, Any] = {}
    for section, values in config.items():
        if section in ("vars", "ckpt_path"):
            continue
        if not isinstance(values, Mapping):
            found[section] = values
            continue
        found[section] = {key: value for key, value in values.items() if key not in _NO_MATTER.get(section, ())}
    trainer = found.get("trainer")
    if isinstance(trainer, dict):
        kept = [_plain_callback(item) for item in trainer.pop("callbacks", None) or []]
        kept = [item for item in kept if item is not None]
        if kept:
            trainer["callbacks"] = kept
    return found


def _plain_callback(item: Any) -> Any:
    if _class_name(item) in _ONLOOKERS:
        return None
    if _class_name(item) != "ModelCheckpoint" or not isinstance(item, Mapping):
        return item
    arguments = {k: v for k, v in (item.get("init_args") or {}).items() if k not in ("dirpath", "save_last")}
    return {**item, "init_args": arguments}


def digest_of(config: Mapping[str, Any]) -> str:
    """Hash of what decides a run."""
    text = json.dumps(deciding(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """``key: old -> new`` for each value in which two configs differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}, key=str):
            yield from differences(old.get(key), new.get(key), f"{at}.{key}".lstrip("."))
    elif old != new:
        yield f"{at}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _placed(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config of a run in its own folder: nothing of it lands elsewhere, and it says how far it is."""
    trainer = config["trainer"]
    trainer["enable_progress_bar"] = False  # its output goes into a file
    callbacks = [copy.deepcopy(item) for item in trainer.get("callbacks") or [] if _class_name(item) not in _BARS]
    present = {_class_name(item) for item in callbacks}
    for name, class_path in (
        ("ModelCheckpoint", "ModelCheckpoint"),
        ("SaveLast", "reg2rg.training.save_last.SaveLast"),
        ("PredictionWriter", "reg2rg.training.prediction_writer.PredictionWriter"),
    ):
        if name not in present:
            callbacks.append({"class_path": class_path})
    moved = []
    for item in callbacks:
        entry: dict[str, Any] = {"class_path": item} if isinstance(item, str) else dict(item)
        name, arguments = _class_name(entry), dict(entry.get("init_args") or {})
        if name == "ModelCheckpoint":
            arguments |= {"dirpath": str(folder / CHECKPOINTS), "save_last": True}
        elif name == "PredictionWriter":
            arguments["out"] = str(folder / PREDICTIONS)
        moved.append({**entry, "init_args": arguments} if arguments else entry)
    trainer["callbacks"] = [*moved, {"class_path": RECORDER, "init_args": {"folder": str(folder)}}]
    trainer["logger"] = _loggers(trainer.get("logger"), folder)
    return config


def _loggers(given: Any, folder: Path) -> list[Any]:
    entries = given if isinstance(given, list) else [given] if isinstance(given, Mapping | str) else []
    kept = []
    for item in entries:
        entry: dict[str, Any] = {"class_path": item} if isinstance(item, str) else dict(item)
        if _class_name(entry) == "CSVLogger":
            continue
        kept.append({**entry, "init_args": {**(entry.get("init_args") or {}), "save_dir": str(folder)}})
    return [{"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "csv"}}, *kept]


def _class_name(item: Any) -> str:
    path = item.get("class_path", "") if isinstance(item, Mapping) else item
    return str(path).rpartition(".")[2]
