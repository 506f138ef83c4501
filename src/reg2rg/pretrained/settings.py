"""What of a run's config belongs to its model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reg2rg.core.errors import ConfigError
from reg2rg.core.model_folder import REGION_FILE
from reg2rg.core.task import with_task
from reg2rg.pretrained.contract import InputContract

_READ_KEYS = ("min_slices", "hu")  # mask_grid says how somebody's mask files are, not how the model is
_OWN_WEIGHTS = {"weights": None, "pretrained": False}  # arguments by which an encoder reads weights of its own


def model_config(config: Mapping[str, Any], contract: InputContract) -> dict[str, dict[str, Any]]:
    """Sections ``task``, ``model`` and ``data`` of a run's config, reduced to what belongs to its model.

    Args:
        config: the run's, with references resolved.
        contract: holds the task.

    Raises:
        ConfigError: a reference that was not resolved.
    """
    config = with_task(config)
    given = dict(config.get("data") or {})
    read = given.get("read") or {}
    data = {
        "read": {"hu": contract.hu, **{key: read[key] for key in _READ_KEYS if key in read}},
        "published_ids": bool(given.get("published_ids", False)),
    }
    task = contract.task.values() | {"regions": contract.packaged_regions or REGION_FILE}
    own = {"task": task, "model": _plain(config["model"]), "data": data}
    for key in ("texture", "geometry", "global_"):
        own["model"][key] = _without_files(own["model"].get(key))
    if "${" in (text := json.dumps(own)):
        raise ConfigError(f"the config has references ({text[text.index('${') :][:40]}...). Fix: resolve them first")
    return own


def _plain(value: Any) -> Any:
    """Only what YAML has: tuples become lists, paths text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _without_files(value: Any) -> Any:
    """A component of this package that reads no weights of its own: the folder holds them."""
    if isinstance(value, list):
        return [_without_files(item) for item in value]
    if not isinstance(value, dict):
        return value
    cleared = {key: _without_files(item) for key, item in value.items()}
    path, arguments = str(cleared.get("class_path", "")), cleared.get("init_args")
    if isinstance(arguments, dict) and ("." not in path or path.startswith("reg2rg.")):
        arguments |= {key: empty for key, empty in _OWN_WEIGHTS.items() if arguments.get(key)}
    return cleared
