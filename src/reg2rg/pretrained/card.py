"""The model card of a folder, written from what is known and silent about what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reg2rg.pretrained.contract import InputContract
from reg2rg.pretrained.folder import LanguageModelRef

_LICENCES = {
    "llama-2": ("llama2", "Llama 2 Community License", "https://ai.meta.com/llama/license/"),
    "llama-3": ("llama3", "Llama 3 Community License", "https://llama.meta.com/llama3/license/"),
    "llama-3.1": ("llama3.1", "Llama 3.1 Community License", "https://llama.meta.com/llama3_1/license/"),
    "llama-3.2": ("llama3.2", "Llama 3.2 Community License", "https://www.llama.com/llama3_2/license/"),
    "gpt2": ("mit", "MIT", "https://github.com/openai/gpt-2/blob/master/LICENSE"),
    "mistral": ("apache-2.0", "Apache 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
    "qwen2": ("apache-2.0", "Apache 2.0 (most sizes)", "https://www.apache.org/licenses/LICENSE-2.0"),
}
"""Part of a base model's name -> the hub's word for its licence, its name and where it stands."""
_INTENDED = (
    "For research. Not a medical device, not validated for clinical use: no report of it may be used in the care of a "
    "patient without a radiologist who writes the report. It can miss findings, invent them and name the wrong region. "
    "Its figures hold for scanners, protocols and patients like those it was trained on."
)


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says beyond config and contract. What is empty is left out.

    Attributes:
        name: the model's.
        summary: a paragraph about it.
        training_data: what it was trained on, as given; cards say so if it is not given.
        licence: of the weights in the folder, the hub's word such as ``cc-by-nc-4.0``.
        llm_licence: of the base language model; guessed from its name for well-known ones.
        metrics: what ``reg2rg evaluate`` wrote as ``metrics.json``.
        notes: further sentences, one a line.
    """

    name: str = ""
    summary: str = ""
    training_data: str = ""
    licence: str = ""
    llm_licence: str = ""
    metrics: Mapping[str, Any] | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def model_card(
    config: Mapping[str, Any], contract: InputContract, language_model: LanguageModelRef, facts: CardFacts | None = None
) -> str:
    """The text of ``README.md``, with the header that the hub reads.

    Args:
        config: sections ``model`` and ``data``.
        contract: the model's input.
        language_model: what it was trained on.
        facts: what else is known.
    """
    facts = facts or CardFacts()
    return f"# {facts.name or 'reg2rg model'}\n"
