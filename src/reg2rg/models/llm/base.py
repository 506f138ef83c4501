"""What a language model must offer: embeddings in, losses of the answer or a generated answer out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import Registry
from reg2rg.core.types import PositiveInt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LogitsMask = Callable[[int, Sequence[int], Sequence[Sequence[int]]], Tensor | None]
"""``(step, rows, ids so far of those rows) -> (len(rows), V) bool or None``: True where a token is allowed.

Rows are indices into the batch that was given; finished rows are not asked for. It is the door for decoding that holds
each paragraph to its region.
"""


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

    temperature: float = 0.6
    top_k: int = 30
    top_p: float = 0.9
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
        max_new_tokens: longest answer; an answer that reaches it is flagged as truncated.
        stop_on_loop: stop, flagged as truncated, when the end of the answer has been written this many times in a
            row; 0 turns the check off.
        longest_loop: longest repeated stretch that is looked for, in tokens.
        sampling: draw tokens, or ``None`` for the likeliest ones.
    """

    max_new_tokens: PositiveInt = 500
    stop_on_loop: int = 4
    longest_loop: int = 64
    sampling: Sampling | None = None


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
    def answer_nll(self, embeddings: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """Negative log-likelihood of each label; the output head runs at those positions alone.

        Args:
            embeddings: (B, L, E).
            attention_mask: (B, L), 1 at real positions. Padding may stand on either side.
            labels: (B, L) token ids, -100 where there is no label. Not shifted: position t is predicted from t - 1.

        Returns:
            (K,) float32, one for each label in row-major order.

        Raises:
            ConfigError: the sequence is longer than the context.
        """

    @abstractmethod
    def decode(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        decoding: Decoding | None = None,
        logits_mask: LogitsMask | None = None,
        names: Sequence[str] = (),
    ) -> list[Generation]:
        """Generate an answer to each prompt; the answer does not depend on what else is in the batch.

        Args:
            embeddings: (B, L, E) prompts, padded on either side.
            attention_mask: (B, L), 1 at real positions.
            decoding: limits; the defaults of `Decoding` if not given.
            logits_mask: restricts the tokens that each row may take next.
            names: of the rows, such as ids of studies; what a row draws follows from its name. Its place in the batch
                if not given.

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
