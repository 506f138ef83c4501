"""Sweeps on toy phantoms: real runs, killed and resumed ones, a failing one; and what every switch does to a model.

The switches are tested by intervention, not by reading configs: the model of each packaged overlay is built by the real
command line, its inputs are changed one by one, and what moves is looked at.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import yaml

from reg2rg.ablation.execute import lock_of
from reg2rg.ablation.state import lock, read_progress
from reg2rg.cli.main import main
from reg2rg.core.task import Views
from reg2rg.data.prompt import TAGS, TokenCounts
from reg2rg.store.store import Store
from reg2rg.store.views import compute_views

BASE = """\
base: phantom.yaml
data:
  dataset: {init_args: {root: data}}
  store: store
  batch_size: 2
  eval_batch_size: 4
task: {views: {size: [16, 16, 16]}}
model:
  texture: {init_args: {patch: [4, 4, 4], channels: [8, 8], grid: [2, 1, 2], dim: 16}}
  geometry: {init_args: {patch: [4, 4, 4], channels: [8, 8], dim: 8}}
  global_: {init_args: {patch: [4, 4, 4], channels: [8, 8], grid: [2, 1, 2], dim: 8}}
  attributes: {init_args: {dim: 8, hidden: 8, waves: 2}}
  head: {init_args: {hidden: 16}}
  llm: {init_args: {path: lm}}
  max_new_tokens: 24
  val_generate: 0
trainer: {max_steps: 3, val_check_interval: 3, log_every_n_steps: 1}
vars: {word_alignment_steps: 1}
"""
SWEEP = """\
title: Toy
base: toy_base.yaml
seeds: [0, 1]
data:
  - run: data phantom data --studies 10 --size 48 48 32 --workers 0
    makes: data/multi_abnormality_labels/valid_labels.csv
    resumes: true
  - run: data prepare --config {config} --workers 0
    makes: store/index.json
    resumes: true
  - run: lm ${model.llm.init_args.path} --config {config} --steps 0 --hidden_size 32 --layers 2 --heads 2
    makes: ${model.llm.init_args.path}/config.json
