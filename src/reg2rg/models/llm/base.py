"""What a language model must offer: embeddings in, losses of the answer or a generated answer out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, Self

from torch import Tensor, nn

from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import Registry
from reg2rg.core.task import ReportTask
from reg2rg.core.types import DecodingKind, NonNegativeInt, PositiveFloat, PositiveInt, UnitFloat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END = -1
"""Stands for a token that ends an answer, whatever ids a model has for that."""

Branches = Callable[[Sequence[int], Sequence[int]], Tensor]
"""``(parents, tokens) -> logits (n, V)``: reads on beside an answer. Each token stands behind a branch of the last
call, at first behind 0, the answer so far."""


class Guide(Protocol):
    """Writes one answer: told of each token, and asked before it whether the token may come.

    Attributes:
        ids: tokens taken so far.
        truncated: something was cut.
        most: tokens that it takes at most.
    """

    ids: list[int]
    truncated: bool
    most: int

    def allows(self, token: int) -> bool:
        """Whether the answer may go on with a token, or end (`END`)."""

    def allowed(self) -> Sequence[int] | None:
        """After a refusal, the tokens that may come, where they are few; ``None``: any but those refused."""

    def look(self, token: int, logits: Tensor, branches: Callable[[], Branches]) -> None:
        """See the logits (V,) that the token, which was allowed and is taken next, comes from.

        Args:
            token: or `END`.
            logits: of the whole vocabulary.
            branches: begins to read beside the answer; costs a copy of its keys and values.
        """

    def take(self, token: int) -> bool:
        """Write the token that was allowed last, or end; whether the answer goes on."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a report, to which an answer is held: a frame for each region in slot order, text, the end.

    Attributes:
        names: of the region set.
        identity: frames name their region.
        forced: they have the name of the region that is given; otherwise the model chooses among those given.
        tail: behind the last paragraph texts of other regions may follow, see `reg2rg.core.report.write_tail`.
        independent: each paragraph is an answer of its own to the prompt.
    """

    names: tuple[str, ...]
    identity: bool = True
    forced: bool = False
    tail: bool = False
    independent: bool = False

    @classmethod
    def of(cls, task: ReportTask, decoding: DecodingKind) -> Self | None:
        """The form of a task's reports; ``None`` for those that are written freely, or have no regions.

        Raises:
            ConfigError: independent paragraphs, written freely.
        """
        if decoding == "free" and task.independent_paragraphs:
            raise ConfigError(
                "model.decoding is free, and task.independent_paragraphs writes each paragraph behind its frame, "
                "without which nothing says whose it is. Fix: model.decoding: constrained, or forced"
            )
        if decoding == "free" or task.target != "regions":
            return None
        names, forced = task.region_set.names, decoding == "forced"
        return cls(names, task.identity, forced, task.tail, task.independent_paragraphs)


@dataclass(frozen=True)  # no slots: jsonargparse reads a default through vars()
class Sampling:
    """Draw the next token instead of taking the likeliest; the defaults are what the published code has come to use.

    Temperature, top-k and top-p act in this order, as in transformers. The draws of an answer follow from the seed and
    from the name of its row alone: they do not depend on the batch, on the number of processes, or on a resume.

    Attributes:
        temperature: what logits are divided by.
        top_k: keep so many of the likeliest tokens; 0 keeps all.
        top_p: of these keep the fewest whose probabilities reach this sum; 1 keeps all.
        seed: of the draws.
    """

    temperature: PositiveFloat = 0.6
    top_k: NonNegativeInt = 30
    top_p: UnitFloat = 0.9
    seed: int = 20

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.temperature <= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"sampling: temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p} (expected above 0, "
                "0 or more, above 0 and at most 1). Fix: those; for greedy decoding set sampling to null"
            )


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a report is decoded. Greedy unless `sampling` is given; deterministic either way.

    Attributes:
        max_new_tokens: longest answer; an answer that reaches it is flagged as truncated. An answer that is held to a
            form may go on beyond it, so that each region has its paragraph: see `reg2rg.models.constrained`.
        stop_on_loop: stop, flagged as truncated, when the end of the answer has been written this many times in a
            row; 0 turns the check off.
        longest_loop: longest repeated stretch that is looked for, in tokens.
        sampling: draw tokens, or ``None`` for the likeliest ones.
        form: of a report to which the answer is held; ``None`` lets the model write what it likes.
        max_paragraph_tokens: longest paragraph of a report that is held to its form, or ``None``.
        stop_after_last: end a report that is held to no form where it would go on to a region that was not given.
    """

    max_new_tokens: PositiveInt = 500
    stop_on_loop: int = 4
    longest_loop: int = 64
    sampling: Sampling | None = None
    form: Form | None = None
    max_paragraph_tokens: PositiveInt | None = None
    stop_after_last: bool = field(default=False, repr=False)  # `told` says it

    def told(self) -> str:
        """In words, for records; what a task says is left out."""
        if self.form is not None:
            kind = "forced" if self.form.forced else "constrained"
        else:
            kind = "free, to the last region" if self.stop_after_last else "free"
        return f"{kind}: {replace(self, form=None)}"


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated answer.

    Attributes:
        ids: token ids without EOS.
        truncated: it was stopped by length or by a loop, not by its own EOS.
    """

    ids: list[int]
    truncated: bool


class LanguageModel(nn.Module, ABC):
    """A causal language model that reads embeddings, so that visual tokens can stand among words.

    Attributes:
        tokenizer: its tokenizer, with a pad token.
        hidden_size: width of its embeddings, E.
        context_length: longest sequence it can read, L.
    """

    tokenizer: PreTrainedTokenizerBase
    hidden_size: int
    context_length: int

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) -> embeddings (B, L, E)."""

    @abstractmethod
    def answer_nll(
        self, embeddings: Tensor, attention_mask: Tensor, labels: Tensor, blocks: Tensor | None = None
    ) -> Tensor:
        """Negative log-likelihood of each label; the output head runs at those positions alone.

        Args:
            embeddings: (B, L, E).
            attention_mask: (B, L), 1 at real positions. Padding may stand on either side.
            labels: (B, L) token ids, -100 where there is no label. Not shifted: position t is predicted from t - 1.
            blocks: (B, L), 0 in the prompt, then the number of the text, from 1, and -1 in padding, where each text
                sees the prompt and itself alone (`reg2rg.models.llm.blocks`); its losses are those that it has behind
                the prompt by itself. Given only to a model whose `require_blocks` has agreed.

        Returns:
            (K,) float32, one for each label in row-major order.

        Raises:
            ConfigError: the sequence is longer than the context.
        """

    def require_blocks(self, length: int) -> None:
        """Refuse texts that see the prompt and themselves alone, unless `answer_nll` takes ``blocks``.

        Args:
            length: positions of the longest prompt with one text.

        Raises:
            ConfigError: by name, with the remedy.
        """
        raise ConfigError(
            f"language model {type(self).__name__} does not say that it reads paragraphs which see the prompt and "
            "themselves alone (require_blocks). Fix: CausalLM, or task.independent_paragraphs: false"
        )

    @abstractmethod
    def decode(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        decoding: Decoding | None = None,
        guides: Sequence[Guide] = (),
        names: Sequence[str] = (),
        prompts: Sequence[int] = (),
    ) -> list[Generation]:
        """Generate an answer to each prompt; the answer does not depend on what else is in the batch.

        Args:
            embeddings: (B, L, E) prompts, padded on either side.
            attention_mask: (B, L), 1 at real positions.
            decoding: limits; the defaults of `Decoding` if not given.
            guides: one an answer, which writes it; without them answers are free within `decoding`.
            names: of the answers, such as ids of studies; what an answer draws follows from its name. Its place if not
                given.
            prompts: for each answer the row of its prompt, where several answers have one; each its own if not given.

        Raises:
            ConfigError: prompt and answer could be longer than the context.
        """

    @contextmanager
    def merged(self) -> Iterator[None]:
        """While active, adapters are folded into the weights where that makes generation faster."""
        yield

    def reference_names(self) -> frozenset[str]:
        """Names of the parameters that come back from the model's own files, which a model's folder leaves out."""
        return frozenset(name for name, p in self.named_parameters(remove_duplicate=False) if not p.requires_grad)

    def reference_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The weights that stand in the model's own files, by their names there, for a fingerprint.

        By default there are none, and a model's folder cannot tell one language model from another.
        """
        return iter(())

    def require_context(self, length: int, new_tokens: int = 0) -> None:
        """Refuse what the model cannot read.

        Raises:
            ConfigError: with the arithmetic.
        """
        if length + new_tokens > self.context_length:
            answer = f" + {new_tokens} new tokens = {length + new_tokens}" if new_tokens else ""
            raise ConfigError(
                f"the language model reads at most {self.context_length} positions, but the sequence has "
                f"{length}{answer}. Fix: fewer visual tokens, a lower max_length or max_new_tokens, or a longer context"
            )


LANGUAGE_MODELS = Registry("llm", LanguageModel)  # type: ignore[type-abstract]
