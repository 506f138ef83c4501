"""Small tokenizers of many families, trained on reports, whose pieces cross the borders of frames where they can."""

from __future__ import annotations

import json
import random
from functools import cache, lru_cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from reg2rg.core.report import write_report

REGIONS = ("abdomen", "bone", "breast", "esophagus", "heart", "lung", "mediastinum", "pleura", "thyroid",
           "trachea and bronchie")  # fmt: skip
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
_WORDS = """no The heart is enlarged region of consolidation nodule 5 mm effusion 12 in the left lobe calcified normal
size. without pneumothorax, scar; wall 3 is thick: upper. Region shows The aorta""".split()  # noqa: SIM905


def sentence(draws: random.Random, words: int = 6) -> str:
    return " ".join(draws.choice(_WORDS) for _ in range(words)).capitalize() + "."


def report(draws: random.Random, regions: int = 3) -> tuple[list[str], list[str]]:
    """Regions in some order, and a text of each that looks like nothing else."""
    names = draws.sample(REGIONS, regions)
    return names, [" ".join(sentence(draws) for _ in range(draws.randint(1, 2))) for _ in names]


@lru_cache(maxsize=1)
def corpus() -> list[str]:
    draws = random.Random(0)
    return [write_report(*report(draws, 3)) for _ in range(300)]


def _fast(backend: Tokenizer, bos: bool = False, **options) -> PreTrainedTokenizerFast:
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        **({"unk_token": "<unk>"} | options),
    )


def byte_bpe(size: int = 500):
    """As GPT-2, Llama 3, Qwen."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return _fast(backend, unk_token=None)


def byte_bpe_across_words(size: int = 900):
    """Byte pairs over whole texts: ``: The``, ``. The region 1 is`` and ``heart:`` become tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return _fast(backend, unk_token=None)


def sentencepiece_bpe(size: int = 400):
    """As Llama 2 and Mistral: blanks as a letter, digits and unknown characters apart, the latter as bytes."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d|(?<=\S)(?=▁)|[.:,;]"), "isolated")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=size + 256, special_tokens=special))
    own = [token for token in special if token.startswith("<0x")]
    raw = json.loads(backend.to_str())  # bytes are tokens of the vocabulary, not special ones
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] not in own]
    return _fast(Tokenizer.from_str(json.dumps(raw)), bos=True)


def unigram(size: int = 400):
    """As T5, XLNet, Gemma in spirit: pieces by likelihood, over borders of words."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    backend.decoder = decoders.Metaspace(split=False)
    backend.train_from_iterator(
        corpus(), trainers.UnigramTrainer(vocab_size=size, special_tokens=SPECIAL, unk_token="<unk>")
    )
    return _fast(backend)


def word_piece(size: int = 400, lowercase: bool = False):
    """As BERT: blanks between words, also before punctuation; with `lowercase` no frame is as a report has it."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL))
    return _fast(backend)


def word_piece_uncased():
    return word_piece(lowercase=True)


def end_of_word_bpe(size: int = 400):
    """As the first GPT and CTRL: the end of a word is marked."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    backend.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, end_of_word_suffix="</w>")
    )
    return _fast(backend)


def word_level():
    """Whole words, and nothing for the rest: most digits are unknown."""
    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    backend.train_from_iterator(corpus(), trainers.WordLevelTrainer(vocab_size=60, special_tokens=SPECIAL))
    return _fast(backend)


def bytes_alone():
    """One token a byte, as ByT5."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [], trainers.BpeTrainer(vocab_size=260, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return _fast(backend, unk_token=None)


FAMILIES = {
    build.__name__: build
    for build in (byte_bpe, byte_bpe_across_words, sentencepiece_bpe, unigram, word_piece, word_piece_uncased,
                  end_of_word_bpe, word_level, bytes_alone)
}  # fmt: skip


@cache
def tokenizer(family: str) -> PreTrainedTokenizerFast:
    return FAMILIES[family]()
