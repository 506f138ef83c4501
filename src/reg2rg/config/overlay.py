"""Config files folded into one before anything is parsed; the later file wins.

Parsing each file by itself would carry the arguments of one class over to another: a base that names
``ViT3D`` with ``depth: 12`` and an overlay that names ``CNN3D`` would build a ``CNN3D`` of depth 12 if it happened to
take one. For an ablation study that is a wrong experiment. Here naming another class starts its arguments afresh.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from reg2rg.config.reading import COMMAND_LINE, Key, Tree, read_tree
from reg2rg.core.errors import ConfigError
from reg2rg.core.model_folder import is_model_folder, localise, verify

BASE_KEY = "base"
_CLASS_KEYS = {"class_path", "init_args"}


def packaged_folder() -> Path:
    """Folder of the configs that ship inside the package."""
    return Path(str(files("reg2rg") / "configs"))


def packaged_configs() -> list[str]:
    """Names of the packaged configs as ``--config`` takes them: ``reg2rg.yaml``, ``ablations/no_geometry.yaml``."""
    folder = packaged_folder()
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith("sweeps/"))  # a sweep is no config


def find_config(name: str, asked_by: str = "command line", beside: Path | None = None) -> Path:
    """The file that `name` means: in the working folder (or `beside`) first, then among the packaged ones.

    Args:
        name: path or packaged name, with or without ``.yaml``.
        asked_by: for the message of the error.
        beside: folder of the file that names `name` as its base; looked into before the working folder.

    Raises:
        ConfigError: found nowhere; offers the closest name.
    """
    name = os.path.expanduser(name)  # noqa: PTH111 (which raises for a user that is not known)
    folders = [folder for folder in (beside, Path(), packaged_folder()) if folder is not None]
    for folder in folders:
        for candidate in (folder / name, folder / f"{name}.yaml"):
            if candidate.exists() and not candidate.is_dir():  # a pipe will do
                return candidate
    here = sorted(path.as_posix() for path in (*Path().glob("*.yaml"), *Path().glob("*/*.yaml")))
    known = [*here, *packaged_configs()]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    remedy = f"Did you mean '{close[0]}'?" if close else f"Packaged: {', '.join(packaged_configs())}."
    raise ConfigError(f"{asked_by}: no config file '{name}' in {Path.cwd()} or among the packaged ones. {remedy}")


def fold(names: Iterable[str]) -> Tree:
    """Fold config files, in order, into one tree. A file may name others under ``base:``; they come before it."""
    tree = Tree()
    for name in names:
        merge(tree, _with_base(find_config(name), ()))
    return tree


def _with_base(path: Path, above: tuple[Path, ...]) -> Tree:
    own = read_tree(path)
    if is_model_folder(path.parent):
        verify(path.parent, weights=False)
        localise(own.values, path.parent)
    if BASE_KEY not in own.values:
        return own
    where = str(own.origins[(BASE_KEY,)])
    bases = own.values.pop(BASE_KEY)
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(name, str) for name in bases):
        raise ConfigError(f"{where}: base: expected the name of a config file or a list of names, found {bases!r}.")
    folded = Tree()
    for name in bases:
        base = find_config(name, asked_by=f"{where}: base", beside=path.parent)
        if base.resolve() in {p.resolve() for p in (*above, path)}:
            raise ConfigError(f"{where}: base: '{name}' leads back to this file. Remove one of the two 'base' lines.")
        merge(folded, _with_base(base, (*above, path)))
    merge(folded, own)
    return folded


def merge(base: Tree, overlay: Tree) -> None:
    """Put `overlay` over `base`, in place."""
    _merge_mapping(base.values, overlay.values, (), base, overlay)


def _merge_mapping(old: dict[str, Any], new: dict[str, Any], at: Key, base: Tree, overlay: Tree) -> None:
    for key, value in new.items():
        target: Key = (*at, key)
        if isinstance(key, str) and key.endswith("+") and isinstance(value, list):
            _append(old, key, value, at, base, overlay)
            continue
        current = old.get(key)
        if isinstance(current, str) and isinstance(value, dict) and value and set(value) <= _CLASS_KEYS:
            current = old[key] = {"class_path": current}  # a bare class name can be refined like any other
            base.origins[*target, "class_path"] = base.origins.get(target, COMMAND_LINE)
        if isinstance(value, str) and _names_class_of(current, value):
            continue  # the same class by its bare name: its arguments stay
        if isinstance(current, dict) and isinstance(value, dict) and not _other_class(current, value):
            base.origins.setdefault(target, overlay.origins.get(target, COMMAND_LINE))
            _merge_mapping(current, value, target, base, overlay)
            continue
        _forget(base, target)
        old[key] = value
        _copy_origins(base, overlay, target, target)


def _append(old: dict[str, Any], key: str, items: list[Any], at: Key, base: Tree, overlay: Tree) -> None:
    """``callbacks+: [...]`` adds to the list of the files before it, or else to the default."""
    plain = key.removesuffix("+")
    name = plain if isinstance(old.get(plain), list) else key
    known = old.setdefault(name, [])
    base.origins.setdefault((*at, name), overlay.origins.get((*at, key), COMMAND_LINE))
    for position, item in enumerate(items):
        _copy_origins(base, overlay, (*at, key, position), (*at, name, len(known)))
        known.append(item)


def _other_class(old: dict[str, Any], new: dict[str, Any]) -> bool:
    if "class_path" not in new or "class_path" not in old:
        return False
    return not same_class(str(old["class_path"]), str(new["class_path"]))


def _names_class_of(current: Any, name: str) -> bool:
    return isinstance(current, dict) and "class_path" in current and same_class(str(current["class_path"]), name)


def same_class(one: str, other: str) -> bool:
    """Whether two class paths mean the same class; a short name equals any full path that ends in it."""
    if one == other:
        return True
    short = "." not in one or "." not in other
    return short and one.rpartition(".")[2] == other.rpartition(".")[2]


def _forget(tree: Tree, at: Key) -> None:
    for key in [key for key in tree.origins if key[: len(at)] == at]:
        del tree.origins[key]


def _copy_origins(to: Tree, source: Tree, at: Key, new_at: Key) -> None:
    for key, origin in source.origins.items():
        if key[: len(at)] == at:
            to.origins[(*new_at, *key[len(at) :])] = origin
