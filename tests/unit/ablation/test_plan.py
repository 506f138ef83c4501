"""Jobs of a sweep: resolved configs, what their hashes depend on, and where everything goes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from reg2rg.ablation.plan import Job, Plan, deciding, differences, digest_of, make_plan
from reg2rg.ablation.sweep import load_sweep
from reg2rg.core.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@functools.cache
def packaged(sweep: str) -> Plan:
    return make_plan(load_sweep(sweep))


def plan(sweep: str = "lfd", **options: Any) -> Plan:
    return make_plan(load_sweep(sweep), **options) if options or "." in sweep else packaged(sweep)


def job(name: str = "full", seed: int = 0, sweep: str = "lfd", **options: Any) -> Job:
    if options:
        return plan(sweep, names=[name], seeds=[seed], **options).jobs[0]
    return next(job for job in plan(sweep).jobs if (job.run.name, job.seed) == (name, seed))


def overlay(name: str, values: dict[str, Any]) -> str:
    Path(name).write_text(yaml.safe_dump(values), encoding="utf-8")
    return name


def callback(config: Any, name: str) -> dict[str, Any]:
    return next(c for c in config["trainer"]["callbacks"] if c["class_path"].endswith(name)).get("init_args", {})


def test_seeds_one_after_another_and_floors_last() -> None:
    jobs = plan("lfd", seeds=[5, 2]).jobs
    assert [(job.run.name, job.seed) for job in jobs] == [
        ("full", 5), ("no_lfd", 5), ("text_only", 5), ("full", 2), ("no_lfd", 2), ("text_only", 2),
    ]  # fmt: skip
    assert [job.folder for job in jobs[:2]] == [
        Path("ablations/phantom_small/full/seed5"),
        Path("ablations/phantom_small/no_lfd/seed5"),
    ]


def test_seed_overlays_and_references_are_resolved() -> None:
    config = job("no_lfd", 2, out=Path("out")).config
    assert (config["seed_everything"], config["data"]["seed"], config["model"]["seed"]) == (2, 2, 2)
    assert config["task"]["views"]["coupled"] is True
    assert config["model"]["geometry"] is None
    assert "${" not in yaml.safe_dump(dict(config))
    assert "geometry" in plan("lfd").jobs[0].config["model"]


def test_everything_of_a_run_goes_into_its_folder() -> None:
    config = job("full", 1, out=Path("out")).config
    assert config["trainer"]["default_root_dir"] == "out/full/seed1"
    assert callback(config, "ModelCheckpoint")["dirpath"] == "out/full/seed1/checkpoints"
    assert callback(config, "ModelCheckpoint")["save_last"] is True
    assert callback(config, "PredictionWriter")["out"] == "out/full/seed1/predictions"
    assert callback(config, "RunRecorder")["folder"] == "out/full/seed1"
    assert all(entry["init_args"]["save_dir"] == "out/full/seed1" for entry in config["trainer"]["logger"])
    assert config["trainer"]["enable_progress_bar"] is False
    assert not any("ProgressBar" in c["class_path"] for c in config["trainer"]["callbacks"])


def test_a_base_without_callbacks_gets_what_a_sweep_needs() -> None:
    bare = overlay("bare.yaml", {"trainer": {"callbacks": None, "logger": False}})
    config = job(extra=[bare], out=Path("out")).config
    names = [c["class_path"].rpartition(".")[2] for c in config["trainer"]["callbacks"]]
    assert names == ["ModelCheckpoint", "SaveLast", "PredictionWriter", "RunRecorder"]
    assert callback(config, "ModelCheckpoint") == {"dirpath": "out/full/seed0/checkpoints", "save_last": True}
    assert [entry["class_path"] for entry in config["trainer"]["logger"]] == ["CSVLogger"]


def test_paths_that_a_base_fixes_cannot_mix_runs() -> None:
    fixed = {"class_path": "reg2rg.training.prediction_writer.PredictionWriter", "init_args": {"out": "one/folder"}}
    config = job(extra=[overlay("fixed.yaml", {"trainer": {"callbacks": [fixed]}})], out=Path("out")).config
    assert callback(config, "PredictionWriter")["out"] == "out/full/seed0/predictions"


HARMLESS = {
    "workers": {"data": {"workers": 3}},
    "cache": {"data": {"cache": False}},
    "logger": {"trainer": {"logger": False}},
    "how often it logs": {"trainer": {"log_every_n_steps": 7}},
    "bars": {"trainer": {"enable_progress_bar": False, "enable_model_summary": False}},
    "folder": {"trainer": {"default_root_dir": "elsewhere"}},
    "scratch values": {"vars": {"a": 1}},
}
DECISIVE = {
    "rate": {"model": {"optimizer": {"lr": 1e-3}}},
    "steps": {"trainer": {"max_steps": 5}},
    "batch": {"data": {"batch_size": 3}},
    "precision": {"trainer": {"precision": "bf16-mixed"}},
    "data": {"data": {"dataset": {"init_args": {"root": "other"}}}},
    "a callback that acts": {
        "trainer": {"callbacks+": [{"class_path": "lightning.pytorch.callbacks.StochasticWeightAveraging"}]}
    },
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_change_the_result_does_not_change_the_hash(name: str) -> None:
    assert job(extra=[overlay("o.yaml", HARMLESS[name])]).digest == job().digest


@pytest.mark.parametrize("name", DECISIVE)
def test_what_changes_the_result_changes_the_hash(name: str) -> None:
    assert job(extra=[overlay("o.yaml", DECISIVE[name])]).digest != job().digest


def test_hashes_of_seeds_and_runs_differ_and_those_of_folders_do_not() -> None:
    jobs = plan("all").jobs
    assert len({job.digest for job in jobs}) == len(jobs)
    assert job(out=Path("here")).digest == job(out=Path("there")).digest


def test_the_config_in_the_folder_has_the_hash_of_the_job() -> None:
    for one in plan("all").jobs[:12]:
        assert digest_of(yaml.safe_load(yaml.safe_dump(dict(one.config)))) == one.digest


def test_order_of_keys_and_the_way_of_saying_it_do_not_matter() -> None:
    Path("s.yaml").write_text(
        "base: phantom.yaml\nruns:\n  a: {overlays: o.yaml}\n  b: {set: {model: {tag_std: 2.0, geometry: null}}}\n"
    )
    overlay("o.yaml", {"model": {"geometry": None, "tag_std": 2.0}})
    assert job("a", sweep="s.yaml").digest == job("b", sweep="s.yaml").digest


def test_a_changed_value_is_named() -> None:
    old, new = job().config, job(extra=[overlay("o.yaml", DECISIVE["rate"])]).config
    assert list(differences(deciding(old), deciding(new))) == ["model.optimizer.lr: 0.004 -> 0.001"]


def test_runs_are_for_the_bases_that_they_name() -> None:
    assert {job.run.name for job in plan("llm_size").jobs} == {"full", "small_lm", "text_only"}
    assert {job.run.name for job in plan("llm_size", base=["reg2rg.yaml"]).jobs} == {"full", "gpt2", "text_only"}
    assert {job.run.name for job in plan("llm_size", base=["reg2rg_24gb.yaml"]).jobs} == {"full", "gpt2", "text_only"}
    Path("mine.yaml").write_text("base: phantom.yaml\n")
    assert {job.run.name for job in plan("llm_size", base=["mine.yaml"]).jobs} == {"full", "small_lm", "text_only"}
    assert "for" not in str(plan("llm_size", base=["reg2rg.yaml"]).sweep.tables[0].runs)


def test_overlays_may_depend_on_the_base() -> None:
    overlays = {job.run.name: job.run.overlays for job in plan("peers").jobs}
    assert overlays["radfm"] == ("peers/phantom/radfm.yaml",)
    overlays = {job.run.name: job.run.overlays for job in plan("peers", base=["reg2rg_24gb.yaml"], seeds=[0]).jobs}
    assert overlays["radfm"] == ("peers/radfm.yaml",)
    Path("other.yaml").write_text("data: {}\n")
    assert {job.run.name for job in plan("peers", base=["other.yaml"]).jobs} == {"full", "text_only"}
    with pytest.raises(ConfigError, match=r"no such run. It is for phantom.yaml and reg2rg.yaml."):
        plan("peers", base=["other.yaml"], names=["radfm"])


def test_phantom_data_are_made_for_the_phantoms_alone() -> None:
    assert [step.run.split()[0] for step, _ in plan("llm_size").steps] == ["data", "data", "lm", "lm"]
    assert [step.run.split()[0] for step, _ in plan("llm_size", names=["full"]).steps] == ["data", "data", "lm"]
    assert plan("llm_size", base=["reg2rg.yaml"]).steps == ()


@pytest.mark.parametrize("name", ["lfd", "features", "rra", "llm_size", "peers", "all"])
def test_every_sweep_resolves_on_the_papers_recipe(name: str) -> None:
    jobs = plan(name, base=["reg2rg.yaml"], seeds=[0]).jobs
    assert {job.config["model"]["llm"]["class_path"] for job in jobs} == {"CausalLM"}
    assert jobs[0].folder == Path("ablations/reg2rg/full/seed0")


def test_a_run_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"--runs no_lfdd: there is no such run. Did you mean 'no_lfd'\?"):
        plan("lfd", names=["no_lfdd"])
    with pytest.raises(ConfigError, match=r"--runs gpt2: there is no such run. It is for reg2rg.yaml."):
        plan("llm_size", names=["gpt2"])


def test_a_reference_to_nothing() -> None:
    with pytest.raises(ConfigError, match=r"o\.yaml:2: data\.store: '\$\{nowhere\}' refers to 'nowhere'"):
        job(extra=[overlay("o.yaml", {"data": {"store": "${nowhere}"}})])
