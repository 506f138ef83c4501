"""Tokenizers by folder or hub id, and what went wrong said in one message."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from reg2rg.core.errors import ConfigError
from reg2rg.data.prompt import leading_specials

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_WORDS = "the heart is large no nodule of 5 mm"
LOADING_ERRORS = (OSError, ValueError, KeyError, ImportError, SafetensorError)
"""What Hugging Face raises for a model that is missing, gated, unreachable, damaged, or of another kind."""


def load_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a language model; it always has a pad token afterwards.

    Padding is told by the attention mask and labels by position, so the pad token may be one that the vocabulary has:
    unk, or EOS where there is no unk (GPT-2). The vocabulary never grows, and EOS still gets its label.

    Raises:
        ConfigError: not found, gated, offline or damaged; no EOS token, no tokens for plain words, or a slow
            tokenizer's package missing.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    where = Path(path).expanduser()
    source = str(where) if where.exists() else path
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        settings = get_tokenizer_config(source, revision=revision)
        if not _reads_words(tokenizer):  # some families' classes are made anew from the vocabulary alone
            plain = PreTrainedTokenizerFast.from_pretrained(source, revision=revision)
            if _reads_words(plain):
                log.warning(
                    "language model %s: %s drops parts of its tokenizer.json, which is taken as it is",
                    path,
                    type(tokenizer).__name__,
                )
                tokenizer = plain
    except Exception as error:  # of a damaged file tokenizers raises the bare class
        raise trouble(path, error) from None
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{path}: the tokenizer has no EOS token, so a report could never end. Fix: set eos_token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    _try_words(tokenizer, path, settings.get("add_bos_token"))
    return tokenizer


def _words(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], str]:
    """Ids of a few words, and what they are read back as."""
    ids = list(tokenizer(_WORDS, add_special_tokens=False)["input_ids"])
    return ids, str(tokenizer.decode(ids))


def _reads_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids, back = _words(tokenizer)
    known = set(ids) - {tokenizer.unk_token_id}
    return bool(known) and (len(known) < len(set(ids)) or back.casefold().split() == _WORDS.split())


def _try_words(tokenizer: PreTrainedTokenizerBase, path: str, asks_for_bos: bool | None) -> None:
    """Say what a tokenizer does to plain words, and before them, that its folder does not tell."""
    kind = type(tokenizer).__name__
    ids, back = _words(tokenizer)
    if not ids:
        raise ConfigError(
            f"{path}: its tokenizer ({kind}) makes no tokens of '{_WORDS}' (expected some). Fix: take the tokenizer "
            "that was saved with the model"
        )
    if not _reads_words(tokenizer):
        log.warning("language model %s: its tokenizer (%s) reads '%s' back as '%s'", path, kind, _WORDS, back)
    puts_bos = tokenizer.bos_token_id in leading_specials(tokenizer)
    if asks_for_bos is not None and asks_for_bos != puts_bos:
        log.warning(
            "language model %s: tokenizer_config.json has add_bos_token: %s, but the tokenizer puts %s before a text. "
            "Prompts follow the tokenizer. Where that is wrong, change post_processor in tokenizer.json",
            path,
            str(asks_for_bos).lower(),
            "BOS" if puts_bos else "no BOS",
        )


def trouble(path: str, error: Exception) -> ConfigError:
    """One message for a model that cannot be had, with the ways out."""
    where = Path(path).expanduser()
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (lines[0] if lines else type(error).__name__).rstrip(".") + "."
    if isinstance(error, KeyError):
        reason = f"its files have no {reason}"
    if where.exists():
        held = ", ".join(sorted(entry.name for entry in where.iterdir())[:12]) if where.is_dir() else "a file"
        return ConfigError(
            f"language model {where}: {reason} The folder holds: {held or 'nothing'} (expected config.json, "
            "tokenizer.json and *.safetensors of a causal language model). Fix: save the model and its "
            "tokenizer again with save_pretrained, or name another folder"
        )
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    folder = "the path of a folder with config.json, tokenizer.json and *.safetensors (model.llm.init_args.path)"
    small = "make a small one from your own reports with 'reg2rg lm'"
    if looks_local:
        return ConfigError(f"language model '{path}': no such folder. Fix: give {folder}, or {small}")
    return ConfigError(
        f"language model '{path}': no such folder, and as a hub id: {reason} Three ways out: (1) give {folder}; (2) "
        f"for a gated model accept its licence at https://huggingface.co/{path} and set HF_TOKEN (offline machines: "
        f"download it elsewhere, or set HF_HOME to a filled cache); (3) use an open model, or {small}"
    )
