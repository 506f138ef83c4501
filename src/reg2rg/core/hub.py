"""Folders by path or by hub id, and one line for those that cannot be had from here."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from reg2rg.core.errors import ConfigError

_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)


def local_folder(
    path_or_id: str | Path, what: str, revision: str | None = None, patterns: Sequence[str] | None = None
) -> Path:
    """A folder on this machine: the path itself, or a hub's repository, from the cache or downloaded into it.

    Args:
        path_or_id: folder, or hub id such as ``somebody/model``.
        what: what it is, for the message.
        revision: branch, tag or commit of a hub id.
        patterns: files that are taken of a hub's repository; all of them if ``None``.

    Raises:
        ConfigError: neither; in one line, with the command that fetches it on a machine with a network.
    """
    path = Path(path_or_id).expanduser()
    if path.exists():
        return path
    name = str(path_or_id)
    if isinstance(path_or_id, Path) or not looks_like_hub_id(name):
        raise ConfigError(f"{what} {name}: no such file or folder (seen from {Path.cwd()}). Fix: the path, or a hub id")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=None if patterns is None else [*patterns])
        )
    except Exception as error:  # the hub's own, those of its HTTP package, those of the disk
        raise ConfigError(f"{what} '{name}': {_trouble(error, name, revision)}") from None


def _trouble(error: Exception, name: str, revision: str | None) -> str:
    """What went wrong with a download, and the way out."""
    from huggingface_hub import errors

    fetch = fetch_command(name, revision)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"its authors ask for consent. Fix: give it at https://huggingface.co/{name} and set HF_TOKEN, or {fetch}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the hub has no revision '{revision}' of it. Fix: another revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such folder, and no such public repository on the hub. Fix: the name, or HF_TOKEN for a private one"
    of_the_hub = errors.LocalEntryNotFoundError | errors.HfHubHTTPError | ConnectionError
    if isinstance(error, OSError) and not isinstance(error, of_the_hub):
        return f"downloading it failed ({error}). Fix: free some space, or on another disk: {fetch}"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    why = "HF_HUB_OFFLINE is set" if offline else type(error).__name__
    return (
        f"no such folder, and the hub cannot be reached from here ({why}). Fix: on a machine with a network: {fetch}; "
        "copy that folder here and give its path"
    )


def looks_like_hub_id(name: str) -> bool:
    """Whether a word can be the id of a repository on the hub, and is no path by its looks."""
    return _ID.fullmatch(name) is not None and not name.startswith(".") and ".." not in name


def fetch_command(name: str, revision: str | None = None) -> str:
    """The command that downloads a repository of the hub into a folder."""
    of = f" --revision {revision}" if revision else ""
    return f"hf download {name}{of} --local-dir {name.rpartition('/')[2]}"
