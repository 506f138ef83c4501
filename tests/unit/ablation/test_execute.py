"""One run through its stages: what is done again, what is kept, what a failure leaves behind."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from reg2rg.ablation.execute import LOG, Task, lock_of, what_changed
from reg2rg.ablation.state import Keys, lock, read_run, state_of
from reg2rg.ablation.sweep import Scoring
from reg2rg.runners import Stop

CONFIG = {"trainer": {"default_root_dir": "out"}, "model": {"lr": 1}, "task": {"regions": "lobes"}}


def task(tmp_path: Path, **changes) -> Task:
    options = {"run": "full", "seed": 0, "title": "full", "folder": Path("out/full/seed0"), "config": CONFIG}
    options |= {"digest": "d0", "data": "data0", "scoring": Scoring(), "cwd": tmp_path}
    return Task(**(options | changes))


class Program:
    """Stands for ``reg2rg``: writes what each command would, or fails."""

    def __init__(self, folder: Path, codes: dict[str, int] | None = None) -> None:
        self.folder, self.codes, self.calls = folder, codes or {}, []

    def __call__(self, words: Sequence[str]) -> int:
        sys.stdout.write(f"running {words[0]}\n")
        self.calls.append(list(words))
        if code := self.codes.get(words[0], 0):
            sys.stderr.write(f"some line\nerror: {words[0]} is broken\n(run again with --debug for the traceback)\n")
            return code
        if words[0] == "predict":
            (self.folder / "predictions").mkdir(exist_ok=True)
            (self.folder / "predictions/old.txt").write_text("by this run")
        if words[0] == "evaluate":
            (self.folder / "evaluation").mkdir(exist_ok=True)
        return 0

    @property
    def stages(self) -> list[str]:
        return [words[0] for words in self.calls]


def run(one: Task, codes: dict[str, int] | None = None, stop: Stop | None = None):
    program = Program(one.place, codes)
    return replace(one, call=program).execute(stop or Stop()), program


def test_the_commands_that_a_person_would_type(tmp_path: Path) -> None:
    one = task(tmp_path, train_references=Path("out/train.csv"), allow_import=("acme",))
    outcome, program = run(one)
    assert outcome.status == "done"
    allow, config = ["--allow-import", "acme"], ["--config", "out/full/seed0/config.yaml"]
    assert program.calls == [
        ["fit", *allow, *config, "--ckpt_path", "last"],
        ["predict", *allow, *config, "--ckpt_path", "last", "--data.predict_split", "test"],
        ["evaluate", "out/full/seed0/predictions", "--out", "out/full/seed0/evaluation", "--protocol", "strict",
         "--labeler", "rules", "--name", "full", "--resamples", "1000", "--regions", "lobes",
         "--train-references", "out/train.csv"],
    ]  # fmt: skip
    assert yaml.safe_load((one.place / "config.yaml").read_text()) == CONFIG
    assert state_of(one.place, one.keys) == "done"


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    run(task(tmp_path))
    outcome, program = run(task(tmp_path))
    assert (outcome.status, program.calls) == ("done", [])


def test_it_goes_on_where_it_failed(tmp_path: Path) -> None:
    one = task(tmp_path)
    outcome, program = run(one, {"predict": 1})
    assert (outcome.status, program.stages) == ("failed", ["fit", "predict"])
    assert outcome.message.splitlines()[0].startswith("predict ended with exit code 1; the end of ")
    assert outcome.message.splitlines()[1] == "error: predict is broken"
    assert state_of(one.place, one.keys) == "failed"
    assert read_run(one.place)["failure"]["stage"] == "predict"
    outcome, program = run(one)
    assert (outcome.status, program.stages) == ("done", ["predict", "evaluate"])
    assert "failure" not in read_run(one.place)
    text = (one.place / LOG).read_text()
    assert text.count("running fit") == 1
    assert text.count("running predict") == 2


@pytest.mark.parametrize("code", [130, 143])
def test_an_interrupted_stage_is_no_failure(tmp_path: Path, code: int) -> None:
    one = task(tmp_path)
    outcome, _ = run(one, {"fit": code})
    assert (outcome.status, state_of(one.place, one.keys)) == ("stopped", "to go on")


def test_told_to_stop_it_begins_no_further_stage(tmp_path: Path) -> None:
    stop = Stop()
    stop()
    outcome, program = run(task(tmp_path), stop=stop)
    assert (outcome.status, program.calls) == ("stopped", [])


def test_another_protocol_only_evaluates_again(tmp_path: Path) -> None:
    run(task(tmp_path))
    other = task(tmp_path, scoring=Scoring(protocol="paper"))
    assert state_of(other.place, other.keys) == "to go on"
    _, program = run(other)
    assert program.stages == ["evaluate"]


def test_another_split_predicts_anew_and_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    one = task(tmp_path)
    run(one)
    (one.place / "predictions/of_test.txt").write_text("by the first run")
    _, program = run(task(tmp_path, scoring=Scoring(split="val")))
    assert program.stages == ["predict", "evaluate"]
    assert [path.name for path in (one.place / "predictions").iterdir()] == ["old.txt"]


def test_predictions_that_belong_here_are_completed(tmp_path: Path) -> None:
    one = task(tmp_path)
    run(one, {"predict": 1})
    (one.place / "predictions").mkdir()
    (one.place / "predictions/half.txt").write_text("done before the failure")
    run(one)
    assert (one.place / "predictions/half.txt").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"digest": "d1", "config": CONFIG | {"model": {"lr": 2}}}, "its config changed (model.lr: 1 -> 2)"),
        ({"data": "data1"}, "its data changed"),
    ],
)
def test_other_settings_are_a_new_run_and_the_old_one_is_kept(tmp_path: Path, change: dict, why: str) -> None:
    one, other = task(tmp_path), task(tmp_path, **change)
    run(one)
    assert state_of(other.place, other.keys) == "changed"
    assert what_changed(other) == why
    _, program = run(other)
    assert program.stages == ["fit", "predict", "evaluate"]
    kept = one.place.with_name(f"seed0.{one.keys.fit[:8]}")
    assert read_run(kept)["key"] == one.keys.fit
    assert (kept / "predictions/old.txt").exists()
    _, program = run(one)
    assert program.calls == [], "the first settings come back to their own run"
    assert state_of(one.place, one.keys) == "done"
    assert read_run(one.place.with_name(f"seed0.{other.keys.fit[:8]}"))["key"] == other.keys.fit


def test_code_counts_only_if_asked(tmp_path: Path) -> None:
    one = task(tmp_path)
    run(one)
    record = json.loads((one.place / "run.json").read_text())
    assert record["code"] == record["stages"]["fit"]["code"]
    same = replace(one, code=record["code"])
    assert state_of(one.place, one.keys, same.code) == "done"
    other = replace(one, code="another")
    assert state_of(one.place, one.keys, other.code) == "changed"
    assert what_changed(other) == "it was made by other code"
    _, program = run(other)
    assert program.stages == ["fit", "predict", "evaluate"]


def test_a_run_that_another_process_holds_is_left_alone(tmp_path: Path) -> None:
    one = task(tmp_path)
    with lock(lock_of(one.place)) as held:
        assert held is not None
        outcome, program = run(one)
    assert (outcome.status, program.calls) == ("busy", [])
    assert run(one)[0].status == "done"


def test_keys_depend_on_what_a_stage_depends_on() -> None:
    base = Keys.of("d", "x", Scoring())
    assert Keys.of("d", "x", Scoring(metrics=("CRG",), resamples=5)) == base
    assert Keys.of("e", "x", Scoring()).fit != base.fit != Keys.of("d", "y", Scoring()).fit
    other = Keys.of("d", "x", Scoring(split="val"))
    assert (other.fit, other.predict == base.predict) == (base.fit, False)
    other = Keys.of("d", "x", Scoring(labeler="none"))
    assert (other.predict, other.evaluate == base.evaluate) == (base.predict, False)


def test_a_lock_keeps_out_other_threads_too(tmp_path: Path) -> None:
    found = []

    def ask() -> None:
        with lock(tmp_path / "l") as held:
            found.append(held is not None)

    with lock(tmp_path / "l"):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    ask()
    assert found == [False, True]
