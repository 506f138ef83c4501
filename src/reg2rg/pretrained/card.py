"""The model card of a folder: what is known of the model, and that the rest is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reg2rg import __version__
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
_USE = (
    "For research. It is no medical device and nobody has validated it for clinical use: none of its reports may be "
    "used in the care of a patient. It can miss findings, make findings up, and describe another region than it names. "
    "What was measured holds for scanners, protocols and patients like those it was measured on."
)


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says beyond config and contract. Where nothing is given, the card says that.

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
    name = facts.name or "Chest-CT reports, region by region"
    summary = (
        facts.summary or "A reg2rg model: it reads a chest CT with region masks and writes a paragraph for each region."
    )
    if contract.task.target != "regions" and not facts.summary:
        summary = "A reg2rg model: it reads a chest CT and writes a report."
    parts = [
        f"# {name}",
        summary,
        *facts.notes,
        f"## Use\n\n{_USE}",
        _how_to(contract, language_model),
        _input(contract),
        _inside(config, contract, language_model, licence),
        "## Training data\n\n" + (facts.training_data or "Not stated by whoever wrote this folder."),
        _figures(facts.metrics),
        f"## Licence\n\n{_licence_text(facts, licence)}",
        f"Written by reg2rg {__version__}.",
    ]
    return _header(facts, language_model, word) + "\n\n".join(part for part in parts if part) + "\n"


def _header(facts: CardFacts, language_model: LanguageModelRef, llm_word: str) -> str:
    values: dict[str, Any] = {"library_name": "reg2rg", "pipeline_tag": "image-to-text", "language": "en"}
    values["tags"] = ["reg2rg", "chest-ct", "radiology", "report-generation", "medical"]
    if licence := facts.licence or ("" if llm_word in _PUBLIC else llm_word):
        values["license"] = licence
    if _is_hub_id(language_model.path):
        values["base_model"] = language_model.path
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\n"


def _how_to(contract: InputContract, language_model: LanguageModelRef) -> str:
    own = language_model.copy is not None
    note = "" if own else _needs(language_model)
    argument = "" if own or _is_hub_id(language_model.path) else ', language_model="path/of/the/language/model"'
    return f"""## How to use

With reg2rg {__version__} or later:

```python
from reg2rg import Reg2RG, report_on

model = Reg2RG.from_pretrained("path/of/this/folder"{argument})  # or its hub id
result = report_on("ct.nii.gz", "masks/{{region}}.nii.gz", model)
for paragraph in result.report.paragraphs:
    print(paragraph.region, paragraph.text)
```

On a data set: `reg2rg predict --ckpt_path path/of/this/folder --config my_data.yaml`.{note}"""


def _needs(language_model: LanguageModelRef) -> str:
    name = f"`{_shown_path(language_model.path)}`"
    where = (
        f"[{language_model.path}](https://huggingface.co/{language_model.path})"
        if _is_hub_id(language_model.path)
        else name
    )
    return (
        f" The base language model, {where}, is not in this folder. It is loaded from where it is, and its weights are "
        "held against a fingerprint: another one is refused."
    )


def _input(contract: InputContract) -> str:
    task, views = contract.task, contract.task.views
    low, high = views.window
    spacing = "any" if views.spacing is None else " x ".join(f"{mm:g}" for mm in views.spacing) + " mm"
    rows = {
        "values": "Hounsfield units" if contract.hu == "check" else "as they come, not held to Hounsfield units",
        "orientation": views.orientation,
        "voxel size": spacing,
        "window": f"{low} to {high} HU",
        "views": ", ".join(contract.inputs) or "none",
        "size of a view": " x ".join(map(str, views.size)) + (", texture uncropped" if views.coupled else ""),
        "regions": ", ".join(task.region_set.names) + f" (set `{task.region_set.name}`)",
        "output": {
            "regions": "a paragraph for each region"
            + (", which names it" if task.identity else ", by its number alone"),
            "joined": "one text, of all regions",
            "whole": "one text, the whole report",
        }[task.target],
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        "## Input\n\nHeld whenever the model is used: other orientations, windows and voxel sizes are brought to it, "
        f"regions that it does not know are refused.\n\n| input | contract |\n|---|---|\n{lines}"
    )


def _inside(config: Mapping[str, Any], contract: InputContract, language_model: LanguageModelRef, licence: str) -> str:
    model = config["model"]
    rows = {key.rstrip("_"): _component(model.get(key)) for key in ("texture", "geometry", "global_")}
    rows["projector"] = _component(model.get("projector"))
    rows["language model"] = _component(model.get("llm"))
    base = f"`{_shown_path(language_model.path)}`" + (
        f" at `{language_model.revision}`" if language_model.revision else ""
    )
    if language_model.trained:
        how = "its own weights were trained and are in this folder"
    else:
        how = "frozen; in this folder" if language_model.copy is not None else "frozen; a reference"
    rows["base language model"] = f"{base}: {how}; licence: {licence or 'not stated'}"
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## Inside\n\n| part | what |\n|---|---|\n{lines}\n\n`config.yaml` has every argument."


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


def _figures(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "## Figures\n\nNone are given."
    lines = [_row(number) for number in _shown(metrics)]
    confidence = (metrics.get("intervals") or {}).get("confidence")
    interval = (
        f", with intervals of {confidence:.0%} over patients"
        if confidence and metrics["intervals"].get("method")
        else ""
    )
    protocol = metrics.get("protocol") or {}
    head = (
        f"## Figures\n\n{metrics.get('studies')} studies of {metrics.get('patients')} patients, protocol "
        f"`{protocol.get('name')}` of `reg2rg evaluate`{interval}. A floor is what a report reaches that never looks "
        "at the scan; the best of them stands beside each score."
    )
    labeler = f"\n\nFindings: {metrics['labeler']}" if metrics.get("labeler") else ""
    return f"{head}\n\n| score | value | best floor |\n|---|---|---|\n" + "\n".join(lines) + labeler


def _shown(metrics: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for number in metrics.get("numbers") or []:
        scored = number.get("score") and number.get("group") in _SHOWN_GROUPS and number.get("scope") == "report"
        if number.get("value") is not None and (scored or number.get("name") in _SHARES):
            yield number


def _row(number: Mapping[str, Any]) -> str:
    low, high = number.get("low"), number.get("high")
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    floor, name = "", number.get("best_floor")
    if name:
        reached = (number.get("floors") or {}).get(name)
        floor = name + (f": {reached:.3f}" if reached is not None else "")
        floor += "" if number.get("exceeds_best_floor") else " (not exceeded)"
    return f"| {_cell(number['name'])} | {number['value']:.3f}{interval} | {_cell(floor)} |"


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
        text = (folder / "README.md").read_text(encoding="utf-8")
        head = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return ""
    return str(head.get("license") or "") if isinstance(head, dict) else ""


def _licence_text(facts: CardFacts, llm: str) -> str:
    own = (
        f"Weights in this folder: {facts.licence}."
        if facts.licence
        else "None is stated for the weights in this folder."
    )
    base = (
        f" The base language model is under: {llm}; its terms hold for what is made with it."
        if llm
        else (" Look up the licence of the base language model: its terms hold for what is made with it.")
    )
    return own + base


def _is_hub_id(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and not Path(path).expanduser().exists()


def _shown_path(path: str) -> str:
    """A hub id as it is, of a path the last part: where it lay on somebody's disk is of no use to others."""
    return path if _is_hub_id(path) else Path(path).name


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
