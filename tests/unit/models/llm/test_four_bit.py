"""4-bit weights on a CPU (extra 'quant', bitsandbytes 0.50 or later)."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from families import save_tiny
from reg2rg.models.llm.causal_lm import CausalLM, LoRA
from reg2rg.testing import check_language_model

bitsandbytes = pytest.importorskip("bitsandbytes", "0.50", reason="bitsandbytes is not installed (extra 'quant')")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny("llama", tmp_path_factory.mktemp("llama"), hidden_size=64, intermediate_size=128, head_dim=16))


@pytest.fixture
def build(folder):
    return partial(CausalLM, folder, quantize_4bit=True, lora=LoRA(rank=2))


def test_weights_are_packed_and_adapters_alone_train(build):
    model = build()
    packed = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(packed) == 2 * 7
    assert {module.weight.dtype for module in packed} == {torch.uint8}
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    before = [module.weight.clone() for module in packed]
    with model.merged():  # too coarse to take adapters up
        assert all(torch.equal(module.weight, was) for module, was in zip(packed, before, strict=True))


def test_its_fingerprint_is_that_of_the_files(build, folder):
    files = dict(CausalLM(folder, lora=LoRA(rank=2)).reference_tensors())
    found = dict(build().reference_tensors())
    assert found.keys() == files.keys()
    assert all(torch.equal(tensor, files[name]) for name, tensor in found.items())


def test_contract(build):
    """Gradients too, though models are read in eval mode before: at load, and by each validation."""
    check_language_model(build)
