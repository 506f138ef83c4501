import logging
import math
import shutil

import lightning as L
import pytest
import torch
import yaml

import reg2rg.models.llm.causal_lm  # noqa: F401 (by its short name)
from reg2rg.config.saving import CONFIG_KEY
from reg2rg.core.errors import ConfigError
from reg2rg.extras.word_alignment import WordAlignment
from reg2rg.models.encoders import Frozen
from reg2rg.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from reg2rg.training.module import Reg2RG
from reg2rg.training.monitor import OutOfMemoryError
from reg2rg.training.nonfinite import NonFiniteLossError
from reg2rg.training.optimization import OptimizerConfig, build_optimizer, rate_factor
from reg2rg.training.region_loss import RegionLoss


def trainer(toy, **options):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "default_root_dir": toy.root,
    }
    return L.Trainer(**(defaults | options))


@pytest.fixture(scope="module")
def fitted(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    module = toy.module(val_generate=1, lora=True)
    run = trainer(toy, max_epochs=2, gradient_clip_val=1.0, plugins=[AtomicCheckpointIO()])
    run.fit(module, datamodule=toy.data(module))
    run.save_checkpoint(folder / "a.ckpt")
    return module, run, folder / "a.ckpt"


def test_figures_are_logged(fitted):
    _, run, _ = fitted
    figures = run.callback_metrics
    for name in (
        "train/loss",
        "train/loss_heart",
        "train/tokens_per_s",
        "train/samples_per_s",
        "train/padding",
        "train/peak_memory_gib",
        "train/non_finite_steps",
        "train/lr_llm",
        "train/lr_vision",
        "val/loss",
        "val/loss_lung",
        "val/recognition",
        "val/recognition_study",
    ):
        assert math.isfinite(figures[name]), name
    assert 0 <= figures["train/padding"] < 1


def test_a_model_learns(toy):
    module = toy.module(dropout=0.0)
    run = trainer(toy, max_steps=60)
    run.fit(module, datamodule=toy.data(module, batch_size=5))
    assert float(run.callback_metrics["train/loss"]) < 0.5


def test_word_alignment_steps_leave_the_language_model_out(toy):
    module, words = toy.module(), WordAlignment(1.0, steps=3)
    before = {name: value.clone() for name, value in module.named_parameters()}
    run = trainer(toy, max_steps=3, callbacks=[words])
    run.fit(module, datamodule=toy.data(module))
    assert math.isfinite(run.callback_metrics["train/word_loss"])
    assert "train/loss" not in run.callback_metrics
    changed = {name for name, value in before.items() if not torch.equal(module.get_parameter(name), value)}
    assert any(name.startswith("reporter.texture.") for name in changed)
    assert not any(name.startswith("reporter.llm.") for name in changed)

    module = toy.module()
    run = trainer(toy, max_steps=5, callbacks=[words])
    run.fit(module, datamodule=toy.data(module))
    assert math.isfinite(run.callback_metrics["train/loss"])
    changed = {name for name, value in before.items() if not torch.equal(module.get_parameter(name), value)}
    assert any(name.startswith("reporter.llm.") for name in changed)


def test_checkpoint_holds_what_trains_and_loads_strictly(toy, fitted):
    module, _, path = fitted
    checkpoint = read_checkpoint(path)
    names = set(checkpoint["state_dict"])
    assert any("lora_A" in name for name in names)
    assert not any("embed_tokens" in name or "base_layer" in name for name in names)
    assert "reporter.tags" in names
    fresh = toy.module(seed=5, lora=True)
    fresh.load_state_dict(checkpoint["state_dict"])
    for (name, one), (_, two) in zip(module.named_parameters(), fresh.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    del checkpoint["state_dict"]["reporter.tags"]
    checkpoint["state_dict"]["reporter.odd"] = torch.zeros(1)
    with pytest.raises(ConfigError, match=r"1 missing \(reporter\.tags\); 1 unknown to the model \(reporter\.odd\)"):
        fresh.load_state_dict(checkpoint["state_dict"])
    with pytest.raises(
        ConfigError, match=r"^the checkpoint: does not fit the model: 3 of other sizes \(.*conv\.weight"
    ) as e:
        toy.module(texture=toy.encoder(7), lora=True).load_state_dict(read_checkpoint(path)["state_dict"])
    assert "conv.bias (6,), here (7,)" in str(e.value)
    assert str(e.value).endswith(
        "Fix: use the config that the checkpoint was trained with, or train anew, without --ckpt_path"
    )
    assert "\n" not in str(e.value)


def test_from_checkpoint_builds_from_the_config_inside(toy, tmp_path):
    size = list(toy.size)
    encoder = {
        "class_path": "CNN3D",
        "init_args": {"size": size, "grid": [2, 2, 1], "channels": [8, 8], "patch": [4, 4, 4]},
    }
    config = {
        "texture": encoder,
        "geometry": encoder,
        "global_": "texture",
        "projector": {"class_path": "LinearProjector"},
        "llm": {"class_path": "CausalLM", "init_args": {"path": str(toy.lm)}},
    }
    from reg2rg.config.saving import build

    model = build(Reg2RG, config)
    state = {"state_dict": model.state_dict(), CONFIG_KEY: yaml.safe_dump({"model": config})}
    AtomicCheckpointIO().save_checkpoint(state, tmp_path / "a.ckpt")
    again = Reg2RG.from_checkpoint(tmp_path / "a.ckpt", max_new_tokens=7)
    assert not again.training
    assert again.decoding.max_new_tokens == 7
    assert torch.equal(again.reporter.tags, model.reporter.tags)
    wider = {**encoder, "init_args": {**encoder["init_args"], "channels": [8, 16]}}
    with pytest.raises(
        ConfigError, match=r"of other sizes .*: model\.texture\.init_args\.channels: \[8, 8\] in the check"
    ):
        Reg2RG.from_checkpoint(tmp_path / "a.ckpt", texture=wider)
    first = {
        "model": config | {"regions": "lobes", "identity": False},
        "data": {"views": {"size": size}, "order": "listed"},
    }
    AtomicCheckpointIO().save_checkpoint(state | {CONFIG_KEY: yaml.safe_dump(first)}, tmp_path / "first.ckpt")
    old = Reg2RG.from_checkpoint(tmp_path / "first.ckpt")  # its task stood among the data's arguments and the model's
    assert (old.task.regions, old.task.identity, old.task.views.size) == ("lobes", False, toy.size)
    assert not old.contract.task.differences(old.task)
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, tmp_path / "b.ckpt")
    with pytest.raises(ConfigError, match=r"b\.ckpt: holds no config"):
        Reg2RG.from_checkpoint(tmp_path / "b.ckpt")


def test_a_checkpoint_finds_its_language_model(toy, tmp_path):
    """Beside itself first, then where it was, and its region set too; no hub is asked for what was a folder."""
    from reg2rg.config.saving import build

    encoder = {
        "class_path": "CNN3D",
        "init_args": {"size": list(toy.size), "channels": [8, 8], "patch": [4, 4, 4], "grid": [2, 2, 1]},
    }
    frozen = {"class_path": "Frozen", "init_args": {"encoder": encoder, "weights": str(tmp_path / "old/cnn.pth")}}
    model = {"texture": frozen, "geometry": encoder, "global_": "texture", "projector": "LinearProjector"}
    model["llm"] = {"class_path": "CausalLM", "init_args": {"path": str(tmp_path / "old/lm")}}
    config = {"model": model, "task": {"regions": str(tmp_path / "old/own.yaml")}}
    for name in ("old", "new"):
        shutil.copytree(toy.lm, tmp_path / name / "lm")
        torch.save(build(Frozen, {"encoder": encoder}).encoder.state_dict(), tmp_path / name / "cnn.pth")
        (tmp_path / name / "own.yaml").write_text(f"name: {name}\nregions: [lung]\n")
    saved = {"state_dict": build(Reg2RG, {**model, "task": config["task"]}).state_dict()}
    AtomicCheckpointIO().save_checkpoint(saved | {CONFIG_KEY: yaml.safe_dump(config)}, tmp_path / "new/a.ckpt")

    def found():
        loaded = Reg2RG.from_checkpoint(tmp_path / "new/a.ckpt")
        weights = loaded.run_config["model"]["texture"]["init_args"]["weights"]
        return loaded.reporter.llm.path, loaded.task.region_set.name, weights

    assert found() == (str(tmp_path / "new/lm"), "new", str(tmp_path / "new/cnn.pth"))
    (tmp_path / "new/cnn.pth").unlink()
    (tmp_path / "new/own.yaml").unlink()
    shutil.rmtree(tmp_path / "new/lm")
    assert found() == (str(tmp_path / "old/lm"), "old", str(tmp_path / "old/cnn.pth"))
    (tmp_path / "old/lm").rename(tmp_path / "moved")
    with pytest.raises(
        ConfigError, match=r"a\.ckpt: the model was trained .*/old/lm, which is not here, nor is .*/new/lm"
    ):
        found()
    with pytest.raises(ConfigError, match="--language_model with reg2rg export"):
        found()
    again = Reg2RG.from_checkpoint(tmp_path / "new/a.ckpt", language_model=tmp_path / "moved")
    assert again.reporter.llm.path == str(tmp_path / "moved")


def test_a_checkpoint_of_another_optimiser_is_refused_in_one_line(toy, tmp_path):
    module = toy.module()
    run = trainer(toy, max_steps=1, limit_val_batches=0)
    run.fit(module, datamodule=toy.data(module))
    run.save_checkpoint(tmp_path / "a.ckpt")
    fewer = toy.module()
    fewer.reporter.tags.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"other numbers of tensors that train \(.*vision_no_decay \d+, here \d+"):
        trainer(toy, max_steps=2).fit(fewer, datamodule=toy.data(fewer), ckpt_path=tmp_path / "a.ckpt")


