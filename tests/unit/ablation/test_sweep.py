"""Sweep files: what they say, how they include each other, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from reg2rg.ablation.sweep import METRICS, load_sweep, packaged_sweeps
from reg2rg.core.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", packaged_sweeps())
def test_packaged_sweeps_have_the_full_model_its_floor_and_three_seeds(name: str) -> None:
    sweep = load_sweep(name)
    assert sweep.seeds == (0, 1, 2)
    assert sweep.runs["full"].overlays == ()
    assert sweep.runs["text_only"].floor
    assert all(table.full == "full" and table.runs[0] == "full" for table in sweep.tables)
    assert all(set(table.runs) <= set(sweep.runs) for table in sweep.tables)
    assert all(sweep.runs[table.runs[-1]].floor for table in sweep.tables)
    assert sweep.scoring.metrics == METRICS
    assert {table.protocol for table in sweep.tables} <= {"strict", "paper"}


def test_all_holds_every_comparison_and_the_full_model_once() -> None:
    whole = load_sweep("all")
    parts = [load_sweep(name) for name in packaged_sweeps() if name not in ("all", "full", "paragraphs")]
    assert set(whole.runs) == {name for part in parts for name in part.runs}
    assert [table.name for table in whole.tables][-1] == "all"
    assert {table.name for table in whole.tables} == {*(part.name for part in parts), "all"}
    assert set(whole.tables[-1].runs) == set(whole.runs)
    assert len(whole.data) == len(set(whole.data)) == 4, "data, store and two language models are made once"


def test_a_sweep_of_the_working_folder_comes_before_a_packaged_one() -> None:
    write("lfd.yaml", "base: phantom.yaml\nruns: {mine: {}}\n")
    assert list(load_sweep("lfd").runs) == ["mine"]
    assert "no_rra" in load_sweep("rra").runs


def test_values_given_inline_keep_their_place() -> None:
    write("s.yaml", "base: phantom.yaml\nruns:\n  wide:\n    set:\n      model:\n        tag_std: 2.0\n")
    run = load_sweep("s.yaml").runs["wide"]
    assert run.values.values == {"model": {"tag_std": 2.0}}
    assert str(run.values.origin(("model", "tag_std"))) == "s.yaml:6"


def test_an_included_sweep_gives_what_is_not_said() -> None:
    write(
        "a.yaml", "base: phantom.yaml\nseeds: [3]\nevaluate: {protocol: paper, resamples: 7}\nruns: {full: {}, x: {}}\n"
    )
    write("b.yaml", "include: a.yaml\nevaluate: {labeler: none}\nruns: {y: {floor: true}}\n")
    sweep = load_sweep("b.yaml")
    assert (sweep.base, sweep.seeds) == (("phantom.yaml",), (3,))
    assert (sweep.scoring.protocol, sweep.scoring.labeler, sweep.scoring.resamples) == ("paper", "none", 7)
    assert [table.runs for table in sweep.tables] == [("full", "x", "y")]


BASE = "base: phantom.yaml\n"
RUN = f"{BASE}runs: {{a: {{}}}}\n"
MISTAKES = {
    f"{BASE}runs:\n  a: {{overlay: x.yaml}}\n": (
        "s.yaml:3: runs.a.overlay: a sweep has no key 'overlay' here. Did you mean 'overlays'?"
    ),
    f"{BASE}run: {{}}\n": "s.yaml:2: run: a sweep has no key 'run' here. Did you mean 'runs'?",
    f"{RUN}seeds: 3\n": "s.yaml:3: seeds: expected a list of whole numbers from 0 on",
    f"{RUN}seeds: [true]\n": "s.yaml:3: seeds: expected a list of whole numbers from 0 on",
    f"{RUN}full: b\n": "s.yaml:3: full: there is no run 'b' to compare with",
    f"{BASE}runs: {{../a: {{}}}}\n": "runs.../a: a run's name is a folder's",
    f"{BASE}runs: {{a: {{floor: 1}}}}\n": "runs.a.floor: expected true or false, found 1.",
    f"{BASE}runs: {{a: {{set: 1}}}}\n": "runs.a.set: expected a mapping of config keys to values, found 1.",
    f"{RUN}evaluate: {{protocol: papr}}\n": (
        "s.yaml:3: evaluate.protocol: there is no protocol 'papr'. Did you mean 'paper'?"
    ),
    f"{RUN}compare: {{protocol: papr}}\n": "s.yaml:3: compare.protocol: there is no protocol 'papr'.",
    f"{RUN}compare: {{split: dev}}\n": "s.yaml:3: compare.split: a sweep has no key 'split' here.",
    f"{RUN}evaluate: {{split: dev}}\n": "evaluate.split: expected one of train, val, test, found 'dev'.",
    f"{RUN}evaluate: {{resamples: 0}}\n": "evaluate.resamples: expected a whole number above 0",
    f"{RUN}data: [{{run: lm x}}]\n": "data.0: expected a step with 'run'",
    f"{RUN}minutes_per_run: 5\n": "minutes_per_run: expected a mapping of base configs",
    "runs: {a: {}}\n": "the sweep has no base config",
    BASE: "the sweep has no run",
    f"{BASE}include: s.yaml\n": "s.yaml:2: include: 's.yaml' leads back to this file",
    f"{BASE}include: lfdd\n": "include: no sweep file 'lfdd'",
    f"{BASE}include: full\nruns: {{full: {{overlays: ablations/no_rra.yaml}}}}\n": (
        "runs.full: another sweep has a different run of this name"
    ),
}


def test_a_table_may_have_its_own_protocol_and_columns() -> None:
    """A table of systems without regions compares whole reports; the others keep theirs."""
    tables = {table.name: table for table in load_sweep("all").tables}
    assert {name: table.protocol for name, table in tables.items()} == {
        "lfd": "strict", "features": "strict", "rra": "strict", "findings": "strict", "detect": "strict",
        "llm_size": "strict", "peers": "paper", "all": "paper",
    }  # fmt: skip
    assert "BLEU-1" in tables["peers"].metrics
    assert tables["lfd"].metrics == tables["all"].metrics == METRICS


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_said_with_its_place(text: str) -> None:
    write("s.yaml", text)
    with pytest.raises(ConfigError) as error:
        load_sweep("s.yaml")
    assert MISTAKES[text] in str(error.value)


def test_a_sweep_that_is_nowhere() -> None:
    with pytest.raises(ConfigError, match=r"no sweep file 'featurs'.*Did you mean 'features'\?"):
        load_sweep("featurs")
