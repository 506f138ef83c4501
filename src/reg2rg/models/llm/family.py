"""What differs between families of language models, told from the model itself when it is loaded.

A family may embed ids in another way than its table says, keep its state under another name than a cache of keys and
values, or see what stands beside a row in a batch. Each would train and decode to the end and be wrong without a word.
A few tokens, read in every way that is used later, tell: what can be mended is, the rest is refused by name.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from reg2rg.core.errors import ConfigError
from reg2rg.models.llm.base import Decoding
from reg2rg.models.llm.blocks import reads_blocks
from reg2rg.models.llm.decoding import generated
from reg2rg.models.llm.reading import Beginning, Reader, cache_argument, takes
from reg2rg.models.llm.shared_prompts import can_share

log = logging.getLogger(__name__)

_LENGTHS, _ANSWER = (7, 4), 3
_CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference of logits, over their spread, that rounding in a dtype explains."""
_UNMOVED = 0.01
"""Likewise where other numbers stand at places that must not matter: sums are the same, and so is their rounding."""
_FAILS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError)
_SETTINGS: Mapping[str, Any] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "bad_words_ids": None,
    "sequence_bias": None,
    "min_length": 0,
    "min_new_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
}
"""What a model's generation_config.json may ask of decoding, and the value that asks for nothing."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What a family needs.

    Attributes:
        embedding_scale: what the table's rows are multiplied by where ids come in.
        alone: rows are decoded one by one, since padding beside them changes their answers.
    """

    embedding_scale: float = 1.0
    alone: bool = False


def with_attention(load: Callable[[str], Any], path: str) -> Any:
    """A model with PyTorch's fused attention, or with plain attention where its family has no other.

    Args:
        load: takes ``"sdpa"`` or ``"eager"``.
        path: for the note.
    """
    try:
        return load("sdpa")
    except (ValueError, ConfigError) as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
    log.warning("language model %s: its family has no fused attention; it attends plainly, with more memory", path)
    return load("eager")


def ignored_settings(model: Any, path: str) -> None:
    """Name what generation_config.json asks for and decoding here does not do."""
    config = model.generation_config
    asked = {name: getattr(config, name, none) for name, none in _SETTINGS.items()}
    told = [f"{name} {value}" for name, value in asked.items() if value not in (None, [], _SETTINGS[name])]
    if told:
        log.warning(
            "language model %s: generation_config.json asks for %s, which is ignored: reports repeat words by their "
            "nature, and validation, prediction and the loss go by the model's own probabilities",
            path,
            ", ".join(told),
        )


@torch.no_grad()
def habits_of(model: Any, path: str) -> Habits:
    """Find out by a few tokens how a model reads embeddings, ids, its cache and padded batches.

    Args:
        model: a Hugging Face causal language model, in full or 4-bit weights.
        path: for messages.

    Raises:
        ConfigError: what is read in two ways gives two results, and nothing mends it.
    """
    name = type(model).__name__
    if cache_argument(model) not in inspect.signature(model.forward).parameters:
        taken = set(inspect.signature(model.forward).parameters) - {"use_cache", "output_hidden_states"}
        own = sorted(word for word in taken if "cache" in word or "state" in word)
        raise _refused(path, name, f"it keeps its state under {', '.join(own)}" if own else "it has no cache")
    with _reading(model):
        rows = _rows(model)
        try:
            scale = _embedding_scale(model, rows[0])
            if scale is None:
                raise _refused(path, name, "what it makes of ids is not what it makes of their embeddings")
            if _sees_ahead(model, rows[0], scale):
                raise _refused(path, name, "what it makes of a text depends on what comes later")
            alone = _answers_differ(model, rows, scale)
        except torch.OutOfMemoryError:
            raise
        except _FAILS as error:
            told = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            raise _refused(path, name, f"reading a few embeddings ends in {told}") from error
    if alone is None:
        raise _refused(path, name, "what it writes with its cache is not what it writes without")
    if alone:
        log.warning("language model %s: %s minds padding in a batch; reports are decoded one by one", path, name)
    return Habits(scale, alone)


