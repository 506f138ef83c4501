"""Ids and paths that tables give: one rule for study ids, and no path that leaves the data folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from reg2rg.core.errors import ConfigError, DataFault

_MAX_BYTES = 150
_SUFFIXES = (".nii.gz", ".nii")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
_DIGEST = re.compile(r"[0-9a-f]{30,128}")
"""Name of a file in a store of blobs: a digest, or with DVC what follows its first two digits."""
_CT_RATE_NAME = re.compile(r"(?P<patient>.+_\d+)_[A-Za-z]+_\d+")


def study_id(name: str) -> str:
    """The study id of a volume's name: without ``.nii.gz`` or ``.nii``, everything else kept, dots too.

    Args:
        name: a ``Volumename`` with or without extension, or a file name.

    Raises:
        DataFault: ``UNSAFE_ID`` if the id cannot be a plain file name.
    """
    text = name.strip()
    for suffix in _SUFFIXES:
        if text.lower().endswith(suffix):
            text = text[: -len(suffix)]
            break
    unsafe = _FORBIDDEN.search(text)
    if text and not unsafe and text[0] not in ".-" and text[-1] not in ". " and len(text.encode()) <= _MAX_BYTES:
        return text
    raise DataFault.of(
        "UNSAFE_ID",
        study=repr(name[:80]),
        found="the study id cannot be a file name" if text else "the study id is empty",
        expected=f'1 to {_MAX_BYTES} bytes without / \\ : * ? " < > | or control characters, no dot or dash first',
        fix="rename the study in the table and its files",
    )


def patient_of(study: str) -> str:
    """The patient of a study named as in CT-RATE: ``train_1000_a_1`` -> ``train_1000``; any other id is its own."""
    match = _CT_RATE_NAME.fullmatch(study)
    return match["patient"] if match else study


def inside(
    root: Path, path: str, study: str = "", start: Path | None = None, folders: dict[str, str] | None = None
) -> Path:
    """`path` as a file below `root`, with links and ``..`` followed.

    The file itself may be a link into a store of blobs outside (the cache of the Hugging Face hub, git-annex, DVC). It
    is then named by its link, for a blob's own name has no suffix and nothing lies beside it.

    Args:
        root: the folder that must hold the file, resolved.
        path: absolute, or relative to `start`. Backslashes are separators: tables travel from Windows.
        study: study id, for the message.
        start: folder below `root`; `root` itself if ``None``.
        folders: folders that were resolved before, for many files in few folders; gets those that are resolved now.

    Raises:
        DataFault: ``UNSAFE_PATH`` if the path leaves `root` or cannot be a path.
    """
    text = path.strip().replace("\\", "/")
    try:
        whole = f"{start or root}{os.sep}{text}" if text[:1] != "/" and not Path(text).drive else text
        folder, name = os.path.split(whole)
        if name in ("", ".", ".."):
            folder, name = whole, ""
        known = None if folders is None else folders.get(folder)
        if known is None:
            known = str(Path(folder).resolve())
            if folders is not None:
                folders[folder] = known
        place = Path(f"{known}{os.sep}{name}" if name else known)
        linked = place.is_symlink()
        resolved = place.resolve() if linked or "\0" in text else place
        if _is_below(place, root) and (not linked or _is_below(resolved, root) or _is_blob(resolved)):
            return place
        found = f"{path!r} leaves {root}"
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a character that no path may have
        found = f"{path[:200]!r} is no usable path"
    raise DataFault.of(
        "UNSAFE_PATH",
        study=study,
        found=found,
        expected=f"a file below {root}",
        fix="correct the path, or set `root` to the folder that holds all files",
    )


def _is_below(path: Path, root: Path) -> bool:
    """As `Path.is_relative_to`, of resolved paths."""
    text, above = str(path), str(root)
    return text == above or text.startswith(above if above.endswith(os.sep) else above + os.sep)


def _is_blob(path: Path) -> bool:
    """Whether a file lies in a store that names files by their content."""
    return _DIGEST.fullmatch(path.name) is not None or {"annex", "objects"} <= set(path.parts)


def require_mask_template(masks: str | None, dataset: str) -> None:
    """Refuse a template of mask files without a place for the study, or without one for the region in a file's name.

    Raises:
        ConfigError: says which must stand where.
    """
    if masks is not None and ("{id}" not in masks or masks.rpartition("/")[2].count("{region}") != 1):
        raise ConfigError(f"{dataset}: masks is {masks!r}: {{id}} must stand in it, and {{region}} in the file's name.")
