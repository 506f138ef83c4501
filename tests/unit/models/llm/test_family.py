"""Families that differ from LLaMA are read right, or refused by name when they are loaded."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from families import REFUSED, TARGETS, save_tiny
from reg2rg.core.errors import ConfigError
from reg2rg.models.llm.adapters import LoRA
from reg2rg.models.llm.base import Decoding
from reg2rg.models.llm.causal_lm import CausalLM


def test_a_family_without_fused_attention_attends_plainly_and_says_so(tmp_path, caplog):
    model = CausalLM(str(save_tiny("gemma2", tmp_path)))
    assert model._causal.config._attn_implementation == "eager"
    assert "has no fused attention" in caplog.text


def test_architecture_alone_attends_plainly_too(tmp_path, caplog):
    model = CausalLM(str(save_tiny("gemma2", tmp_path)), pretrained=False, weights_trainable=True)
    assert model._causal.config._attn_implementation == "eager"
    assert "has no fused attention" in caplog.text


def test_a_table_of_embeddings_may_be_longer_than_the_vocabulary(tmp_path):
    """Qwen's is padded to a multiple of 64 or 128."""
    model = CausalLM(str(save_tiny("qwen2", tmp_path, vocab_size=128)))
    assert len(model.tokenizer) < 128 == model.model.get_input_embeddings().num_embeddings


def test_several_ends_of_an_answer_are_no_trouble(tmp_path):
    """Llama 3's config.json lists three; some configs name a list for padding, too."""
    folder = save_tiny("llama", tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "eos_token_id": [2, 5]}))
    (folder / "generation_config.json").unlink()
    assert {2, 5} <= CausalLM(str(folder)).eos_ids


def test_ids_that_the_model_scales_are_embedded_with_their_scale(tmp_path):
    """Falcon-H1 multiplies embeddings where ids come in, and not where embeddings do."""
    model = CausalLM(str(save_tiny("falcon_h1", tmp_path))).eval()
    assert model.habits.embedding_scale == 5.65
    ids = torch.arange(5, 14)[None]
    with torch.no_grad():
        wanted = model._causal(input_ids=ids).logits
        found = model._causal(inputs_embeds=model.embed(ids)).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gemma3n_text", "minimax", "mamba", "rwkv"])
def test_what_would_be_wrong_in_silence_is_refused_by_name(tmp_path, family):
    with pytest.raises(ConfigError, match=rf"ForCausalLM cannot be used: .*{REFUSED[family]}"):
        CausalLM(str(save_tiny(family, tmp_path)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_reads_in_both_directions_is_refused_whatever_rounding_hides(tmp_path, dtype):
    with pytest.raises(ConfigError, match=REFUSED["bert"]):
        CausalLM(str(save_tiny("bert", tmp_path)), dtype=dtype)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    folder = save_tiny("llama", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"cannot be used: .* logits that are no numbers in torch\.fl"):
        CausalLM(str(folder))


def test_sparse_attention_reads_no_further_than_it_is_dense(tmp_path):
    assert CausalLM(str(save_tiny("deepseek_v32", tmp_path))).context_length == 64


def test_adapters_of_a_shared_weight_are_never_folded_in(tmp_path):
    """A head that is the table of embeddings would take the table with it."""
    folder = save_tiny("gpt2", tmp_path)
    model = CausalLM(str(folder), lora=LoRA(targets=("c_attn", "lm_head"))).eval()
    assert model._causal.get_output_embeddings().base_layer.weight is model._causal.get_input_embeddings().weight
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    ids, mask = torch.arange(5, 14)[None], torch.ones(1, 9, dtype=torch.long)
    limits = Decoding(max_new_tokens=5, stop_on_loop=0)
    table = model.embed(ids).clone()
    before = model.decode(model.embed(ids), mask, limits)
    with model.merged():
        torch.testing.assert_close(model.embed(ids), table, atol=0, rtol=0)
        assert model.decode(model.embed(ids), mask, limits) == before


def test_experts_as_targets_are_refused_by_name(tmp_path):
    folder = save_tiny("mixtral", tmp_path)
    with pytest.raises(ConfigError, match=r"lora.targets: .*experts"):
        CausalLM(str(folder), lora=LoRA(targets=("gate_up_proj",)))


def test_targets_that_are_never_called_are_refused_by_name(tmp_path):
    folder = str(save_tiny("jamba", tmp_path))
    with pytest.raises(ConfigError, match=r"lora.targets: JambaForCausalLM never calls dt_proj, so adapters there"):
        CausalLM(folder, lora=LoRA(targets=("q_proj", "dt_proj")))
    assert CausalLM(folder, lora=LoRA(targets=("q_proj", "x_proj"))).lora


def test_a_hybrid_says_which_layers_get_adapters(tmp_path, caplog):
    CausalLM(str(save_tiny("lfm2", tmp_path)), lora=LoRA())
    assert "q_proj, v_proj are in 1 of 2 layers (1)" in caplog.text


def test_settings_of_the_folder_that_are_not_obeyed_are_named(tmp_path, caplog):
    folder = save_tiny("gpt_neox", tmp_path)
    CausalLM(str(folder), lora=LoRA(targets=TARGETS["gpt_neox"]))
    assert "ignored" not in caplog.text
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "repetition_penalty": 1.3}))
    with caplog.at_level(logging.WARNING):
        CausalLM(str(folder))
    assert "asks for repetition_penalty 1.3, which is ignored" in caplog.text


@pytest.mark.parametrize("family", ["falcon", "falcon_alibi", "recurrent_gemma"])
def test_padded_batches_decode_as_an_uncached_reading_does(tmp_path, family):
    """Falcon chooses its attention by name, and RecurrentGemma's state runs over padding."""
    model = CausalLM(str(save_tiny(family, tmp_path))).eval()
    model.eos_ids = frozenset()
    lengths, limits = (13, 9, 5), Decoding(max_new_tokens=8, stop_on_loop=0)
    for seed in range(5):
        torch.manual_seed(seed)
        prompts = [model.embed(torch.randint(4, 90, (1, n))).detach() for n in lengths]
        padded = torch.cat([torch.nn.functional.pad(one, (0, 0, 13 - one.shape[1], 0)) for one in prompts])
        mask = torch.tensor([[0] * (13 - n) + [1] * n for n in lengths])
        for prompt, answer in zip(prompts, model.decode(padded, mask, limits), strict=True):
            read = torch.cat([prompt, model.embed(torch.tensor([answer.ids]))], dim=1)
            with torch.no_grad():
                logits = model._causal(inputs_embeds=read, use_cache=False).logits[0, prompt.shape[1] - 1 : -1]
            assert answer.ids == logits.argmax(-1).tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_whose_state_runs_over_padding_is_decoded_row_by_row_and_says_so(tmp_path, caplog, dtype):
    """Whatever rounding hides: what stands in the padding moves its answers, and nobody else's."""
    assert CausalLM(str(save_tiny("recurrent_gemma", tmp_path)), dtype=dtype).habits.alone
    assert "minds padding in a batch; reports are decoded one by one" in caplog.text
    assert not CausalLM(str(save_tiny("falcon", tmp_path / "falcon")), dtype=dtype).habits.alone


def test_adapters_that_peft_gives_no_embeddings_are_refused_by_name(tmp_path):
    folder = save_tiny("mpt", tmp_path)
    assert CausalLM(str(folder)).habits.embedding_scale == 1
    with pytest.raises(ConfigError, match="lora: peft gives MPT ids alone"):
        CausalLM(str(folder), lora=LoRA(targets=("Wqkv",)))
