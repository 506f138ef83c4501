"""Finished runs of a plan, read back from their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reg2rg.ablation.execute import Task
from reg2rg.ablation.plan import PREDICTIONS
from reg2rg.ablation.scoring import Scorer, Scores
from reg2rg.ablation.state import read_run, state_of
from reg2rg.ablation.table import Collected, Costs


def collect(tasks: Mapping[str, Sequence[Task]], scorer: Scorer, runs: Mapping[str, Any]) -> dict[str, Collected]:
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


def floors_of(task: Task, scorer: Scorer) -> dict[str, dict[str, float]]:
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


def measured_seconds(out: Path, host: str) -> dict[str, list[float]]:
    """Run -> seconds of its finished seeds on this machine, over all stages."""
    found: dict[str, list[float]] = {}
    for path in sorted(out.glob("*/seed*/run.json")):
        if "." in path.parent.name:  # moved aside: it had other settings
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        stages = record.get("stages", {})
        if record.get("host") == host and len(stages) == 3:
            figures = record.get("figures", {})
            # The trainer's own clock counts resumed parts too; a stage's seconds are those of its last part.
            fit = max(float(figures.get("fit_seconds", 0.0)), float(stages["fit"]["seconds"]))
            rest = sum(float(stages[name]["seconds"]) for name in stages if name != "fit")
            found.setdefault(record["run"], []).append(fit + rest)
    return found
