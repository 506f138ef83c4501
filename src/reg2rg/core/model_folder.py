"""Names inside a model's folder (`reg2rg.pretrained.folder`); those in its config become paths when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONFIG = "config.yaml"
"""The model, and the settings of the data that belong to it."""
WEIGHTS = "model.safetensors"
"""Everything but a frozen base language model."""
LANGUAGE_MODEL = "language_model.json"
"""Which language model it was trained on."""
SUMS = "SHA256SUMS"
"""Digests of the weights."""
CARD = "README.md"
"""The model card."""
CONTRACT = "input_contract.yaml"
"""The file that makes a folder a model's."""
REGION_FILE = "regions.yaml"
"""The region set, where it is none of the packaged ones: what ``task.regions`` says then."""
LLM = "llm"
"""The language model, where it can be had nowhere else: what ``model.llm.init_args.path`` says then."""


def is_model_folder(path: str | Path) -> bool:
    """Whether a folder says of itself that it is a model's."""
    return (Path(path).expanduser() / CONTRACT).is_file()


def localise(config: dict[str, Any], folder: Path) -> None:
    """Turn names of things inside `folder` into paths, in place, and a config of the first form into one with a task.

    Args:
        config: as the folder's ``config.yaml`` has it.
        folder: where that file stands.
    """
    from reg2rg.core.task import with_task  # here: it brings NumPy along, and what only looks for configs needs none

    config |= with_task(config)
    model, task = config.get("model"), config.get("task")
    llm = model.get("llm") if isinstance(model, dict) else None
    arguments = llm.get("init_args") if isinstance(llm, dict) else None
    if isinstance(arguments, dict) and arguments.get("path") == LLM:
        arguments["path"] = str(folder / LLM)
    if isinstance(task, dict) and task.get("regions") == REGION_FILE:
        task["regions"] = str(folder / REGION_FILE)
    look_beside(config, folder.absolute())


def look_beside(config: dict[str, Any], near: Path) -> None:
    """Turn absolute paths that led somewhere when a model was saved into paths beside it, where those are there.

    Those of the language model and of the region set, which travel with a model; hub ids and names stay what they are.

    Args:
        config: sections ``task`` and ``model``; changed in place.
        near: the checkpoint or folder that holds the config.
    """
    model, task = config.get("model"), config.get("task")
    llm = model.get("llm") if isinstance(model, dict) else None
    for holder, key in ((llm.get("init_args") if isinstance(llm, dict) else None, "path"), (task, "regions")):
        if not isinstance(holder, dict) or not isinstance(named := holder.get(key), str):
            continue
        found = near.parent / Path(named).name
        if Path(named).is_absolute() and found.exists():
            holder[key] = str(found)
