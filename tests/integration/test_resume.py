"""A run that is stopped anywhere and resumed is, bit for bit, the run that was not stopped."""

import contextlib
import copy
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import pytest
import torch
import torchio
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from reg2rg.config.overlay import fold, packaged_configs
from reg2rg.config.saving import build
from reg2rg.core.errors import CheckpointError
from reg2rg.data.augment import Augment
from reg2rg.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from reg2rg.training.optimization import OptimizerConfig
from reg2rg.training.save_last import SaveLast

BATCHES, EPOCHS = 6, 2
"""Of the grid: 12 batches, each of them a place to stop."""


class SaveEveryBatch(L.Callback):
    """Saves where a checkpoint callback saves: at the end of a batch, whether it made a step or not."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.count += 1
        trainer.save_checkpoint(self.folder / f"{self.count}.ckpt")


class Record(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        self.seen.append((trainer.current_epoch, batch_idx, batch.study_ids, batch.regions, rates))


@pytest.fixture(scope="module")
def six(toy):
    """Six training studies, two for validation."""
    toy = copy.copy(toy)
    splits = ["train"] * 6 + ["val"] * 2
    toy.studies = [dataclasses.replace(study, split=split) for study, split in zip(toy.studies, splits, strict=True)]
    return toy


def cosine(toy, **arguments):
    """Dropout on, and a rate that depends on the number of steps of the whole run."""
    rates = OptimizerConfig(lr=1e-2, warmup_steps=2, weight_decay=0.01, schedule="cosine", min_lr_ratio=0.1)
    return toy.module(**{"optimizer": rates, **arguments})


def run(toy, *, workers=0, resume=None, callbacks=(), module=None, augment=None, **trainer_options):
    module, record = module or cosine(toy), Record()
    options = {"max_epochs": EPOCHS, "limit_val_batches": 0, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        callbacks=[record, *callbacks],
        gradient_clip_val=1.0,
        default_root_dir=toy.root,
        **(options | trainer_options),
    )
    data = toy.data(module, workers=workers, batch_size=1, augment=augment)
    trainer.fit(module, datamodule=data, ckpt_path=resume and str(resume))
    return module, trainer, record.seen


def assert_same(one, other):
    (module, trainer, _), (module2, trainer2, _) = one, other
    assert (trainer.global_step, trainer.current_epoch) == (trainer2.global_step, trainer2.current_epoch)
    for (name, value), (_, value2) in zip(module.state_dict().items(), module2.state_dict().items(), strict=True):
        assert torch.equal(value, value2), name
    for state, state2 in zip(trainer.optimizers[0].state.values(), trainer2.optimizers[0].state.values(), strict=True):
        for key in state:
            assert torch.equal(state[key], state2[key]), key


@pytest.fixture(scope="module", params=[1, 2], ids=["accumulate 1", "accumulate 2"])
def whole(request, six, tmp_path_factory):
    """The uninterrupted run, with a checkpoint after each batch."""
    folder = tmp_path_factory.mktemp("batches")
    return run(six, callbacks=[SaveEveryBatch(folder)], accumulate_grad_batches=request.param), folder


def stopped_after(batch, six, whole, workers):
    """Go on from a checkpoint to the end; the same batches at the same rates, and the same weights."""
    reference, folder = whole
    accumulate = reference[1].accumulate_grad_batches
    resumed = run(six, workers=workers, resume=folder / f"{batch}.ckpt", accumulate_grad_batches=accumulate)
    assert resumed[2] == reference[2][batch:]
    assert_same(reference, resumed)


@pytest.mark.parametrize("batch", range(1, BATCHES * EPOCHS))
def test_stopped_after_any_batch(six, whole, batch):
    stopped_after(batch, six, whole, workers=0)


@pytest.mark.parametrize("batch", [2, 6, 9])
def test_stopped_with_two_workers(six, whole, batch):
    stopped_after(batch, six, whole, workers=2)


def test_stopped_with_transforms_of_studies(six, tmp_path):
    """They follow from seed, epoch and study: another number of workers and another process make the same."""
    augment = Augment([torchio.RandomAffine(scales=0.05, degrees=5), torchio.RandomNoise(std=30)])
    reference = run(six, callbacks=[SaveEveryBatch(tmp_path)], augment=augment)
    resumed = run(six, workers=2, resume=tmp_path / "8.ckpt", augment=augment)
    assert resumed[2] == reference[2][8:]
    assert_same(reference, resumed)
    plain = run(six)
    with pytest.raises(AssertionError):
        assert_same(reference, plain)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3, 4, 5, 7, 8, 10, 11])
def test_stopped_with_two_workers_after_any_other_batch(six, whole, batch):
    stopped_after(batch, six, whole, workers=2)


def test_dropout_acts_and_resume_needs_the_random_state(six, whole):
    """Without it the tests above would prove little."""
    reference, folder = whole
    module = cosine(six)
    module.seed = 1
    accumulate = reference[1].accumulate_grad_batches
    module2, _, _ = run(six, module=module, resume=folder / "6.ckpt", accumulate_grad_batches=accumulate)
    assert any(not torch.equal(a, b) for a, b in zip(reference[0].parameters(), module2.parameters(), strict=True))


class AsksEarly(L.Callback):
    """Somebody's callback that sets up the loader before a checkpoint's state is restored."""

    def setup(self, trainer, pl_module, stage):
        assert trainer.estimated_stepping_batches == BATCHES * EPOCHS / trainer.accumulate_grad_batches


def test_a_callback_that_asks_for_the_number_of_steps_costs_no_place(six, whole):
    reference, folder = whole
    options = {"accumulate_grad_batches": reference[1].accumulate_grad_batches}
    resumed = run(six, resume=folder / "4.ckpt", callbacks=[AsksEarly()], **options)
    assert resumed[2] == reference[2][4:]
    assert_same(reference, resumed)


@pytest.mark.parametrize(
    "options",
    [
        {"reload_dataloaders_every_n_epochs": 1},
        {"limit_train_batches": 4},
        pytest.param({"overfit_batches": 3}, marks=pytest.mark.slow),
        pytest.param({"max_epochs": 1000, "max_steps": 8}, marks=pytest.mark.slow),
        {"max_epochs": -1, "max_steps": 8},
    ],
    ids=str,
)
def test_stopped_under_other_limits(six, tmp_path, options):
    reference = run(six, callbacks=[SaveEveryBatch(tmp_path)], **options)
    for batch in (2, 3, 5):
        resumed = run(six, resume=tmp_path / f"{batch}.ckpt", **options)
        assert resumed[2] == reference[2][batch:]
        assert_same(reference, resumed)


def test_a_resume_of_a_resume(six, whole, tmp_path):
    reference, folder = whole
    options = {"accumulate_grad_batches": reference[1].accumulate_grad_batches}
    run(six, resume=folder / "3.ckpt", callbacks=[SaveEveryBatch(tmp_path)], **options)
    again = run(six, resume=tmp_path / "1.ckpt", **options)
    assert again[2] == reference[2][4:]
    assert_same(reference, again)


# ---- every packaged trainer section

BASES = ("phantom.yaml", "phantom_small.yaml", "reg2rg.yaml", "reg2rg_24gb.yaml")
SHORTER = {450: 4, 700: 9, 900: 9}
"""Steps of the packaged sections -> of the stand-in; validation at 4 of 9 as at 450 of 900."""


def stand_in(*configs):
    """The trainer section as folded, with what a CPU has in place of its devices, and fewer steps."""
    section = fold(configs).values["trainer"]
    for key in ("default_root_dir", "logger", "strategy", "precision", "devices", "accelerator", "log_every_n_steps"):
        section.pop(key, None)
    section["callbacks"] = [
        entry
        for entry in section["callbacks"]
        if entry["class_path"].rpartition(".")[2] in ("ModelCheckpoint", "SaveLast")
    ]
    for key in ("max_steps", "val_check_interval"):
        if key in section:
            section[key] = SHORTER[section[key]]
    if "max_steps" not in section:
        section["max_epochs"] = EPOCHS
    return section


def sections():
    """Different sections, with the first config that has them."""
    found = {}
    for name in packaged_configs():
        if not name.startswith("sweeps/"):
            configs = (name,) if name in BASES else ("phantom.yaml" if "phantom" in name else "reg2rg.yaml", name)
            section = stand_in(*configs)
            marks = [pytest.mark.slow] if name.startswith(("ablations/", "peers/")) else []
            found.setdefault(repr(section), pytest.param(section, id=name, marks=marks))
    return list(found.values())


@contextlib.contextmanager
def exits(code):
    with pytest.raises(SystemExit) as caught:
        yield
    assert caught.value.code == code


class Tell(L.Callback):
    """Gets a signal while a batch is worked on, as from a terminal."""

    def __init__(self, number, at, validation=False, times=1):
        self.number, self.at, self.validation, self.times = number, at, validation, times
        self.count = 0

    def on_train_batch_start(self, *_):
        self._see(training=True)

    def on_validation_batch_end(self, trainer, *_):
        if not trainer.sanity_checking:
            self._see(training=False)

    def _see(self, training):
        if training != self.validation:
            self.count += 1
            if self.count == self.at:
                for _ in range(self.times):
                    signal.raise_signal(self.number)


def packaged(toy, section, folder, *extra, resume=None):
    section = copy.deepcopy(section)
    for entry in section["callbacks"]:
        if entry["class_path"] == "ModelCheckpoint":
            entry["init_args"]["dirpath"] = str(folder)
    section |= {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = build(L.Trainer, section)
    module, record = cosine(toy), Record()
    trainer.callbacks[:0] = [record, *extra]
    data = toy.data(module, batch_size=1, eval_batch_size=1)
    with exits(130) if extra else contextlib.nullcontext():
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    return module, trainer, record.seen


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Twenty training studies, three for validation."""
    from tiny import Toy

    toy = Toy(tmp_path_factory.mktemp("many"), 23)
    toy.studies = [dataclasses.replace(s, split="train" if i < 20 else "val") for i, s in enumerate(toy.studies)]
    return toy