def test_other_settings_than_the_checkpoints_are_told(toy, tmp_path, caplog):
    module = toy.module()
    run = trainer(toy, max_steps=1, limit_val_batches=0)
    run.fit(module, datamodule=toy.data(module))
    run.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)
    config = {"model": {"optimizer": {"lr": 0.01, "weight_decay": 0.01}}, "data": {"seed": 0, "workers": 2}}
    torch.save(state | {CONFIG_KEY: yaml.safe_dump(config)}, tmp_path / "a.ckpt")
    for decay, seed, told in ((0.01, 0, False), (0.0, 5, True)):
        again, caplog.records[:] = toy.module(), []
        again.run_config = {
            "model": {"optimizer": {"lr": 0.01, "weight_decay": decay}}, "data": {"seed": seed, "workers": 0}
        }  # fmt: skip
        trainer(toy, max_steps=2).fit(again, datamodule=toy.data(again), ckpt_path=tmp_path / "a.ckpt")
        said = [record.getMessage() for record in caplog.records if "Other settings" in record.getMessage()]
        assert bool(said) == told
        if told:
            assert "model.optimizer.weight_decay: 0.01 in the checkpoint, 0.0 now; data.seed: 0 in the" in said[0]


def test_a_checkpoint_of_another_task_is_refused(toy):
    """It would be given what it has never seen. What is a run's to choose may differ."""
    module = toy.module()
    for changed, told in (
        ({"instruction": "Other words."}, r"task\.instruction: .* in the checkpoint, .* now"),
        ({"identity": not module.task.identity}, r"task\.identity: \w+ in the checkpoint, \w+ now$"),
        ({"order": "listed", "max_length": module.task.max_length + 1}, None),
    ):
        values = module.task.values() | {"regions": module.task.regions} | changed
        checkpoint = {CONFIG_KEY: yaml.safe_dump({"task": values, "model": {}})}
        if told is None:
            module.on_load_checkpoint(checkpoint)
            continue
        with pytest.raises(ConfigError, match=rf"^the checkpoint: is of another task .* Fix: set back .*{told}"):
            module.on_load_checkpoint(checkpoint)


