"""Language models told apart by a few numbers of each tensor, whatever they were rounded to."""

import json

import pytest
import torch

from reg2rg.core.errors import ConfigError
from reg2rg.pretrained.fingerprint import SAMPLES, Fingerprint, fingerprint

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
ROUNDINGS = {
    "float32": lambda w: w,
    "float16": lambda w: w.to(F16),
    "bfloat16": lambda w: w.to(BF16),
    "bfloat16 of float16": lambda w: w.to(F16).to(BF16),
    "float32 of float16": lambda w: w.to(F16).to(F32),
    "float32 of bfloat16 of float16": lambda w: w.to(F16).to(BF16).to(F32),
    "float16 of bfloat16": lambda w: w.to(BF16).to(F16),
}


def weights(seed=0, layers=6):
    generator = torch.Generator().manual_seed(seed)
    made = {"model.embed_tokens.weight": torch.randn(50, 16, generator=generator) * 0.02}
    for layer in range(layers):
        # Also numbers so small that float16 keeps few of their digits.
        scale = torch.logspace(0, -7, 256).reshape(16, 16)
        made[f"model.layers.{layer}.self_attn.q_proj.weight"] = torch.randn(16, 16, generator=generator) * scale
        made[f"model.layers.{layer}.input_layernorm.weight"] = 1 + torch.randn(16, generator=generator) * 0.1
    made["lm_head.weight"] = torch.randn(50, 16, generator=generator)
    return made


def test_roundings_of_the_same_weights_agree():
    for seed in range(4):
        made = weights(seed, layers=20)
        traces = {how: fingerprint({k: rounded(w) for k, w in made.items()}) for how, rounded in ROUNDINGS.items()}
        for one, expected in traces.items():
            for other, found in traces.items():
                differences = expected.differences(found)
                assert not differences, f"seed {seed}: {one} against {other}: {differences.shown()}"


@pytest.mark.parametrize("how", ROUNDINGS)
def test_other_weights_are_found_through_any_rounding(how):
    made = weights()
    expected = fingerprint({name: ROUNDINGS[how](tensor) for name, tensor in made.items()})
    tuned = {name: tensor * (1 + 0.02 * torch.randn(tensor.shape)) for name, tensor in made.items()}
    for rounded in ROUNDINGS.values():
        differences = expected.differences(fingerprint({name: rounded(tensor) for name, tensor in tuned.items()}))
        assert len(differences.values) == len(made)
        assert differences.kind().startswith("the same architecture with other weights")
        assert len(differences.shown()) == 3
        assert differences.shown()[0].startswith("model.embed_tokens.weight: ")


def test_training_in_bfloat16_by_one_step_of_its_numbers_is_found():
    """At equal precision, numbers that are all one step off are other weights, not a rounding."""
    made = {name: tensor.to(BF16) for name, tensor in weights().items()}
    moved = {name: torch.nextafter(tensor, torch.full_like(tensor, 10)) for name, tensor in made.items()}
    assert len(fingerprint(made).differences(fingerprint(moved)).values) == len(made)


def test_merged_adapters_are_named():
    made = weights()
    merged = {k: w + 0.01 * torch.randn(w.shape) if "q_proj" in k else w for k, w in made.items()}
    differences = fingerprint(made).differences(fingerprint(merged))
    assert differences.kind() == "the same model with 6 of 14 tensors changed, as by merged adapters"
    assert all("q_proj" in name for name in differences.values)


def test_other_vocabulary_and_other_size():
    made = weights()
    longer = {
        k: torch.cat([w, w[:1]]) if k in ("model.embed_tokens.weight", "lm_head.weight") else w for k, w in made.items()
    }
    differences = fingerprint(made).differences(fingerprint(longer))
    assert differences.kind() == "the same weights with another vocabulary"
    assert differences.shown()[0] == "model.embed_tokens.weight: shape (51, 16), expected (50, 16)"
    assert "other vocabulary" not in fingerprint(made).differences(fingerprint(weights(layers=7))).kind()
    assert fingerprint(made).differences(fingerprint(weights(layers=7))).kind() == "another architecture or size"
    lost = fingerprint(made).differences(fingerprint(weights(layers=5)))
    assert lost.shown()[0] == "model.layers.5.self_attn.q_proj.weight: not there"


def test_names_of_adapters_and_wrappers_do_not_matter():
    made = weights()
    wrapped = {
        f"base_model.model.{name.replace('q_proj.weight', 'q_proj.base_layer.weight')}": tensor
        for name, tensor in made.items()
    }
    wrapped["base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"] = torch.ones(2, 16)
    assert fingerprint(wrapped) == fingerprint(made)


def test_numbers_are_spread_over_the_whole_tensor_and_few():
    [trace] = fingerprint({"w": torch.arange(1000.0)}).tensors.values()
    assert len(trace.values) == SAMPLES
    assert trace.values[0] < 32 < 960 < trace.values[-1] < 1000
    assert fingerprint({"w": torch.arange(3.0)}).tensors["w"].values == (0, 1, 2)
    assert fingerprint({"empty": torch.ones(0, 4)}).tensors["empty"].values == ()


def test_json_round_trip_and_damage():
    made = fingerprint({**weights(), "odd": torch.tensor([1.0, float("nan"), float("inf")])})
    again = Fingerprint.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False)), "here")
    assert not made.differences(again)
    values = made.to_json()
    values["lm_head.weight"]["values"].pop()
    for wrong in (values, {"w": 3}, [], {"w": {"shape": [1], "dtype": "int4", "values": [1]}}):
        with pytest.raises(ConfigError, match="here: no fingerprint"):
            Fingerprint.from_json(wrong, "here")