@pytest.mark.parametrize("section", sections())
def test_packaged_recipes_go_on_in_the_middle_of_an_epoch(many, tmp_path, section):
    """Interrupted in an epoch, and in the validation after it: batches, weights and the best model are the same."""
    reference = packaged(many, section, tmp_path / "whole")
    folder = tmp_path / "stopped"
    first = packaged(many, section, folder, Tell(signal.SIGINT, 3 + section.get("accumulate_grad_batches", 0)))
    assert read_checkpoint(folder / "last.ckpt")["global_step"] == first[1].global_step > 0
    second = packaged(many, section, folder, Tell(signal.SIGINT, 2, validation=True), resume="last")
    assert read_checkpoint(folder / "last.ckpt")["reg2rg_in_validation"]
    third = packaged(many, section, folder, resume="last")
    assert first[2] + second[2] + third[2] == reference[2]
    assert_same(reference, third)
    keepers = reference[1].checkpoint_callback, third[1].checkpoint_callback
    assert keepers[0].best_model_score == keepers[1].best_model_score
    assert reference[1].callback_metrics["val/loss"] == third[1].callback_metrics["val/loss"]
    best = [read_checkpoint(place / "best.ckpt") for place in (tmp_path / "whole", folder)]
    assert best[0]["global_step"] == best[1]["global_step"]


