"""What a config takes: fake tensors count as real ones do, and what is counted is right where a hand can tell."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaConfig

from reg2rg.cli.main import main
from reg2rg.training.estimate import BITS_4, Estimate, estimate, imagined, ways_to_fit
from reg2rg.training.live_bytes import LiveBytes
from reg2rg.training.outline import Amounts, batch_of, outline, step

AMOUNTS, VIEWS = Amounts(2, 3, 96, 40), {"size": (16, 16, 8), "channels": 1}
WORDS, WIDTH, LAYERS = 300, 32, 2
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("lm")
    LlamaConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
    ).save_pretrained(folder)
    vit = {"size": [16, 16, 8], "patch": [8, 8, 4], "dim": 24, "depth": 1, "heads": 2, "mlp_dim": 48, "dropout": 0.0}
    encoder = {"class_path": "TokenMean", "init_args": {"encoder": {"class_path": "ViT3D", "init_args": vit}}}
    llm = {"class_path": "CausalLM", "init_args": {"path": str(folder), "lora": LORA}}
    model = {"texture": encoder, "geometry": None, "global_": "texture", "llm": llm}
    return {
        "task": {"views": {"size": [16, 16, 8]}, "max_length": 300},
        "data": {"batch_size": 2},
        "model": {**model, "projector": {"class_path": "LinearProjector"}, "max_new_tokens": 20},
        "trainer": {"accelerator": "cpu"},
    }


def changed(config: dict[str, Any], **llm: Any) -> dict[str, Any]:
    own = copy.deepcopy(config)
    own["model"]["llm"]["init_args"] |= llm
    return own


def counted(config: dict[str, Any], fake: bool) -> LiveBytes:
    with imagined() if fake else LiveBytes() as live:
        reporter = outline(config["model"]).train()
        batch = batch_of(reporter, AMOUNTS, VIEWS)
        live.reset()
        step(reporter, batch, AMOUNTS.answer)
    return live


def test_fake_tensors_count_as_real_ones(config: dict[str, Any]) -> None:
    """One step in memory and without it: the same peak and operations, but for what looks at numbers."""
    real, fake = counted(config, False), counted(config, True)
    assert fake.peak == pytest.approx(real.peak, rel=0.15), (fake.at_peak, real.at_peak)
    assert fake.flops == real.flops


def test_what_is_alive_is_counted_until_it_is_dropped() -> None:
    with LiveBytes() as live:
        with live.part("kept"):
            kept = torch.ones(100)
        view = kept.view(10, 10)
        gone = view + 1
        del gone
        product = view @ view
    assert (live.now, live.peak, live.flops) == (800, 800, 2 * 10**3)
    assert live.at_peak == {"kept": 400, "other": 400}
    del kept, view, product
    assert live.now == 0


def test_parameters_and_fixed_memory(config: dict[str, Any]) -> None:
    callbacks = ["ModelCheckpoint", {"class_path": "reg2rg.training.save_last.SaveLast"}, {"class_path": "lab.Words"}]
    found = estimate({**config, "trainer": {**config["trainer"], "callbacks": callbacks}})
    assert found.left_out == ("trainer.callbacks: lab.Words, if it adds a loss",)
    per_layer = 4 * WIDTH**2 + 3 * WIDTH * 48 + 2 * WIDTH
    adapters = LAYERS * 2 * 2 * 4 * WIDTH
    assert found.parameters["language model"] == (LAYERS * per_layer + 2 * WORDS * WIDTH + WIDTH + adapters, adapters)
    trained = sum(own for _, own in found.parameters.values())
    assert found.optimizer == 12 * trained
    assert found.step.parts["optimizer"] == 8 * trained
    assert sum(found.step.parts.values()) == found.step.peak
    amounts = found.report.amounts
    assert amounts == Amounts(2, 10, amounts.positions, 20)
    # Each new token reads the weights once, and keys and values of both rows as far as they are written.
    position = LAYERS * 2 * amounts.studies * WIDTH * 4
    weights = 4 * found.parameters["language model"][0]
    assert found.report.read == pytest.approx(20 * (weights + position * (amounts.positions + 10)), rel=1e-6)


def peak_of(found: Estimate) -> int:
    return found.step.peak


@pytest.mark.slow
def test_options_count_as_they_act(config: dict[str, Any]) -> None:
    before = estimate(config)
    kept = estimate(changed(config, gradient_checkpointing=True))
    assert peak_of(kept) < peak_of(before)
    assert kept.step.flops > before.step.flops
    frozen = LAYERS * (4 * WIDTH**2 + 3 * WIDTH * 48)
    packed = estimate(changed(config, quantize_4bit=True))
    assert peak_of(before) - peak_of(packed) == pytest.approx(frozen * (4 - BITS_4), abs=2)
    half = estimate(changed(config, dtype="bfloat16"))
    assert peak_of(half) < peak_of(before)
    assert peak_of(estimate(config, Amounts(1, 10, 300, 100))) < peak_of(before)


@pytest.mark.slow
def test_changes_go_on_until_a_step_fits(config: dict[str, Any]) -> None:
    before = peak_of(estimate(config))
    assert list(ways_to_fit(config, before)) == []
    changes = list(ways_to_fit(config, 0))
    peaks = [change.peak for change in changes]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] < before
    assert "gradient_checkpointing" in changes[0].said
    assert list(ways_to_fit(config, changes[0].peak)) == changes[:1]


@pytest.mark.slow
def test_amounts_that_are_given_are_those_of_every_change(config: dict[str, Any]) -> None:
    amounts = estimate(config).step.amounts
    assert list(ways_to_fit(config, 0, amounts)) == list(ways_to_fit(config, 0))
    assert any("batch_size" in change.said for change in ways_to_fit(config, 0, amounts))


def test_the_command(config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main(["estimate", str(file)]) == 0
    told = capsys.readouterr().out
    assert "a training step (2 x 10 regions, 300 positions" in told
    assert "A step fits in 24 GB." in told
    assert main(["estimate", str(file), "--model.llm.init_args.path", "nowhere/at/all"]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_says_what_to_change(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main(["estimate", "--config", str(file), "--memory", "0.0001", "--regions", "2"]) == 1
    told = capsys.readouterr().out
    assert "a training step (2 x 2 regions, 300 positions" in told
    assert "A step does not fit in 0.0001 GB" in told
    assert "That is not enough" in told
    assert main(["estimate", str(file), "--positions", "20"]) == 2
    assert "a sample of 20 positions has no room for its" in capsys.readouterr().err
