"""One run, from its config to its evaluation: the same commands that a person would type, one after another."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import yaml

from reg2rg.ablation.plan import CONFIG, EVALUATION, PREDICTIONS, deciding, differences
from reg2rg.ablation.state import (
    LOG,
    STAGES,
    Keys,
    describe_machine,
    is_done,
    lock,
    made_by,
    now,
    read_progress,
    read_run,
    write_run,
)
from reg2rg.ablation.sweep import Scoring
from reg2rg.core.documents import DocumentError, read_yaml
from reg2rg.core.files import atomic_write
from reg2rg.runners.base import Job, Outcome, Stop
from reg2rg.runners.process import log_tail, run_command, was_stopped

METRICS = "metrics.csv"
_SHOWN_CHANGES = 4
Call = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Task(Job):
    """A run as it is handed to whatever works on it.

    Attributes:
        run: name of the run.
        seed: its seed.
        title: its row.
        folder: of the run, as the config names it.
        config: resolved.
        digest: of the config.
        data: digest of its data.
        code: a finished run must have been made by this code; "" if that does not matter.
        scoring: what is evaluated.
        train_references: table of training reports for the floors, or ``None``.
        allow_import: packages that configs may name.
        call: runs a ``reg2rg`` command in this process; by default each stage is a process of its own.
    """

    kind: ClassVar[str] = "ablate"

    run: str
    seed: int
    title: str
    folder: Path
    config: Mapping[str, Any]
    digest: str
    data: str
    scoring: Scoring
    code: str = ""
    train_references: Path | None = None
    allow_import: tuple[str, ...] = ()
    call: Call | None = None

    @property
    def place(self) -> Path:
        """The run's folder from anywhere."""
        return self.cwd / self.folder

    @property
    def keys(self) -> Keys:
        """What its stages depend on."""
        return Keys.of(self.digest, self.data, self.scoring)

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.run}, seed {self.seed}"

    def execute(self, stop: Stop) -> Outcome:
        """See `reg2rg.runners.Job`."""
        return execute(self, stop)

    def command(self, stage: str) -> list[str]:
        """The words behind ``reg2rg`` for a stage."""
        config, scoring = ["--config", str(self.folder / CONFIG)], self.scoring
        allow = [word for package in self.allow_import for word in ("--allow-import", package)]
        if stage == "fit":
            return ["fit", *allow, *config, "--ckpt_path", "last"]
        if stage == "predict":
            return [
                "predict", *allow, *config, "--ckpt_path", scoring.checkpoint, "--data.predict_split", scoring.split
            ]  # fmt: skip
        words = ["evaluate", str(self.folder / PREDICTIONS), "--out", str(self.folder / EVALUATION)]
        words += ["--protocol", scoring.protocol, "--labeler", scoring.labeler, "--name", self.title]
        words += ["--resamples", str(scoring.resamples)]
        if regions := (self.config.get("task") or {}).get("regions"):
            words += ["--regions", str(regions)]
        if self.train_references is not None:
            words += ["--train-references", str(self.train_references)]
        return words


def execute(task: Task, stop: Stop) -> Outcome:
    """Do what is left of a task.

    Args:
        task: the run.
        stop: ends it early.
    """
    begun = time.monotonic()
    with lock(lock_of(task.place)) as held:
        if held is None:
            return Outcome("busy")
        record = _opened(task)
        for stage in STAGES:
            if is_done(record, stage, task.keys):
                continue
            if stop.event.is_set():
                return Outcome("stopped", time.monotonic() - begun)
            _begin_stage(task, stage, record)
            started = time.monotonic()
            code = _run_stage(task, stage, stop, held)
            seconds = time.monotonic() - started
            if code != 0:
                return _ended(task, record, stage, code, stop, time.monotonic() - begun)
            entry = {"key": getattr(task.keys, stage), "seconds": round(seconds, 2), "ended": now()}
            record["stages"][stage] = entry | {"code": record["code"]}
            record["figures"] = read_progress(task.place)
            if stage == "fit":
                _join_metrics(task.place)
            write_run(task.place, record)
        return Outcome("done", time.monotonic() - begun)