class Poison(L.Callback):
    """Makes the loss, or one gradient, not finite at some batches."""

    def __init__(self, batches, value, gradient=False):
        self.batches, self.value, self.gradient, self.count = batches, value, gradient, -1

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.count += 1
        if self.count in self.batches and not self.gradient:
            batch.texture[0] = self.value

    def on_after_backward(self, trainer, module):
        if self.count in self.batches and self.gradient:
            module.reporter.tags.grad[0] = self.value


class Watch(L.Callback):
    def __init__(self):
        self.tags = []

    def on_train_batch_end(self, trainer, module, *_):
        self.tags.append(module.reporter.tags.detach().clone())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_not_finite_leaves_the_weights_alone(toy, caplog, value, gradient, accumulate):
    module, watch = toy.module(), Watch()
    run = trainer(
        toy,
        max_epochs=4,
        limit_val_batches=0,
        callbacks=[Poison({4, 8}, value, gradient), watch],
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
    )
    with caplog.at_level(logging.WARNING):
        run.fit(module, datamodule=toy.data(module))
    assert module.guard.skipped == 2
    assert torch.equal(watch.tags[3], watch.tags[4])
    assert not torch.equal(watch.tags[-2 * accumulate], watch.tags[-1])
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert ("Studies: s" in caplog.text) != gradient


