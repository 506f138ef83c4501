"""A run of ``predict`` with nothing to do is told by stamps alone; whatever differs is looked at."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from reg2rg.cli.main import Invocation, main
from reg2rg.cli.predicted import DONE, Asked, _files
from reg2rg.datasets.manifest import Manifest

CONFIG = """
task: {regions: radgenome}
data:
  dataset: {class_path: Manifest, init_args: {path: studies.csv, val_fraction: 0.0}}
  store: store
  predict_split: train
model: {llm: {class_path: CausalLM, init_args: {path: lm}}}
trainer:
  default_root_dir: run
  callbacks:
    - class_path: reg2rg.training.prediction_writer.PredictionWriter
      init_args: {out: "${trainer.default_root_dir}/predictions"}
    - {class_path: ModelCheckpoint, init_args: {dirpath: checkpoints}}
"""
WORDS = ("--config", "run.yaml", "--ckpt_path=best")


@pytest.fixture(autouse=True)
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which two studies are reported on."""
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(CONFIG)
    for folder in ("store/native", "lm", "checkpoints", "run/predictions/studies"):
        Path(folder).mkdir(parents=True)
    for name in ("lm/weights", "checkpoints/best.ckpt", "store/index.json"):
        Path(name).write_text(name)
    for name in "ab":
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), f"{name}.nii")
        Path(f"store/native/{name}.r2g").write_text(name)
        Path(f"run/predictions/studies/{name}.json").write_text(name)
    table("Clear.")
    note()


def note() -> None:
    found = asked()
    found.note(found.listed(found.dataset()))


def table(text: str) -> None:
    Path("studies.csv").write_text(f"id,image,report:lung\na,a.nii,{text}\nb,b.nii,Big heart.\n")


def asked(*words: str) -> Asked:
    found = Asked.of(Invocation("predict", (*WORDS, *words)))
    assert found is not None
    return found


def test_nothing_to_do_is_told_without_torch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reg2rg.cli.predict.checked", lambda invocation: invocation)
    assert asked().out == Path("run/predictions")
    assert main(["predict", *WORDS]) == 0
    assert main(["predict", *WORDS, "--shards", "8"]) == 0
    assert capsys.readouterr().out == 2 * "run/predictions: 2 studies are complete; nothing to do\n"


def test_a_listing_is_made_again_where_something_that_it_depends_on_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reg2rg.store.ledger._SETTLED_NS", -(10**12))  # as if all had been left alone for a while
    note()
    listed: list[int] = []
    scan = Manifest.scan
    monkeypatch.setattr(Manifest, "scan", lambda self: (listed.append(1), scan(self))[1])
    assert (asked().done(), listed) == (2, [])
    table("Clear.")
    assert (asked().done(), listed) == (2, [1])
    table("A nodule.")
    assert (asked().done(), listed) == (None, [1, 1])


def rewrite(name: str) -> None:
    path = Path(name)
    path.write_text(path.read_text())
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda: table("A nodule."),
        lambda: rewrite("checkpoints/best.ckpt"),
        lambda: rewrite("lm/weights"),
        lambda: Path("lm/adapter").touch(),
        lambda: rewrite("store/native/a.r2g"),
        lambda: Path("store/native/b.r2g").unlink(),
        lambda: rewrite("run/predictions/studies/b.json"),
        lambda: Path("run/predictions/studies/b.json").unlink(),
        lambda: Path(f"run/predictions/{DONE}").write_text("{"),
        lambda: Path("studies.csv").unlink(),
        lambda: Path("run.yaml").write_text(CONFIG.replace("train\n", "val\n")),
    ],
)
def test_whatever_differs_is_looked_at(change) -> None:
    assert asked().done() == 2
    change()
    assert asked().done() is None


def test_other_options_are_another_question() -> None:
    assert asked("--data.workers=0").done() is None
    assert asked("--ckpt_path=lm/weights").done() is None
    assert Asked.of(Invocation("predict", (*WORDS, "--print_config"))) is None
    assert Asked.of(Invocation("predict", ("--config", "nowhere.yaml"))) is None


@pytest.mark.parametrize(
    ("trainer", "out"),
    [
        ("trainer:\n", "predictions"),
        ("trainer: {default_root_dir: run, callbacks: [RichProgressBar]}\n", "run/predictions"),
        ("trainer: {callbacks: {class_path: PredictionWriter, init_args: {out: here}}}\n", "here"),
    ],
)
def test_callbacks_may_be_written_in_any_form(trainer: str, out: str) -> None:
    Path("run.yaml").write_text(CONFIG[: CONFIG.index("trainer:")] + trainer)
    assert Path(out).absolute() == asked("--ckpt_path=checkpoints/best.ckpt").out.absolute()


def test_a_region_set_of_ones_own_that_changes_is_looked_at() -> None:
    Path("mine.yaml").write_text("name: mine\nregions: [lung, heart]\n")
    Path("run.yaml").write_text(CONFIG.replace("regions: radgenome", "regions: mine.yaml"))
    note()
    assert asked().done() == 2
    Path("mine.yaml").write_text("name: mine\nregions: [heart, lung]\n")
    assert asked().done() is None


def test_an_empty_value_names_no_folder() -> None:
    assert _files("") == []
