"""A language model small enough to run in milliseconds, made once."""

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from reg2rg.core.task import INSTRUCTION
from tiny import save_llama

WORDS = "The heart is large. The lung shows a nodule of 5 mm; no effusion, no fracture of bone. region: trachea"


def bpe(metaspace: bool, **special: str) -> PreTrainedTokenizerFast:
    """A tokenizer like LLaMA's (legacy metaspace) or like GPT-2's (byte level)."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if metaspace else None))
    if metaspace:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(special.values()), show_progress=False, max_token_length=12
    )
    texts = [word for text in (WORDS, INSTRUCTION) for word in text.split()] * 3
    tokenizer.train_from_iterator(texts + list("0123456789.:, "), trainer)
    if metaspace:
        bos = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = bpe(True, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    sizes = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    save_llama(folder, tokenizer, max_position_embeddings=256, **sizes)
    return str(folder)


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = bpe(False, bos_token="<|endoftext|>")
    tokenizer.eos_token = "<|endoftext|>"
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer) + 3, n_embd=32, n_layer=2, n_head=4, n_positions=128)
    config.eos_token_id = config.bos_token_id = tokenizer.eos_token_id
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
