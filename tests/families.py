"""Tiny language models of many families, made from their configs alone, with the numbers that real ones have.

Sizes are toys; what makes families differ is not: windows shorter than the prompts, multipliers that are no 1, experts,
layers without attention.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
WORDS = [f"{first}{second}" for first in "bcdfghlmnprst" for second in ("a", "e", "i", "o", "u", "an", "er")]
VOCABULARY = len(SPECIAL) + len(WORDS)

_BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
_EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
_MAMBA: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
_HYBRID: dict[str, Any] = {"layer_types": ["linear_attention", "full_attention"]}
_LINEAR: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}

_DEEPSEEK: dict[str, Any] = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "index_n_heads": 2,
    "index_head_dim": 16,
}
_GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
_GEMMA_4: dict[str, Any] = {
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "global_head_dim": 8,
    "num_kv_shared_layers": 0,
    "vocab_size_per_layer_input": VOCABULARY,
}

FAST: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "mixtral": _EXPERTS,
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "phi3": {},
    "gpt2": _GPT,
    "gpt_neox": {"num_key_value_heads": 4},
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": {"alibi": False, "new_decoder_architecture": False, "head_dim": None},
    "falcon_alibi": {"alibi": True, "new_decoder_architecture": False, "head_dim": None},
    "gpt_oss": {**_EXPERTS, "sliding_window": 8},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64, "embedding_multiplier": 5.65},
}
"""Families of the default run: model type, or another name for a second kind of it -> what differs from `_BASE`."""

SLOW: dict[str, dict[str, Any]] = {
    "qwen3_moe": _EXPERTS,
    "zamba2": {
        "mamba_ngroups": 1,
        "mamba_headdim": 16,
        "n_mamba_heads": 4,
        "mamba_d_state": 8,
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
        "layer_types": ["mamba", "hybrid", "mamba", "hybrid"],
        "hybrid_layer_ids": [1, 3],
        "num_mem_blocks": 1,
        "adapter_rank": 4,
    },
    "qwen3_next": {**_EXPERTS, **_LINEAR, **_HYBRID},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "olmo2": {},
    "smollm3": {},
    "granite": {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 8.0},
    "glm4": {},
    "cohere2": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "deepseek_v3": _DEEPSEEK,
    "jamba": {
        "mamba_d_state": 8,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "expert_layer_period": 2,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "starcoder2": {"sliding_window": 8},
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "expand": 2},
    "stablelm": {},
    "phi": {},
    "olmo3": {"sliding_window": 8},
    "codegen": {**_GPT, "rotary_dim": 4},
    "gptj": {**_GPT, "rotary_dim": 4},
    "gpt_bigcode": _GPT,
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
    "exaone4": {"sliding_window": 8},
    "granitemoe": {**_EXPERTS, "embedding_multiplier": 12.0},
    "helium": {},
    "seed_oss": {},
    "ernie4_5": {},
    "nemotron": {},
    "biogpt": {},
    "persimmon": {},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 8, "block_types": ["recurrent", "attention"]},
    "gemma3n_text": {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "laurel_rank": 4,
        "intermediate_size": [48, 48],
        "num_kv_shared_layers": 0,
        "layer_types": ["full_attention", "full_attention"],
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "minimax": {**_EXPERTS, "layer_types": ["linear_attention", "full_attention"], "block_size": 4},
    "mamba": {"state_size": 8},
    "falcon_mamba": {"state_size": 8},
    "rwkv": {"attention_hidden_size": 32, "context_length": 256},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2},
    "gemma4_text": {**_GEMMA_4, "hidden_size_per_layer_input": 0},
    "gemma4_per_layer": {**_GEMMA_4, "hidden_size_per_layer_input": 8},
    "vaultgemma": {"sliding_window": 8},
    "jetmoe": {"kv_channels": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v32": {**_DEEPSEEK, "index_topk": 64},
    "deepseek_v32_beyond": {**_DEEPSEEK, "index_topk": 4},
    "deepseek_v4": _DEEPSEEK,
    "glm_moe_dsa": {**_DEEPSEEK, "index_topk": 64},
    "glm_moe_dsa_beyond": {**_DEEPSEEK, "index_topk": 4},
    "glm": {},
    "glm4_moe": {**_EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "dots1": {**_EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "qwen2_moe": _EXPERTS,
    "qwen3_5_text": {**_LINEAR, **_HYBRID},
    "qwen3_5_moe_text": {**_EXPERTS, **_LINEAR, **_HYBRID},
    "phimoe": _EXPERTS,
    "olmo": {},
    "olmoe": _EXPERTS,
    "flex_olmo": _EXPERTS,
    "olmo_hybrid": {**_LINEAR, **_HYBRID},
    "ernie4_5_moe": {**_EXPERTS, "moe_num_experts": 4, "moe_k": 2},
    "llama4_text": {**_EXPERTS, "interleave_moe_layer_step": 1, "intermediate_size_mlp": 48, "attention_chunk_size": 8},
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "granitemoehybrid": {**_EXPERTS, **_MAMBA, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 16},
    "granite_swa": {"sliding_window": 8},
    "nemotron_h": {
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
        "layer_types": ["mamba", "attention", "mlp"],
        "num_hidden_layers": 3,
    },
    "zamba": {
        "mamba_d_state": 8,
        "layers_block_type": ["linear_attention", "linear_attention", "hybrid", "linear_attention", "hybrid"],
        "num_hidden_layers": 5,
        "num_key_value_heads": 4,
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
    },
    "lfm2_moe": {**_EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "minimax_m2": _EXPERTS,
    "mimo_v2_flash": {**_EXPERTS, "sliding_window": 8},
    "hunyuan_v1_dense": {},
    "hunyuan_v1_moe": {**_EXPERTS, "moe_topk": 2},
    "cohere": {},
    "ministral": {"sliding_window": 8},
    "apertus": {},
    "arcee": {},
    "internlm3": {},
    "exaone": {},
    "modernbert-decoder": {"num_key_value_heads": 4, "global_attn_every_n_layers": 2, "local_attention": 8},
    "nanochat": {},
    "bitnet": {},
    "doge": {},
    "diffllama": {},
    "ctrl": {**_GPT, "dff": 48},
    "openai-gpt": _GPT,
    "xlstm": {"num_heads": 4},
    "bert": {},
    "roberta": {},
}
"""Families of the long run."""

REFUSED = {
    "gemma3n_text": "what it makes of ids is not what it makes of their embeddings",
    "minimax": "MiniMax uses cache of its own",
    "mamba": "what it writes with its cache is not what it writes without",
    "falcon_mamba": "what it writes with its cache is not what it writes without",
    "rwkv": r"it keeps its state under state \(",
    "mpt": "lora: peft gives MPT ids alone",
    "gemma4_per_layer": "It seems like you tried to call `forward` from `inputs_embeds` without providing `input_ids`",
    "deepseek_v32_beyond": "what it writes with its cache is not what it writes without",
    "deepseek_v4": "reading a few embeddings ends in AttributeError",
    "glm_moe_dsa_beyond": "what it writes with its cache is not what it writes without",
    "openai-gpt": "it has no cache",
    "xlstm": "has no attribute 'rnn_state'",
    "bert": "what it makes of a text depends on what comes later",
    "roberta": "what it makes of a text depends on what comes later",
}
"""Why a family is refused."""

TYPES = {
    "falcon_alibi": "falcon",
    "gemma4_per_layer": "gemma4_text",
    "deepseek_v32_beyond": "deepseek_v32",
    "glm_moe_dsa_beyond": "glm_moe_dsa",
}
"""Model types of those that have another name here."""

TARGETS: dict[str, tuple[str, ...]] = {
    "phi3": ("qkv_proj",),
    "gpt2": ("c_attn",),
    "gpt_neox": ("query_key_value",),
    "bloom": ("query_key_value",),
    "falcon": ("query_key_value",),
    "falcon_alibi": ("query_key_value",),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm_moe_dsa"), ("q_b_proj", "kv_b_proj")),
    "jetmoe": ("kv_proj",),
    "ctrl": ("Wq", "Wv"),
    "mamba2": ("in_proj",),
    "mpt": ("Wqkv",),
    "codegen": ("qkv_proj",),
    "gpt_bigcode": ("c_attn",),
    "persimmon": ("query_key_value",),
}
"""Layers that get adapters, where they are not ``q_proj`` and ``v_proj``."""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, BOS put before a text."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = ("unk_token", "bos_token", "eos_token", "pad_token")
    return PreTrainedTokenizerFast(tokenizer_object=made, **dict(zip(names, SPECIAL, strict=True)))


def save_tiny(family: str, folder: Path, **more: Any) -> Path:
    """Write a model of a family with random weights, whose vectors of one dimension are random too.

    `more` goes into its config.
    """
    settings = {**FAST, **SLOW}[family]
    torch.manual_seed(0)
    asked = {name: value for name, value in {**_BASE, **settings, **more}.items() if value is not None}
    config = AutoConfig.for_model(TYPES.get(family, family), **asked)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "norm" not in name and parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * 0.1)  # zeros and ones hide what they do
            elif parameter.ndim == 2 and "embed" not in name:
                parameter.mul_(3)  # so that logits tell texts apart
    model.generation_config.pad_token_id = 3
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
