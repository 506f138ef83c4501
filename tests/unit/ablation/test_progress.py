"""Estimates are made of what was measured, and never invented; progress comes from what a run writes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from reg2rg.ablation.execute import Task
from reg2rg.ablation.progress import Estimate, Watch, measured_seconds, share_done
from reg2rg.ablation.sweep import Scoring
from reg2rg.core.documents import write_record
from reg2rg.runners import Outcome


def record(out: Path, run: str, seed: str, host: str, fit: float, stages: tuple[str, ...] = ()) -> None:
    folder = out / run / seed
    folder.mkdir(parents=True)
    names = stages or ("fit", "predict", "evaluate")
    content = {
        "run": run,
        "host": host,
        "stages": {name: {"seconds": fit if name == "fit" else 5.0} for name in names},
        "figures": {"fit_seconds": 2 * fit},
    }
    write_record(folder / "run.json", content)


def test_only_finished_runs_of_this_machine_count(tmp_path: Path) -> None:
    record(tmp_path, "full", "seed0", "here", 100)
    record(tmp_path, "full", "seed1", "there", 900)
    record(tmp_path, "full", "seed2", "here", 700, ("fit",))
    record(tmp_path, "full", "seed3.abc", "here", 500)
    (tmp_path / "full/seed4").mkdir()
    (tmp_path / "full/seed4/run.json").write_text("{half")
    assert measured_seconds(tmp_path, "here") == {"full": [210.0]}


def test_estimates() -> None:
    nothing = Estimate({})
    assert nothing.of("full") is None
    assert nothing.total(["full"], 1) is None
    assert Estimate({}, 60).of("full") == (60, "a guess")
    known = Estimate({"full": [100.0, 300.0, 200.0]}, 60)
    assert known.of("full") == (200.0, "measured")
    assert known.of("other") == (200.0, "as other runs")
    assert known.total(["full", "full"], 2) == 200.0
    known.add("other", 50.0)
    assert known.of("other") == (50.0, "measured")


@pytest.mark.parametrize(
    ("written", "share", "words"),
    [
        (None, 0.0, "starting"),
        ({"stage": "fit", "done": 5, "total": 10}, 0.45, "step 5 of 10"),
        ({"stage": "fit", "done": 5, "total": None}, 0.0, "starting"),
        ({"stage": "predict", "done": 1, "total": 2}, 0.95, "reports 50 %"),
        ({"stage": "predict", "done": 3, "total": 2}, 1.0, "reports 100 %"),
    ],
)
def test_how_far_a_run_is(tmp_path: Path, written: dict | None, share: float, words: str) -> None:
    if written is not None:
        (tmp_path / "progress.json").write_text(json.dumps(written))
    assert share_done(tmp_path) == (pytest.approx(share), words)


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_said(tmp_path: Path, terminal: bool) -> None:
    out = io.StringIO()
    one, two = (Task("full", seed, "t", tmp_path / str(seed), {}, "d", "x", Scoring()) for seed in (0, 1))
    console = Console(file=out, force_terminal=terminal, width=100, no_color=True)
    with Watch(console, 2, Estimate({}), 1) as watch:
        watch.wait_for([one, two])
        watch.begin(one)
        watch.end(one, Outcome("done", 120.0))
        watch.begin(two)
        watch.end(two, Outcome("failed", 1.0, "fit ended with exit code 1;\nerror: [broken]"))
    text = out.getvalue()
    assert "full, seed 0: done in 2.0 min; 1 of 2, about 2.0 min left" in text
    assert "full, seed 1: failed; 2 of 2" in text
    assert "    error: [broken]" in text
    assert terminal or f"full, seed 0: begun ({tmp_path / '0'})" in text