def what_changed(task: Task) -> str:
    """Why a run that was finished has to be done anew: the settings that differ, or that data or code do."""
    record = read_run(task.place)
    if record.get("config") == task.digest:
        return "its data changed" if record.get("data") != task.data else "it was made by other code"
    try:
        old = read_yaml(task.place / CONFIG)
    except (OSError, DocumentError):
        return "its config changed"
    found = list(differences(deciding(old), deciding(task.config)))
    more = f"; {len(found) - _SHOWN_CHANGES} more" if len(found) > _SHOWN_CHANGES else ""
    return f"its config changed ({'; '.join(found[:_SHOWN_CHANGES])}{more})"


def lock_of(folder: Path) -> Path:
    """The lock of a run; beside its folder, which may be moved while the lock is held."""
    return folder.with_name(f".{folder.name}.lock")


def _opened(task: Task) -> dict[str, Any]:
    """``run.json`` of the folder with what it is for. A run of other settings is moved aside, or back in place."""
    record = read_run(task.place)
    if record and (record.get("key") != task.keys.fit or not made_by(record, task.code)):
        task.place.rename(_aside(task.place, record["key"]))
        record = {}
    earlier = _aside(task.place, task.keys.fit, new=False)
    if not record and earlier.is_dir() and not task.place.exists() and made_by(read_run(earlier), task.code):
        earlier.rename(task.place)
        record = read_run(task.place)
    task.place.mkdir(parents=True, exist_ok=True)
    record = record or {"run": task.run, "seed": task.seed, "begun": now(), "stages": {}}
    record |= {"key": task.keys.fit, "config": task.digest, "data": task.data, **describe_machine(task.threads)}
    record.pop("failure", None)
    with atomic_write(task.place / CONFIG, "w") as stream:
        yaml.safe_dump(dict(task.config), stream, sort_keys=False)
    write_run(task.place, record)
    return record


def _aside(folder: Path, key: str, new: bool = True) -> Path:
    """Where the run of a key stands when another one has its place."""
    place = folder.with_name(f"{folder.name}.{key[:8]}")
    number = 1
    while new and place.exists():
        number += 1
        place = folder.with_name(f"{folder.name}.{key[:8]}-{number}")
    return place


def _begin_stage(task: Task, stage: str, record: dict[str, Any]) -> None:
    """Results of other settings do not stay beside new ones; those that belong here are completed."""
    key = getattr(task.keys, stage)
    begun = record.setdefault("begun_stages", {})
    folder = task.place / (EVALUATION if stage == "evaluate" else PREDICTIONS)
    if stage != "fit" and begun.get(stage) != key and folder.exists():
        shutil.rmtree(folder)
    begun[stage] = key
    write_run(task.place, record)


def _run_stage(task: Task, stage: str, stop: Stop, held: int) -> int:
    words = task.command(stage)
    with open(task.place / LOG, "a", encoding="utf-8") as log:
        log.write(f"\n=== {now()} reg2rg {' '.join(words)}\n")
        log.flush()
        if task.call is not None:
            return _call_here(task.call, words, log)
        # while it lives, even alone, the lock holds the folder
        return run_command(task, words, log, stop, pass_fds=[held])


def _call_here(call: Call, words: Sequence[str], log: IO[str]) -> int:
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        return call(words)


def _ended(task: Task, record: dict[str, Any], stage: str, code: int, stop: Stop, seconds: float) -> Outcome:
    if was_stopped(code, stop):
        return Outcome("stopped", seconds)
    tail = log_tail(task.place / LOG)
    message = f"{stage} ended with exit code {code}; the end of {task.folder / LOG}:\n{tail}"
    record["failure"] = {"stage": stage, "exit_code": code, "at": now(), "log": tail}
    write_run(task.place, record)
    return Outcome("failed", seconds, message)


def _join_metrics(folder: Path) -> None:
    """One table of what was logged, over all resumes."""
    from reg2rg.core.errors import Reg2RGError
    from reg2rg.training.curves import read_curves

    with contextlib.suppress(Reg2RGError):  # a run without any logged step
        joined = read_curves(folder / "csv")
        joined["step"] = joined["step"].astype(int)
        with atomic_write(folder / METRICS, "w") as stream:
            joined.to_csv(stream, index=False, lineterminator="\n")
