"""Tokenizers of LLaMA's form, trained here on a few words, and a tiny LLaMA."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer, PreTrainedTokenizerFast

from parity.reference import INSTRUCTION

VOCABULARY = 32000
AREAS = (
    "abdomen",
    "bone",
    "breast",
    "esophagus",
    "heart",
    "lung",
    "mediastinum",
    "pleura",
    "thyroid",
    "trachea and bronchie",
)
_SPOKEN = (
    "no effusion; a nodule of 5 mm in the right upper lobe, calcified plaques, airways are open, size is normal, "
    "degenerative changes in vertebrae, The region is provided as the context: global information . µ é 10 7 38"
)
WORDS = tuple(_SPOKEN.split())
_FIRST = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]


def sentences() -> list[str]:
    """What the tokenizers are trained on."""
    generator = random.Random(0)
    drawn = [" ".join(generator.choices([*WORDS, *AREAS], k=8)) + "." for _ in range(300)]
    return [INSTRUCTION] * 3 + drawn


def vocabulary_and_merges(size: int = VOCABULARY) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-pair merges behind 3 + 256 first ids, as LLaMA has them; the rest up to `size` is never produced."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words = [word for sentence in sentences() for word in sentence.split()]
    most = min(size, 600) - 1
    trainer = trainers.BpeTrainer(vocab_size=most, special_tokens=_FIRST, show_progress=False)
    trained.train_from_iterator([*words, "▁"], trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary = dict(model["vocab"])
    vocabulary |= {f"unused{i}": i for i in range(len(vocabulary), size)}
    return vocabulary, [tuple(merge) for merge in model["merges"]]


def shipped(size: int = VOCABULARY, more: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """As in the tokenizer.json beside Llama-2: legacy, every piece between special tokens gets its leading mark.

    Args:
        size: words of the vocabulary.
        more: tokens added behind it, as the ``<pad>`` of the first revision of Llama-2-chat.
    """
    vocabulary, merges = vocabulary_and_merges(size)
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.add_tokens(list(more))
    return fast


def rebuilt(legacy: bool, size: int = VOCABULARY) -> LlamaTokenizer:
    """As transformers 5 builds it from the same file, whatever normalizer the file has; ``legacy=False`` by default."""
    vocabulary, merges = vocabulary_and_merges(size)
    return LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=legacy, add_bos_token=True)


def write_sentencepiece(path: Path) -> None:
    """Train LLaMA's own kind of model with its own settings; needs the package sentencepiece."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()),
        model_writer=model,
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def write_model(
    folder: Path, size: int, width: int, layers: int = 2, heads: int = 2, mlp: int | None = None, seed: int = 0
) -> None:
    """A tiny LLaMA and its tokenizer, in Hugging Face's layout."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=mlp or 2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    shipped(size).save_pretrained(folder)


def logits(
    model: LlamaForCausalLM, embedded: Tensor, attention: list[list[int]], adapters: dict[str, Tensor]
) -> Tensor:
    """(B, L, E) to (B, L, V) by transformers' own forward, with low-rank updates added to the weights.

    Args:
        model: without adapters.
        embedded: prompts and answers.
        attention: 1 at real positions.
        adapters: name of a weight -> what is added to it.
    """
    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
    weights |= {name: weights[name] + update for name, update in adapters.items()}
    arguments = {"inputs_embeds": embedded, "attention_mask": torch.tensor(attention), "use_cache": False}
    found: Tensor = torch.func.functional_call(model, weights, (), arguments).logits
    return found
