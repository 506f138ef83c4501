"""Any causal language model of Hugging Face, with LoRA, gradient checkpointing and 4-bit weights by option."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from reg2rg.core.errors import ConfigError, MissingExtraError
from reg2rg.core.hub import local_folder
from reg2rg.core.types import PathOrHubId
from reg2rg.models.llm.adapters import LoRA, weights_to_fold, with_adapters
from reg2rg.models.llm.base import LANGUAGE_MODELS, Decoding, Generation, Guide, LanguageModel
from reg2rg.models.llm.blocks import block_options, predicted_from, refused, require_full_attention
from reg2rg.models.llm.decoding import generated, one_by_one
from reg2rg.models.llm.family import blocks_refused, habits_of, ignored_settings, shares_prompts, with_attention
from reg2rg.models.llm.loading import LOADING_ERRORS, load_tokenizer, trouble
from reg2rg.models.llm.loss import token_nll
from reg2rg.models.llm.naming import is_adapter, plain_name
from reg2rg.models.llm.skinny_linear import products_in_parts
from reg2rg.models.llm.whole import load_whole, refuse_adapter, require_tied
from reg2rg.models.tensors import open_tensors

_UNBOUNDED = 1 << 30


@LANGUAGE_MODELS.register
class CausalLM(LanguageModel):
    """A causal language model by folder or hub id.

    Args:
        path: a folder in Hugging Face's layout, or a hub id. Weights must be safetensors, and whole: none is left at
            random. The folder of an adapter is refused: fold it into its model first. Remote code never runs.
        lora: adapters to train; the rest is frozen unless `weights_trainable`.
        gradient_checkpointing: recompute activations in the backward pass.
        dtype: of the weights. Adapters are float32 whatever it is. (``trainer.precision`` casts all with bf16-true,
            16-true and 64-true.)
        quantize_4bit: NF4 weights (extra ``quant``; on CUDA, and on a CPU with bitsandbytes 0.50 or later).
        revision: branch, tag or commit of a hub id.
        weights_trainable: train the model's own weights. By default only without `lora`.
        float32_residual: with `dtype` bfloat16 or float16 keep the sum that runs past the layers in float32 where it
            starts from visual tokens, as the published code does (its table of embeddings is float32). More exact, and
            more memory for activations.
        pretrained: read the model's weights. Otherwise `path` gives architecture and tokenizer alone, and the weights
            start at random: for training from nothing, or for a model's folder that brings its own.
        merge_adapters: fold adapters into the weights while predicting: faster by a tenth, but the sums are rounded to
            `dtype`. The published code does not.

    Raises:
        ConfigError: not found, gated, offline, not safetensors, not a causal model, an adapter, weights that do not fit
            the architecture (by name), or a vocabulary that does not fit.
        MissingExtraError: `quantize_4bit` without the extra.
    """

    _blocks: str | None = None  # why the family takes no mask of blocks, once that was asked; "" if it does
    _shares: bool | None = None  # whether its rows may share a prompt, once that was asked

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
        super().__init__()
        trains = weights_trainable if weights_trainable is not None else lora is None
        if not pretrained and (quantize_4bit or not trains):
            raise ConfigError(
                "pretrained: false leaves the weights at random, and "
                + ("quantize_4bit needs those of the model. " if quantize_4bit else "they do not train. ")
                + "Fix: pretrained: true, or weights_trainable: true without quantize_4bit"
            )
        self.path, self.float32_residual, self.merge_adapters = path, float32_residual, merge_adapters
        refuse_adapter(path, revision)
        self.tokenizer = load_tokenizer(path, revision)
        base = _load(path, dtype, quantize_4bit, revision) if pretrained else _from_nothing(path, dtype, revision)
        base.requires_grad_(trains)
        if quantize_4bit and trains:
            raise ConfigError("4-bit weights cannot train. Fix: set lora, or weights_trainable: false")
        if trains:
            require_tied(base, path)
        self.habits = habits_of(base, path)
        ignored_settings(base, path)
        if gradient_checkpointing:
            _checkpoint_activations(base, path)
        self.config = base.config
        self.hidden_size = int(base.get_input_embeddings().embedding_dim)
        # Beyond index_topk sparse attention chooses what it looks at, with a cache otherwise than without one.
        lengths = (getattr(base.config, name, None) for name in ("max_position_embeddings", "index_topk"))
        self.context_length = min(int(length) for length in (*lengths, _UNBOUNDED) if length)
        self._check_vocabulary(base.get_input_embeddings().num_embeddings)
        eos = getattr(base.generation_config, "eos_token_id", None)
        extra = eos if isinstance(eos, list) else [] if eos is None else [eos]
        self.eos_ids = frozenset(int(token) for token in [self.tokenizer.eos_token_id, *extra] if token is not None)
        self.lora = lora
        self.model: Any = base if lora is None else with_adapters(base, lora)
        self.revision, self._reference = revision, super().reference_names()

    def _check_vocabulary(self, rows: int) -> None:
        if len(self.tokenizer) > rows:
            beyond = sorted((i, token) for token, i in self.tokenizer.get_vocab().items() if i >= rows)
            raise ConfigError(
                f"{self.path}: the tokenizer has {len(self.tokenizer)} tokens, the model embeds {rows}: nothing for "
                f"{', '.join(f'{token!r} ({i})' for i, token in beyond[:3])}{', ...' if len(beyond) > 3 else ''}. "
                "Fix: use the tokenizer that was saved with the model (of Llama-2-chat, a revision without '<pad>')"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast; what is computed and not learned, as the frequencies of rotary positions, keeps its dtype.

        In bfloat16 the frequencies would be wrong by a fifth of a percent: a whole turn and more, far from the start.
        """
        stored = self.state_dict()
        exact = {name: b for name, b in self.named_buffers() if name not in stored and b.is_floating_point()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in exact.items():
            if (now := self.get_buffer(name)).dtype != before.dtype:
                parent, _, leaf = name.rpartition(".")
                setattr(self.get_submodule(parent), leaf, before.to(now.device))
        return self

    @property
    def _causal(self) -> Any:
        """The Hugging Face model itself, without peft's wrapper."""
        return self.model if self.lora is None else self.model.get_base_model()

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) -> embeddings (B, L, E)."""
        embedded = self._causal.get_input_embeddings()(ids)
        scale = self.habits.embedding_scale
        return self._cast(embedded if scale == 1 else embedded * scale)

    def answer_nll(
        self, embeddings: Tensor, attention_mask: Tensor, labels: Tensor, blocks: Tensor | None = None
    ) -> Tensor:
        """Negative log-likelihood of each label, see `LanguageModel.answer_nll`."""
        embeddings, labels, blocks = _right_padded(embeddings, attention_mask, labels, blocks)
        batch, length, _ = embeddings.shape
        rows, columns = (labels[:, 1:] != -100).nonzero(as_tuple=True)
        wanted = labels[rows, columns + 1]
        before = rows * length + columns
        # No mask: causality hides what stands behind a row, and attention takes its fast paths.
        options: dict[str, Tensor | None] = {"attention_mask": None}
        if blocks is None:
            self.require_context(length)
        else:
            options |= block_options(self._causal, blocks, self._cast(embeddings).dtype)
            if length > self.context_length:  # as it may be: texts side by side share positions
                self.require_context(int(options["position_ids"].max()) + 1)  # type: ignore[union-attr]
            before = rows * length + predicted_from(blocks)[rows, columns + 1]

        def only_before_labels(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            # Selecting inside the model keeps what some families do to logits behind the head (scaling, capping).
            hidden = args[0]
            return (hidden.reshape(batch * length, -1)[before].unsqueeze(0), *args[1:])

        hook = self._causal.get_output_embeddings().register_forward_pre_hook(only_before_labels)
        try:
            with self._autocast():
                output = self.model(inputs_embeds=self._cast(embeddings), use_cache=False, **options)
        finally:
            hook.remove()
        return token_nll(output.logits.squeeze(0), wanted)  # squeezing, unlike indexing, copies nothing

    def require_blocks(self, length: int) -> None:
        """Refuse a family that takes no mask of blocks, see `LanguageModel.require_blocks`."""
        require_full_attention(self._causal, self.path, length)
        if self._blocks is None:
            self._blocks = blocks_refused(self._causal, self.habits.embedding_scale)
        if self._blocks:
            raise refused(self.path, type(self._causal).__name__, self._blocks)

    def _cast(self, embeddings: Tensor) -> Tensor:
        """To the dtype of the weights, which text embeddings would have, unless the residual stays in float32."""
        dtype = self._causal.get_input_embeddings().weight.dtype
        return embeddings.to(torch.promote_types(dtype, torch.float32) if self.float32_residual else dtype)

    def _autocast(self) -> AbstractContextManager[Any]:
        """Layers compute in the dtype of their weights though their input is float32."""
        weight = self._causal.get_input_embeddings().weight
        if not self.float32_residual or weight.dtype not in (torch.bfloat16, torch.float16):
            return nullcontext()
        return torch.autocast(weight.device.type, weight.dtype)

    def decode(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        decoding: Decoding | None = None,
        guides: Sequence[Guide] = (),
        names: Sequence[str] = (),
        prompts: Sequence[int] = (),
    ) -> list[Generation]:
        """Answers, see `LanguageModel.decode`."""
        decoding = decoding or Decoding()
        self.require_context(embeddings.shape[1], decoding.max_new_tokens)
        training = self.training
        self.eval()
        try:
            inputs = self._cast(embeddings)
            with self._autocast(), products_in_parts(self._causal):
                write = one_by_one if self.habits.alone else generated
                return write(
                    self._causal,
                    inputs,
                    attention_mask,
                    self.eos_ids,
                    decoding,
                    guides,
                    names,
                    prompts,
                    self._may_share,
                )
        finally:
            self.train(training)

    def _may_share(self) -> bool:
        if self._shares is None:
            self._shares = shares_prompts(self._causal, self.habits.embedding_scale)
        return self._shares

    def reference_names(self) -> frozenset[str]:
        """Weights that came from `path` and do not train, whatever was frozen since."""
        return self._reference

    def reference_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The weights that came from `path`, by their names there; of 4-bit weights those in the files."""
        own = {plain_name(name): p for name, p in self.model.named_parameters() if not is_adapter(name)}
        if not self._quantized:
            yield from own.items()
            return
        prefix = f"{self._causal.base_model_prefix}."
        for name, tensor in open_tensors(local_folder(self.path, "language model", self.revision)).items():
            yield from ((known, tensor) for known in (name, prefix + name) if known in own)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Fold the adapters into the weights while active, if asked for (never into 4-bit weights: too coarse).

        The weights afterwards are the very ones from before: they are kept, not computed back.
        """
        folds = self.lora is not None and self.merge_adapters and not self._quantized
        kept = weights_to_fold(self.model) if folds else []
        saved = [weight.detach().clone() for weight in kept]
        if kept:
            self.model.merge_adapter()
        try:
            yield
        finally:
            if kept:
                self.model.unmerge_adapter()
                with torch.no_grad():
                    for weight, before in zip(kept, saved, strict=True):
                        weight.copy_(before)

    @property
    def _quantized(self) -> bool:
        return bool(getattr(self._causal, "is_quantized", False))


def _right_padded(
    embeddings: Tensor, attention_mask: Tensor, labels: Tensor, blocks: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Embeddings (B, L, E), labels and blocks (B, L) with real positions at the left end, where padding is unseen."""
    mask = attention_mask.bool()
    if not bool((mask[:, 1:] & ~mask[:, :-1]).any()):  # as training pads; a GPU is waited for once
        return embeddings, labels, blocks
    order = torch.argsort(~mask, dim=1, stable=True)[:, : int(mask.sum(1).max())]
    moved = embeddings.gather(1, order.unsqueeze(-1).expand(-1, -1, embeddings.shape[-1]))
    return moved, labels.gather(1, order), None if blocks is None else blocks.gather(1, order)