# ---- told to end


def signalled(toy, folder, *callbacks, resume=None, **options):
    """A run with the two callbacks of the packaged recipes."""
    options = {"limit_val_batches": 1.0, "enable_checkpointing": True, **options}
    keeper = ModelCheckpoint(folder, "best", monitor="val/loss", save_last=True, enable_version_counter=False)
    return run(toy, callbacks=[*callbacks, SaveLast(**options.pop("save", {})), keeper], resume=resume, **options)


@pytest.mark.parametrize(
    "validation", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["training", "validation"]
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_at_the_end_of_the_batch(six, tmp_path, caplog, number, code, validation):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    folder, reference = tmp_path / "stopped", signalled(six, tmp_path / "whole")
    with exits(code):
        signalled(six, folder, Tell(number, 1 if validation else 4, validation))
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    step = 6 if validation else 4
    assert f"Told to end: saved {folder / 'last.ckpt'} at step {step}; go on with --ckpt_path last" in caplog.text
    resumed = signalled(six, folder, resume="last")
    assert resumed[2] == reference[2][step:]
    assert_same(reference, resumed)
    scores = [str(one[1].checkpoint_callback.best_model_score) for one in (reference, resumed)]
    assert scores[0] == scores[1]


def test_a_second_interrupt_ends_at_once_and_says_what_is_lost(six, tmp_path, caplog):
    with exits(1):
        signalled(six, tmp_path, Tell(signal.SIGINT, 4, times=2))
    assert "Interrupted at step 3: all of it is lost, for no checkpoint was written yet" in caplog.text
    with exits(1):
        signalled(six, tmp_path, Tell(signal.SIGINT, 9, times=2))
    last = tmp_path / "last.ckpt"
    expected = f"Interrupted at step 8: the steps after 6 are lost; {last} has step 6. Go on with --ckpt_path last"
    assert expected in caplog.text
    assert read_checkpoint(last)["global_step"] == 6


class TellInSanityCheck(L.Callback):
    def on_validation_batch_start(self, trainer, *_):
        signal.raise_signal(signal.SIGINT)


def test_nothing_to_save_is_said(six, tmp_path, caplog):
    with exits(130):
        signalled(six, tmp_path, TellInSanityCheck(), num_sanity_val_steps=2)
    assert "Told to end before the first batch was done: there is nothing to save" in caplog.text
    assert not list(tmp_path.iterdir())
    with exits(143):
        run(six, callbacks=[Tell(signal.SIGTERM, 2), SaveLast()])
    assert "all 2 steps are lost, for no folder is named. Fix: a ModelCheckpoint, or SaveLast(dirpath" in caplog.text


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_by_time(six, tmp_path, every):
    """Before a validation that may take long, too; and a validation that was under way is done anew."""
    saved = []

    class Saved(L.Callback):
        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            saved.append((trainer.global_step, trainer.validating))

    reference = signalled(six, tmp_path / "whole")
    with pytest.raises(ValueError, match="killed"):
        signalled(six, tmp_path / "killed", Saved(), Kill(), save={"every_minutes": every})
    if every:
        assert saved == []
        return
    assert saved == [*((step, False) for step in range(1, 6)), (6, True)]
    resumed = signalled(six, tmp_path / "killed", resume="last")
    assert resumed[2] == reference[2][6:]
    assert_same(reference, resumed)
    assert reference[1].checkpoint_callback.best_model_score == resumed[1].checkpoint_callback.best_model_score


class Kill(L.Callback):
    def on_validation_batch_end(self, *_):
        raise ValueError("killed")


def test_room_for_all_checkpoints_is_asked_for_before_the_first_step(six, tmp_path, monkeypatch):
    import reg2rg.training.checkpoints as checkpoints
    from reg2rg.training.save_last import checkpoint_bytes

    _, trainer, _ = signalled(six, tmp_path / "run")
    size = (tmp_path / "run" / "last.ckpt").stat().st_size
    guess = checkpoint_bytes(trainer.lightning_module)
    assert size <= guess < 1.3 * size
    usage = checkpoints.shutil.disk_usage(tmp_path)
    for free, enough in ((3 * guess, True), (3 * guess - 1, False)):
        monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        place = tmp_path / str(enough)
        if enough:
            signalled(six, place)
            continue
        message = r"last\.ckpt: the run's checkpoints \(2 files and one being written\) need .* MiB, .* MiB are free"
        with pytest.raises(CheckpointError, match=message):
            signalled(six, place)
        assert not place.exists()
    signalled(six, tmp_path / "run", resume="last", max_epochs=3)  # what stands there is replaced


@pytest.mark.parametrize(
    "limit",
    [{"max_steps": 8}, pytest.param({"max_epochs": 2, "limit_train_batches": 4}, marks=pytest.mark.slow)],
    ids=str,
)
def test_the_last_steps_are_saved_where_no_validation_follows_them(six, tmp_path, limit):
    """Whether a run was stopped on its way or not, and told to end in its last batch, too."""
    options = {"val_check_interval": 3, "check_val_every_n_epoch": None, **limit}
    reference = signalled(six, tmp_path / "whole", **options)
    for batch in (7, 8):
        with exits(130):
            signalled(six, tmp_path / str(batch), Tell(signal.SIGINT, batch), **options)
        assert_same(reference, signalled(six, tmp_path / str(batch), resume="last", **options))
    for kept in map(last, (tmp_path / "whole", tmp_path / "7", tmp_path / "8")):
        assert kept["global_step"] == reference[1].global_step == 8
        for name, value in kept["state_dict"].items():
            assert torch.equal(value, reference[0].state_dict()[name]), name


# ---- other processes


def on_two_processes(toy, folder, *callbacks, resume=None, **options):
    strategy = DDPStrategy(start_method="fork", process_group_backend="gloo")
    options = {"devices": 2, "strategy": strategy, "max_epochs": 4, **options}
    return signalled(toy, folder, *callbacks, resume=resume, **options)


def last(folder):
    return read_checkpoint(folder / "last.ckpt")


class KillAt(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise ValueError("killed")


def test_two_processes_go_on_in_the_middle_of_an_epoch(six, tmp_path):
    torch.set_num_threads(1)  # a forked process must not meet the thread pool of its parent
    on_two_processes(six, tmp_path / "whole")
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="killed"):
        on_two_processes(six, tmp_path / "stopped", KillAt(5), save={"every_minutes": 0.0})
    assert last(tmp_path / "stopped")["global_step"] == 5
    on_two_processes(six, tmp_path / "stopped", resume="last")
    whole, resumed = last(tmp_path / "whole"), last(tmp_path / "stopped")
    assert whole["global_step"] == resumed["global_step"] == 12
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (whole, resumed)]
    assert all(torch.equal(states[0][i][key], states[1][i][key]) for i in states[0] for key in states[0][i])


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from tiny import Toy
import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from reg2rg.training.checkpoints import AtomicCheckpointIO
from reg2rg.training.save_last import SaveLast