@torch.no_grad()
def blocks_refused(model: Any, scale: float) -> str:
    """Why a model cannot read texts that see the prompt and themselves alone, "" if it can.

    Args:
        model: as `habits_of` takes it.
        scale: of its embeddings, as `habits_of` found it.
    """
    table = model.get_input_embeddings()
    with _reading(model):
        prompt, text = (table(ids) * scale for ids in _rows(model))
        try:
            together, alone = reads_blocks(model, [prompt, text, text.flip(0)])
        except torch.OutOfMemoryError:
            raise
        except _FAILS as error:
            return f"given a mask of blocks it ends in {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return "what it makes of them is not what it makes of each alone" if _far(together, alone, model) else ""


@torch.no_grad()
def shares_prompts(model: Any, scale: float) -> bool:
    """Whether answers to one prompt, and prompts of one beginning, may have its keys and values once.

    Args:
        model: as `habits_of` takes it.
        scale: of its embeddings, as `habits_of` found it.
    """
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
    if not (plain and can_share(model) and takes(model, "position_ids")):
        return False
    with _reading(model):
        inputs = model.get_input_embeddings()(_rows(model)[0])[None] * scale
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        (alone,), steps = _decoded(model, inputs, mask)
        try:
            together, of_both = _decoded(model, inputs, mask, [0, 0])
            begun = [Beginning(0), Beginning(1, 0, _LENGTHS[1])]
            in_parts = Reader(model, inputs.repeat(2, 1, 1), mask.repeat(2, 1), begun)(1)[1]
        except torch.OutOfMemoryError:
            raise
        except _FAILS:
            return False
        whole = Reader(model, inputs, mask, begun[:1])(0)[1]
    if together != [alone, alone]:
        return False
    return not (_far(of_both, steps.expand_as(of_both), model) or _far(in_parts.float(), whole.float(), model))


def _refused(path: str, family: str, why: str) -> ConfigError:
    return ConfigError(
        f"language model {path}: {family} cannot be used: {why} (expected a causal language model that reads "
        "embeddings as it reads ids, and continues from a cache of keys and values). Fix: take a model of another "
        "family, such as Llama, Qwen or Gemma"
    )