def test_three_steps_in_a_row_end_the_run(toy):
    module = toy.module()
    run = trainer(toy, max_epochs=5, limit_val_batches=0, callbacks=[Poison({1, 3, 4, 5}, math.nan)])
    with pytest.raises(NonFiniteLossError, match=r"3 times in a row, the last time at step 5 \(studies: s"):
        run.fit(module, datamodule=toy.data(module))
    assert all(torch.isfinite(p).all() for p in module.parameters())


def not_asked():
    """Early on, the number of steps costs a resumed run its place in the epoch."""
    raise AssertionError("the run's number of steps was asked for")


def test_schedules():
    constant = OptimizerConfig(warmup_steps=4)
    assert [rate_factor(constant, step, not_asked) for step in (0, 2, 4, 9, 99)] == [0, 0.5, 1, 1, 1]
    cosine = OptimizerConfig(warmup_steps=4, schedule="cosine", min_lr_ratio=0.1)
    factors = [rate_factor(cosine, step, lambda: 24) for step in range(30)]
    assert factors[4] == 1
    assert factors[14] == pytest.approx(0.55)
    assert factors[24] == factors[29] == pytest.approx(0.1)
    assert factors[4:25] == sorted(factors[4:25], reverse=True)
    assert [rate_factor(cosine, step, not_asked) for step in (0, 2, 4)] == [0, 0.5, 1]
    assert rate_factor(cosine, 1000, lambda: math.inf) == 1


def test_parameter_groups(toy):
    module = toy.module(lora=True)
    config = OptimizerConfig(lr=1e-4, vision_lr=1e-3, weight_decay=0.1)
    optimizer, _ = build_optimizer(module.named_parameters(), config, not_asked)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert set(groups) == {"llm", "vision", "vision_no_decay"}
    assert groups["llm"]["initial_lr"] == 1e-4
    assert groups["vision"]["initial_lr"] == 1e-3
    assert groups["vision_no_decay"]["weight_decay"] == 0
    assert any(p is module.reporter.tags for p in groups["vision_no_decay"]["params"])
    listed = sum(len(group["params"]) for group in optimizer.param_groups)
    assert listed == sum(p.requires_grad for p in module.parameters())
    with pytest.raises(ConfigError, match="nothing in the model trains"):
        build_optimizer(module.requires_grad_(False).named_parameters(), config, not_asked)
    with pytest.raises(ConfigError, match="none below 0"):
        OptimizerConfig(lr=-1)


def test_region_loss_is_a_mean_over_tokens():
    metric = RegionLoss(("heart", "lung", "bone"))
    metric.update(torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([0, 0, 1, -1]), ("lung", "heart"))
    metric.update(torch.tensor([4.0]), torch.tensor([0]), ("heart",))
    figures = {name: float(value) for name, value in metric.compute().items()}
    assert figures == {"all": 4.0, "lung": 1.5, "heart": 3.5}


def test_out_of_memory_names_the_batch(toy, monkeypatch):
    module = toy.module()
    batch = next(iter(toy.data(module).train_dataloader()))

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(module.reporter, "losses", full)
    with pytest.raises(OutOfMemoryError, match=r"studies s\d, s\d, \d regions, views of 16x16x8, .*data.batch_size"):
        module.training_step(batch, 0)


def test_a_context_too_short_is_told_before_word_alignment(toy):
    module = toy.module()
    run, data = trainer(toy, max_steps=3, callbacks=[WordAlignment(1.0, steps=3)]), toy.data(module)
    data.setup("fit")
    longest = max(len(sample.ids) for _, _, _, sample in data.longest("fit"))
    module.reporter.llm.context_length = longest - 1
    with pytest.raises(ConfigError, match=rf"takes {longest} positions .* reads at most {longest - 1}\. Fix: lower"):
        run.fit(module, datamodule=data)
    assert run.global_step == 0
    module.reporter.llm.context_length = longest
    run.fit(module, datamodule=data)
    assert run.global_step == 3


def test_a_report_that_validation_would_generate_is_held_against_the_context_too(toy):
    module = toy.module(val_generate=1, max_new_tokens=300)
    data = toy.data(module)
    data.setup("fit")
    samples = list(data.longest("fit"))
    assert {split for split, *_ in samples} == {"train", "val"}
    module.reporter.llm.context_length = 300 + max(len(sample.ids) for *_, sample in samples) // 2
    with pytest.raises(ConfigError, match=r"study s5 takes \d+ positions .*, 300 of report\), but the language model"):
        trainer(toy, max_steps=1).fit(module, datamodule=data)
    module.val_generate = 0
    trainer(toy, max_steps=1).fit(module, datamodule=data)
