"""Families of language models keep the contract or are refused by name, and what breaks it is named.

The fast half by default; `make test-llms` runs all.
"""

import re
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from families import FAST, REFUSED, SLOW, TARGETS, TYPES, save_tiny
from reg2rg.core.errors import ConfigError
from reg2rg.models.llm.adapters import weights_to_fold
from reg2rg.models.llm.causal_lm import CausalLM, LoRA
from reg2rg.testing import ContractError, check_language_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "llms.md"
FAMILIES = [*FAST, *(pytest.param(family, marks=pytest.mark.slow) for family in SLOW)]


@pytest.mark.parametrize("family", FAMILIES)
def test_right_or_refused(family, tmp_path):
    lora = LoRA(targets=TARGETS.get(family, LoRA.targets))
    build = partial(CausalLM, str(save_tiny(family, tmp_path)), lora=lora)
    if family in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[family]):
            build()
    else:
        check_language_model(build)


def test_the_page_has_a_row_for_every_family():
    """Written by docs/make_llms.py, which holds each against the same check."""
    rows = re.findall(r"^\| `([\w-]+)`[^|]* \| (right|refused) \|", PAGE.read_text(), flags=re.MULTILINE)
    families = [(TYPES.get(name, name), "refused" if name in REFUSED else "right") for name in (*FAST, *SLOW)]
    assert sorted(rows) == sorted(families), "python docs/make_llms.py"


class Scaled(CausalLM):
    """Embeds otherwise than the model does."""

    def embed(self, ids):
        return super().embed(ids) * 1.1


class Unmasked(CausalLM):
    """Decodes padding as text."""

    def decode(self, embeddings, attention_mask, *rest):
        return super().decode(embeddings, torch.ones_like(attention_mask), *rest)


class Shared(CausalLM):
    """Losses of a row depend on the others."""

    def answer_nll(self, embeddings, attention_mask, labels):
        return super().answer_nll(embeddings, attention_mask, labels) + 0.1 * len(labels)


class Folded(CausalLM):
    """Weights are others while adapters are merged."""

    @contextmanager
    def merged(self):
        with super().merged(), torch.no_grad():
            for weight in weights_to_fold(self.model):
                weight *= 1.01
            yield


class Moody(CausalLM):
    """Keeps a number outside its state."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.mood = torch.rand(()) * 1e-4

    def answer_nll(self, *batch):
        return super().answer_nll(*batch) + self.mood


class Recomputed(CausalLM):
    """Gradient checkpointing changes the gradients."""

    def __init__(self, *args, gradient_checkpointing=False, **options):
        super().__init__(*args, **options)
        self.factor = 1.5 if gradient_checkpointing else 1.0

    def answer_nll(self, *batch):
        return super().answer_nll(*batch) * (self.factor if self.training else 1)


class Coarse(CausalLM):
    """In bfloat16 its losses are others."""

    def answer_nll(self, *batch):
        return super().answer_nll(*batch) + float(self._causal.dtype == torch.bfloat16)


class Cut(CausalLM):
    """Visual tokens get no gradient."""

    def answer_nll(self, embeddings, *rest):
        return super().answer_nll(embeddings.detach(), *rest)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (Scaled, r"losses beside the library's: found losses that differ by 0\.\d+ nats, expected at most 0\.00"),
        (Unmasked, r"decoding in a batch padded on the left: found another token at place \d of .* nats apart"),
        (Shared, "losses in a batch padded on the left: found losses that differ by 0.2 nats"),
        (Folded, "losses while adapters are merged: found losses that differ by"),
        (Moody, "losses after saving and loading: found losses that differ by"),
        (Recomputed, "gradient checkpointing: found gradients that differ by 0.5 of their norm"),
        (Coarse, "bfloat16: found losses 1 nats from those in float32"),
        (Cut, "gradient of visual tokens: found none, expected a finite one"),
    ],
)
def test_what_is_broken_is_named_with_its_size(broken, told, llama):
    with pytest.raises(ContractError, match=told):
        check_language_model(partial(broken, llama, lora=LoRA()))


def test_a_model_without_adapters_and_another_type(llama):
    check_language_model(partial(CausalLM, llama, weights_trainable=True))
    with pytest.raises(ContractError, match="no subclass of LanguageModel"):
        check_language_model(lambda dtype: torch.nn.Linear(1, 1))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return str(save_tiny("llama", tmp_path_factory.mktemp("llama")))
