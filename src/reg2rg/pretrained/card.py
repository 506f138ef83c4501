"""The model card of a folder: what is known of the model, and that the rest is not known."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import ModelCardData

from reg2rg import __version__
from reg2rg.core.documents import DocumentError, parse_yaml, read_text
from reg2rg.core.hub import looks_like_hub_id
from reg2rg.pretrained.contract import InputContract
from reg2rg.pretrained.folder import LanguageModelRef

_LICENCES = (
    ("llama-2-", "llama2", "Llama 2 Community License"),
    ("meta-llama-3-", "llama3", "Llama 3 Community License"),
    ("llama-3.1-", "llama3.1", "Llama 3.1 Community License"),
    ("llama-3.2-", "llama3.2", "Llama 3.2 Community License"),
    ("llama-3.3-", "llama3.3", "Llama 3.3 Community License"),
    ("openai-community/gpt2", "mit", "MIT"),
)
"""A part of a hub id, the hub's word for that model's licence, and its name."""
_PUBLIC = frozenset({"mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc0-1.0"})
_SHOWN_GROUPS = ("language", "findings", "recognition")
_SHARES = ("Abnormal studies, reference", "Abnormal studies, predicted", "Unanswered studies")
_PARTS = {
    "texture": "texture",
    "geometry": "geometry",
    "global": "global_",
    "projector": "projector",
    "language model": "llm",
}
"""Rows of the card's table of parts, and the keys of the config that they show."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says beyond config and contract. Where nothing is given, the card says that.

    Each text becomes one paragraph: line breaks are spaces, HTML is shown as it is written.

    Attributes:
        name: the model's.
        summary: a paragraph about it.
        training_data: what it was trained on, and under which licence.
        licence: of the weights in the folder, the hub's word, such as ``cc-by-nc-4.0``.
        llm_licence: of the base language model; read from its folder, or known from its hub id for a few.
        metrics: what ``reg2rg evaluate`` wrote as ``metrics.json``.
        notes: further sentences.
    """

    name: str = ""
    summary: str = ""
    training_data: str = ""
    licence: str = ""
    llm_licence: str = ""
    metrics: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()


def model_card(
    config: Mapping[str, Any],
    contract: InputContract,
    language_model: LanguageModelRef,
    facts: CardFacts | None = None,
) -> str:
    """The text of ``README.md``, with the header that the hub reads.

    Args:
        config: sections ``task``, ``model`` and ``data``.
        contract: the model's input.
        language_model: what it was trained on.
        facts: what else is known.
    """
    facts = facts or CardFacts()
    word, licence = _licence(language_model, facts)
    path, on_hub = language_model.path, _is_hub_id(language_model.path)
    header = ModelCardData(
        library_name="reg2rg",
        pipeline_tag="image-to-text",
        language="en",
        tags=["reg2rg", "chest-ct", "radiology", "report-generation", "medical"],
        license=facts.licence or (None if word in _PUBLIC else word or None),
        base_model=path if on_hub else None,
    )
    # Not autoescape: it spells quotes as entities and lets Markdown pass.
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("reg2rg.pretrained", ""),
        finalize=_on_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = pages.get_template("card.md.j2").render(
        version=__version__,
        contract=contract,
        language_model=language_model,
        facts=facts,
        on_hub=on_hub,
        base=path if on_hub else Path(path).name,  # where it lay on somebody's disk is of no use to others
        components={part: _component(config["model"].get(key)) for part, key in _PARTS.items()},
        figures=list(_shown(facts.metrics or {})),
        llm_licence=licence,
    )
    return f"---\n{header.to_yaml()}\n---\n\n{text}"


def _on_one_line(value: Any) -> str:
    """What Markdown shows as this text, whatever is in it.

    No value opens a section, a cell, a link, a picture, bold print or an HTML tag, or turns the direction of writing.
    """
    words = "".join(sign if sign.isprintable() else " " for sign in str(value)).split()
    text = re.sub(r"([|*\[\]]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", html.escape(" ".join(words), quote=False))
    return re.sub(r"^(\d*)(?=#|```|~~~|---|[-+.)] )", r"\1\\", text)


def _component(value: Any) -> str:
    if value is None:
        return "none"
    if not isinstance(value, Mapping):
        return "the texture encoder" if value == "texture" else f"`{value}`"
    name = str(value.get("class_path", "?")).rpartition(".")[2]
    arguments = value.get("init_args") or {}
    inner = [_component(item) for key, item in arguments.items() if key == "encoder" and isinstance(item, Mapping)]
    lora = arguments.get("lora")
    said = f" with LoRA of rank {lora.get('rank')}" if isinstance(lora, Mapping) else ""
    return f"`{name}`" + "".join(f" of {part}" for part in inner) + said


def _shown(metrics: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for number in metrics.get("numbers") or []:
        scored = number.get("score") and number.get("group") in _SHOWN_GROUPS and number.get("scope") == "report"
        if number.get("value") is not None and (scored or number.get("name") in _SHARES):
            yield number


def _licence(language_model: LanguageModelRef, facts: CardFacts) -> tuple[str, str]:
    """The hub's word for the base language model's licence, and its name; empty where it is not known."""
    if facts.llm_licence:
        return facts.llm_licence, facts.llm_licence
    path = Path(language_model.path)
    for source in (language_model.copy, path if path.is_absolute() else None):
        if source is not None and (word := _licence_in(source)):
            return word, word
    for part, word, name in _LICENCES:
        if part in language_model.path.lower():
            return word, name
    return "", ""


def _licence_in(folder: Path) -> str:
    """The licence in the header of a folder's own card."""
    try:
        text = read_text(folder / "README.md")
        head = parse_yaml(text.split("---")[1], "its card") if text.startswith("---") else None
    except (OSError, DocumentError, IndexError):
        return ""
    return str(head.get("license") or "") if isinstance(head, dict) else ""


def _is_hub_id(path: str) -> bool:
    return "/" in path and looks_like_hub_id(path) and not Path(path).expanduser().exists()
