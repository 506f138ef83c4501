"""A config's model without its weights, its tokenizer and its data, and one step or report of it: for sizes alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, LlamaConfig

from reg2rg.config.saving import build
from reg2rg.core.types import PathOrHubId
from reg2rg.data.batch import Batch
from reg2rg.data.prompt import IGNORED, TAGS
from reg2rg.models.encoders import Encoder
from reg2rg.models.llm.adapters import LoRA, with_adapters
from reg2rg.models.llm.base import Decoding, LanguageModel
from reg2rg.models.llm.cache import reserved_cache
from reg2rg.models.llm.causal_lm import CausalLM, _checkpoint_activations
from reg2rg.models.llm.family import Habits, with_attention
from reg2rg.models.llm.loading import LOADING_ERRORS, trouble
from reg2rg.models.llm.loss import token_nll
from reg2rg.models.llm.reading import _AT_ONCE, cache_argument
from reg2rg.models.reporter import ProjectorFactory, RegionReporter
from reg2rg.store.attributes import VECTOR

KNOWN: dict[str, dict[str, int]] = {
    "meta-llama/Llama-2-7b-chat-hf": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    }
}
"""Sizes of language models that packaged configs name and that cannot be had without an account."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of everything a step or a report has.

    Attributes:
        studies: of a step, or reports that are written at once.
        regions: of each study.
        positions: of each row of a step, or of each prompt.
        answer: positions of a row that have a loss, or tokens that a report may have.
    """

    studies: int
    regions: int
    positions: int
    answer: int


class OutlineLM(CausalLM):
    """A `CausalLM` of the architecture at `path`, with random weights and without a tokenizer.

    Below `FakeTensorMode` it takes no memory, and reads rows whose last positions are the answer, all of one length.
    """

    answer = 1

    def __init__(
        self,
        path: PathOrHubId,
        lora: LoRA | None = None,
        gradient_checkpointing: bool = False,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        quantize_4bit: bool = False,
        revision: str | None = None,
        weights_trainable: bool | None = None,
        float32_residual: bool = False,
        pretrained: bool = True,
        merge_adapters: bool = True,
    ) -> None:
        LanguageModel.__init__(self)
        config = _architecture(path, revision)
        base = with_attention(
            lambda kind: AutoModelForCausalLM.from_config(
                config, attn_implementation=kind, dtype=getattr(torch, dtype), trust_remote_code=False
            ),
            path,
        )
        base.requires_grad_(weights_trainable if weights_trainable is not None else lora is None)
        if gradient_checkpointing:
            _checkpoint_activations(base, path)
        self.path, self.revision, self.lora, self.config = path, revision, lora, base.config
        self.float32_residual, self.merge_adapters, self.in_4_bit = float32_residual, merge_adapters, quantize_4bit
        self.habits, self.eos_ids = Habits(), frozenset()
        self.tokenizer: Any = SimpleNamespace(pad_token_id=0, decode=lambda *_, **__: "")
        self.hidden_size = int(base.get_input_embeddings().embedding_dim)
        self.context_length = 1 << 30
        self.model: Any = base if lora is None else with_adapters(base, lora)
        self._reference = LanguageModel.reference_names(self)

    def answer_nll(
        self, embeddings: Tensor, attention_mask: Tensor, labels: Tensor, blocks: Tensor | None = None
    ) -> Tensor:
        """As `CausalLM.answer_nll`; below `FakeTensorMode` without looking at what has no numbers."""
        if not isinstance(embeddings, FakeTensor):
            return super().answer_nll(embeddings, attention_mask, labels, blocks)
        rows, length, _ = embeddings.shape
        first = torch.arange(rows * self.answer) + (length - self.answer - 1)

        def only_before_labels(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (args[0].reshape(rows * length, -1)[first].unsqueeze(0), *args[1:])

        hook = self._causal.get_output_embeddings().register_forward_pre_hook(only_before_labels)
        try:
            with self._autocast():
                output = self.model(inputs_embeds=self._cast(embeddings), attention_mask=None, use_cache=False)
        finally:
            hook.remove()
        return token_nll(output.logits.squeeze(0), torch.zeros(rows * self.answer, dtype=torch.long))

    def read_prompts(self, embeddings: Tensor, reserve: int) -> Any:
        """The cache of prompts of one length (B, L, E), with room for `reserve` more tokens, as `decode` makes it."""
        rows, length, _ = embeddings.shape
        cache, inputs = reserved_cache(self.config, reserve), self._cast(embeddings)
        at_once = max(1, _AT_ONCE // length)
        for first in range(0, rows, at_once):
            together, own = list(range(first, min(rows, first + at_once))), DynamicCache(config=self.config)
            options = {cache_argument(self._causal): own, "use_cache": True, "logits_to_keep": 1}
            with self._autocast():
                self._causal(inputs_embeds=inputs[first : first + at_once], **options)
            for layer, found in zip(cache.layers, own.layers, strict=True):
                layer.place(together, rows, length, found.keys, found.values)
        return cache


def _architecture(path: str, revision: str | None) -> Any:
    where = Path(path).expanduser()
    try:
        return AutoConfig.from_pretrained(str(where) if where.exists() else path, revision=revision)
    except LOADING_ERRORS as error:
        if path in KNOWN:
            return LlamaConfig(**KNOWN[path])
        raise trouble(path, error) from None


class OutlineReporter(RegionReporter):
    """A reporter whose samples always fit."""

    def _require_context(self, batch: Batch, new_tokens: int = 0) -> None:
        """Lengths are given, not read."""


class _Parts:
    """The arguments of a model section that have a size."""

    def __init__(
        self,
        texture: Encoder | None,
        geometry: Encoder | None,
        global_: Encoder | Literal["texture"] | None,
        projector: ProjectorFactory,
        llm: LanguageModel,
        attributes: Encoder | None = None,
    ) -> None:
        self.parts = (texture, geometry, global_, projector, llm)
        self.attributes = attributes


def outline(model: Mapping[str, Any]) -> OutlineReporter:
    """The reporter that a config's model section describes, without files; heads are left out.

    Raises:
        ConfigError: no such architecture here.
    """
    wanted = ("texture", "geometry", "global_", "projector", "llm", "attributes")
    section: dict[str, Any] = {name: _without_files(model[name]) for name in wanted if name in model}
    if section["llm"]["class_path"].rpartition(".")[2] == CausalLM.__name__:
        section["llm"]["class_path"] = f"{OutlineLM.__module__}.{OutlineLM.__qualname__}"
    built = build(_Parts, section)
    return OutlineReporter(*built.parts, attributes=built.attributes)


def _without_files(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: None if key == "weights" else _without_files(item) for key, item in value.items()}


def batch_of(reporter: RegionReporter, amounts: Amounts, views: Mapping[str, Any]) -> Batch:
    """A batch of those amounts, as it is on the device once scaled. Slots stand first, the answer last.

    Args:
        reporter: for its visual tokens.
        amounts: of studies, regions and positions.
        views: the task's; `size` and `channels`.
    """
    counts, size = reporter.token_counts, tuple(views["size"])
    studies, regions = amounts.studies, amounts.regions
    own, packed, wanted = counts.slots(regions), studies * regions, counts.views
    rows = torch.arange(studies).repeat_interleave(own)
    labels = torch.full((studies, amounts.positions), IGNORED)
    labels[:, amounts.positions - amounts.answer :] = 1
    table = TAGS + studies * counts.global_ + packed * counts.region
    return Batch(
        texture=torch.rand(packed, 1, *size) * 2 - 1 if "texture" in wanted else None,
        geometry=torch.rand(packed, 1, *size) if "geometry" in wanted else None,
        global_=torch.rand(studies, views["channels"], *size) * 2 - 1 if "global" in wanted else None,
        input_ids=torch.ones(studies, amounts.positions, dtype=torch.long),
        attention_mask=torch.ones(studies, amounts.positions, dtype=torch.bool),
        labels=labels,
        visual_rows=rows,
        visual_cols=torch.arange(own).repeat(studies),
        visual_source=torch.arange(studies * own) % table,
        label_region=torch.zeros(studies * amounts.answer, dtype=torch.long),
        study_ids=tuple(map(str, range(studies))),
        regions=tuple(tuple(map(str, range(regions))) for _ in range(studies)),
        reports=(),
        attributes=torch.rand(packed, 1, VECTOR, 1, 1) if counts.attributes else None,
    )


def step(reporter: RegionReporter, batch: Batch, answer: int, autocast: torch.dtype | None = None) -> None:
    """Forward and backward pass of one step; gradients stay.

    Args:
        reporter: in training.
        batch: as `batch_of` gives it.
        answer: positions of a row that have a loss.
        autocast: dtype of ``trainer.precision``'s autocast.
    """
    if isinstance(reporter.llm, OutlineLM):
        reporter.llm.answer = answer
    with torch.autocast("cpu", autocast) if autocast is not None else nullcontext():
        nll = reporter.losses(batch).nll
        assert nll is not None
        loss = nll.mean()
    loss.backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def report(reporter: RegionReporter, batch: Batch, new_tokens: int, autocast: torch.dtype | None = None) -> Any:
    """Reports of a batch of prompts, up to where they differ: below `FakeTensorMode` the cache with room for all.

    Args:
        reporter: in evaluation.
        batch: of prompts, as `batch_of` gives it.
        new_tokens: of a report.
        autocast: as in `step`.
    """
    with torch.autocast("cpu", autocast) if autocast is not None else nullcontext():
        embedded = reporter.embed(batch)
        if isinstance(embedded, FakeTensor):
            assert isinstance(reporter.llm, OutlineLM)
            return reporter.llm.read_prompts(embedded, new_tokens)
        return reporter.llm.decode(embedded, batch.attention_mask, Decoding(new_tokens, stop_on_loop=0))
