"""Lightning's precisions that change the weights, and what must stay exact under them."""

import copy
import math
from contextlib import contextmanager

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import (
    DeepSpeedPrecision,
    DoublePrecision,
    HalfPrecision,
)
from torch.optim import AdamW

from reg2rg.extras.word_alignment import WordAlignment, WordLoss
from reg2rg.models.encoders import CNN3D
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.training.half_precision import Float32Steps
from reg2rg.training.region_loss import RegionLoss

DTYPES = {"32-true": torch.float32, "bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


def trainer(toy, precision, **options):
    return L.Trainer(
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        gradient_clip_val=1.0,
        default_root_dir=toy.root,
        **options,
    )


@contextmanager
def default_dtype(dtype):
    """As Lightning has it around a step."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def batch(toy):
    module = toy.module()
    data = toy.data(module)
    data.setup("fit")
    return next(iter(data.train_dataloader()))


@pytest.mark.parametrize(
    ("plugin", "dtype"),
    [
        (HalfPrecision("bf16-true"), torch.bfloat16),
        (HalfPrecision("16-true"), torch.float16),
        (DoublePrecision(), torch.float64),
        (DeepSpeedPrecision("bf16-mixed"), torch.bfloat16),
    ],
    ids=lambda value: f"{type(value).__name__} {value.precision}" if hasattr(value, "precision") else None,
)
def test_plugins_take_a_batch(batch, plugin, dtype):
    taken = plugin.convert_input(batch)
    assert taken.texture.dtype == torch.int16  # scaled on the device, and not rounded before
    assert taken.input_ids is batch.input_ids
    assert (taken.study_ids, taken.regions, taken.reports) == (batch.study_ids, batch.regions, batch.reports)
    floats = batch.scaled((-1000, 200))
    taken = plugin.convert_input(floats)
    assert taken.texture.dtype == taken.geometry.dtype == dtype
    assert floats.texture.dtype == torch.float32
    assert taken.labels.dtype == torch.int64


class Losses(L.Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        metrics = trainer.callback_metrics
        self.found.append(float(metrics.get("train/loss", metrics["train/word_loss"])))


def test_every_precision_takes_the_same_way(toy):
    """Fit, first words alone; validation with generated reports, test and predict."""
    ways = {}
    for precision, dtype in DTYPES.items():
        module = toy.module(dropout=0.0, val_generate=1)
        losses, run = Losses(), trainer(toy, precision, max_steps=12, check_val_every_n_epoch=12)
        run.callbacks += [WordAlignment(0.5, steps=3), losses]
        data = toy.data(module, batch_size=5)
        run.fit(module, datamodule=data)
        assert {parameter.dtype for parameter in module.parameters()} == {dtype}
        assert math.isfinite(run.callback_metrics["val/loss"])
        assert math.isfinite(run.callback_metrics["val/bleu4"])
        assert math.isfinite(run.test(module, datamodule=data, verbose=False)[0]["test/loss"])
        assert sorted(answer.study for answer in run.predict(module, datamodule=data)[0]) == ["s6", "s7"]
        ways[precision] = losses.found
    assert ways["32-true"][-1] < 0.75 * ways["32-true"][3]
    for precision, rel in {"64-true": 1e-3, "16-true": 0.02, "bf16-true": 0.05}.items():
        assert ways[precision] == pytest.approx(ways["32-true"], rel=rel), precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_steps_add_up_in_half_precision(dtype):
    """A hundred steps, each too small for the weights, and squared gradients that float16 does not have."""
    torch.manual_seed(0)
    start = torch.rand(50).to(dtype)
    gradients = (torch.randn(100, 50) * 1e-4).to(dtype)
    half, single = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.float())
    rested = torch.nn.Parameter(start.clone())
    ours, theirs = AdamW([half, rested], lr=1e-5, weight_decay=0.01), AdamW([single], lr=1e-5, weight_decay=0.01)
    steps = Float32Steps(ours)
    for step, gradient in enumerate(gradients):
        half.grad, single.grad = gradient, gradient.float()
        steps.begin()
        ours.step()
        theirs.step()
        assert ours.param_groups[0]["params"] == [half, rested]
        if step == 50:  # goes on from what was saved
            saved = copy.deepcopy(ours.state_dict())
            ours = AdamW([half, rested], lr=1.0)
            steps = Float32Steps(ours)
            ours.load_state_dict(saved)
    assert half.dtype == dtype
    assert torch.equal(half, single.to(dtype))
    assert not torch.equal(half, start)
    assert torch.equal(rested, start)  # no gradient: no step and no decay
    assert torch.equal(ours.state[half]["exp_avg_sq"], theirs.state[single]["exp_avg_sq"])


class SaveSecondStep(L.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            trainer.save_checkpoint(self.path)


def test_a_run_in_half_precision_resumes_bit_for_bit(toy, tmp_path):
    modules = []
    for path in (None, tmp_path / "second.ckpt"):
        module = toy.module()
        run = trainer(toy, "bf16-true", max_steps=4, callbacks=[SaveSecondStep(tmp_path / "second.ckpt")])
        run.fit(module, datamodule=toy.data(module), ckpt_path=path)
        modules.append(module)
    for (name, one), (_, two) in zip(*(module.state_dict().items() for module in modules), strict=True):
        assert torch.equal(one, two), name


def test_a_cast_language_model_is_the_one_that_was_loaded_so(toy, batch):
    """Positions far from the start would turn otherwise: their frequencies must not be rounded."""
    cast, loaded = CausalLM(str(toy.lm)).bfloat16().eval(), CausalLM(str(toy.lm), dtype="bfloat16").eval()
    with torch.no_grad():
        one, two = (
            model.answer_nll(model.embed(batch.input_ids), batch.attention_mask, batch.labels)
            for model in (cast, loaded)
        )
    assert torch.equal(one, two)
    buffers = [dict(model.named_buffers()) for model in (cast, loaded)]
    assert any(buffer.dtype == torch.float32 for buffer in buffers[0].values())
    for name, buffer in buffers[1].items():
        assert torch.equal(buffers[0][name], buffer), name


def test_sums_do_not_lose_digits_with_the_model():
    loss = RegionLoss(("heart",))
    with default_dtype(torch.bfloat16):
        torch.nn.ModuleList([loss]).to(torch.bfloat16)
        for _ in range(300):
            loss.update(torch.tensor([1.0, 2.0], dtype=torch.float32), torch.tensor([0, -1]), ["heart"])
    assert float(loss.tokens.sum()) == 600
    assert float(loss.compute()["all"]) == pytest.approx(1.5)


def test_histograms_count_beyond_256():
    """A cell of 512 patches: bfloat16 would stop counting at 256."""
    encoder = CNN3D((32, 32, 32), patch=(4, 4, 4), channels=(8, 8), grid=(1, 1, 1), dim=8).eval()
    volumes = torch.rand(1, 1, 32, 32, 32) * 2 - 1
    with torch.no_grad():
        before = encoder(volumes)
        with default_dtype(torch.bfloat16):
            assert torch.equal(encoder(volumes), before)


def test_word_alignment_is_exact_whatever_the_tokens_are():
    torch.manual_seed(0)
    alignment = WordLoss(7)
    tokens, table = torch.randn(3, 2, 8).bfloat16(), torch.randn(7, 8).bfloat16()
    labels, texts = torch.tensor([1, 2, 6]), torch.tensor([0, 1, -1])
    exact = alignment.double().cross_entropy(tokens.double(), table.double(), labels, texts)
    assert exact.dtype == torch.float64
    with default_dtype(torch.bfloat16):
        found = alignment.float().cross_entropy(tokens, table, labels, texts)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-6)