evaluate: {resamples: 50}
runs:
  full: {title: whole}
  broken: {set: {model: {llm: {init_args: {path: no/such/model}}}}}
  no_rra: {overlays: ablations/no_rra.yaml}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of all tests: a base config and a sweep."""
    root = tmp_path_factory.mktemp("ablations")
    (root / "toy_base.yaml").write_text(BASE)
    (root / "toy.yaml").write_text(SWEEP)
    before = Path.cwd()
    os.chdir(root)
    with pytest.MonkeyPatch.context() as patch:
        # What evaluations and tables draw is tested elsewhere, and would take most of the time here.
        patch.setattr("reg2rg.show.evaluation_files.draw_plot", lambda *_: None)
        patch.setattr("reg2rg.show.ablation_files.draw_table", lambda table: None)
        patch.setattr("reg2rg.show.evaluation_terminal.print_evaluation", lambda evaluation, console: None)
        yield root
    os.chdir(before)


def ablate(*words: str) -> int:
    return main(["ablate", *words])


@dataclass(frozen=True)
class Swept:
    """A sweep worked through: its folder, and what it printed."""

    out: Path
    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def first(folder: Path) -> Swept:
    """Three runs, one of them broken, with two seeds each, in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        code = ablate("toy.yaml", "--jobs", "0")
    return Swept(folder / "ablations/toy_base", code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def swept(first: Swept) -> Path:
    """Its folder."""
    return first.out


# ---- the sweep


@pytest.mark.slow
def test_all_packaged_sweeps_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablate("all", "--dry-run", "--seeds", "0", "--jobs", "2") == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^(\w+) +0 +to do +7\.0 min, a guess", out, re.MULTILINE)
    assert rows == [
        "full", "no_lfd", "txt", "geo", "txt_geo", "no_rra", "no_cues", "no_head", "attributes", "small_lm",
        "r2gengpt", "medvint", "radfm", "ct2rep", "m3d", "text_only",
    ]  # fmt: skip
    assert "16 of 16 runs to do; time: about 56.0 min" in out
    assert not Path("ablations/phantom_small").exists(), "a dry run writes nothing"


def test_a_sweep_leaves_whole_folders_and_a_table(swept: Path) -> None:
    for run in ("full", "no_rra"):
        for seed in (0, 1):
            place = swept / run / f"seed{seed}"
            names = {"config.yaml", "log.txt", "run.json", "metrics.csv", "predictions", "evaluation", "checkpoints"}
            assert names <= {path.name for path in place.iterdir()}
            record = json.loads((place / "run.json").read_text())
            assert set(record["stages"]) == {"fit", "predict", "evaluate"}
            assert record["figures"]["parameters_trained"] > 0
            assert yaml.safe_load((place / "config.yaml").read_text())["seed_everything"] == seed
            with open(place / "metrics.csv") as stream:
                assert {"0", "1", "2"} <= {row["step"] for row in csv.DictReader(stream)}
    with open(swept / "tables/toy.csv") as stream:
        rows = list(csv.DictReader(stream))
    found = {(row["run"], row["metric"]): row for row in rows}
    assert found["full", "CE F1 (micro)"]["seeds"] == "2"
    assert found["no_rra", "CE F1 (micro)"]["p"] != ""
    assert ("no_rra", "Recognition (mean over regions)") not in found, "nothing to recognise without names"
    assert ("full", "Truth F1 (micro)") in found, "phantoms have truth labels"
    assert ("most common paragraph of each region", "Truth F1 (micro)") in found
    assert found["full", "parameters_trained"]["mean"] == found["no_rra", "parameters_trained"]["mean"]
    heads = (swept / "tables/toy.md").read_text().splitlines()
    table = [line.split("|")[1].strip() for line in heads if line.startswith("|")]
    assert table[:4] == ["run", "---", "noise floor: full model against itself", "whole"]
    assert table[4:6] == ["broken (without seed 0, 1)", "no rra"]


def test_seeds_differ(swept: Path) -> None:
    one, other = (
        torch.load(swept / f"full/seed{seed}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for seed in (0, 1)
    )
    assert not torch.equal(one["reporter.tags"], other["reporter.tags"])


def test_what_is_done_is_not_done_again(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = {path: path.read_bytes() for path in swept.glob("*/seed*/log.txt")}
    assert ablate("toy.yaml", "--jobs", "0", "--runs", "full", "no_rra") == 0
    assert "4 of 4 runs are done" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in swept.glob("*/seed*/log.txt")} == logs
    assert ablate("toy.yaml", "--dry-run") == 0
    out = capsys.readouterr().out
    assert out.count("  done ") == 4
    assert "data, done: reg2rg lm lm" in out


def test_a_run_is_what_the_command_line_makes(swept: Path) -> None:
    """The same config given to `reg2rg fit` and `predict` by hand ends in the same reports."""
    config = yaml.safe_load((swept / "no_rra/seed1/config.yaml").read_text())
    text = yaml.safe_dump(config).replace("ablations/toy_base/no_rra/seed1", "by_hand")
    Path("by_hand.yaml").write_text(text)
    assert main(["fit", "--config", "by_hand.yaml"]) == 0
    assert main(["predict", "--config", "by_hand.yaml", "--ckpt_path", "last"]) == 0
    theirs = {path.name: path.read_text() for path in (swept / "no_rra/seed1/predictions/studies").iterdir()}
    assert {path.name: path.read_text() for path in Path("by_hand/predictions/studies").iterdir()} == theirs


def test_one_failing_run_is_reported_and_the_rest_goes_on(first: Swept, capsys: pytest.CaptureFixture[str]) -> None:
    assert first.code == 1
    assert "broken, seed 0: failed" in first.stderr
    assert "fit ended with exit code 2; the end of ablations/toy_base/broken/seed0/log.txt:" in first.stderr
    assert re.search(r"    error: .*no/such/model", first.stderr)
    done = re.findall(r"^(\w+, seed \d): done in", first.stderr, re.MULTILINE)
    assert done == ["full, seed 0", "no_rra, seed 0", "full, seed 1", "no_rra, seed 1"]
    assert "broken (without seed 0, 1)" in first.stdout
    assert ablate("toy.yaml", "--seeds", "0", "--runs", "broken", "--dry-run") == 0
    assert "  failed " in capsys.readouterr().out


@pytest.mark.slow
def test_a_changed_config_is_a_new_run_and_says_so(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("faster.yaml").write_text("model: {optimizer: {lr: 0.002}}\n")
    words = ("toy.yaml", "--jobs", "0", "--runs", "no_rra", "--seeds", "0")
    assert ablate(*words, "-c", "faster.yaml") == 0
    assert "its config changed (model.optimizer.lr: 0.004 -> 0.002); the earlier run is kept" in capsys.readouterr().err
    assert len(list((swept / "no_rra").glob("seed0.*/run.json"))) == 1
    assert ablate(*words) == 0
    assert "no_rra, seed 0: done in" in capsys.readouterr().err
    assert (swept / "no_rra/seed0/log.txt").read_text().count("reg2rg fit") == 1, "the first run came back"


def test_tables_can_be_made_without_the_data(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (swept / "tables/toy.csv").read_text()
    for name in ("data", "store"):
        Path(name).rename(f"{name}_away")
    try:
        assert ablate("toy.yaml", "--tables") == 0
    finally:
        for name in ("data", "store"):
            Path(f"{name}_away").rename(name)
    after = (swept / "tables/toy.csv").read_text()
    runs = [line for line in before.splitlines() if ",floor," not in line]
    assert [line for line in after.splitlines() if ",floor," not in line] == runs


def test_a_mistake_is_found_before_anything_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("typo.yaml").write_text("include: toy.yaml\nruns: {bad: {set: {model: {textur: null}}}}\n")
    assert ablate("typo.yaml", "--jobs", "0", "--out", "typo") == 2
    assert "model.textur: " in capsys.readouterr().err
    assert not Path("typo").exists()


LONG = "trainer: {max_steps: 40, val_check_interval: 40}\nvars: {word_alignment_steps: 37}\n"
"""Steps enough to be stopped between; most of them are cheap."""


@pytest.mark.slow
def test_told_to_end_it_saves_itself_and_goes_on_to_the_same_reports(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM in the middle of training, which runs in a process of its own."""
    Path("long.yaml").write_text(LONG)
    words = ["toy.yaml", "-c", "long.yaml", "--runs", "no_rra", "--seeds", "0"]
    place, whole = Path("stopped/no_rra/seed0"), Path("whole/no_rra/seed0")
    threading.Thread(target=end_at_step, args=(place, 1), daemon=True).start()
    assert ablate(*words, "--out", "stopped") == 143
    assert "no_rra, seed 0: stopped; run the sweep again to go on" in capsys.readouterr().err
    assert "Told to end: saved" in (place / "log.txt").read_text()
    assert not list(Path("stopped").rglob("*.tmp.*")), "nothing half-written"
    assert json.loads((place / "run.json").read_text())["stages"] == {}
    assert ablate(*words, "--jobs", "0", "--out", "stopped", "--dry-run") == 0
    assert "  to go on " in capsys.readouterr().out

    assert ablate(*words, "--jobs", "0", "--out", "stopped") == 0
    assert ablate(*words, "--jobs", "0", "--out", "whole") == 0
    assert steps_of(place) == steps_of(whole), "all steps, over both parts"
    reports = [{p.name: p.read_text() for p in (q / "predictions/studies").iterdir()} for q in (place, whole)]
    assert reports[0] == reports[1]


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_alive(swept: Path) -> None:
    """SIGKILL to the sweep: within two seconds its run has ended, its folder is free again, and the sweep goes on."""
    Path("long.yaml").write_text(LONG)
    words = ["toy.yaml", "-c", "long.yaml", "--runs", "full", "--seeds", "0", "--out", "killed"]
    command = [sys.executable, "-m", "reg2rg.cli.main", "ablate", *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    place = Path("killed/full/seed0")
    assert wait_for_step(place, 1)
    process.kill()
    process.wait()
    time.sleep(2)
    with lock(lock_of(place)) as held:
        assert held is not None, "the run still holds its folder"
    assert ablate(*words, "--jobs", "0") == 0
    assert (place / "evaluation/metrics.json").is_file()


def steps_of(place: Path) -> set[int]:
    with open(place / "metrics.csv") as stream:
        return {int(row["step"]) for row in csv.DictReader(stream)}


def end_at_step(place: Path, step: int) -> None:
    """Send SIGTERM to this process, as a terminal or a scheduler would, when a run is so far."""
    if wait_for_step(place, step):
        os.kill(os.getpid(), signal.SIGTERM)


def wait_for_step(place: Path, step: int, seconds: float = 240) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if read_progress(place).get("done", 0) >= step:
            return True
        time.sleep(0.05)
    return False


# ---- the switches


@contextmanager
def not_run() -> Iterator[list[Any]]:
    """The trainer builds everything and runs nothing; what it was given is handed out."""
    given: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning.Trainer, "fit", lambda self, model, datamodule, **_: given.extend((model, datamodule)))
        yield given


class Built:
    """Model, data and one batch of a config, as the command line builds them."""

    def __init__(self, *overlays: str) -> None:
        with not_run() as given:
            words = [word for name in ("toy_base.yaml", *overlays) for word in ("-c", name)]
            assert main(["fit", *words, "--trainer.logger", "false"]) == 0
        self.model, self.data = given
        self.model.eval()
        self.data.setup("fit")
        loader = self.data._loader("predict", self.data.entries("test")[:2], with_target=True)
        self.samples = loader.samples
        (self.batch,) = list(loader)
        self.scaled = self.batch.scaled(self.data.task.views.window)

    @property
    def counts(self) -> TokenCounts:
        return self.model.token_counts

    def kinds(self) -> list[str]:
        """What fills each slot of the batch: tag, global, texture, geometry or attributes."""
        counts, found = self.counts, []
        regions_from = TAGS + len(self.batch) * counts.global_
        for source in self.batch.visual_source.tolist():
            if source < TAGS:
                found.append("tag")
            elif source < regions_from:
                found.append("global")
            else:
                place = (source - regions_from) % counts.region
                views = counts.texture + counts.geometry
                of_views = "texture" if place < counts.texture else "geometry"
                found.append(of_views if place < views else "attributes")
        return found

    def moved_by(self, view: str) -> set[str]:
        """Kinds of slots whose vector changes when a view of the batch does; text must not."""
        volumes = getattr(self.scaled, view)
        if volumes is None:
            return set()
        with torch.no_grad():
            before = self.model.reporter.embed(self.scaled)
            random = torch.rand(volumes.shape, generator=torch.Generator().manual_seed(0))
            after = self.model.reporter.embed(replace(self.scaled, **{view: volumes + random}))
        changed = (before != after).any(dim=-1)
        slots = torch.zeros_like(changed)
        slots[self.batch.visual_rows, self.batch.visual_cols] = True
        assert not (changed & ~slots).any(), "text moved"
        moved = changed[self.batch.visual_rows, self.batch.visual_cols].tolist()
        return {kind for kind, moves in zip(self.kinds(), moved, strict=True) if moves}

    def targets(self) -> list[str]:
        tokenizer = self.model.tokenizer
        labels = self.batch.labels
        return [tokenizer.decode(row[row != -100], skip_special_tokens=True).strip() for row in labels]

    def trained(self) -> set[str]:
        return {name for name, p in self.model.named_parameters() if p.requires_grad}


@pytest.fixture(scope="module")
def full(swept: Path) -> Built:
    return Built()


@pytest.fixture(scope="module")
def built(swept: Path) -> Any:
    """Config name or names -> what they build, once."""
    known: dict[tuple[str, ...], Built] = {}

    def build(*names: str) -> Built:
        if names not in known:
            known[names] = Built(*(f"ablations/{name}.yaml" for name in names))
        return known[names]

    return build


TXT, GEO, GLB, ATT = (
    (f"reporter.{part}.", f"reporter.{part.rstrip('_')}_projector.")
    for part in ("texture", "geometry", "global_", "attributes")
)
SWITCHES: dict[tuple[str, ...], tuple[tuple[int, int, int, int], tuple[str, ...]]] = {
    (): ((4, 1, 4, 1), ()),
    ("no_geometry",): ((4, 0, 4, 1), GEO),
    ("no_global",): ((4, 1, 0, 1), GLB),
    ("no_geometry", "no_global"): ((4, 0, 0, 1), (*GEO, *GLB)),
    ("no_texture",): ((0, 1, 0, 0), (*TXT, *GLB, *ATT)),
    ("no_attributes",): ((4, 1, 4, 0), ATT),
    ("no_head",): ((4, 1, 4, 1), ("reporter.head.",)),
    ("no_cues",): ((4, 1, 4, 1), ()),
    ("no_lfd",): ((4, 0, 4, 1), GEO),
    ("no_rra",): ((4, 1, 4, 1), ()),
    ("text_only",): ((0, 0, 0, 0), (*TXT, *GEO, *GLB, *ATT, "reporter.head.")),
}
"""Overlays -> visual tokens (texture, geometry, whole image, attributes), and prefixes of the parameters that go."""
switches = pytest.mark.parametrize("names", SWITCHES, ids=lambda names: "+".join(names) or "full")


@switches
def test_which_tokens_reach_the_language_model_and_how_many(built: Any, names: tuple[str, ...]) -> None:
    found = built(*names)
    texture, geometry, global_, attributes = SWITCHES[names][0]
    assert found.counts == TokenCounts(texture, geometry, global_, attributes)
    regions = sum(map(len, found.batch.regions))
    kinds = found.kinds()
    assert {kind: kinds.count(kind) for kind in ("texture", "geometry", "global", "attributes")} == {
        "texture": regions * texture,
        "geometry": regions * geometry,
        "global": len(found.batch) * global_,
        "attributes": regions * attributes,
    }
    assert kinds.count("tag") == 2 * regions + (2 * len(found.batch) if global_ else 0)


@switches
def test_a_view_moves_its_own_tokens_and_no_others(built: Any, names: tuple[str, ...]) -> None:
    found = built(*names)
    texture, geometry, global_, attributes = SWITCHES[names][0]
    assert found.moved_by("attributes") == ({"attributes"} if attributes else set())
    assert found.moved_by("texture") == ({"texture"} if texture else set())
    assert found.moved_by("geometry") == ({"geometry"} if geometry else set())
    assert found.moved_by("global_") == ({"global"} if global_ else set())


@switches
def test_what_is_trained(built: Any, full: Built, names: tuple[str, ...]) -> None:
    gone = SWITCHES[names][1]
    expected = {name for name in full.trained() if not name.startswith(gone or ("-",))}
    assert built(*names).trained() == expected
    for prefix in gone:
        assert any(name.startswith(prefix) for name in full.trained()), "the full model has it"


@switches
def test_an_encoder_that_is_off_costs_nothing(built: Any, names: tuple[str, ...]) -> None:
    """It is not built, its view is neither read from the store nor put into the batch."""
    found = built(*names)
    texture, geometry, global_, attributes = SWITCHES[names][0]
    reporter = found.model.reporter
    assert (reporter.texture is not None, reporter.geometry is not None) == (bool(texture), bool(geometry))
    on = {name for name, count in (("texture", texture), ("geometry", geometry), ("global", global_)) if count}
    asked: list[set[str]] = []

    class Spy:
        def __getattr__(self, name: str) -> Any:
            return getattr(found.data.store, name)

        def views(self, study: str, views: Views, regions: Any, want: Any) -> Any:
            asked.append(set(want))
            return found.data.store.views(study, views, regions, want)

    found.samples.source, before = Spy(), found.samples.source
    try:
        sample = found.samples.sample(0, 0)
    finally:
        found.samples.source = before
    assert asked == ([on] if on else [])
    given = {"texture": sample.texture, "geometry": sample.geometry, "global": sample.global_}
    assert {name for name, view in given.items() if view is not None} == on
    assert (sample.attributes is not None, reporter.attributes is not None) == (bool(attributes), bool(attributes))


@switches
def test_the_target_names_regions_only_with_rra(built: Any, full: Built, names: tuple[str, ...]) -> None:
    found = built(*names)
    assert found.batch.regions == full.batch.regions, "the same regions in the same order"
    named = "no_rra" not in names
    for target, regions, texts in zip(found.targets(), found.batch.regions, found.batch.reports, strict=True):
        paragraphs = [
            f"The region {slot} is {region}: {text}" if named else f"The region {slot}: {text}"
            for slot, (region, text) in enumerate(zip(regions, texts, strict=True))
        ]
        assert target == " ".join(paragraphs)


def test_rra_leaves_the_prompt_alone(built: Any, full: Built) -> None:
    other = built("no_rra")
    for row in range(len(full.batch)):
        ids, theirs = (
            b.batch.input_ids[row][(b.batch.labels[row] == -100) & b.batch.attention_mask[row].bool()]
            for b in (full, other)
        )
        assert torch.equal(ids, theirs)


def test_without_lfd_a_region_is_the_masked_scan_uncropped_in_the_frame_of_the_whole(built: Any, full: Built) -> None:
    """The coupled view equals the masked scan put through the way of the whole image: not cropped, not enlarged."""
    found, plain = built("no_lfd"), full
    study = found.batch.study_ids[0]
    detail = Store("store").read(study).detail
    order = found.batch.regions[0]
    for place, region in enumerate(order):
        mask = detail.region(region)
        masked = np.full(detail.array.shape, -1024, dtype=np.int16)
        inside = tuple(slice(low, high) for low, high in mask.box)
        masked[inside][mask.array] = detail.array[inside][mask.array]
        whole = Views(size=(16, 16, 16))
        expected = compute_views(whole, replace(detail, array=masked), (), {"global"}).global_
        np.testing.assert_array_equal(found.batch.texture[place, 0].numpy(), expected)
    # With LFD the same regions fill their views.
    filled = [float((b.scaled.texture[: len(order)] > -1).float().mean()) for b in (found, plain)]
    assert filled[1] > 3 * filled[0]


def test_without_lfd_the_place_is_that_of_the_mask(built: Any, full: Built) -> None:
    """Where the coupled view has tissue, the geometry view of the full model has the mask."""
    coupled, masks = built("no_lfd").scaled.texture, full.scaled.geometry
    assert (masks[coupled > -1] > 0).all()
