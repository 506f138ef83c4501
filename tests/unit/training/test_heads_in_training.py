"""A head in a whole model: trained with the report, calibrated by validation, told in results, and in the prompt."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import load_region_set
from reg2rg.models.cues import order_in_text
from reg2rg.models.encoders import CNN3D, AttributeEncoder, MaskPool
from reg2rg.models.heads import FindingsHead
from reg2rg.models.heads.operating import OperatingPoint
from reg2rg.models.llm.base import Decoding
from reg2rg.store.store import Store
from reg2rg.training.module import Reg2RG
from reg2rg.training.prediction_writer import PredictionWriter, record
from summed_gradients import Unordered
from tiny import Toy

SAID = {"heart": ("Cardiomegaly is observed.", "The heart is normal."), "lung": ("Nodule is seen.", "No nodule.")}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
}


class FindingsToy(Toy):
    """Studies whose hearts and lungs have findings, with measured attributes."""

    def _study(self, i: int):
        study = super()._study(i)
        own = {name: SAID[name][(i + k) % 2] for k, name in enumerate(SAID) if name in study.reports}
        return replace(study, reports={**study.reports, **own})

    def _write_store(self) -> None:
        super()._write_store()
        store = Store(self.store)
        for study in store.studies():
            entry = store.read(study)
            store.measure(study, entry.key, entry.detail, load_region_set())

    def module(self, **arguments):
        torch.manual_seed(0)
        own = {"head": FindingsHead, "cues": True, "attributes": AttributeEncoder(dim=8), "head_loss": 4.0}
        return super().module(**own | arguments)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> FindingsToy:
    return FindingsToy(tmp_path_factory.mktemp("findings"))


@pytest.fixture(scope="module")
def trained(toy):
    module = toy.module()
    trainer = L.Trainer(max_epochs=8, **QUIET)
    trainer.fit(module, datamodule=toy.data(module))
    return module, trainer


def batches(toy, module, **arguments):
    data = toy.data(module, **arguments)
    return [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]


class OrderOfSums(L.Callback):
    """Looks at how the gradients of a training step are summed."""

    def __init__(self) -> None:
        self.mode = Unordered()

    def on_train_batch_start(self, *_: object) -> None:
        self.mode.__enter__()

    def on_train_batch_end(self, *_: object) -> None:
        self.mode.__exit__(None, None, None)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
def test_threads_do_not_decide_in_which_order_gradients_are_summed(toy, independent, pooled) -> None:
    cells = MaskPool(CNN3D(toy.size, channels=(8, 16), grid=(4, 4, 2), dim=12), pool="attention", tokens=2, heads=3)
    texture = {"texture": cells} if pooled else {}
    module, looks = toy.module(lora=True, independent_paragraphs=independent, **texture), OrderOfSums()
    L.Trainer(max_steps=2, limit_val_batches=0, callbacks=[looks], **QUIET).fit(module, datamodule=toy.data(module))
    assert looks.mode.found == []


def test_it_learned_from_the_training_texts_and_is_calibrated_by_validation(trained) -> None:
    module, trainer = trained
    head = module.reporter.head
    names, labels = module.task.region_set.names, head.labels
    possible = [(names[r], labels[k]) for r, k in head.possible.nonzero().tolist()]
    assert possible == [("heart", "Cardiomegaly"), ("lung", "Lung nodule")]
    assert float(head.temperature) != 1.0
    assert head.points.present.sum() == 1.0  # one validation study, s5: its lung has a nodule, its heart is normal
    assert {"val/head_ece", "val/head_temperature"} <= set(trainer.callback_metrics)


def test_its_loss_reaches_the_encoders(toy) -> None:
    module = toy.module(dropout=0.0)
    [batch, *_] = batches(toy, module)
    losses = module.reporter.losses(batch, write=False)
    assert losses.nll is None
    assert losses.auxiliary == {}
    torch.autograd.backward(losses.findings)
    assert module.reporter.texture.conv.weight.grad.abs().sum() > 0
    assert module.reporter.attributes.out.weight.grad.abs().sum() > 0


def test_in_training_the_prompt_names_what_the_texts_state_and_in_validation_what_the_head_detects(toy) -> None:
    module = toy.module(cue_dropout=0.0)
    module.reporter.head.learn(np.eye(10, 18, dtype=np.int64)[:, ::-1] * 0 + 50, np.full(10, 100))
    [batch, *_] = batches(toy, module)
    seen = []
    module.reporter.cues.ids = lambda slot, labels: seen.append(labels) or []
    module.train()
    module.reporter.losses(batch)
    stated = [row.nonzero()[0].tolist() for row in module.reporter.head.targets(sum(batch.reports, ()))]
    assert [{module.reporter.head.labels[k] for k in row} for row in stated] == [set(labels) for labels in seen]
    assert any(seen)
    texts = [
        [module.reporter.head.labels[k] for k in order_in_text(text, module.reporter.head.targets)]
        for text in sum(batch.reports, ())
    ]
    assert texts == [list(labels) for labels in seen]  # as the text goes on, so that the next is the next
    seen.clear()
    module.eval()
    module.reporter.head.detected = lambda logits, region, point: torch.zeros_like(logits, dtype=torch.bool)
    module.reporter.losses(batch)
    assert set(seen) == {()}


def test_cue_dropout_leaves_regions_without_a_word(toy) -> None:
    module = toy.module(cue_dropout=0.4)
    module.reporter.head.learn(np.full((10, 18), 50), np.full(10, 100))
    seen = []
    module.reporter.cues.ids = lambda slot, labels: seen.append(labels) or []
    module.train()
    for _ in range(12):
        for batch in batches(toy, module):
            module.reporter.losses(batch)
    assert abs(sum(labels is None for labels in seen) / len(seen) - 0.4) < 0.1


def test_the_operating_point_moves_what_the_prompt_says(toy, trained) -> None:
    module, _ = trained
    reporter, [batch, *_] = module.reporter, batches(toy, module)
    told = {}
    for text in ("recall=.99", "precision=.99"):
        reporter.operating_point = OperatingPoint.of(text)
        told[text] = sum(
            len(found.detected)
            for report in reporter.generate(batch, module.decoding)
            for found in report.findings.regions.values()
        )
    reporter.operating_point = OperatingPoint.of("f1")
    assert told["recall=.99"] > told["precision=.99"] == 0


def test_results_carry_what_was_told(toy, trained) -> None:
    module, _ = trained
    [batch, *_] = batches(toy, module)
    report = module.reporter.generate(batch, module.decoding)[0]
    assert report.findings.alpha is None
    assert report.findings.cued
    head = module.reporter.head
    before = copy.deepcopy(head.omissions.state_dict())
    head.omissions.calibrate(torch.rand(60, 18), torch.arange(60) % 10, torch.rand(60, 18) < 0.5, 0.2)
    try:
        report = module.reporter.generate(batch, module.decoding)[0]
    finally:
        head.omissions.load_state_dict(before)
    told = json.loads(json.dumps(record(report, batch.reports[0], "Q")["findings"]))
    assert told["omissions"]["alpha"] == 0.2
    assert "exchangeable" in told["omissions"]["caveat"]
    assert list(told["regions"]) == list(report.regions)
    assert set(told["regions"]["heart"]["probabilities"]) == {"Cardiomegaly"}
    assert 0 < told["regions"]["heart"]["probabilities"]["Cardiomegaly"] < 1
    # Six paragraphs a region are too few for 0.2 with any promise but that all are marked that leave a label out.
    assert all(found["review"] == bool(found["wanting"]) for found in told["regions"].values())
    assert told["review"] == [name for name, found in told["regions"].items() if found["review"]]


def test_a_resumed_run_is_the_run_that_was_not_stopped(toy, tmp_path) -> None:
    class Keep(L.Callback):
        def on_train_batch_end(self, trainer, *_) -> None:
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "4.ckpt")

    def fitted(resume: str | None = None):
        module = toy.module(dropout=0.2)
        trainer = L.Trainer(max_steps=6, **QUIET, default_root_dir=tmp_path, callbacks=[] if resume else [Keep()])
        trainer.fit(module, datamodule=toy.data(module, region_dropout=0.5), ckpt_path=resume)
        return module

    whole, resumed = fitted(), fitted(str(tmp_path / "4.ckpt"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_folder_keeps_head_attributes_and_thresholds(toy, tmp_path) -> None:
    small = toy.module(texture=None, geometry=None, global_=None)
    [batch, *_] = batches(toy, small)
    config = {
        "task": {**small.task.values(), "regions": "radgenome"},
        "model": {
            "texture": None,
            "geometry": None,
            "global_": None,
            "attributes": {"class_path": "AttributeEncoder", "init_args": {"dim": 8}},
            "head": {"class_path": "FindingsHead"},
            "cues": True,
            "projector": {"class_path": "LinearProjector"},
            "llm": {"class_path": "CausalLM", "init_args": {"path": str(toy.lm)}},
        },
        "data": {},
    }
    small.describe(config)
    assert small.contract.inputs == ("attributes",)
    stated = np.zeros((10, 18), np.int64)
    stated[4, 2] = 50  # hearts may be large
    small.reporter.head.learn(stated, np.full(10, 100))
    small.reporter.head.temperature.fill_(1.7)
    small.save_pretrained(tmp_path / "folder")
    loaded = Reg2RG.from_pretrained(tmp_path / "folder")
    assert float(loaded.reporter.head.temperature) == pytest.approx(1.7)
    assert loaded.reporter.head.possible.nonzero().tolist() == [[4, 2]]
    assert loaded.contract.inputs == ("attributes",)
    small.eval()
    assert [r.text for r in loaded.reporter.generate(batch, Decoding(8))] == [
        r.text for r in small.reporter.generate(batch, Decoding(8))
    ]


def test_cues_need_a_head(toy) -> None:
    with pytest.raises(ConfigError, match=r"model.operating_point: precision=.9 .* model.head is null"):
        toy.module(head=None, cues=False, operating_point="precision=.9")
    with pytest.raises(ConfigError, match=r"model.cues needs a head"):
        toy.module(head=None)
    with pytest.raises(ConfigError, match=r"task.target 'joined' has none"):
        toy.module(target="joined", texture=None, geometry=None, attributes=None)


def test_predictions_of_two_operating_points_are_not_mixed(toy, trained, tmp_path) -> None:
    module, _ = trained
    for point, refused in (("f1", False), ("f1", False), ("recall=.9", True)):
        module.reporter.operating_point = OperatingPoint.of(point)
        trainer = L.Trainer(**QUIET, callbacks=[PredictionWriter(tmp_path)])
        told = pytest.raises(ConfigError, match="another operating_point") if refused else contextlib.nullcontext()
        with told:
            trainer.predict(module, datamodule=toy.data(module), return_predictions=False)
    module.reporter.operating_point = OperatingPoint.of("f1")


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_what_validation_measures_is_exact_in_every_precision(toy, precision):
    module = toy.module(val_generate=1)
    trainer = L.Trainer(max_epochs=1, precision=precision, **QUIET)
    trainer.fit(module, datamodule=toy.data(module))
    assert math.isfinite(trainer.callback_metrics["val/loss"])
    head = module.reporter.head
    assert {buffer.dtype for _, buffer in head.named_buffers() if buffer.is_floating_point()} == {torch.float32}
    assert head.points.present.sum() > 0


def test_measured_numbers_survive_a_cast(toy):
    head = toy.module().reporter.head
    head.temperature.fill_(1.2345678)
    head.points.count(
        torch.ones(1000, len(head.labels)),
        torch.zeros(1000, dtype=torch.long),
        torch.ones(1000, len(head.labels)).bool(),
        torch.ones(head.possible.shape).bool(),
    )
    head.to(torch.bfloat16)
    assert float(head.temperature) == pytest.approx(1.2345678, rel=1e-7)
    assert head.points.present[0, 0] == 1000
    assert head.hidden.weight.dtype == torch.bfloat16
    empty = head.to("meta").to_empty(device="cpu")
    assert empty.temperature.dtype == torch.float32