class Slow(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        Path({out!r}, "step").write_text(str(trainer.global_step))
        time.sleep(0.1)

toy = Toy.__new__(Toy)
toy.root, toy.store, toy.lm = (Path(p) for p in {paths!r})
toy.studies = [toy._study(i) for i in range(8)]
module = toy.module()
keeper = ModelCheckpoint({out!r}, every_n_train_steps={every}, save_last=True, enable_version_counter=False)
trainer = L.Trainer(max_steps={steps}, max_epochs=100, accelerator="cpu", devices={devices}, logger=False,
    enable_progress_bar=False, enable_model_summary=False, plugins=[AtomicCheckpointIO()], limit_val_batches=0,
    callbacks=[Slow(), SaveLast(), keeper], gradient_clip_val=1.0, num_sanity_val_steps=0)
trainer.fit(module, datamodule=toy.data(module, workers={workers}), ckpt_path="last")
"""


def start(toy, out, *, steps, every=1000, devices=1, workers=0):
    """Train in a process group of its own, as a shell starts it."""
    tests, paths = str(Path(__file__).resolve().parents[1]), [str(toy.root), str(toy.store), str(toy.lm)]
    values = {"tests": tests, "paths": paths, "out": str(out), "steps": steps, "every": every}
    script = out / "train.py"
    script.write_text(SCRIPT.format(**values, devices=devices, workers=workers))
    return subprocess.Popen(
        [sys.executable, str(script)], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def wait_for_step(process, out, step):
    marker, deadline = out / "step", time.monotonic() + 300
    while not (marker.exists() and int(marker.read_text() or 0) >= step):
        assert process.poll() is None, "the run ended before it was stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "devices", "workers"),
    [
        pytest.param(signal.SIGINT, 1, 2, id="Ctrl-C, two workers", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 1, 2, id="SIGTERM, two workers"),
        pytest.param(signal.SIGINT, 2, 0, id="Ctrl-C, two processes", marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_all_processes_kills_none_of_them(toy, tmp_path, number, devices, workers):
    process = start(toy, tmp_path, steps=500, devices=devices, workers=workers)
    wait_for_step(process, tmp_path, 4)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 128 + number
    step = last(tmp_path)["global_step"]
    assert f"Told to end: saved {tmp_path / 'last.ckpt'} at step {step}; go on with --ckpt_path last" in said
    assert "Traceback" not in said
    assert said.count("Told to end") == 1


@pytest.mark.slow
def test_killed_runs_go_on_bit_for_bit(toy, tmp_path):
    """Killed three times, at moments that follow no step, while every step is saved."""
    steps = 40
    for kill in (3, 11, 23):
        process = start(toy, tmp_path, steps=steps, every=1)
        wait_for_step(process, tmp_path, kill)
        time.sleep(0.007 * kill)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert last(tmp_path)["global_step"] >= kill - 1
    process = start(toy, tmp_path, steps=steps, every=1)
    assert process.wait(timeout=300) == 0
    (tmp_path / "whole").mkdir()
    process = start(toy, tmp_path / "whole", steps=steps, every=1)
    assert process.wait(timeout=300) == 0
    resumed, whole = last(tmp_path), last(tmp_path / "whole")
    assert resumed["global_step"] == whole["global_step"] == steps
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    assert not [path.name for path in tmp_path.glob("last-*")]
