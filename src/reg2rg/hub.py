"""Folders by path or by hub id, and one line for those that cannot be had from here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from reg2rg.errors import ConfigError

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
    from httpx import HTTPError  # what huggingface_hub is made of, and raises
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    fetch = fetch_command(name, revision)
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=None if patterns is None else [*patterns])
        )
    except GatedRepoError:
        reason, fix = (
            "its authors ask for consent",
            f"accept it at https://huggingface.co/{name}, set HF_TOKEN, or {fetch}",
        )
    except RevisionNotFoundError:
        reason, fix = f"the hub has no revision '{revision}' of it", "another revision"
    except RepositoryNotFoundError:
        reason, fix = (
            "no such folder, and no such public repository on the hub",
            "the name, or HF_TOKEN for a private one",
        )
    except (LocalEntryNotFoundError, HFValidationError, HTTPError, ConnectionError) as error:
        reason = "no such folder, and the hub cannot be reached from here" + _why(error)
        fix = f"on a machine with a network: {fetch}; copy that folder here and give its path"
    except OSError as error:
        reason, fix = f"downloading it failed ({error})", f"free some space, or on another disk: {fetch}"
    raise ConfigError(f"{what} '{name}': {reason}. Fix: {fix}")


def looks_like_hub_id(name: str) -> bool:
    """Whether a word can be the id of a repository on the hub, and is no path by its looks."""
    return _ID.fullmatch(name) is not None and not name.startswith(".") and ".." not in name


def fetch_command(name: str, revision: str | None = None) -> str:
    """The command that downloads a repository of the hub into a folder."""
    of = f" --revision {revision}" if revision else ""
    return f"hf download {name}{of} --local-dir {name.rpartition('/')[2]}"


def _why(error: Exception) -> str:
    import os

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return " (HF_HUB_OFFLINE is set)" if offline else f" ({type(error).__name__})"