@contextlib.contextmanager
def _reading(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _rows(model: Any) -> list[Tensor]:
    """Two texts of a few ids that mean nothing special."""
    table = model.get_input_embeddings()
    named = [getattr(model.config, f"{kind}_token_id", None) for kind in ("bos", "eos", "pad")]
    special = {token for found in named for token in (found if isinstance(found, list) else [found])}
    plain = [i for i in range(min(table.num_embeddings, 64)) if i not in special]
    device = table.weight.device
    return [torch.tensor([plain[(7 * i + 3 * n) % len(plain)] for i in range(n)], device=device) for n in _LENGTHS]


def _tolerance(model: Any) -> float:
    return _CLOSE.get(model.get_input_embeddings().weight.dtype, 1e-3)


def _far(found: Tensor, wanted: Tensor, model: Any) -> bool:
    return bool((found - wanted).abs().max() > _tolerance(model) * wanted.std().clamp(min=1e-6))


def _embedding_scale(model: Any, ids: Tensor) -> float | None:
    """What the table's rows must be multiplied by to be what the model makes of ids; ``None`` if nothing does."""
    wanted = model(input_ids=ids[None], use_cache=False).logits.float()
    if bool(wanted.isnan().any()):
        raise ValueError(f"logits that are no numbers in {model.dtype}; weights that hold some, or too narrow a dtype")
    embedded = model.get_input_embeddings()(ids[None])
    scales = [1.0, *(float(value) for word, value in _multipliers(model.config))]
    for scale in dict.fromkeys(scales):
        if not _far(model(inputs_embeds=embedded * scale, use_cache=False).logits.float(), wanted, model):
            return scale
    return None


def _sees_ahead(model: Any, ids: Tensor, scale: float) -> bool:
    """Whether what stands behind a text moves its logits, as in models that read in both directions (BERT)."""
    text = model.get_input_embeddings()(ids)[None] * scale
    both = torch.cat([torch.cat([text, behind], dim=1) for behind in (0 * text, 4 * text)])
    wanted, found = model(inputs_embeds=both, use_cache=False).logits[:, : len(ids)].float()
    return _distance(found, wanted) > min(_UNMOVED, _tolerance(model))


def _multipliers(config: Any) -> Iterator[tuple[str, float]]:
    """Numbers of the config that may multiply embeddings."""
    for word in ("embedding_multiplier", "scale_emb", "embed_scale"):
        value = getattr(config, word, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield word, value


def _answers_differ(model: Any, rows: list[Tensor], scale: float) -> bool | None:
    """Whether rows answer otherwise in a batch than alone; ``None`` if alone they answer otherwise than uncached."""
    embedded = [model.get_input_embeddings()(row)[None] * scale for row in rows]
    answers, read, rounding = [], [], 0.0
    for inputs in embedded:
        (answer,), steps = _decoded(model, inputs, inputs.new_ones(inputs.shape[:2], dtype=torch.long))
        wanted = _uncached(model, inputs, answer, scale)
        rounding = max(rounding, _distance(steps[0], wanted[1:]))
        if not _follows(wanted, answer, model) or rounding > 3 * _tolerance(model):
            return None
        answers.append(answer)
        read.append(wanted)
    longest, shorter = embedded
    gap = longest.shape[1] - shorter.shape[1]
    padding = longest[:, :gap]
    batch = torch.cat([longest, *(torch.cat([content, shorter], dim=1) for content in (0 * padding, 4 * padding))])
    mask = torch.ones(batch.shape[:2], dtype=torch.long, device=batch.device)
    mask[1:, :gap] = 0
    together, steps = _decoded(model, batch, mask)
    # Whatever stands in the padding, answers are the same: this tells in half precision too. Then over all words, since
    # padding may move all of them and spare the likeliest.
    if _distance(steps[2], steps[1]) > min(_UNMOVED, _tolerance(model)):
        return True
    limit = min(_tolerance(model), max(_tolerance(model) / 3, 3 * rounding))
    for place, (inputs, answer) in enumerate(zip(embedded, together, strict=False)):
        wanted = read[place] if answer == answers[place] else _uncached(model, inputs, answer, scale)
        if _distance(steps[place], wanted[1:]) > limit:
            return True
    return False


def _decoded(model: Any, inputs: Tensor, mask: Tensor, prompts: Sequence[int] = ()) -> tuple[list[list[int]], Tensor]:
    """Greedy answers to embeddings (B, L, E), and the logits (B, _ANSWER - 1, V) before each token but the first.

    With `prompts`, as of answers that have a prompt in common.
    """
    limits = Decoding(max_new_tokens=_ANSWER, stop_on_loop=0)
    shares = (lambda: True) if prompts else None
    with _step_logits(model) as steps:
        answers = generated(model, inputs, mask, frozenset(), limits, prompts=prompts, shares=shares)
    return [answer.ids for answer in answers], torch.stack(steps[1 - _ANSWER :], dim=1)


def _distance(found: Tensor, wanted: Tensor) -> float:
    """Of logits (..., V), in parts of their spread."""
    return float((found - wanted).norm() / (wanted - wanted.mean(-1, keepdim=True)).norm().clamp(min=1e-6))


@contextlib.contextmanager
def _step_logits(model: Any) -> Iterator[list[Tensor]]:
    """Collects the logits (B, V) behind the last position of each call of a model."""
    steps: list[Tensor] = []
    hook = model.register_forward_hook(lambda _, inputs, output: steps.append(output.logits[:, -1].float()))
    try:
        yield steps
    finally:
        hook.remove()


def _follows(logits: Tensor, answer: list[int], model: Any) -> bool:
    """Whether each token of a greedy answer is the likeliest of an uncached reading (L, V), up to rounding."""
    ids = torch.tensor(answer, device=logits.device)
    behind = logits.max(-1).values - logits.gather(1, ids[:, None]).squeeze(1)
    return bool((behind <= _tolerance(model) * logits.std(-1)).all())


def _uncached(model: Any, inputs: Tensor, answer: list[int], scale: float) -> Tensor:
    """The logits (len(answer), V) before each token of an answer, of one reading without a cache."""
    ids = torch.tensor([answer], device=inputs.device)
    text = torch.cat([inputs, model.get_input_embeddings()(ids) * scale], dim=1)
    logits: Tensor = model(inputs_embeds=text, use_cache=False).logits[0, inputs.shape[1] - 1 : -1]
    return logits.float()
