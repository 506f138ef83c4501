"""A run that is stopped at any step and resumed is, bit for bit, the run that was not stopped."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from reg2rg.checkpoints import AtomicCheckpointIO, read_checkpoint

STEPS = 12  # three studies a batch of two, dropout on: four epochs of three batches


class SaveEveryStep(L.Callback):
    """Saves where Lightning's own checkpoint callback saves: at the end of each batch that made a step."""

    def __init__(self, folder):
        self.folder, self.last = folder, 0

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step != self.last:
            self.last = trainer.global_step
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


class Record(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((trainer.current_epoch, batch_idx, batch.study_ids, batch.regions))


def run(toy, *, workers=0, resume=None, callbacks=(), steps=STEPS, module=None, data=None, **trainer_options):
    module = module or toy.module()
    record = Record()
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        plugins=[AtomicCheckpointIO()],
        callbacks=[record, *callbacks],
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        default_root_dir=toy.root,
        **trainer_options,
    )
    data = data or toy.data(module, workers=workers)
    trainer.fit(module, datamodule=data, ckpt_path=resume and str(resume))
    return module, trainer, record.seen


def assert_same(one, other):
    (module, trainer, _), (module2, trainer2, _) = one, other
    assert trainer.global_step == trainer2.global_step
    for (name, value), (_, value2) in zip(module.state_dict().items(), module2.state_dict().items(), strict=True):
        assert torch.equal(value, value2), name
    for state, state2 in zip(trainer.optimizers[0].state.values(), trainer2.optimizers[0].state.values(), strict=True):
        for key in state:
            assert torch.equal(state[key], state2[key]), key


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The uninterrupted run, with a checkpoint of every step."""
    folder = tmp_path_factory.mktemp("steps")
    return run(toy, callbacks=[SaveEveryStep(folder)]), folder


@pytest.mark.parametrize("step", range(1, STEPS))
def test_resume_at_every_step(toy, whole, step):
    reference, folder = whole
    resumed = run(toy, resume=folder / f"{step}.ckpt")
    assert_same(reference, resumed)
    assert resumed[2] == reference[2][step:]


@pytest.mark.parametrize("step", [1, 3, 8])
def test_resume_with_two_workers(toy, whole, step):
    reference, folder = whole
    assert_same(reference, run(toy, workers=2, resume=folder / f"{step}.ckpt"))


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4, 5, 6, 7, 9, 10, 11])
def test_resume_with_two_workers_at_the_other_steps(toy, whole, step):
    reference, folder = whole
    assert_same(reference, run(toy, workers=2, resume=folder / f"{step}.ckpt"))


def test_dropout_acts_and_resume_needs_the_random_state(toy, whole):
    """Without it the tests above would prove little."""
    reference, folder = whole
    other = run(toy, module=toy.module(seed=0, dropout=0.2), resume=folder / "6.ckpt")
    assert_same(reference, other)
    module = toy.module()
    module.seed = 1
    module2, _, _ = run(toy, module=module, resume=folder / "6.ckpt")
    assert any(not torch.equal(a, b) for a, b in zip(reference[0].parameters(), module2.parameters(), strict=True))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_resume_with_accumulation(toy, tmp_path, step):
    options = {"accumulate_grad_batches": 2, "steps": 4}
    reference = run(toy, callbacks=[SaveEveryStep(tmp_path)], **options)
    assert_same(reference, run(toy, resume=tmp_path / f"{step}.ckpt", **options))


class SaveAtValidation(L.Callback):
    def __init__(self, folder):
        self.folder, self.count = folder, 0

    def on_validation_end(self, trainer, pl_module):
        self.count += 1
        trainer.save_checkpoint(self.folder / f"{self.count}.ckpt")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_from_a_validation_inside_an_epoch(toy, tmp_path, accumulate):
    """Also between two batches of one accumulation: the gradients so far travel with the checkpoint."""
    options = {"accumulate_grad_batches": accumulate, "steps": 6 // accumulate, "val_check_interval": 1}
    saver = SaveAtValidation(tmp_path)
    reference = run(toy, callbacks=[saver], **options)
    assert saver.count >= 5
    for number in range(1, 6):
        assert_same(reference, run(toy, resume=tmp_path / f"{number}.ckpt", **options))


def test_checkpoint_of_lightnings_own_callback(toy, tmp_path):
    reference = run(toy, steps=7)
    keeper = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=2, save_last=True, save_top_k=1)
    run(toy, steps=5, callbacks=[keeper])
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] in (4, 5)
    again = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=2, save_last=True, save_top_k=1)
    assert_same(reference, run(toy, steps=7, callbacks=[again], resume="last"))


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import Toy
import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from reg2rg.checkpoints import AtomicCheckpointIO, SaveOnTerm

class Slow(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        Path({out!r}, "step").write_text(str(trainer.global_step))
        time.sleep({pause})

toy = Toy.__new__(Toy)
toy.root, toy.store, toy.lm = (Path(p) for p in {paths!r})
toy.studies = [toy._study(i) for i in range(8)]
module = toy.module()
keeper = ModelCheckpoint(dirpath={out!r}, every_n_train_steps={every}, save_last=True, enable_version_counter=False)
trainer = L.Trainer(max_steps={steps}, max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
    enable_model_summary=False, plugins=[AtomicCheckpointIO()], callbacks=[keeper, SaveOnTerm(), Slow()],
    gradient_clip_val=1.0, num_sanity_val_steps=0)
last = Path({out!r}, "last.ckpt")
trainer.fit(module, datamodule=toy.data(module), ckpt_path=str(last) if last.exists() else None)
"""


def start(toy, out, steps, every, pause):
    """Train in a process of its own; returns it."""
    tests, paths = str(Path(__file__).resolve().parents[1]), [str(toy.root), str(toy.store), str(toy.lm)]
    script = SCRIPT.format(tests=tests, paths=paths, out=str(out), steps=steps, every=every, pause=pause)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_step(process, out, step):
    marker, deadline = out / "step", time.monotonic() + 300
    while not (marker.exists() and int(marker.read_text() or 0) >= step):
        assert process.poll() is None, "the run ended before it was stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sigterm_saves_and_the_run_goes_on_from_there(toy, tmp_path):
    process = start(toy, tmp_path, steps=200, every=1000, pause=0.2)
    wait_for_step(process, tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=120)
    assert process.returncode == 143
    saved = tmp_path / "last.ckpt"
    step = read_checkpoint(saved)["global_step"]
    assert step >= 2
    assert_same(run(toy, steps=step + 4), run(toy, steps=step + 4, resume=saved))


@pytest.mark.slow
def test_killed_runs_go_on_bit_for_bit(toy, tmp_path):
    """Killed three times, at moments that follow no step, while every step is saved."""
    steps = 40
    for kill in (3, 11, 23):
        process = start(toy, tmp_path, steps, every=1, pause=0.03)
        wait_for_step(process, tmp_path, kill)
        time.sleep(0.007 * kill)
        process.kill()
        process.wait()
        assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] >= kill - 1
    process = start(toy, tmp_path, steps, every=1, pause=0)
    assert process.wait(timeout=300) == 0
    module, _, _ = run(toy, steps=steps)
    saved = read_checkpoint(tmp_path / "last.ckpt")
    assert saved["global_step"] == steps
    for name, value in saved["state_dict"].items():
        assert torch.equal(value, module.state_dict()[name]), name
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".ckpt") and path.name.startswith("last-")]