def _load(path: str, dtype: str, quantize_4bit: bool, revision: str | None) -> Any:
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "revision": revision}
    if quantize_4bit:
        options["quantization_config"] = _four_bit(dtype)
    model = with_attention(lambda kind: load_whole(path, {**options, "attn_implementation": kind}), path)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # A CPU with AVX512-BF16 would repack 4-bit weights at their first reading in eval mode, coarser than they
            # were, for a kernel through which no gradient comes.
            module.support_avx512bf16_for_cpu = False
    return model


def _from_nothing(path: str, dtype: str, revision: str | None) -> Any:
    """A model of the architecture at `path`, with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    where = Path(path).expanduser()
    source = str(where) if where.exists() else path
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        model = with_attention(
            lambda kind: AutoModelForCausalLM.from_config(config, attn_implementation=kind, **options), path
        )
    except LOADING_ERRORS as error:
        raise trouble(path, error) from None
    with contextlib.suppress(OSError):  # what ends an answer may be said there alone
        model.generation_config = GenerationConfig.from_pretrained(source, revision=revision)
    return model


def _checkpoint_activations(base: Any, path: str) -> None:
    """Non-reentrant, so that frozen embeddings need no gradient hook; by the name that this transformers has."""
    options = {"use_reentrant": False}
    try:
        if hasattr(base, "activation_checkpointing_enable"):
            base.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        else:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    except ValueError as error:
        raise ConfigError(
            f"language model {path}: gradient_checkpointing: {error}. Fix: gradient_checkpointing: false"
        ) from None


def _four_bit(dtype: str) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("quantize_4bit needs bitsandbytes. Fix: pip install 'reg2rg[quant]'")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
