"""Names inside a model's folder (`reg2rg.pretrained.folder`); those in its config become paths when it is read."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from reg2rg.core.documents import read_text
from reg2rg.core.errors import ConfigError
from reg2rg.core.files import sha256

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
"""The model, and the settings of the data that belong to it."""
WEIGHTS = "model.safetensors"
"""Everything but a frozen base language model."""
LANGUAGE_MODEL = "language_model.json"
"""Which language model it was trained on."""
SUMS = "SHA256SUMS"
"""Digests of all other files."""
CARD = "README.md"
"""The model card."""
CONTRACT = "input_contract.yaml"
"""The file that makes a folder a model's."""
REGION_FILE = "regions.yaml"
"""The region set, where it is none of the packaged ones: what ``task.regions`` says then."""
LLM = "llm"
"""The language model, where it can be had nowhere else: what ``model.llm.init_args.path`` says then."""


_WEIGHTS_SUFFIX = ".safetensors"
_AGAIN = "take the whole folder from its source again"


def write_sums(folder: Path) -> None:
    """Write the digests of all files of a folder, the last thing that is written into it."""
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    lines = [f"{sha256(folder / file)}  {file.as_posix()}\n" for file in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def verify(folder: Path, *, weights: bool) -> None:
    """Hold files of a folder against `SUMS`. A card that somebody edited is no fault, and is said.

    Args:
        folder: a model's.
        weights: the files of weights; otherwise all others.

    Raises:
        ConfigError: no digests, a file without one, or one that is missing or has other bytes.
    """
    sums = _read_sums(folder)
    read = {name for name in (CONFIG, CONTRACT, WEIGHTS, LANGUAGE_MODEL, REGION_FILE) if (folder / name).is_file()}
    read |= {file.relative_to(folder).as_posix() for file in (folder / LLM).rglob("*") if file.is_file()}
    if unlisted := sorted(read - sums.keys()):
        raise ConfigError(
            f"{folder / SUMS}: has no line for {', '.join(unlisted[:6])}, which cannot be verified so. Fix: {_AGAIN}"
        )
    for name, digest in sums.items():
        if name.endswith(_WEIGHTS_SUFFIX) != weights:
            continue
        if not (folder / name).is_file():
            raise ConfigError(f"{folder / name}: not there. Fix: {_AGAIN}")
        if (found := sha256(folder / name)) == digest:
            continue
        if name == CARD:
            log.warning("%s: was edited after the folder was written", folder / name)
            continue
        raise ConfigError(
            f"{folder / name}: SHA-256 is {found[:16]}..., written was {digest[:16]}...: the file was damaged, cut "
            f"({(folder / name).stat().st_size} bytes) or changed. Fix: copy it again from its source; if you changed "
            f"it yourself, put what sha256sum says of it into {SUMS}"
        )


def _read_sums(folder: Path) -> dict[str, str]:
    """File -> digest, as `SUMS` lists them."""
    path = folder / SUMS
    try:
        lines = read_text(path, fix=_AGAIN).splitlines()
    except FileNotFoundError:
        raise ConfigError(f"{path}: not there, so that nothing in the folder can be verified. Fix: {_AGAIN}") from None
    sums = {}
    for line in lines:
        digest, _, name = line.strip().partition("  ")
        if len(digest) != 64 or not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ConfigError(f"{path}: cannot read the line {line[:80]!r} (expected: digest, two spaces, file)")
        sums[name] = digest
    return sums


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
    look_beside(config, folder.absolute())
    model, task = config.get("model"), config.get("task")
    llm = model.get("llm") if isinstance(model, dict) else None
    arguments = llm.get("init_args") if isinstance(llm, dict) else None
    if isinstance(arguments, dict) and arguments.get("path") == LLM:
        arguments["path"] = str(folder / LLM)
    if isinstance(task, dict) and task.get("regions") == REGION_FILE:
        task["regions"] = str(folder / REGION_FILE)


def look_beside(config: dict[str, Any], near: Path) -> None:
    """Turn absolute paths that led somewhere when a model was saved into paths beside it, where those are there.

    Those of the language model, of files of weights, and of the region set, which travel with a model; hub ids and
    names stay what they are.

    Args:
        config: sections ``task`` and ``model``; changed in place.
        near: the checkpoint or folder that holds the config.
    """
    for section in ("task", "model"):
        if section in config:
            config[section] = _beside(config[section], near.parent)


def _beside(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _beside(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_beside(item, folder) for item in value]
    if isinstance(value, str) and Path(value).is_absolute() and Path(value).name:
        found = folder / Path(value).name
        return str(found) if os.path.exists(found) else value  # noqa: PTH110 (a long text raises in Path.exists)
    return value
