"""Data that runs need: made once, in order, by one sweep at a time, and again when they are out of date."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from reg2rg.ablation import steps
from reg2rg.ablation.plan import Plan, make_plan
from reg2rg.ablation.state import lock
from reg2rg.ablation.steps import StepFailedError, make_data, planned_steps
from reg2rg.ablation.sweep import load_sweep

SWEEP = """\
base: base.yaml
runs:
  full: {}
  other:
    set: {model: {llm: {init_args: {path: lm_other}}}}
    data:
      - {run: "lm ${model.llm.init_args.path} --config {config}", makes: "${model.llm.init_args.path}/config.json"}
data:
  - run: data phantom ${data.dataset.init_args.root} --studies 5
    makes: ${data.dataset.init_args.root}/t.csv
    into: ${data.dataset.init_args.root}
    resumes: true
  - {run: "lm ${model.llm.init_args.path} --config {config}", makes: "${model.llm.init_args.path}/config.json"}
"""
BASE = {
    "data": {"dataset": {"class_path": "RadGenome", "init_args": {"root": "my data"}}, "seed": "${seed_everything}"},
    "model": {"llm": {"class_path": "CausalLM", "init_args": {"path": "lm"}}},
}


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(yaml.safe_dump({"seed_everything": 0, **BASE}))
    Path("s.yaml").write_text(SWEEP)
    return make_plan(load_sweep("s.yaml"), Path("out"))


class Maker:
    """Stands for ``reg2rg``: makes the file that each command would."""

    def __init__(self, code: int = 0) -> None:
        self.code, self.calls = code, []

    def __call__(self, words: Sequence[str]) -> int:
        self.calls.append(list(words))
        if self.code == 0:
            path = Path(words[2], "t.csv") if words[0] == "data" else Path(words[1], "config.json")
            path.parent.mkdir(exist_ok=True)
            path.write_text("made")
        return self.code


def make(plan: Plan, maker: Maker, studies: str = "one") -> list[list[str]]:
    maker.calls.clear()
    make_data(plan, maker, lambda text: None, lambda: studies)
    return maker.calls


PHANTOM = ["data", "phantom", "my data", "--studies", "5"]
LM, OTHER = (["lm", name, "--config", "out/data/config.yaml"] for name in ("lm", "lm_other"))


def test_commands_are_filled_in_from_the_config_of_their_run(plan: Plan) -> None:
    assert [step.run for step in planned_steps(plan)] == [PHANTOM, LM, OTHER]
    assert [step.makes.as_posix() for step in planned_steps(plan)] == [
        "my data/t.csv", "lm/config.json", "lm_other/config.json",
    ]  # fmt: skip
    assert planned_steps(plan)[0].text == "reg2rg data phantom 'my data' --studies 5"


def test_data_are_made_once(plan: Plan) -> None:
    maker = Maker()
    assert make(plan, maker) == [PHANTOM, LM, OTHER]
    assert make(plan, maker) == []
    assert yaml.safe_load(Path("out/data/config.yaml").read_text())["data"]["seed"] == 0


def test_other_studies_need_another_language_model(plan: Plan) -> None:
    maker = Maker()
    make(plan, maker)
    assert make(plan, maker, studies="two") == [LM, OTHER]
    assert make(plan, maker, studies="two") == []
    assert make(plan, maker, studies="") == [], "studies that are gone are not other ones"


def test_what_was_made_by_hand_is_taken_as_it_is(plan: Plan) -> None:
    for path in ("lm/config.json", "lm_other/config.json", "my data/scan.nii.gz"):
        Path(path).parent.mkdir()
        Path(path).write_text("by hand")
    said: list[str] = []
    assert planned_steps(plan)[0].is_elsewhere()
    make_data(plan, lambda words: 1 / 0, said.append, lambda: "one")
    assert said == ["data: my data holds data that this sweep did not make; they are taken as they are"]
    assert Path("lm/config.json").read_text() == "by hand"
    assert [file.name for file in Path("my data").iterdir() if file.name[0] != "."] == ["scan.nii.gz"]


def test_what_a_killed_sweep_has_begun_goes_on(plan: Plan) -> None:
    def killed(words: Sequence[str]) -> int:
        Path("my data").mkdir(exist_ok=True)
        Path("my data", "scan.nii.gz").write_text("half of them")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_data(plan, killed, lambda text: None, lambda: "one")
    assert make(plan, Maker()) == [PHANTOM, LM, OTHER]


def test_what_resumes_and_was_begun_elsewhere_runs_to_its_end(plan: Plan) -> None:
    (step, *_) = planned_steps(plan)
    step.into = None  # as for the store, whose preparation finds out what is left
    step.makes.parent.mkdir()
    step.makes.write_text("by hand")
    assert not step.done("one")
    assert not step.is_elsewhere()


def test_other_code_lets_what_resumes_look_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker()
    make(plan, maker)
    monkeypatch.setattr(steps, "code_digest", lambda: "another")
    assert make(plan, maker) == [PHANTOM]


def test_what_was_deleted_is_made_again(plan: Plan) -> None:
    maker = Maker()
    make(plan, maker)
    Path("lm/config.json").unlink()
    assert make(plan, maker) == [LM]


def test_a_step_that_fails_names_its_command(plan: Plan) -> None:
    with pytest.raises(StepFailedError, match=r"`reg2rg data phantom 'my data' --studies 5` ended with exit code 2"):
        make(plan, Maker(2))
    with pytest.raises(KeyboardInterrupt):
        make(plan, Maker(130))
    with pytest.raises(StepFailedError, match=r"did not make my data/t.csv"):
        make_data(plan, lambda words: 0, lambda text: None, lambda: "one")


def test_two_sweeps_wait_for_each_other(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_WAIT_S", 0.02)
    maker, said = Maker(), []
    with lock(Path("my data/.t.csv.ablate.lock")) as held:
        assert held is not None
        thread = threading.Thread(target=make_data, args=(plan, maker, said.append, lambda: "one"))
        thread.start()
        for _ in range(1000):
            thread.join(0.02)
            if said:
                break
        assert maker.calls == []
        assert said == ["data: another process makes my data/t.csv; waiting for it"]
    thread.join(10)
    assert maker.calls == [PHANTOM, LM, OTHER]
